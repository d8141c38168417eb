internal import BasicContainers
internal import CLinux
internal import Control
internal import Glibc
internal import Logging
internal import MirrorCore
internal import MirrorFormat
internal import NBDProtocol
internal import URing

/// One loop on one thread: sockets, disks, clock, control socket, signals. A server has one, or a `ReactorGroup` of
/// them.
///
/// Files: `+Disks` (operations of the core and their completions), `+Joining` and `+Returning` (disks that come and go), `+Connections` (accepting, reading,
/// sending), `+Requests` (from NBD requests to the core and back), `+Group` (mail between reactors), `+Reload`, `+Supervisor`, `+Control`,
/// `+Commands` and `+Resolve` (the control socket).
struct Reactor: ~Copyable {
    /// What a completion is about; the top byte of its user data.
    enum Source: UInt8 {
        case disk, connectionInput, connectionOutput, listener, controlListener, controlInput, controlOutput, signal,
            mail, diskNews, ignored
    }

    let group: ReactorGroup
    /// Which one of the group this is.
    let place: Int
    /// By reactor: what this turn has for it; empty if there is no other.
    var outgoing: [Mailbox.Contents]
    var incoming = Mailbox.Contents()
    /// Not yet told to the group.
    var stoppedMirrors = 0
    /// Reactors whose mirrors do not all answer yet; known to the first.
    var unopened: Int

    let limits: ServerLimits
    let logger: Logger
    let ring: Ring
    var smallPool: BufferPool
    var largePool: BufferPool
    var metadataPool: BufferPool
    let zeroes: BufferPool
    let zeroBuffer: PooledBuffer
    let scratch: BufferPool
    /// For what is read back.
    var verifyPool: BufferPool
    /// Operations that wait for room in it.
    var waitingToVerify: [Int] = []
    let scratchBuffer: PooledBuffer
    /// Headers of the replies that are being sent.
    let headerPage: BufferPool
    let headerBuffer: PooledBuffer

    var mirrors: UniqueArray<ServedMirror>
    /// To all mirrors of the group.
    var routes = UniqueArray<Route>()
    var refused: [RefusedMirror]
    let defaultName: String?
    var catalog: ExportCatalog
    let isReadOnly: Bool

    /// Nil: no longer wanted.
    var listeners: [Listener?]
    let controlListener: Listener?
    var connections: [Connection?] = []
    var nextGeneration: UInt32 = 1
    var handshaking = 0
    /// Clients wait in the queue of a listener until handshakes end or descriptors are free.
    var isAcceptPaused = false
    var ready: [Int] = []
    /// Came from another reactor during this turn.
    var adopted: [Connection] = []
    var blocked: [Int] = []
    /// The connection that waits for a large piece of memory: until it has it, no other gets one. Smaller ones
    /// would take each piece that becomes free, and the large one would never come together.
    var largeWaiter: Int?
    var toSend: [Int] = []
    /// Those of `ready` or `toSend` whose turn it is.
    var indicesAtWork: [Int] = []
    var jobs: [ClientJob]
    var freeJobs: [Int]
    var operations: [DiskJob]
    var freeOperations: [Int]
    var localCompletions: [(operation: Int, outcome: LocalOutcome)] = []
    var localCompletionsAtWork: [(operation: Int, outcome: LocalOutcome)] = []
    /// Mirrors that were told of something in this turn.
    var batches: [Int] = []
    var extents: [AllocationExtent] = []
    var replyExtents: [Extent] = []

    var controls: [ControlConnection?] = []
    var nextCommand: UInt64 = 1
    var commands: [CommandID: PendingCommand] = [:]
    let opener: DiskOpener
    var late = LateMemory()
    /// Of `verifyPool`, in the hands of disks that were given up.
    var verifyPinnedBytes = 0
    var lastHedge: UInt64 = 0
    /// By ticket.
    var openings: [UInt64: PendingOpening] = [:]
    /// For disks that are away, by ticket: of which mirror.
    var searches: [UInt64: Int] = [:]
    /// Monotonic nanoseconds.
    var nextWatchAt: UInt64 = 0
    /// By ticket.
    var gatherings: [UInt64: Gathering] = [:]

