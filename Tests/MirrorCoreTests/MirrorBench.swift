import Bytes
import MirrorFormat
import Testing

@testable import MirrorCore

/// A mirror and its disks, driven by hand: operations wait here until the test completes them, in whatever
/// order it likes. Disks keep metadata only, byte for byte, so that it can be decoded again; of user data
/// the trace of operations is enough.
final class MirrorBench {
    enum Step: Equatable {
        case submit(Operation)
        case complete(Operation)
        case fail(Operation)
        case reply(UInt64, ReplyStatus)
        case copy(from: UInt64, to: UInt64, count: UInt64)
        case fill(at: UInt64, count: UInt64)
        /// The copy that this plex read into.
        case adopt(Int, offset: UInt64, length: UInt64)
        case detach(window: Int?)
        case answer
        case release(PlexIndex)
        case stopped
    }

    /// What a test compares of an operation.
    struct Operation: Equatable {
        var plex: Int
        var kind: DiskOperation.Kind
        var offset: UInt64
        var length: UInt64
        var bufferOffset: UInt64 = 0
        var isDurable = false

        init(_ operation: DiskOperation) {
            plex = Int(operation.plex.value)
            kind = operation.kind
            offset = operation.offset
            length = operation.length
            bufferOffset = operation.bufferOffset
            isDurable = operation.isDurable
        }

        /// And not a block of the event log, nor a page.
        var isSuperblock: Bool { kind == .writeMetadata && offset >= Disk.bytes - Layout.superblockAreaBytes }

        /// Of the intent bitmap or of a missed-write map. Behind them lie two remap tables of 16 KiB, the event log
        /// and the superblocks, 64 KiB each.
        var isPage: Bool { kind == .writeMetadata && offset < Disk.bytes - (160 << 10) }
        var isEventBlock: Bool { kind == .writeMetadata && !isSuperblock && !isPage }
    }

    var mirror: Mirror
    /// Monotonic nanoseconds.
    private(set) var now: UInt64 = 1_000_000_000
    private(set) var pending: [DiskOperation] = []
    private var encoded: [DiskTag: [UInt8]] = [:]
    private(set) var trace: [Step] = []
    private(set) var replies: [UInt64: ReplyStatus] = [:]
    private(set) var replyOrder: [UInt64] = []
    private(set) var answers: [UInt64: Answer] = [:]
    private(set) var events: [EventRecord] = []
    private(set) var released: [PlexIndex] = []
    private(set) var isStopped = false
    /// What lies on the disks now, by plex.
    private(set) var disks: [Int: DiskImage] = [:]
    /// Of that, what this mirror wrote.
    private var written: [Int: DiskImage] = [:]
    let limits: Limits
    var bitsPerPage: Int { limits.bitsPerPage }
    private var nextCommand: UInt64 = 1
    private var lastSeed: UInt64

    /// - Parameter seed: no two servers of one test draw the same generations.
    init(_ assembly: Assembly, isReadOnly: Bool = false, limits: Limits = Limits(), seed: UInt64 = 1) {
        self.limits = limits
        lastSeed = seed << 16
        for (plex, found) in assembly.found {
            disks[Int(plex.value)] = DiskImage(found, bitsPerPage: limits.bitsPerPage)
        }
        mirror = Mirror(
            assembly: assembly, writer: Superblock.Writer(bootID: .zero, host: "bench"),
            entropy: Entropy(seed, 2, 3, 4),
            isReadOnly: isReadOnly, limits: limits, now: Instant(nanoseconds: now, unixNanoseconds: now))
        take()
    }

    /// - Parameters:
    ///   - present: the plexes whose disks are there; nil: all that the record lists in sync.
    ///   - spares: slots of each disk's spare pool.
    ///   - dirty: regions whose intent bit is set, on every disk.
    ///   - change: what befell the disk of a plex since it was created.
    convenience init(
        _ record: Record = freshRecord(), present: PlexSet? = nil, dirty: [Int] = [], isReadOnly: Bool = false,
        limits: Limits = Limits(), spares: Int = 0, change: (Int, inout DiskImage) -> Void = { _, _ in }
    ) throws {
        let plexes = try (present ?? record.configured).members.map { plex in
            try foundWithPages(
                Int(plex.value), record, spares: spares, bitsPerPage: limits.bitsPerPage
            ) { image in
                if !dirty.isEmpty {
                    image.setPage(sheet: 0, regions: dirty, of: record)
                }
                change(Int(plex.value), &image)
            }
        }
        var options = AssemblyOptions()
        options.allowDegraded = present != nil
        options.isReadOnly = isReadOnly
        guard let assembly = assemble(plexes, options: options).assembly else { throw Missing() }
        self.init(assembly, isReadOnly: isReadOnly, limits: limits)
    }

