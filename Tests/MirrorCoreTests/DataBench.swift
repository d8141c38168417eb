import Bytes
import MirrorFormat
import Testing

@testable import MirrorCore

/// A mirror and its disks with their data, to see what a client would read after a script of failures: `MirrorBench`
/// keeps metadata only. A region is one block of 4 KiB, its content one number. Operations wait here until the test
/// completes them. Disks have volatile caches, and numbers of their own: any of them may become any plex.
final class DataBench {
    typealias Operation = MirrorBench.Operation

    static let blocks = 64

    private struct Pending {
        var operation: DiskOperation
        var disk: Int
        /// Of a metadata write.
        var block: [UInt8]?
    }

    private(set) var mirror: Mirror
    private var now: UInt64 = 1_000_000_000
    private let limits: Limits
    private let layout: Layout
    private var starts: UInt64 = 1
    private var pending: [Pending] = []
    private var buffers: [BufferID: [UInt32]] = [:]
    private var nextRequest: UInt64 = 1
    private var nextCommand: UInt64 = 1
    private(set) var replies: [UInt64: ReplyStatus] = [:]
    private(set) var isStopped = false
    private(set) var lastAnswer: Answer?
    private(set) var events: [EventRecord] = []
    /// By number: those of the plexes that a new mirror begins with, then spare ones.
    var disks: [DataDisk]
    /// The number of the disk of each plex in use.
    private(set) var diskOfPlex: [Int: Int]

    /// A new mirror, started on all its plexes, at rest.
    ///
    /// - Parameter spares: disks on which nothing lies.
    init(plexes: Int, spares: Int = 0, windowBytes: UInt64 = 1 << 20) throws {
        let record = freshRecord(Array(repeating: .inSync, count: plexes), regionBytes: Limits.blockBytes)
            .changed { $0.dataBytes = UInt64(Self.blocks) * Limits.blockBytes }
        layout = try Disk.layout(dataBytes: record.dataBytes, regionBytes: record.regionBytes)
        let images = (0..<plexes).map { [layout] plex in
            DiskImage(
                Superblock(record: record, plex: plexUUID(plex), sequence: 1, layout: layout, writer: .none))
        }
        let blank = DiskImage(blank: layout, bitsPerPage: BitmapPage.bitCount)
        disks = (images + Array(repeating: blank, count: spares)).map(DataDisk.init)
        let found = (0..<plexes).compactMap { images[$0].found(disk: $0) }
        guard let assembly = assemble(found).assembly else { throw Missing() }
        var limits = Limits()
        // The resync does not wait for an idle moment.
        limits.clientActiveNanoseconds = 0
        limits.resyncWindowBytes = windowBytes
        self.limits = limits
        mirror = Self.server(assembly, limits, seed: 1, now: now)
        diskOfPlex = Dictionary(uniqueKeysWithValues: (0..<plexes).map { ($0, $0) })
        take()
        settle()
    }

    /// Power failed when plex 0 of two had a write to block 3 durably, 34, and plex 1 nothing.
    static func cutOffInAWrite() throws -> DataBench {
        let bench = try DataBench(plexes: 2)
        bench.write(3, 33)
        bench.settle()
        bench.write(3, 34)
        bench.complete(.write, on: 0)
        bench.disks[0].writeBack()
        bench.losePower()
        return bench
    }

    /// Plex 1 was away while block 4 was written, and is back.
    static func rejoining() throws -> DataBench {
        let bench = try DataBench(plexes: 2)
        bench.write(3, 33)
        bench.write(4, 44)
        bench.rest()
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        bench.write(4, 45)
        bench.rest()
        try bench.join(1, disk: 1)
        return bench
    }

    /// What is newest of it on the disks of plexes in sync.
    private func ledger(_ assembly: Assembly) -> ScrubLedger {
        var ledger = ScrubLedger()
        for plex in assembly.current.members {
            guard let image = assembly.found[plex].map({ disks[$0.disk].image }) else { continue }
            ledger.merge(image.scrubLedger(of: assembly.record.mirror))
        }
        return ledger
    }

    private static func server(
        _ assembly: Assembly, _ limits: Limits, seed: UInt64, now: UInt64, _ ledger: ScrubLedger = ScrubLedger()
    ) -> Mirror {
        Mirror(
            assembly: assembly, writer: .none, entropy: Entropy(seed, 2, 3, 4), scrubLedger: ledger, limits: limits,
            now: Instant(nanoseconds: now, unixNanoseconds: now))
    }

    var record: Record { mirror.record }

