internal import BasicContainers
internal import CLinux
internal import Control
internal import Glibc
internal import Logging
internal import MirrorCore
internal import MirrorFormat
internal import NBDProtocol
internal import URing

/// The one loop: sockets, disks, clock, control socket, signals; one thread.
///
/// Files: `+Disks` (operations of the core and their completions), `+Connections` (accepting, reading,
/// sending), `+Requests` (from NBD requests to the core and back), `+Control`, `+Commands` and `+Resolve` (the
/// control socket).
struct Reactor: ~Copyable {
    /// What a completion is about; the top byte of its user data.
    enum Source: UInt8 {
        case disk, connectionInput, connectionOutput, listener, controlListener, controlInput, controlOutput, signal,
            ignored
    }

    let limits: ServerLimits
    let logger: Logger
    let ring: Ring
    var smallPool: BufferPool
    var largePool: BufferPool
    var metadataPool: BufferPool
    let zeroes: BufferPool
    let zeroBuffer: PooledBuffer
    let scratch: BufferPool
    let scratchBuffer: PooledBuffer
    /// Headers of the replies that are being sent.
    let headerPage: BufferPool
    let headerBuffer: PooledBuffer

    var mirrors: UniqueArray<ServedMirror>
    var refused: [RefusedMirror]
    let defaultName: String?
    var catalog: ExportCatalog
    let isReadOnly: Bool

    var listeners: [Listener]
    let controlListener: Listener?
    var connections: [Connection?] = []
    var nextGeneration: UInt32 = 1
    var handshaking = 0
    /// Clients wait in the queue of a listener until handshakes end or descriptors are free.
    var isAcceptPaused = false
    var ready: [Int] = []
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
    var extents: [AllocationExtent] = []
    var replyExtents: [Extent] = []

    var controls: [ControlConnection?] = []
    var nextCommand: UInt64 = 1
    var commands: [CommandID: PendingCommand] = [:]

    var now = currentInstant()
    var lastTick: UInt64 = 0
    var signalFile: Int32 = -1
    var stopDeadline: UInt64?
    /// Set when all mirrors are stopped: until when the last replies may take.
    var drainDeadline: UInt64?
    /// What did not go well while stopping, for whoever asked for it.
    var stopComplaints: [String] = []
    var isStopping: Bool { stopDeadline != nil }
    /// The last wait was a short one.
    private var isBrisk = false
    /// Something was given back that a blocked connection may have waited for.
    var hasFreed = false

    init(
        opening: consuming Opening, listeners: [Listener], controlListener: Listener?, defaultName: String?,
        isReadOnly: Bool,
        logger: Logger
    ) throws(SystemError) {
        let limits = ServerLimits()
        let ring = try Ring(entries: 1024)
        let smallPool = try BufferPool(capacityBytes: limits.smallPoolBytes, largestBytes: 1 << 20)
        let largePool = try BufferPool(capacityBytes: limits.largePoolBytes, largestBytes: limits.largestPieceBytes)
        let pages = (opening.served.count + opening.refused.count) * limits.metadataPagesPerMirror
        let metadataPool = try BufferPool(
            capacityBytes: max(limits.metadataPoolBytes, pages * Superblock.byteCount), largestBytes: 1 << 20)
        var zeroes = try BufferPool(capacityBytes: 1 << 20, largestBytes: 1 << 20)
        var scratch = try BufferPool(capacityBytes: limits.scratchBytes, largestBytes: limits.scratchBytes)
        var headerPage = try BufferPool(capacityBytes: 4096, largestBytes: 4096)
        guard let zeroBuffer = zeroes.take(bytes: 1 << 20), let headerBuffer = headerPage.take(bytes: 4096),
            let scratchBuffer = scratch.take(bytes: limits.scratchBytes)
        else { throw SystemError("mmap", number: ENOMEM) }
        // All of it is there: from here on nothing fails.
        self.limits = limits
        self.logger = logger
        self.ring = ring
        self.smallPool = smallPool
        self.largePool = largePool
        self.metadataPool = metadataPool
        self.zeroes = zeroes
        self.zeroBuffer = zeroBuffer
        self.scratch = scratch
        self.scratchBuffer = scratchBuffer
        self.headerPage = headerPage
        self.headerBuffer = headerBuffer
        mirrors = opening.served
        refused = opening.refused
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
        updateCatalog()
    }

    /// The mirror of that name, unless it is stopped.
    func served(_ name: String) -> Int? {
        mirrors.indices.first { mirrors[$0].name == name && !mirrors[$0].isStopped }
    }

    mutating func updateCatalog() {
        let exports = mirrors.indices.filter { !mirrors[$0].isStopped }.map { mirrors[$0].export }
        let name = defaultName ?? (exports.count == 1 ? exports[0].name : nil)
        catalog = ExportCatalog(exports: exports, defaultName: name)
    }

    /// Runs until stopped by a signal or by `plexus stop`.
    ///
    /// - Parameter whenReady: called once every mirror answers and every socket listens.
    /// - Returns: whether everything was stopped in good order.
    mutating func run(whenReady: (borrowing Reactor) -> Void) -> Bool {
        watchSignals()
        for (index, listener) in listeners.enumerated() { poll(listener.file, .listener, UInt64(index)) }
        if let controlListener { poll(controlListener.file, .controlListener, 0) }
        for index in mirrors.indices { drain(index) }
        var isReady = false
        while true {
            now = currentInstant()
            if !isReady, mirrors.indices.allSatisfy({ mirrors[$0].mirror.isOpen || mirrors[$0].isStopped }) {
                isReady = true
                whenReady(self)
            }
            turn()
            if let deadline = stopDeadline {
                if mirrors.indices.allSatisfy({ mirrors[$0].isStopped }), areRepliesSent() { return finish() }
                if now.nanoseconds > deadline {
                    logger.error("not every request came back from the disks in time; the next start will resync")
                    return false
                }
            }
        }
    }