    var isOpen: Bool { mirror.isOpen }
    var record: Record { mirror.record }
    func status() -> MirrorStatus { mirror.status() }

    /// For another server on these disks.
    func nextSeed() -> UInt64 {
        lastSeed += 1
        return lastSeed
    }

    // MARK: events in

    func handle(_ event: Event) {
        let instant = Instant(nanoseconds: now, unixNanoseconds: now)
        mirror.handle(event, now: instant)
        mirror.endBatch(now: instant)
        take()
    }

    func send(
        _ id: UInt64, _ kind: RequestKind, _ offset: UInt64 = 0, _ length: UInt64 = 4096, fua: Bool = false,
        mayDeallocate: Bool = true
    ) {
        handle(
            .request(
                Request(
                    id: RequestID(id), kind: kind, offset: offset, length: length, isForcedUnitAccess: fua,
                    mayDeallocate: mayDeallocate, buffer: BufferID(UInt32(id)))))
    }

    @discardableResult
    func command(_ command: Command) -> UInt64 {
        defer { nextCommand += 1 }
        if case .join(let plex, let attachment, _) = command { insert(Int(plex.value), attachment) }
        handle(.command(CommandID(nextCommand), command))
        return nextCommand
    }

    func tick(afterMilliseconds milliseconds: UInt64 = 100) {
        now += milliseconds * 1_000_000
        handle(.tick)
    }

    /// What the driver does between ticks.
    func hedge(afterMilliseconds milliseconds: UInt64) {
        now += milliseconds * 1_000_000
        mirror.hedgeReads(now: Instant(nanoseconds: now, unixNanoseconds: now))
        take()
    }

    /// Time passes, tick by tick; all that comes up is done, but for what is held.
    func wait(milliseconds: UInt64, holding isHeld: (Operation) -> Bool = { _ in true }) {
        for _ in 0..<milliseconds / 100 {
            tick()
            settle(holding: isHeld)
        }
    }

    /// Ends the first pending operation that fits.
    @discardableResult
    func complete(
        _ kind: DiskOperation.Kind, on plex: Int, at offset: UInt64? = nil, failing failure: DiskFailure? = nil,
        transferring bytes: UInt64? = nil
    ) -> Bool {
        let position = pending.firstIndex {
            $0.kind == kind && Int($0.plex.value) == plex && (offset == nil || offset == $0.offset)
        }
        guard let position else { return false }
        finish(position, failure, transferring: bytes)
        return true
    }

    /// Completes everything, oldest first, and what follows from it, until nothing is in flight.
    ///
    /// - Parameter failure: of each operation; nil: it succeeds.
    func settle(
        holding isHeld: (Operation) -> Bool = { _ in false },
        failing failure: (Operation) -> DiskFailure? = { _ in nil }
    ) {
        var budget = 100_000
        while budget > 0, let position = pending.firstIndex(where: { !isHeld(Operation($0)) }) {
            finish(position, failure(Operation(pending[position])))
            budget -= 1
        }
        #expect(budget > 0, "the mirror never comes to rest")
    }

    private func finish(_ position: Int, _ failure: DiskFailure?, transferring bytes: UInt64? = nil) {
        let operation = pending.remove(at: position)
        let block = encoded.removeValue(forKey: key(operation))
        if let failure {
            trace.append(.fail(Operation(operation)))
            handle(.completion(operation.tag, .failed(failure)))
            return
        }
        if let block {
            disks[Int(operation.plex.value)]?.blocks[operation.offset] = block
            written[Int(operation.plex.value), default: blank(operation.plex)].blocks[operation.offset] = block
        }
        trace.append(.complete(Operation(operation)))
        handle(.completion(operation.tag, .transferred(bytes ?? operation.length)))
    }