    /// What the disks of all plexes in use hold, in the order of the plexes.
    func copies(of block: Int) -> [UInt32] {
        diskOfPlex.sorted { $0.key < $1.key }.map { disks[$0.value].cache[block] }
    }

    // MARK: servers

    /// What a server would say that found these disks.
    ///
    /// - Parameter readsPages: false: the pages of the bitmap can't be read.
    func verdict(on numbers: [Int], isDegraded: Bool = false, readsPages: Bool = true) -> MirrorCore.Verdict {
        var options = AssemblyOptions()
        options.allowDegraded = isDegraded
        let found = numbers.compactMap { number in
            guard var found = disks[number].image.found(disk: number) else { return FoundPlex?.none }
            if !readsPages { found.pages = nil }
            return found
        }
        return assemble(found, options: options)
    }

    /// Starts another server on these disks, in the place of the one that ran until now.
    func start(on numbers: [Int], isDegraded: Bool = false, readsPages: Bool = true) throws {
        let verdict = verdict(on: numbers, isDegraded: isDegraded, readsPages: readsPages)
        let assembly = try #require(verdict.assembly, "\(String(describing: verdict.refusal))")
        pending = []
        buffers = [:]
        isStopped = false
        diskOfPlex = [:]
        for plex in assembly.participants.members { diskOfPlex[Int(plex.value)] = assembly.found[plex]?.disk }
        starts += 1
        mirror = Self.server(assembly, limits, seed: starts, now: now, ledger(assembly))
        take()
    }

    /// The server is gone with all that was in flight, and so is what was not flushed.
    func losePower() {
        pending = []
        for number in disks.indices { disks[number].dropCache(ofBlocks: 0..<Self.blocks) }
    }

    /// The server is gone with all that was in flight; the disks go on and flush in their own time.
    func kill() {
        pending = []
        for number in disks.indices { disks[number].writeBack() }
    }

    // MARK: events in

    private func handle(_ event: Event) {
        let instant = Instant(nanoseconds: now, unixNanoseconds: now)
        mirror.handle(event, now: instant)
        mirror.endBatch(now: instant)
        take()
    }

    private func send(_ kind: RequestKind, block: Int = 0, length: UInt64 = 0, data: [UInt32] = [], fua: Bool = false)
        -> UInt64
    {
        defer { nextRequest += 1 }
        let buffer = BufferID(UInt32(nextRequest))
        buffers[buffer] = data
        handle(
            .request(
                Request(
                    id: RequestID(nextRequest), kind: kind, offset: UInt64(block) * Limits.blockBytes, length: length,
                    isForcedUnitAccess: fua, buffer: buffer)))
        return nextRequest
    }

    @discardableResult
    func write(_ block: Int, _ value: UInt32, fua: Bool = false) -> UInt64 {
        send(.write, block: block, length: Limits.blockBytes, data: [value], fua: fua)
    }

    func read(_ block: Int) -> UInt64 { send(.read, block: block, length: Limits.blockBytes) }

    func flush() -> UInt64 { send(.flush) }

    /// What the client of this read got; nil: it is not answered yet, or not with data.
    func value(of read: UInt64) -> UInt32? {
        replies[read] == .ok ? buffers[BufferID(UInt32(read))]?.first : nil
    }

    /// What clients get who read the block many times, so that every plex that may serve a read does.
    func values(of block: Int) -> Set<UInt32?> {
        Set(
            (0..<12).map { _ in
                let read = read(block)
                settle()
                return value(of: read)
            })
    }

    func command(_ command: Command) {
        defer { nextCommand += 1 }
        handle(.command(CommandID(nextCommand), command))
    }

    /// Joins a disk as a plex: the one that it was before, or a new one if nothing lies on it.
    func join(_ plex: Int, disk number: Int) throws {
        #expect(diskOfPlex[plex] == nil, "plex \(plex) still has a disk")
        var attachment = try newDisk()
        attachment.layout = layout
        if let found = disks[number].image.found(disk: number) {
            attachment = Attachment(
                found.superblock, basis: JoinBasis(found.superblock, found.pages, joining: record))
        }
        diskOfPlex[plex] = number
        command(.join(PlexIndex(plex), attachment))
    }

    func schedule(everySeconds seconds: UInt64) { mirror.scheduleScrub(every: seconds * 1_000_000_000) }

    /// Ends the oldest operation; lets time pass if there is none.
    func step() {
        if pending.isEmpty { tick() } else { finish(pending.removeFirst(), nil) }
    }

    func tick(afterMilliseconds milliseconds: UInt64 = 100) {
        now += milliseconds * 1_000_000
        handle(.tick)
    }

