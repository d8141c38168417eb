package import MirrorFormat

/// What comes in. Attachments and the like are classes' worth of data and rare; requests and completions
/// are trivial values.
package enum Event: Sendable {
    case request(Request)
    case completion(DiskTag, DiskResult)
    case command(CommandID, Command)
    /// The disk of a plex is not there any more.
    case vanished(PlexIndex)
    /// Time has passed; every 100 ms or so.
    case tick
}

/// What is to be done. Trivial values all: taking one costs no reference counting. Text and other rare
/// things are fetched from the mirror (`takeAnswer`, `takeEvents`, `encodeMetadata`).
package enum Effect: Sendable, BitwiseCopyable {
    case submit(DiskOperation)
    case reply(RequestID, ReplyStatus)
    /// Move bytes inside a request's buffer.
    case copyBytes(BufferID, from: UInt64, to: UInt64, count: UInt64)
    case fillZeroes(BufferID, at: UInt64, count: UInt64)
    /// What lies outside of the range is moved from a request's buffer into this copy of it, which takes its place.
    case adopt(BufferID, offset: UInt64, length: UInt64)
    /// Operations on this buffer, which may be a window, were given up and are still under way. Its bytes are moved to
    /// other memory; what it had stays untouched until they have ended.
    case detach(BufferID)
    /// `takeAnswer` has one.
    case answer
    /// `takeEvents` has some.
    case events
    /// The plex's disk is no longer used and has no operation in flight: close it.
    case release(PlexIndex)
    /// Nothing more will come; all disks are released.
    case stopped
}