    var now = currentInstant()
    var lastTick: UInt64 = 0
    var signalFile: Int32 = -1
    var settings = Settings(options: ServerOptions(), read: nil)
    var stopDeadline: UInt64?
    /// Set when all mirrors are stopped: until when the last replies may take.
    var drainDeadline: UInt64?
    /// Set while another process takes over.
    var handover: HandoverStage?
    /// From another process, which goes on with all of it if this one ends before it serves: until then nothing of it is read,
    /// accepted from, shut or removed.
    var inherited: Handover?
    /// When departed clients were last looked for.
    private var lastLookAt: UInt64 = 0
    /// What did not go well while stopping, for whoever asked for it.
    var stopComplaints: [String] = []
    /// Of the first reactor.
    var eventProgram: EventProgram?
    /// Of the first reactor; there is none on the others.
    var supervisor = Supervisor(environment: [:])
    /// When the mirrors are looked at next for its sake; monotonic nanoseconds.
    var nextConditionsAt: UInt64 = 0
    var isStopping: Bool { stopDeadline != nil }
    /// The last wait was a short one.
    private var isBrisk = false
    /// Something was given back that a blocked connection may have waited for.
    var hasFreed = false

    /// - Parameters:
    ///   - mirrors: those that run here.
    ///   - routes: to those of all reactors.
    ///   - refused: known to the first reactor only, as are the sockets.
    init(
        _ place: Int, of group: ReactorGroup, mirrors: consuming UniqueArray<ServedMirror>,
        routes: [Route], refused: [RefusedMirror] = [], listeners: [Listener] = [],
        controlListener: Listener? = nil, defaultName: String?, isReadOnly: Bool, logger: Logger
    ) throws(SystemError) {
        let limits = ServerLimits(threads: group.mailboxes.count)
        let ring = try Ring(entries: 1024)
        let opener = try DiskOpener()
        let smallPool = try BufferPool(
            capacityBytes: limits.smallPoolBytes + limits.heldBytes, largestBytes: 1 << 20)
        let largePool = try BufferPool(
            capacityBytes: limits.largePoolBytes + limits.heldBytes, largestBytes: limits.largestPieceBytes)
        let pages = (mirrors.count + refused.count) * limits.metadataPagesPerMirror
        let metadataPool = try BufferPool(
            capacityBytes: max(limits.metadataPoolBytes, pages * Superblock.byteCount), largestBytes: 1 << 20)
        var zeroes = try BufferPool(capacityBytes: 1 << 20, largestBytes: 1 << 20)
        let verifyPool = try BufferPool(capacityBytes: limits.verifyBytes * 16, largestBytes: 1 << 20)
        var scratch = try BufferPool(capacityBytes: limits.scratchBytes, largestBytes: limits.scratchBytes)
        var headerPage = try BufferPool(capacityBytes: 4096, largestBytes: 4096)
        guard let zeroBuffer = zeroes.take(bytes: 1 << 20), let headerBuffer = headerPage.take(bytes: 4096),
            let scratchBuffer = scratch.take(bytes: limits.scratchBytes)
        else { throw SystemError("mmap", number: ENOMEM) }
        // All of it is there: from here on nothing fails.
        self.group = group
        self.place = place
        outgoing = Array(repeating: Mailbox.Contents(), count: group.mailboxes.count == 1 ? 0 : group.mailboxes.count)
        unopened = group.mailboxes.count
        self.limits = limits
        self.logger = logger
        self.ring = ring
        self.opener = opener
        self.smallPool = smallPool
        self.largePool = largePool
        self.metadataPool = metadataPool
        self.zeroes = zeroes
        self.zeroBuffer = zeroBuffer
        self.scratch = scratch
        self.verifyPool = verifyPool
        self.scratchBuffer = scratchBuffer
        self.headerPage = headerPage
        self.headerBuffer = headerBuffer
        self.mirrors = mirrors
        self.refused = refused
        self.defaultName = defaultName
        self.isReadOnly = isReadOnly
        self.listeners = listeners
        self.controlListener = controlListener
        catalog = ExportCatalog(exports: [], defaultName: nil)
        jobs = Array(repeating: ClientJob(), count: limits.requests)
        freeJobs = Array((0..<limits.requests).reversed())
        operations = []
        freeOperations = []
        replyExtents.reserveCapacity(SessionLimits.standard.maximumExtents)
        for route in routes { self.routes.append(route) }
        updateCatalog()
    }