    /// Time passes, and operations complete at once.
    func idle(
        seconds: Int, holding isHeld: (Operation) -> Bool = { _ in false },
        failing failure: (Operation) -> DiskFailure? = { _ in nil }
    ) {
        for _ in 0..<seconds * 10 {
            tick()
            settle(holding: isHeld, failing: failure)
        }
    }

    /// Nobody writes for so long that every bit that can be cleared is.
    func rest() {
        settle()
        idle(seconds: 12)
    }

    /// Every block gets a number of its own, from 100 on.
    func fill() {
        for block in 0..<Self.blocks {
            write(block, UInt32(100 + block))
            settle()
        }
        rest()
    }

    /// Time passes until such an operation waits, but no more than a minute.
    func idle(until isAwaited: (Operation) -> Bool, holding isHeld: (Operation) -> Bool = { _ in false }) {
        for _ in 0..<600 {
            if waiting.contains(where: isAwaited) { return }
            tick()
            settle(holding: { isAwaited($0) || isHeld($0) })
        }
        Issue.record("waited in vain among \(waiting)")
    }

    // MARK: operations

    var waiting: [Operation] { pending.map { Operation($0.operation) } }

    func waiting(_ kind: DiskOperation.Kind) -> [Operation] { waiting.filter { $0.kind == kind } }

    /// Whether it writes a page of this sheet: 0 is the intent bitmap, the others are the maps.
    func isPage(_ operation: Operation, ofSheet sheet: Int) -> Bool {
        operation.kind == .writeMetadata && operation.offset == layout.pageOffset(sheet: sheet, index: 0)
    }

    /// Ends the oldest operation that fits; there must be one.
    ///
    /// - Parameter block: the first one of the operation; nil: any.
    func complete(
        _ kind: DiskOperation.Kind, on plex: Int, at block: Int? = nil, failing failure: DiskFailure? = nil
    ) {
        let position = waiting.firstIndex {
            $0.kind == kind && $0.plex == plex && (block.map($0.isAt) ?? true)
        }
        guard let position else {
            Issue.record("no \(kind) on plex \(plex) waits among \(waiting)")
            return
        }
        finish(pending.remove(at: position), failure)
    }

    /// Completes everything, oldest first, and what follows from it, until nothing is in flight.
    ///
    /// - Parameter failure: of each operation; nil: it succeeds.
    func settle(
        holding isHeld: (Operation) -> Bool = { _ in false },
        failing failure: (Operation) -> DiskFailure? = { _ in nil }
    ) {
        var budget = 20_000
        while budget > 0, let position = waiting.firstIndex(where: { !isHeld($0) }) {
            let next = pending.remove(at: position)
            finish(next, failure(Operation(next.operation)))
            budget -= 1
        }
        #expect(budget > 0, "the mirror never comes to rest")
    }

    private func finish(_ next: Pending, _ failure: DiskFailure?) {
        if let failure {
            handle(.completion(next.operation.tag, .failed(failure)))
        } else {
            disks[next.disk].carryOut(
                next.operation, buffer: &buffers[next.operation.buffer, default: []], metadata: next.block)
            let buffer = buffers[next.operation.buffer, default: []]
            handle(.completion(next.operation.tag, disks[next.disk].answer(next.operation, buffer: buffer)))
        }
    }

    // MARK: effects out

    private func take() {
        while let effect = mirror.nextEffect() {
            switch effect {
            case .submit(let operation): submit(operation)
            case .reply(let id, let status): replies[id.value] = status
            case .answer: lastAnswer = mirror.takeAnswer()?.1
            case .events: events += mirror.takeEvents()
            case .release(let plex): diskOfPlex[Int(plex.value)] = nil
            case .stopped: isStopped = true
            case .adopt, .detach: Issue.record("every disk of these tests answers")
            case .copyBytes, .fillZeroes: Issue.record("no request of these tests is widened or a hole")
            }
        }
    }

    private func submit(_ operation: DiskOperation) {
        guard let number = diskOfPlex[Int(operation.plex.value)] else {
            Issue.record("plex \(operation.plex) has no disk for \(operation)")
            return
        }
        var next = Pending(operation: operation, disk: number)
        if operation.kind == .writeMetadata {
            var bytes = [UInt8](repeating: 0xEE, count: Superblock.byteCount)
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            mirror.encodeMetadata(operation, into: &raw)
            next.block = bytes
        }
        pending.append(next)
    }
}

extension MirrorBench.Operation {
    /// Whether the first block of it is this one, in a mirror of `DataBench`.
    func isAt(_ block: Int) -> Bool { offset == UInt64(block) * Limits.blockBytes }
}
