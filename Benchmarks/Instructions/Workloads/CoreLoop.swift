internal import MirrorCore
internal import MirrorFormat

/// A mirror of two plexes on disks that complete at once: the driver's loop without sockets, ring and data.
struct CoreLoop: ~Copyable {
    static let requestBytes: UInt64 = 4096

    private var mirror: Mirror
    /// Submitted and not completed, oldest first, from `pendingHead` on.
    private var pending: [DiskOperation] = []
    private var pendingHead = 0
    private var metadata = [UInt8](repeating: 0, count: Superblock.byteCount)
    private var now: UInt64 = 1_000_000_000
    private var nextRequest: UInt64 = 0
    private(set) var replies: UInt64 = 0

    /// - Parameter dataBytes: of the mirror, with regions of 1 MiB; it is open when this returns, and clean.
    init(dataBytes: UInt64) throws {
        let layout = try Layout(
            diskBytes: dataBytes + dataBytes / 1024 + 64 << 20, dataBytes: dataBytes,
            regionBytes: Layout.defaultRegionBytes, spareBytes: nil)
        let uuids = (1...2).map { PlexUUID(UUID128(high: 1, low: $0)) }
        let record = Record(
            mirror: MirrorUUID(UUID128(high: 2, low: 0)), name: "bench", dataBytes: dataBytes,
            regionBytes: layout.regionBytes, generation: Generation(UUID128(high: 3, low: 0)),
            members: uuids.map { Member(uuid: $0, role: .inSync) }, time: 1)
        let found = uuids.enumerated().map { disk, uuid in
            FoundPlex(
                disk: disk,
                superblock: Superblock(record: record, plex: uuid, sequence: 1, layout: layout, writer: .none))
        }
        guard case .assembled(let assembly) = assemble(found) else {
            preconditionFailure("two fresh plexes do not start")
        }
        mirror = Mirror(
            assembly: assembly, writer: .none, entropy: Entropy(1, 2, 3, 4),
            now: Instant(nanoseconds: now, unixNanoseconds: now))
        pending.reserveCapacity(1024)
        take()
        settle()
        precondition(mirror.isOpen)
    }

    /// A request of 4 KiB, or a flush; its operations wait for `settle`.
    mutating func send(_ kind: RequestKind, block: UInt64 = 0) {
        nextRequest += 1
        let isFlush = kind == .flush
        handle(
            .request(
                Request(
                    id: RequestID(nextRequest), kind: kind, offset: isFlush ? 0 : block * Self.requestBytes,
                    length: isFlush ? 0 : Self.requestBytes, buffer: BufferID(UInt32(truncatingIfNeeded: nextRequest)))
            ))
    }

    /// Completes everything, oldest first, and what follows from it.
    mutating func settle() {
        while pendingHead < pending.count {
            let operation = pending[pendingHead]
            pendingHead += 1
            handle(.completion(operation.tag, .transferred(operation.length)))
        }
        pending.removeAll(keepingCapacity: true)
        pendingHead = 0
    }

    private mutating func handle(_ event: Event) {
        now += 1000
        let instant = Instant(nanoseconds: now, unixNanoseconds: now)
        mirror.handle(event, now: instant)
        mirror.endBatch(now: instant)
        take()
    }

    private mutating func take() {
        while let effect = mirror.nextEffect() {
            switch effect {
            case .submit(let operation):
                if operation.kind == .writeMetadata {
                    Self.encode(operation, of: mirror, into: &metadata)
                }
                pending.append(operation)
            case .reply(_, let status):
                precondition(status == .ok)
                replies += 1
            case .events: _ = mirror.takeEvents()
            case .copyBytes, .fillZeroes, .answer, .release, .stopped:
                preconditionFailure("nothing here is cut, commanded or stopped")
            }
        }
    }

    private static func encode(_ operation: DiskOperation, of mirror: borrowing Mirror, into block: inout [UInt8]) {
        var span = block.mutableSpan
        var bytes = unsafe span.mutableBytes
        mirror.encodeMetadata(operation, into: &bytes)
    }
}

/// A client at work on a mirror.
private struct CoreClient: ~Copyable {
    /// 64 regions of 1 MiB, all of them marked when the measurement begins.
    static let hotBlocks: UInt64 = 64 << 8
    static let hotBytes: UInt64 = 1 << 30
    /// One write to each of 1 Mi regions is cold.
    static let coldBytes: UInt64 = 1 << 40
    static let coldRegions: UInt64 = 1 << 20

    private var loop: CoreLoop
    private var hot = Scatter(count: hotBlocks)

    init() throws {
        loop = try CoreLoop(dataBytes: Self.hotBytes)
        for region in 0..<Self.hotBlocks >> 8 {
            loop.send(.write, block: region << 8)
            loop.settle()
        }
    }

    /// - Parameter depth: requests in flight at once; the last ones of `count` that do not fill the depth are left out.
    mutating func run(_ kind: RequestKind, depth: Int, count: Int) -> UInt64 {
        for _ in 0..<count / depth {
            for _ in 0..<depth { loop.send(kind, block: hot.next()) }
            loop.settle()
        }
        return loop.replies
    }
}

/// Writes to regions without an intent bit, each of which waits for a page of the bitmap on both plexes.
private struct ColdClient: ~Copyable {
    private var loop: CoreLoop
    private var regions = Scatter(count: CoreClient.coldRegions)
    private var left = CoreClient.coldRegions

    init() throws {
        loop = try CoreLoop(dataBytes: CoreClient.coldBytes)
        // The first write marks the mirror dirty as well.
        loop.send(.write, block: regions.next() << 8)
        loop.settle()
        left -= 1
    }

    mutating func run(count: Int) -> UInt64 {
        for _ in 0..<count {
            precondition(left > 0, "every region is marked")
            left -= 1
            loop.send(.write, block: regions.next() << 8)
            loop.settle()
        }
        return loop.replies
    }
}

let coreWorkloads: [Workload] =
    [
        ("core, 4k write, hot", RequestKind.write, 1), ("core, 4k write, hot, 64 in flight", .write, 64),
        ("core, 4k read", .read, 1), ("core, 4k read, 64 in flight", .read, 64), ("core, flush", .flush, 1),
    ]
    .map { name, kind, depth in
        Workload(name) {
            var client = try CoreClient()
            return { client.run(kind, depth: depth, count: $0) }
        }
    } + [
        Workload("core, 4k write, cold", isAllocationFree: false) {
            var client = try ColdClient()
            return { client.run(count: $0) }
        }
    ]
