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

        /// And not a block of the event log.
        var isSuperblock: Bool { kind == .writeMetadata && offset >= Disk.bytes - Layout.superblockAreaBytes }
    }

    private var mirror: Mirror
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
    /// The whole tail of each disk that metadata was written to, by offset.
    private var blocks: [Int: [UInt64: [UInt8]]] = [:]
    private var nextCommand: UInt64 = 1

    init(_ assembly: Assembly, isReadOnly: Bool = false, limits: Limits = Limits()) {
        mirror = Mirror(
            assembly: assembly, writer: Superblock.Writer(bootID: .zero, host: "bench"), entropy: Entropy(1, 2, 3, 4),
            isReadOnly: isReadOnly, limits: limits, now: Instant(nanoseconds: now, unixNanoseconds: now))
        take()
    }

    /// - Parameter present: the plexes whose disks are there; nil: all that the record lists in sync.
    convenience init(
        _ record: Record = freshRecord(), present: PlexSet? = nil, isReadOnly: Bool = false, limits: Limits = Limits()
    ) throws {
        let plexes = try (present ?? record.configured).members.map { try found(Int($0.value), record) }
        var options = AssemblyOptions()
        options.allowDegraded = present != nil
        options.isReadOnly = isReadOnly
        guard let assembly = assemble(plexes, options: options).assembly else { throw Missing() }
        self.init(assembly, isReadOnly: isReadOnly, limits: limits)
    }

    var isOpen: Bool { mirror.isOpen }
    var record: Record { mirror.record }
    func status() -> MirrorStatus { mirror.status() }

    // MARK: events in

    func handle(_ event: Event) {
        mirror.handle(event, now: Instant(nanoseconds: now, unixNanoseconds: now))
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
        handle(.command(CommandID(nextCommand), command))
        return nextCommand
    }

    func tick(afterMilliseconds milliseconds: UInt64 = 100) {
        now += milliseconds * 1_000_000
        handle(.tick)
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
        if let block { blocks[Int(operation.plex.value), default: [:]][operation.offset] = block }
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

    // MARK: what is on the disks

    func block(_ plex: Int, at offset: UInt64) -> [UInt8]? { blocks[plex]?[offset] }

    /// What a server would find on this disk after a power failure now.
    func scan(_ plex: Int) -> SuperblockScan {
        let start = Disk.bytes - Layout.superblockAreaBytes
        var area = [UInt8](repeating: 0, count: Int(Layout.superblockAreaBytes))
        for (offset, block) in blocks[plex] ?? [:] where offset >= start {
            area.replaceSubrange(Int(offset - start)..<Int(offset - start) + block.count, with: block)
        }
        return unsafe SuperblockScan.scan(area: area.span.bytes, diskBytes: Disk.bytes)
    }

    /// The record on this disk; nil: none was written in this test.
    func recorded(_ plex: Int) -> Record? {
        if case .found(let superblock) = scan(plex) { return superblock.record }
        return nil
    }

    // MARK: the trace

    func clearTrace() { trace = [] }

    func submitted(_ kind: DiskOperation.Kind) -> [Operation] {
        trace.compactMap { if case .submit(let operation) = $0, operation.kind == kind { operation } else { nil } }
    }

    func waiting(_ kind: DiskOperation.Kind) -> [Operation] { pending.map(Operation.init).filter { $0.kind == kind } }

    func position(_ isWanted: (Step) -> Bool) -> Int? { trace.firstIndex(where: isWanted) }

    func lastPosition(_ isWanted: (Step) -> Bool) -> Int? { trace.lastIndex(where: isWanted) }

    /// Makes the mirror dirty, so that later writes start at once.
    func dirty() {
        send(999_999, .write, Disk.dataBytes - 4096)
        settle()
        clearTrace()
    }
}

extension DiskFailure {
    static let media = DiskFailure(errorNumber: 5, isBlockDevice: false)
    static let noSpace = DiskFailure(errorNumber: 28, isBlockDevice: false)
    static let gone = DiskFailure(errorNumber: 19, isBlockDevice: false)
    static let busy = DiskFailure(errorNumber: 16, isBlockDevice: false)
}
