internal import MirrorCore
internal import MirrorFormat

/// One run: a mirror, its disks, its clients, and all that befalls them, from one seed.
///
/// A run is several lives of the server (`Simulation+Starting`), each with load, faults and commands and
/// ended by a crash or a stop, and then a phase in which all faults cease and everything must become good
/// again (`Simulation+Liveness`).
package final class Simulation {
    let options: Options
    var random: Random
    /// Apart from the other: a seed means the same with and without long batches.
    private var batches: Random
    private let hasLongBatches: Bool
    /// Draws what later versions of the engine can do; nil: nothing of it is done.
    var additions: Random?
    /// Draws what befalls disks with a spare pool; nil: they have none.
    var spares: Random?
    /// Draws scrubs; nil: there are none.
    var scrubs: Random?
    /// Draws how patient the engine is with disks that do not answer; nil: endlessly.
    var late: Random?
    /// What reads of other plexes have put into copies of buffers, until the engine adopts one.
    var copies: [BufferID: BufferCopy] = [:]
    var profile: Profile
    var limits: Limits
    let layout: Layout
    let mirrorUUID: MirrorUUID
    let isBlockDevice: Bool
    var disks: [SimulatedDisk]
    var server: Server?
    var queue = EventQueue()
    var now: UInt64 = 1_000_000_000
    var steps = 0
    var stepsAtStart = 0
    var flights: [Flight?] = []
    var freeFlights: [Int] = []
    var requests: [ClientRequest] = []
    var outstanding: [Int] = []
    var issuedInStart = 0
    var isClientScheduled = false
    var oracle: Oracle
    var writeNumber: UInt32 = 0
    var commands: [PendingCommand] = []
    var commandNumber: UInt64 = 0
    /// Faults may be injected.
    var isHostile = true
    /// Clients send on their own.
    var isLoaded = true
    /// The far side of a split brain: its contents count for nothing.
    var isShadow = false
    /// A disk was rolled back since the last start.
    var mustShowAll = false
    /// After a split brain that is to be resolved: the disk that loses, until its superblock knows it.
    var loser: Int?
    /// The same for ever: a superblock copy from before may come to light again when the newer ones are damaged.
    var lastLoser: Int?
    /// The eras that losers began alone.
    var lostSides: [Generation] = []
    var blipUntil: UInt64 = 0
    /// Until then an operation hangs for hours.
    var zombieUntil: UInt64 = 0
    var blipError: Int32 = 5
    /// Why the present life ended; nil: it goes on.
    var ending: Ending?
    var stopAnswer: Bool?
    var nextOverwriteAt: UInt64 = 0
    var agreementIsDue = false
    var histogram = Histogram()
    var violation: Violation?
    var trace: [String] = []
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    /// Decides what otherwise chance does.
    var pilot: Pilot?

    enum Ending { case stopped(isClean: Bool), crash }

    private init(_ options: Options) {
        self.options = options
        random = Random(seed: options.seed)
        batches = Random(seed: options.seed ^ 0xBA7C4)
        hasLongBatches = batches.chance(250) && options.hasAdditions
        var additions = Random(seed: options.seed ^ 0xADD5)
        self.additions = options.hasAdditions && additions.chance(400) ? additions : nil
        var spares = Random(seed: options.seed ^ 0x59A7E)
        let slots = options.hasSpares && spares.chance(400) ? 1 + spares.below(8) : 0
        self.spares = slots > 0 ? spares : nil
        scrubs = options.hasScrubs ? Random(seed: options.seed ^ 0x5C20B) : nil
        var late = Random(seed: options.seed ^ 0x1A7E)
        self.late = options.hasLate && late.chance(350) ? late : nil
        profile = Profile(random: &random, disabled: options.disabled)
        var rare = Random(seed: options.seed ^ 0x5EED)
        profile.addRareFaults(random: &rare, disabled: options.disabled)
        limits = Limits()
        limits.requests = 32
        limits.resyncWindowsIdle = 1 + random.below(4)
        limits.resyncWindowBytes = UInt64(profile.windowBlocks * Geometry.blockBytes)
        limits.resyncWindowBytesBusy = UInt64((profile.windowBlocks + 1) / 2 * Geometry.blockBytes)
        limits.resyncRetryNanoseconds = 200_000_000
        limits.repairRetryNanoseconds = 2_000_000_000
        limits.correctedNanoseconds = 2_000_000_000
        limits.blocksToGoWithout = 6
        limits.scrubRecordNanoseconds = 200_000_000
        limits.transientRetries = [2, 16][random.below(2)]
        limits.commonFailureRetryNanoseconds = 100_000_000
        limits.cleanAfterNanoseconds = profile.cleanNanoseconds
        limits.clientActiveNanoseconds = [0, 50_000_000][random.below(2)]
        limits.bitsPerPage = Geometry.bitsPerPage
        limits.pageWritesPerKind = random.within(1...4)
        limits.setAheadRegions = [1, 4, 32][random.below(3)]
        limits.writeDeadlineNanoseconds = 0
        self.late?.drawPatience(&limits)
        isBlockDevice = random.chance(500)
        let dataBytes = UInt64(profile.dataBlocks * Geometry.blockBytes)
        let diskBytes = dataBytes + (512 << 10)
        let layout = try? Layout(
            tinyDisk: diskBytes, dataBytes: dataBytes, regionBytes: UInt64(profile.regionBlocks * Geometry.blockBytes),
            spareBytes: UInt64(slots * Geometry.blockBytes), bitsPerPage: UInt64(Geometry.bitsPerPage))
        guard let layout else { preconditionFailure("the layout of a simulated disk") }
        self.layout = layout
        mirrorUUID = MirrorUUID(UUID128(high: random.next(), low: random.next()))
        disks = (0..<profile.plexes).map { SimulatedDisk(number: $0, layout: layout) }
        oracle = Oracle(cellCount: profile.dataBlocks * Geometry.sectorsPerBlock * Geometry.cellsPerSector)
        create()
    }

    /// Takes a world over where the last server left it; nothing is left to chance.
    init(_ options: Options, world: World, pilot: Pilot, limits: Limits) {
        self.options = options
        self.limits = limits
        self.pilot = pilot
        random = Random(seed: 1)
        batches = random
        hasLongBatches = false
        layout = world.disks[0].layout
        profile = Profile(steeredPlexes: world.disks.count, blocks: Int(layout.dataBytes) / Geometry.blockBytes)
        mirrorUUID = World.mirrorUUID
        isBlockDevice = pilot.isBlockDevice
        disks = world.disks
        oracle = world.oracle
        writeNumber = world.writeNumber
        now = world.now
        isHostile = false
    }

    /// Runs one seed to its end.
    package static func run(_ options: Options) -> Outcome {
        let simulation = Simulation(options)
        simulation.run()
        return Outcome(
            seed: options.seed, violation: simulation.violation, steps: simulation.steps,
            simulatedNanoseconds: simulation.now, requests: simulation.requests.count,
            histogram: simulation.histogram, hash: simulation.hash, trace: simulation.trace)
    }

    private func create() {
        let members = disks.map { _ in Member(uuid: newPlex(), role: .inSync) }
        let record = Record(
            mirror: mirrorUUID, name: "vault", dataBytes: layout.dataBytes, regionBytes: layout.regionBytes,
            generation: Generation(UUID128(high: random.next(), low: random.next())), members: members,
            time: instant.unixNanoseconds)
        for index in disks.indices {
            disks[index].format(
                Superblock(record: record, plex: members[index].uuid, sequence: 1, layout: layout, writer: .none))
        }
    }

    func newPlex() -> PlexUUID { PlexUUID(UUID128(high: random.next(), low: random.next())) }

    var instant: Instant {
        // What is on a disk must not tell apart what differs in time only: states are compared.
        Instant(nanoseconds: now, unixNanoseconds: 1_700_000_000_000_000_000 + (pilot == nil ? now : 0))
    }

    private func run() {
        var starts = 0
        while starts < min(profile.starts, options.maximumStarts), violation == nil, !isOutOfSteps {
            starts += 1
            beBetweenStarts()
            if violation == nil, openSome() { live() }
        }
        if violation == nil, !isOutOfSteps { recover() }
    }

    var isOutOfSteps: Bool { steps >= options.maximumSteps }

    /// Lets the world turn until the server is gone.
    private func live() {
        stepsAtStart = steps
        scheduleLife()
        while violation == nil, ending == nil, !isOutOfSteps {
            if steps - stepsAtStart >= profile.stepsPerStart { break }
            if !step() { break }
        }
        guard violation == nil, !isOutOfSteps else { return }
        endLife()
    }

    /// One event.
    ///
    /// - Returns: false when nothing is left to happen.
    func step() -> Bool {
        guard let (time, happening) = queue.next() else { return false }
        now = time
        steps += 1
        mix(time)
        switch happening {
        case .execute(let flight): execute(flight)
        case .complete(let flight): complete(flight)
        case .tick:
            queue.add(.tick, at: now + profile.tickNanoseconds * min(crawl, 600))
            handle(.tick)
            hedgeReads()
        case .client: clientTurn()
        case .command: commandTurn()
        case .mishap: mishapTurn()
        case .end: endTurn()
        }
        if agreementIsDue, violation == nil { checkAgreement() }
        if violation == nil { checkAnnounced() }
        return true
    }

    /// Feeds the engine and does what it asks for.
    func handle(_ event: Event) {
        guard let server else { return }
        handle(event, server)
    }

    func handle(_ event: Event, _ server: Server) {
        server.mirror.handle(event, now: instant)
        if isEndOfBatch(event) { server.mirror.endBatch(now: instant) }
        checkReplaced(server)
        pump(server)
    }

    /// How many events the engine is told of before it hears that these were all is left to chance, up to the next tick.
    private func isEndOfBatch(_ event: Event) -> Bool {
        if !hasLongBatches { return true }
        if case .tick = event { return true }
        return batches.chance(300)
    }

    func pump(_ server: Server) {
        while violation == nil, let effect = server.mirror.nextEffect() { perform(effect, server) }
    }

    private func perform(_ effect: Effect, _ server: Server) {
        switch effect {
        case .submit(let operation): submit(operation, server)
        case .reply(let id, let status): replied(Int(id.value) - 1, status)
        case .copyBytes(let buffer, let from, let to, let count): copyBytes(buffer, Int(from), Int(to), Int(count))
        case .fillZeroes(let buffer, let at, let count): fillZeroes(buffer, Int(at), Int(count))
        case .adopt(let buffer, let offset, let length): adopt(buffer, Int(offset), Int(length))
        case .detach(let buffer): detach(buffer)
        case .answer: while let (id, answer) = server.mirror.takeAnswer() { answered(id.value, answer) }
        case .events:
            for event in server.mirror.takeEvents() {
                note("event: \(event.text)")
                checkMismatch(event)
            }
        case .release(let plex): released(plex, server)
        case .stopped:
            note("stopped")
            ending = .stopped(isClean: stopAnswer ?? false)
        }
    }

    private func released(_ plex: PlexIndex, _ server: Server) {
        guard let disk = server.disks[Int(plex.value)] else { return fail("R14", "plex \(plex) released twice") }
        note("release plex \(plex)")
        mix(UInt64(plex.value) + 77)
        if flights.contains(where: { $0?.disk == disk }) {
            fail("R14", "disk \(disk) is released with I/O in flight")
        }
        server.disks[Int(plex.value)] = nil
    }

    // MARK: record keeping

    func fail(_ rule: String, _ text: String) {
        guard violation == nil else { return }
        violation = Violation(rule: rule, text: text, step: steps)
        note("VIOLATION \(rule): \(text)")
    }

    func note(_ text: @autoclosure () -> String) {
        guard options.isTraced else { return }
        if trace.count >= 20_000 { trace.removeFirst(10_000) }
        trace.append("\(steps) \(Double(now / 1000) / 1000)ms \(text())")
    }

    func mix(_ value: UInt64) { hash = (hash ^ value) &* 0x0000_0100_0000_01B3 }

    func count(_ fault: Fault) {
        histogram.count(fault)
        mix(UInt64(fault.rawValue) + 1000)
    }
}