    /// The mirror of that name if it runs here, unless it is stopped.
    func served(_ name: String) -> Int? {
        mirrors.indices.first { mirrors[$0].name == name && !mirrors[$0].isStopped }
    }

    /// The way to the mirror of that name, unless it is stopped.
    func route(to name: String) -> Int? {
        routes.indices.first { routes[$0].name == name && !routes[$0].isStopped }
    }

    func route(to place: MirrorPlace) -> Int? { routes.indices.first { routes[$0].place == place } }

    /// Makes a new mirror of this reactor known to all.
    mutating func announce(_ mirror: Int) {
        let new = MirrorPlace(reactor: place, index: mirror)
        broadcast(.mirrorAdded(mirrors[mirror].export, new))
        routes.append(Route(export: mirrors[mirror].export, place: new))
        updateCatalog()
    }

    mutating func updateCatalog() {
        let exports = routes.indices.filter { !routes[$0].isStopped }.map { routes[$0].export }
        let name = defaultName ?? (exports.count == 1 ? exports[0].name : nil)
        catalog = ExportCatalog(exports: exports, defaultName: name)
    }

    /// Runs until stopped by a signal or by `plexus stop`.
    ///
    /// - Parameter whenReady: called once every mirror answers and every socket listens.
    /// - Returns: whether everything was stopped in good order.
    mutating func run(whenReady: (borrowing Reactor) -> Void) -> Bool {
        if isFirst { watchSignals() }
        if !isAlone { poll(group.mailboxes[place].file, .mail, 0) }
        poll(opener.file, .diskNews, 0)
        for case (let index, let listener?) in listeners.enumerated() {
            poll(listener.file, .listener, UInt64(index))
        }
        if let controlListener { poll(controlListener.file, .controlListener, 0) }
        for index in mirrors.indices {
            mirrors[index].mirror.endBatch(now: now)
            drain(index)
        }
        var isOpen = false
        var isReady = false
        while true {
            now = currentInstant()
            if !isOpen, mirrors.indices.allSatisfy({ mirrors[$0].mirror.isOpen || mirrors[$0].isStopped }) {
                isOpen = true
                noteConditions()
                post(.opened, to: 0)
            }
            if !isReady, unopened == 0 {
                isReady = true
                whenReady(self)
                takeInheritance()
                tellReady()
            }
            turn()
            if let deadline = stopDeadline {
                if isEverythingStopped(), areRepliesSent() { return finish() }
                if now.nanoseconds > deadline {
                    let text = "not every request came back from the disks in time; the next start will resync"
                    logger.error("\(text)")
                    if isFirst { supervisor.tell(status: text) }
                    return false
                }
            }
        }
    }

    /// One turn: wait, reap, read, let the mirrors work, send.
    private mutating func turn() {
        leaveMail()
        let isBusy = !ready.isEmpty || !adopted.isEmpty || !localCompletions.isEmpty || (hasFreed && !blocked.isEmpty)
        if isBusy { poll(milliseconds: 0) } else { waitForEvents() }
        for _ in 0..<ring.completionCount { completed(ring.takeCompletion()) }
        beginAdopted()
        completeLocally()
        takeMail()
        startWaiting()
        // Ticks come ten times a second.
        if now.nanoseconds - lastLookAt > limits.stallNanoseconds / 2 { closeHungUp() }
        lastLookAt = now.nanoseconds
        // Who has waited comes before who has just arrived.
        retryBlocked()
        readConnections()
        endBatches()
        if !localCompletions.isEmpty {
            now = currentInstant()
            completeLocally()
        }
        resumeAccepting()
        hedgeReads()
        let sinceTick = now.nanoseconds - lastTick
        if sinceTick >= UInt64(limits.tickMilliseconds) * 1_000_000 {
            lastTick = now.nanoseconds
            tick()
            // After a pause of our own (a suspended machine, say) nobody else is to blame for it.
            if sinceTick < limits.stallNanoseconds / 2 { expireConnections() }
        }
        endBatches()
        leaveMail()
        sendAll()
        followHandover()
    }