/// The RAID-1 machine: events in, effects out; no I/O, clock, thread or randomness of its own.
///
/// Feed `handle`, and `endBatch` behind the last event there is for now; after each take effects with `nextEffect` until
/// there are none. The driver guarantees that every submitted operation completes exactly once and that buffers stay
/// untouched until then (R14).
///
/// One file per concern: `Mirror+Requests` (admission, lock), `+Intent` (dirty before data), `+Pages` (writing the
/// bitmap), `+Cleaning` (clearing it), `+Read`, `+Write` (fan-out and acknowledgement), `+Failure` (expelling), `+Late`,
/// `+Hedging`, `+Slow` (disks that do not answer), `+Repair`, `+Sparing`, `+Remaps` (bad blocks), `+BadRanges` (what a
/// plex lacks), `+Commit` (the record), `+Joining` (who is copied to, and how much), `+Resync`, `+Scrub`, `+Commands`,
/// `+Breaking`, `+Events`, `+Status`.
package struct Mirror: ~Copyable {
    enum Phase: UInt8 {
        case opening, running, stopping, stopped
    }

    private(set) var limits: Limits
    let mutant: Mutant
    let isReadOnly: Bool
    let writer: Superblock.Writer
    var entropy: Entropy
    var now: Instant

    var phase = Phase.opening
    /// What all superblocks shall say; written by `commit`.
    package internal(set) var record: Record
    var plexes: [Plex]
    /// In sync and usable: clients' reads are served from these.
    var working = PlexSet.empty
    /// Get every write, serve no read.
    var recovering = PlexSet.empty
    /// To become recovering when their own superblock says so.
    var joining = PlexSet.empty
    /// Every plex that some disk may list as in sync. A write that one of these lacks is not
    /// acknowledged (R2).
    var possibleInSync: PlexSet
    /// Of the last record that all plexes in use have.
    var durableEpoch: UInt64
    /// Of the same record. A page names no era that no superblock names.
    var durableGeneration: Generation
    /// Working plexes may differ in the regions of `resync.unequal`; reads there come from `record.pinned` (R7).
    var hasUnequal = false

    var tracking: WriteTracking
    var cleaner: Cleaner
    var commit = RecordCommit()
    var gate = Gate.clean
    var locks: RangeLock
    var granted: [UInt32] = []
    var isGranting = false
    var slots: [Slot]
    var freeSlots: [Int]
    var heldQueue = SlotQueue()
    var gateQueue = SlotQueue()
    /// Writes queue in `heldQueue` while a plex is being broken off.
    var holdsMutations = false
    var mutationsInFlight = 0
    var clientRequestsInFlight = 0
    var isOpenFlushed = false
    var isStoppedTold = false
    var isSuspended = false
    /// Error counters changed since the last record.
    var hasNewCounters = false
    var countersRecordedAt: UInt64 = 0
    var suspensionCause = DiskFailure.truncated
    var nextReadPlex: UInt8 = 0
    var lastMutationAt: UInt64 = 0
    var lastClientAt: UInt64 = 0

    var resync: Resync
    var repairs = Repairs()
    var scrub: Scrub
    /// Of some plex in use; looked at for each request.
    var hasBadBlocks = false
    var sparing = Sparing()
    var lateness = Lateness()
    var slowJudgedAt: UInt64 = 0
    /// Some plex is slow, or to be read in need only; looked at for each read.
    var hasReluctant = false
    /// Some plex in use has blocks in its spare pool; looked at for each operation.
    var hasRemaps = false
    /// Something on record that a plex does not hold.
    var hasBadRanges = false
    /// The round of the record that says what was healed last; nil: it is durable.
    var healTicket: UInt64?
    var running: RunningCommand?
    var waitingCommands: [(CommandID, Command)] = []
    var answers: [(CommandID, Answer)] = []
    var eventLog: EventLog
    var outbox: [Effect] = []
    var outboxHead = 0

    /// - Parameters:
    ///   - assembly: the verdict that the mirror may start.
    ///   - attachments: the disks of all plexes that take part, see `Assembly.participants`.
    ///   - recentEvents: the end of the event log, oldest first.
    ///   - scrubLedger: what is newest of it on the plexes in sync.
    package init(
        assembly: Assembly, writer: Superblock.Writer, entropy: Entropy, isReadOnly: Bool = false,
        recentEvents: [EventRecord] = [], scrubLedger: ScrubLedger = ScrubLedger(), limits: Limits = Limits(),
        mutant: Mutant = .none, now: Instant
    ) {
        self.limits = limits
        self.mutant = mutant
        self.isReadOnly = isReadOnly
        self.writer = writer
        self.entropy = entropy
        self.now = now
        record = assembly.record
        plexes = Array(repeating: Plex(), count: PlexSet.capacity)
        possibleInSync = assembly.record.inSync
        durableEpoch = assembly.record.epoch
        durableGeneration = assembly.record.generation
        let slotCount = limits.requests + limits.internalRequests
        precondition(slotCount < 65_536)
        locks = RangeLock(capacity: slotCount)
        slots = Array(repeating: Slot(), count: slotCount)
        freeSlots = Array((0..<slotCount).reversed())
        granted.reserveCapacity(slotCount)
        outbox.reserveCapacity(slotCount * 4)
        resync = Resync(windows: limits.resyncWindowsIdle)
        scrub = Scrub(
            windows: limits.resyncWindowsIdle, scrubLedger, dataBytes: assembly.record.dataBytes)
        tracking = WriteTracking(
            regionBytes: assembly.record.regionBytes, dataBytes: assembly.record.dataBytes,
            bitsPerPage: limits.bitsPerPage, writesInFlight: limits.pageWrites)
        cleaner = Cleaner(regions: tracking.regionCount)
        eventLog = EventLog(capacity: limits.eventRing, recent: recentEvents)
        adopt(assembly)
        adoptBadRanges()
        adoptCorrected(recentEvents)
        adoptScrub()
    }

    /// Plexes that owe a write for so long are given up; 0: never, see `Limits`.
    package mutating func setWriteDeadline(nanoseconds: UInt64) {
        limits.writeDeadlineNanoseconds = nanoseconds
        if nanoseconds == 0 { noneIsLate() }
    }

    package var isStopped: Bool { phase == .stopped }
    package var isOpen: Bool { phase == .running }
    package var name: String { record.name }

    /// Whether one more client request fits; the driver keeps the rest waiting.
    package var hasRoom: Bool { clientRequestsInFlight < limits.requests }

    package var requestsInFlight: Int { clientRequestsInFlight }

    package mutating func handle(_ event: Event, now: Instant) {
        self.now = now
        switch event {
        case .request(let request): admit(request)
        case .completion(let tag, let result): complete(tag, result)
        case .command(let id, let command): accept(id, command)
        case .vanished(let plex): vanished(plex)
        case .tick: tick()
        }
    }

    /// All events at hand have been handled: the bits and the record that they asked for go out, together. To be called
    /// before waiting for anything; until then whatever needs them stands still.
    package mutating func endBatch(now: Instant) {
        self.now = now
        pumpPages()
        beginCommitIfWanted()
    }

    /// The next thing to do; nil when there is none.
    package mutating func nextEffect() -> Effect? {
        guard outboxHead < outbox.count else {
            outbox.removeAll(keepingCapacity: true)
            outboxHead = 0
            return nil
        }
        defer { outboxHead += 1 }
        return outbox[outboxHead]
    }

    mutating func emit(_ effect: Effect) { outbox.append(effect) }

    /// The one judge of whether a plex may serve a read (R12).
    package func canServe(_ plex: PlexIndex, offset: UInt64, length: UInt64) -> Bool {
        if mutant == .readFromRecovering, recovering.contains(plex) { return true }
        guard working.contains(plex) else { return false }
        if hasBadRanges, mutant != .badRangeServed, record.isBad(plex, offset: offset, length: length) { return false }
        return isEqual(offset: offset, length: length) || record.pinned == plex || mutant == .readsNotPinned
            || hasBadRanges && isSoleHolder(plex, offset, length)
    }

    /// Whether all working plexes are known to agree on the range.
    func isEqual(offset: UInt64, length: UInt64) -> Bool {
        !hasUnequal || !resync.unequal.containsAny(of: tracking.regions(offset, length))
    }

    private mutating func complete(_ tag: DiskTag, _ result: DiskResult) {
        plexes[Int(tag.plex.value)].inFlight -= 1
        if let zombie = lateness.reap(tag) {
            if zombie.isRead { plexes[Int(tag.plex.value)].readsInFlight -= 1 }
            zombieEnded(zombie, tag.plex, result)
            releaseIfIdle(tag.plex)
            stoppedIfReleased()
            return
        }
        if tag.owner != .request { lateness.ended(tag) }
        if tag.owner != .request || slots[tag.slot].step == .fanOut {
            plexes[Int(tag.plex.value)].wroteAt = now.nanoseconds
        }
        route(tag, result)
        releaseIfIdle(tag.plex)
        if phase == .stopped { stoppedIfReleased() }
    }

    /// To whoever waits for it.
    mutating func route(_ tag: DiskTag, _ result: DiskResult) {
        // A flush behind a write of metadata failed: what it tells of is not about metadata alone (R8).
        if case .failed(let failure) = result, failure.kind == .lost, tag.owner != .request,
            working.union(recovering).contains(tag.plex)
        {
            flushBehindWriteFailed(tag.plex, failure)
        }
        switch tag.owner {
        case .request: requestCompleted(tag, result)
        case .commit: commitCompleted(tag, result)
        case .eventLog: eventLogCompleted(tag, result)
        case .detach: detachCompleted(tag, result)
        case .bitmap: pageCompleted(tag, result)
        case .sparing: sparingCompleted(tag, result)
        case .scrub: ledgerCompleted(tag, result)
        }
    }

    mutating func submit(_ operation: DiskOperation) {
        let plex = Int(operation.plex.value)
        plexes[plex].inFlight += 1
        if operation.tag.owner == .request {
            slots[operation.tag.slot].submittedAt[plex] = now.nanoseconds
        } else {
            lateness.begun(operation.tag, at: now.nanoseconds)
        }
        emit(.submit(operation))
    }

    private mutating func tick() {
        watchLate()
        retryWaiting()
        retryCommit()
        cleanIfIdle()
        recordCounters()
        retrySparing()
        settleTables()
        retryRepairs()
        pumpResync()
        tickScrub()
        forgetReplaced()
        pumpEventLog()
    }
}

/// Whether the superblocks say that the mirror was stopped in good order.
enum Gate: Equatable {
    /// On disk: clean. A write must wait for `marking`.
    case clean
    /// The dirty mark is on its way; writes wait for this round of the record.
    case marking(ticket: UInt64)
    case dirty
}
