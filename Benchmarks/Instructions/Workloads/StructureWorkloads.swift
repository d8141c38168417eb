internal import MirrorCore
internal import URing

let structureWorkloads: [Workload] = [
    Workload("range lock, acquire and release") {
        var holder = LockHolder(inFlight: 1)
        return { holder.run(count: $0) }
    },
    Workload("range lock, 64 in flight") {
        var holder = LockHolder(inFlight: 64)
        return { holder.run(count: $0) }
    },
    Workload("regions, set, ask and clear one") {
        var regions = Regions()
        return { regions.mark(count: $0) }
    },
    Workload("regions, ask a range of 33") {
        let regions = Regions(every: 1)
        return { regions.ask(count: $0) }
    },
    Workload("regions, next of 1 in 1,024") {
        let regions = Regions(every: 1024)
        return { regions.walk(count: $0) }
    },
    Workload("regions, union of 1 Mi") {
        var regions = Regions(every: 3)
        let other = RegionSet(count: Regions.count)
        return { regions.unite(other, count: $0) }
    },
    Workload("buffers, take and give 4 KiB") {
        var buffers = try Buffers(inFlight: 1)
        return { buffers.run(bytes: 4096, count: $0) }
    },
    Workload("buffers, 64 in flight") {
        var buffers = try Buffers(inFlight: 64)
        return { buffers.run(bytes: 4096, count: $0) }
    },
]

/// Keeps a number of ranges that do not overlap; each turn gives up the oldest and takes another.
private struct LockHolder {
    private var lock: RangeLock
    private var granted: [UInt32] = []
    private let inFlight: UInt64
    private var next: UInt64 = 0

    init(inFlight: UInt64) {
        self.inFlight = inFlight
        lock = RangeLock(capacity: 1024)
        while next < inFlight - 1 { acquire() }
    }

    private mutating func acquire() {
        let isHeld = lock.acquire(
            owner: UInt32(truncatingIfNeeded: next), offset: next << 12, length: 4096, isExclusive: true)
        precondition(isHeld)
        next += 1
    }

    mutating func run(count: Int) -> UInt64 {
        for _ in 0..<count {
            acquire()
            lock.release(owner: UInt32(truncatingIfNeeded: next - inFlight), granted: &granted)
        }
        return next
    }
}

/// The bitmap of 1 TiB at 1 MiB.
private struct Regions {
    static let count = 1 << 20

    private var set = RegionSet(count: count)
    private var scatter = Scatter(count: UInt64(count / 2))

    /// - Parameter distance: between members; nil: none.
    init(every distance: Int? = nil) {
        guard let distance else { return }
        for region in stride(from: 0, to: Self.count, by: distance) { set.insert(region) }
    }

    mutating func mark(count: Int) -> UInt64 {
        var absent: UInt64 = 0
        for _ in 0..<count {
            let region = Int(scatter.next())
            if !set.containsAll(of: region..<region + 1) { absent += 1 }
            set.insert(region..<region + 1)
            set.remove(region)
        }
        return absent
    }

    func ask(count: Int) -> UInt64 {
        var scatter = scatter
        var whole: UInt64 = 0
        for _ in 0..<count {
            let region = Int(scatter.next())
            if set.containsAll(of: region..<region + 33) { whole += 1 }
        }
        return whole
    }

    func walk(count: Int) -> UInt64 {
        var position = 0
        var sum: UInt64 = 0
        for _ in 0..<count {
            guard let next = set.next(from: position) else {
                position = 0
                continue
            }
            sum &+= UInt64(next)
            position = next + 1
        }
        return sum
    }

    mutating func unite(_ other: RegionSet, count: Int) -> UInt64 {
        for _ in 0..<count { set.formUnion(other) }
        return UInt64(set.population)
    }
}

/// Keeps a number of pieces; each turn gives back the oldest and takes another.
private struct Buffers: ~Copyable {
    private var pool: BufferPool
    private var held: [PooledBuffer] = []
    private var oldest = 0

    init(inFlight: Int) throws {
        pool = try BufferPool(capacityBytes: 64 << 20, largestBytes: 1 << 20)
        for _ in 0..<inFlight {
            guard let buffer = pool.take(bytes: 4096) else { preconditionFailure("the pool is new") }
            held.append(buffer)
        }
    }

    mutating func run(bytes: Int, count: Int) -> UInt64 {
        var sum: UInt64 = 0
        for _ in 0..<count {
            pool.give(held[oldest])
            guard let buffer = pool.take(bytes: bytes) else { preconditionFailure("one was just given back") }
            held[oldest] = buffer
            sum &+= UInt64(buffer.offset)
            oldest = oldest + 1 == held.count ? 0 : oldest + 1
        }
        return sum
    }
}