    /// Waits until something happens, for a tick at most. While things happen in quick succession the processor is kept
    /// for a moment, for it takes longer to fall asleep and be woken than to wait; a quiet server sleeps.
    private mutating func waitForEvents() {
        let begun = currentInstant().nanoseconds
        // Mail may come at any moment: the clock is read and the ring submitted before it is worked off.
        if isBrisk || hasWork || !isAlone {
            let end = isBrisk || hasWork ? begun + limits.spinNanoseconds : begun
            repeat {
                poll(milliseconds: 0)
            } while !hasWork && now.nanoseconds < end
        }
        if !hasWork { sleep() }
        isBrisk = now.nanoseconds - begun < limits.spinNanoseconds * 2
    }

    private var hasWork: Bool {
        ring.completionCount > 0 || (!isAlone && group.mailboxes[place].hasMail)
    }

    private mutating func sleep() {
        let milliseconds =
            mirrors.indices.contains { mirrors[$0].mirror.awaitsReads }
            ? limits.hedgeMilliseconds : limits.tickMilliseconds
        guard !isAlone else { return poll(milliseconds: milliseconds) }
        let mailbox = group.mailboxes[place]
        guard mailbox.fallAsleep() else { return poll(milliseconds: 0) }
        poll(milliseconds: milliseconds)
        mailbox.wakeUp()
    }

    private mutating func poll(milliseconds: Int) {
        ring.submitAndWait(timeoutMilliseconds: milliseconds)
        now = currentInstant()
    }

    private mutating func hedgeReads() {
        guard now.nanoseconds - lastHedge >= UInt64(limits.hedgeMilliseconds) * 1_000_000 else { return }
        lastHedge = now.nanoseconds
        for index in mirrors.indices where mirrors[index].mirror.awaitsReads {
            mirrors[index].mirror.hedgeReads(now: now)
            drain(index)
        }
    }

    private mutating func tick() {
        let scrubs = group.policies.scrubs
        let deadline = group.policies.writeDeadlineSeconds
        for index in mirrors.indices where !mirrors[index].isStopped {
            takeTurns(index)
            followScrubPolicy(index, scrubs)
            if mirrors[index].writeDeadlineSeconds != deadline {
                mirrors[index].writeDeadlineSeconds = deadline
                mirrors[index].mirror.setWriteDeadline(nanoseconds: deadline * 1_000_000_000)
            }
            deliver(.tick, to: index)
        }
        watchDisks()
        tellSupervisor()
    }

    private mutating func completed(_ completion: Completion) {
        let value = completion.userData & 0x00FF_FFFF_FFFF_FFFF
        guard let source = Source(rawValue: UInt8(completion.userData >> 56)) else { return }
        switch source {
        case .disk: diskCompleted(Int(value), completion.result)
        case .connectionInput: inputReady(value, hasMore: completion.hasMore)
        case .connectionOutput: outputReady(value)
        case .listener:
            accept(Int(value))
            if !completion.hasMore, !isStopping, let listener = listeners[Int(value)] {
                poll(listener.file, .listener, value)
            }
        case .controlListener:
            acceptControl()
            if !completion.hasMore, let controlListener { poll(controlListener.file, .controlListener, 0) }
        case .controlInput: controlReady(value, hasMore: completion.hasMore)
        case .controlOutput: controlWritable(value)
        case .signal:
            let signals = takeSignals()
            if signals.contains(where: { $0 != SIGUSR2 && ($0 != SIGHUP || settings.read == nil) }) {
                beginStop()
            } else {
                if signals.contains(SIGHUP) { beginReload() }
                if signals.contains(SIGUSR2) { beginSuccessor() }
            }
            if !completion.hasMore { poll(signalFile, .signal, 0) }
        case .mail:
            group.mailboxes[place].drainFile()
            if !completion.hasMore { poll(group.mailboxes[place].file, .mail, 0) }
        case .diskNews:
            takeDiskNews()
            if !completion.hasMore { poll(opener.file, .diskNews, 0) }
        case .ignored: break
        }
    }

