/// What the simulated world does to a mirror. Each run draws its own subset.
package enum Fault: Int, CaseIterable, Sendable {
    case readError, writeError, flushError, metadataError, noSpace, transient, unsupported
    case shortTransfer, zeroTransfer, hang, blip
    case vanish, vanishForGood, badSectors
    case powerLoss, kill, cleanStop, crashAtOpen
    case absentAtStart, rollBack, damagedSuperblock, damagedPage, clone, readOnlyStart, splitBrain, resolve
    case offline, breakOff, remove, join
    // Below: drawn from a stream of their own, so that seeds keep their meaning.
    case droppedWrite, misdirectedWrite, bitFlip, shrink, zombie, swappedPaths
    // Counted only; whether a run has them is drawn from a third stream.
    case replace, resyncOrder, noticed
    // The same, from a fourth.
    case stuck, damagedRemaps, reactivate

    package var name: String { "\(self)" }
}

/// How often something was done in one run or many.
package struct Histogram: Sendable, Equatable {
    package private(set) var counts = [Int](repeating: 0, count: Fault.allCases.count)

    package init() {}
    package mutating func count(_ fault: Fault) { counts[fault.rawValue] += 1 }
    package mutating func add(_ other: Histogram) {
        for index in counts.indices { counts[index] += other.counts[index] }
    }
    package subscript(fault: Fault) -> Int { counts[fault.rawValue] }
}

/// What one run is made of; drawn from the seed (swarm testing: Groce and others, ISSTA 2012).
struct Profile {
    var plexes = 2
    var dataBlocks = 32
    var windowBlocks = 8
    var regionBlocks = 4
    var starts = 3
    var depth = 4
    var requestsPerStart = 120
    /// Events after which the server dies, unless it ended before.
    var stepsPerStart = 2000
    var hotBlocks: [Int] = []
    var hotPerMille = 700
    var thinkNanoseconds = 300_000
    var maximumDelay = 1_000_000
    var unaligned = 300
    /// Write, forced write, read, flush, trim, zeroes, allocation.
    var mix = [40, 8, 30, 8, 5, 5, 1]
    var enabled: [Bool] = Array(repeating: false, count: Fault.allCases.count)
    /// Per mille of operations.
    var rate = 10
    var commandNanoseconds = 100_000_000
    var tickNanoseconds: UInt64 = 100_000_000
    var cleanNanoseconds: UInt64 = 500_000_000
    var sickDisk = -1
    /// Per mille of operations of a kind that take much longer than others: steps that follow each other closely as a
    /// rule are then far apart.
    var slowFlush = 0
    var slowRecord = 0
    var slowPage = 0

    func has(_ fault: Fault) -> Bool { enabled[fault.rawValue] }

    init(random: inout Random, disabled: [Fault]) {
        plexes = [2, 2, 2, 3, 3, 4][random.below(6)]
        dataBlocks = random.within(12...48)
        windowBlocks = [4, 4, 8, 16][random.below(4)]
        regionBlocks = [1, 1, 2, 4, 8, 16][random.below(6)]
        if random.chance(60) {
            // More than one page of the bitmap.
            dataBlocks = random.within(64...150)
            regionBlocks = 1
        }
        starts = random.within(2...6)
        depth = [1, 2, 4, 8, 16][random.below(5)]
        requestsPerStart = random.within(10...150)
        stepsPerStart = random.chance(300) ? random.within(1...60) : random.within(50...2500)
        for _ in 0..<random.within(1...4) { hotBlocks.append(random.below(dataBlocks)) }
        hotPerMille = [0, 500, 800, 950][random.below(4)]
        thinkNanoseconds = [1, 50_000, 500_000, 20_000_000][random.below(4)]
        maximumDelay = [20_000, 500_000, 500_000, 5_000_000, 60_000_000][random.below(5)]
        unaligned = [0, 200, 600, 1000][random.below(4)]
        for index in mix.indices {
            let factors = [0, 1, 1, 3]
            mix[index] = (mix[index] + random.below(20)) * factors[random.below(4)]
        }
        if mix[0] + mix[1] == 0 { mix[0] = 40 }
        if mix[2] == 0 { mix[2] = 10 }
        // Some runs have no trouble but crashes: there the strictest expectations hold.
        let density = [100, 250, 400, 600][random.below(4)]
        for index in 0...Fault.join.rawValue { enabled[index] = random.chance(density) }
        for fault in [Fault.powerLoss, .kill, .cleanStop] { enabled[fault.rawValue] = random.chance(700) }
        for fault in disabled { enabled[fault.rawValue] = false }
        rate = [2, 5, 15, 40, 100][random.below(5)]
        commandNanoseconds = [5_000_000, 50_000_000, 500_000_000][random.below(3)]
        tickNanoseconds = [10_000_000, 100_000_000][random.below(2)]
        cleanNanoseconds = [50_000_000, 500_000_000, 2_000_000_000][random.below(3)]
        if random.chance(500) { sickDisk = random.below(plexes) }
        if random.chance(500) { unsettle(&random, disabled: disabled) }
    }

    /// Everything about the set changes often, and nothing comes when it should.
    private mutating func unsettle(_ random: inout Random, disabled: [Fault]) {
        cleanNanoseconds = [5_000_000, 50_000_000, 500_000_000][random.below(3)]
        tickNanoseconds = [2_000_000, 10_000_000, 100_000_000][random.below(3)]
        commandNanoseconds = [5_000_000, 20_000_000, 100_000_000][random.below(3)]
        starts = random.within(3...10)
        for fault in [Fault.join, .offline, .remove, .breakOff] {
            enabled[fault.rawValue] = random.chance(700) && !disabled.contains(fault)
        }
        slowFlush = [0, 100, 400][random.below(3)]
        slowRecord = [0, 100, 400][random.below(3)]
        slowPage = [0, 100, 400][random.below(3)]
    }

    /// Two thirds of all runs go without: where disks lie, less can be expected.
    mutating func addRareFaults(random: inout Random, disabled: [Fault]) {
        guard random.chance(330) else { return }
        for index in Fault.droppedWrite.rawValue...Fault.swappedPaths.rawValue { enabled[index] = random.chance(500) }
        for fault in disabled { enabled[fault.rawValue] = false }
    }
}