    /// One turn: wait, reap, read, let the mirrors work, send.
    private mutating func turn() {
        let isBusy = !ready.isEmpty || !localCompletions.isEmpty || (hasFreed && !blocked.isEmpty)
        if isBusy { poll(milliseconds: 0) } else { waitForEvents() }
        for _ in 0..<ring.completionCount { completed(ring.takeCompletion()) }
        completeLocally()
        startWaiting()
        // Who has waited comes before who has just arrived.
        retryBlocked()
        readConnections()
        if !localCompletions.isEmpty {
            now = currentInstant()
            completeLocally()
        }
        resumeAccepting()
        let sinceTick = now.nanoseconds - lastTick
        if sinceTick >= UInt64(limits.tickMilliseconds) * 1_000_000 {
            lastTick = now.nanoseconds
            tick()
            // After a pause of our own (a suspended machine, say) nobody else is to blame for it.
            if sinceTick < limits.stallNanoseconds / 2 { expireConnections() }
        }
        sendAll()
    }

    /// Waits until something happens, for a tick at most. While things happen in quick succession the processor is kept
    /// for a moment, for it takes longer to fall asleep and be woken than to wait; a quiet server sleeps.
    private mutating func waitForEvents() {
        let begun = currentInstant().nanoseconds
        if isBrisk || ring.completionCount > 0 {
            repeat {
                poll(milliseconds: 0)
            } while ring.completionCount == 0 && now.nanoseconds - begun < limits.spinNanoseconds
        }
        if ring.completionCount == 0 { poll(milliseconds: limits.tickMilliseconds) }
        isBrisk = now.nanoseconds - begun < limits.spinNanoseconds * 2
    }

    private mutating func poll(milliseconds: Int) {
        ring.submitAndWait(timeoutMilliseconds: milliseconds)
        now = currentInstant()
    }

    private mutating func tick() {
        for index in mirrors.indices where !mirrors[index].isStopped { deliver(.tick, to: index) }
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
            if !completion.hasMore, !isStopping { poll(listeners[Int(value)].file, .listener, value) }
        case .controlListener:
            acceptControl()
            if !completion.hasMore, let controlListener { poll(controlListener.file, .controlListener, 0) }
        case .controlInput: controlReady(value, hasMore: completion.hasMore)
        case .controlOutput: controlWritable(value)
        case .signal:
            drainSignals()
            beginStop()
        case .ignored: break
        }
    }

    mutating func poll(_ file: Int32, _ source: Source, _ value: UInt64) {
        ring.preparePoll(
            file, events: UInt32(POLLIN) | 0x2000, userData: UInt64(source.rawValue) << 56 | value)  // POLLRDHUP
    }

    // MARK: stopping

    /// Signals arrive as readable bytes, like everything else.
    private mutating func watchSignals() {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        unsafe sigaddset(&set, SIGTERM)
        unsafe sigaddset(&set, SIGINT)
        // A terminal that is closed stops the server in good order too, unless it was started with nohup.
        var hangUp = sigaction()
        if unsafe sigaction(SIGHUP, nil, &hangUp) == 0, unsafe hangUp.__sigaction_handler.sa_handler == nil {
            unsafe sigaddset(&set, SIGHUP)
        }
        unsafe sigprocmask(SIG_BLOCK, &set, nil)
        signalFile = unsafe signalfd(-1, &set, Int32(SFD_NONBLOCK | SFD_CLOEXEC))
        poll(signalFile, .signal, 0)
    }

    private mutating func drainSignals() {
        var information = [UInt8](repeating: 0, count: 128)
        while unsafe read(signalFile, &information, 128) > 0 {}
    }

    /// Requests in flight are answered, everything is flushed and marked clean.
    mutating func beginStop() {
        guard stopDeadline == nil else { return }
        logger.info("stopping")
        notifySupervisor("STOPPING=1")
        stopDeadline = now.nanoseconds + limits.stopNanoseconds
        for index in mirrors.indices where !mirrors[index].isStopped {
            let id = CommandID(nextCommand)
            nextCommand += 1
            commands[id] = PendingCommand(control: nil, disk: nil, mirror: index)
            deliver(.tick, to: index)  // The event log is written at ticks; there will be no other.
            deliver(.command(id, .stop), to: index)
        }
    }

    /// Whether every client has what it was answered, as far as it takes it.
    private mutating func areRepliesSent() -> Bool {
        let deadline = drainDeadline ?? now.nanoseconds + limits.drainNanoseconds
        drainDeadline = deadline
        return now.nanoseconds > deadline || connections.allSatisfy { !($0?.hasOutput ?? false) }
    }

    private mutating func finish() -> Bool {
        sendAll()
        for listener in listeners { listener.shut() }
        controlListener?.shut()
        for connection in connections { if let connection { close(connection) } }
        for control in controls { if let control { endControl(control) } }
        return true
    }
}