    // MARK: effects out

    private func take() {
        while let effect = mirror.nextEffect() {
            switch effect {
            case .submit(let operation): submit(operation)
            case .reply(let id, let status):
                trace.append(.reply(id.value, status))
                replies[id.value] = status
                replyOrder.append(id.value)
            case .copyBytes(_, let from, let to, let count): trace.append(.copy(from: from, to: to, count: count))
            case .fillZeroes(_, let at, let count): trace.append(.fill(at: at, count: count))
            case .adopt(let buffer, let offset, let length):
                trace.append(.adopt(buffer.copyNumber - 1, offset: offset, length: length))
            case .detach(let buffer): trace.append(.detach(window: buffer.windowIndex))
            case .answer:
                trace.append(.answer)
                if let (id, answer) = mirror.takeAnswer() { answers[id.value] = answer }
            case .events: events += mirror.takeEvents()
            case .release(let plex):
                trace.append(.release(plex))
                released.append(plex)
            case .stopped:
                trace.append(.stopped)
                isStopped = true
            }
        }
    }

    private func submit(_ operation: DiskOperation) {
        trace.append(.submit(Operation(operation)))
        pending.append(operation)
        guard operation.kind == .writeMetadata else { return }
        var bytes = [UInt8](repeating: 0xEE, count: Superblock.byteCount)
        do {
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            mirror.encodeMetadata(operation, into: &raw)
        }
        encoded[key(operation)] = bytes
    }

    /// Two copies of one round differ in their slot, so a tag is unique among what is in flight.
    private func key(_ operation: DiskOperation) -> DiskTag { operation.tag }

    /// Somebody did something to the disk behind the mirror's back.
    func replaceDisk(_ plex: Int, with image: DiskImage?) {
        disks[plex] = image
        written[plex] = nil
    }

    private func blank(_ plex: PlexIndex) -> DiskImage {
        var image = disks[Int(plex.value)]
        image?.blocks = [:]
        guard let image else { preconditionFailure("no disk for plex \(plex)") }
        return image
    }

    // MARK: what is on the disks

    /// Of what this mirror wrote.
    func block(_ plex: Int, at offset: UInt64) -> [UInt8]? { written[plex]?.blocks[offset] }

    /// What a server would find on this disk after a power failure now, of what this mirror wrote.
    func scan(_ plex: Int) -> SuperblockScan { written[plex]?.scan() ?? .none }

    /// The record on this disk; nil: none was written in this test.
    func recorded(_ plex: Int) -> Record? {
        if case .found(let superblock) = scan(plex) { return superblock.record }
        return nil
    }

    /// The regions whose intent bit is set on this disk.
    func intent(_ plex: Int) -> [Int] { disks[plex]?.regions(sheet: 0) ?? [] }

    /// The regions that plex `plex` missed, as the disk of plex `witness` says; nil: nobody counts.
    func missed(_ plex: Int, accordingTo witness: Int = 0) -> [Int]? {
        guard let map = record[PlexIndex(plex)].missedWriteMap, let image = disks[witness],
            let found = image.found(disk: witness)
        else { return nil }
        let regions = found.pages?.regions(sheet: Int(map.slot) + 1, map, isClean: false)
        return regions.map { set in (0..<set.count).filter { set.contains($0) } }
    }

    // MARK: the trace

    func clearTrace() { trace = [] }

    func submitted(_ kind: DiskOperation.Kind) -> [Operation] {
        trace.compactMap { if case .submit(let operation) = $0, operation.kind == kind { operation } else { nil } }
    }

    func waiting(_ kind: DiskOperation.Kind) -> [Operation] { pending.map(Operation.init).filter { $0.kind == kind } }

    func position(_ isWanted: (Step) -> Bool) -> Int? { trace.firstIndex(where: isWanted) }

    func lastPosition(_ isWanted: (Step) -> Bool) -> Int? { trace.lastIndex(where: isWanted) }

    /// Sets every intent bit, so that later writes start at once.
    func dirty() {
        send(999_999, .write, 0, Disk.dataBytes)
        settle()
        clearTrace()
    }
}
