import MirrorFormat
import TestSupport
import Testing

@testable import MirrorCore

/// One server at a time, power failing anywhere, disks that fail and vanish and come back, starts only from
/// the freshest plex: whatever that leaves on the disks, it is one story, and never split brain.
private struct History {
    var disks: [Int: Record] = [:]
    var random: XorShift
    var nextGeneration: UInt64 = 2

    init(plexes: Int, seed: UInt64) {
        random = XorShift(seed: seed)
        let start = freshRecord(Array(repeating: .inSync, count: plexes))
        for plex in 0..<plexes { disks[plex] = start }
    }

    /// Runs the mirror from `assembly` for a while. Each round of the record may be cut off by a crash.
    mutating func run(_ assembly: Assembly) {
        var working = assembly.current
        var newcomers = assembly.behind.union(assembly.recovering)
        var record = assembly.record
        if !assembly.missing.isEmpty || !assembly.behind.isEmpty {
            for plex in assembly.missing.members { record[plex].role = .stale }
            for plex in assembly.behind.members { record[plex].role = .recovering }
            begin(&record, .startedDegraded)
        }
        for _ in 0..<Int.random(in: 1...5, using: &random) {
            switch random.next() % 4 {
            case 0 where working.count > 1:
                guard let plex = Array(working.members).randomElement(using: &random) else { break }
                working.remove(plex)
                record[plex].role = .failed
                begin(&record, .expelled)
            case 1:
                for plex in newcomers.members { record[plex].role = .inSync }
                guard write(&record, first: working, then: newcomers) else { return }
                working = working.union(newcomers)
                newcomers = .empty
                continue
            case 2: record.isClean.toggle()
            default: break
            }
            guard write(&record, first: working, then: newcomers) else { return }
        }
    }

    private mutating func begin(_ record: inout Record, _ reason: GenerationReason) {
        record.begin(era(nextGeneration), because: reason, inSync: record.inSync, time: 0)
        nextGeneration += 1
    }

    /// False: power failed on the way.
    private mutating func write(_ record: inout Record, first: PlexSet, then second: PlexSet) -> Bool {
        record.epoch += 1
        for plex in first.members.shuffled(using: &random) + second.members.shuffled(using: &random) {
            if random.next() % 12 == 0 { return false }
            disks[Int(plex.value)] = record
        }
        return true
    }
}

@Suite struct AssembleHistoryTests {
    @Test(arguments: [2, 3, 5]) func legalHistoriesAreNeverSplitBrain(plexes: Int) throws {
        var started = 0
        for seed in UInt64(1)...300 {
            var history = History(plexes: plexes, seed: seed &* 0x1234_5677)
            // Fewer eras than the ring of 16 holds.
            while history.nextGeneration < 12 {
                let present = try history.disks.sorted { $0.key < $1.key }.map { try found($0.key, $0.value) }
                var options = AssemblyOptions()
                options.allowDegraded = true
                guard let whole = assemble(present, options: options).assembly else {
                    Issue.record("seed \(seed): \(String(describing: assemble(present, options: options).refusal))")
                    break
                }
                // Some disks are absent this time, but never all those that know the latest.
                let some = present.filter {
                    whole.current.contains(PlexIndex($0.disk)) || history.random.next() % 3 != 0
                }
                guard let assembly = assemble(some, options: options).assembly else {
                    Issue.record("seed \(seed): \(String(describing: assemble(some, options: options).refusal))")
                    break
                }
                history.run(assembly)
                started += 1
                if history.random.next() % 40 == 0 { break }
            }
        }
        #expect(started > 300)
    }

    /// Two servers, each with one half, each started by force: whatever else happened, it must be noticed.
    @Test func forcedStartOnEachHalfIsAlwaysSplitBrain() throws {
        var options = AssemblyOptions()
        options.allowDegraded = true
        var judged = 0
        for seed in UInt64(1)...200 {
            var history = History(plexes: 2, seed: seed &* 0x7654_3211)
            for plex in 0...1 {
                let alone = [try found(plex, freshRecord())]
                history.run(try #require(assemble(alone, options: options).assembly))
            }
            // A side that crashed before its first record was durable has promised nothing.
            guard history.disks.values.allSatisfy({ $0.generation != era(1) }) else { continue }
            for order in [[0, 1], [1, 0]] {
                let both = try order.map { try found($0, history.disks[$0] ?? freshRecord()) }
                guard case .split(_, related: true) = assemble(both, options: options).refusal else {
                    Issue.record("seed \(seed)")
                    return
                }
                judged += 1
            }
        }
        #expect(judged > 200)
    }
}