    /// Numbers what is under way: a command, an opening, a question to all reactors.
    mutating func takeTicket() -> UInt64 {
        defer { nextCommand += 1 }
        return nextCommand
    }

    mutating func poll(_ file: Int32, _ source: Source, _ value: UInt64) {
        ring.preparePoll(
            file, events: UInt32(POLLIN) | 0x2000, userData: UInt64(source.rawValue) << 56 | value)  // POLLRDHUP
    }

    // MARK: stopping

    /// Signals arrive as readable bytes, like everything else.
    private mutating func watchSignals() {
        var set = stopSignals(isHangUpAmong: settings.read != nil)
        signalFile = unsafe signalfd(-1, &set, Int32(SFD_NONBLOCK | SFD_CLOEXEC))
        poll(signalFile, .signal, 0)
    }

    /// Source: signalfd(2); each signal is 128 bytes, its number the first four.
    private mutating func takeSignals() -> [Int32] {
        var signals: [Int32] = []
        var information = [UInt8](repeating: 0, count: 128)
        while unsafe read(signalFile, &information, 128) == 128 {
            signals.append(unsafe information.withUnsafeBytes { unsafe $0.loadUnaligned(as: Int32.self) })
        }
        return signals
    }

    /// Requests in flight are answered, everything is flushed and marked clean.
    mutating func beginStop() {
        guard stopDeadline == nil else { return }
        // Who stops a server does not want another one instead.
        if isFirst, let handover, !handover.hasEnded { cancelHandover("the server was stopped") }
        if isFirst {
            logger.info("stopping")
            supervisor.tell(
                status: "stopping: writes what is left, and marks it clean",
                with: handover == nil ? "STOPPING=1" : nil)
            broadcast(.stop)
        }
        stopDeadline = now.nanoseconds + limits.stopNanoseconds
        for index in mirrors.indices where !mirrors[index].isStopped {
            let id = CommandID(takeTicket())
            commands[id] = PendingCommand(asker: nil, disk: nil, mirror: index)
            deliver(.tick, to: index)  // The event log is written at ticks; there will be no other.
            deliver(.command(id, .stop), to: index)
        }
    }

    /// On all reactors: while there is one that runs it may owe a client of this reactor a reply.
    private mutating func isEverythingStopped() -> Bool {
        guard group.areAllStopped else { return false }
        takeMail()
        // Who has sent something too late hears that the server leaves.
        leaveMail()
        return true
    }

    /// Whether every client has what it was answered, as far as it takes it.
    private mutating func areRepliesSent() -> Bool {
        let deadline = drainDeadline ?? now.nanoseconds + limits.drainNanoseconds
        drainDeadline = deadline
        return now.nanoseconds > deadline || connections.allSatisfy { !($0?.hasOutput ?? false) }
    }

    private mutating func finish() -> Bool {
        sendAll()
        if handover != nil {
            leaveClients()
            // The other process opens them now; this one's memory may live on.
            for index in mirrors.indices { mirrors[index].shutDisks() }
            if signalFile >= 0 { Glibc.close(signalFile) }
        } else if inherited == nil {
            for case let listener? in listeners { listener.shut() }
            controlListener?.shut()
        }
        for connection in connections { if let connection { close(connection) } }
        for case let control? in controls where control.key != handover?.asker { endControl(control) }
        return true
    }
}
