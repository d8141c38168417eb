internal import Glibc

/// A piece of the pool; `bytes` is what was asked for, the piece itself is the next power of two.
package struct PooledBuffer: BitwiseCopyable {
    /// Byte offset in the pool.
    package var offset: Int
    package var bytes: Int
    var order: UInt8
    /// Of the pool's memory: a power of two.
    package var pieceBytes: Int { 1 << Int(order) }
}

/// One mapping, cut into power-of-two pieces of 4 KiB and more (Knowlton's buddy system, CACM 1965).
///
/// Page-aligned, as O_DIRECT wants it; taken once at start, so that memory for payloads has a hard limit and no
/// request allocates from the heap. Pages are backed by memory when first touched.
@safe package struct BufferPool: ~Copyable {
    private static let minimumOrder = 12
    private let base: UnsafeMutableRawPointer
    private let maximumOrder: Int
    package let capacityBytes: Int
    package private(set) var usedBytes = 0
    /// Per page: the order of the free piece that starts here, or 0.
    private var freeOrder: [UInt8]
    private var next: [Int32]
    private var previous: [Int32]
    private var heads: [Int32]

    /// - Parameter capacityBytes: a power of two times `largestBytes`.
    /// - Parameter largestBytes: the largest piece; a power of two.
    package init(capacityBytes: Int, largestBytes: Int) throws(SystemError) {
        precondition(largestBytes.nonzeroBitCount == 1 && capacityBytes % largestBytes == 0)
        let mapped = unsafe mmap(
            nil, capacityBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else {
            throw SystemError("mmap", number: errno)
        }
        unsafe base = mapped
        self.capacityBytes = capacityBytes
        maximumOrder = largestBytes.trailingZeroBitCount
        let pages = capacityBytes >> Self.minimumOrder
        freeOrder = Array(repeating: 0, count: pages)
        next = Array(repeating: -1, count: pages)
        previous = Array(repeating: -1, count: pages)
        heads = Array(repeating: -1, count: maximumOrder + 1)
        // Lowest addresses first, so that a quiet server touches few pages.
        for start in stride(from: capacityBytes - largestBytes, through: 0, by: -largestBytes) {
            push(start >> Self.minimumOrder, order: maximumOrder)
        }
    }

    deinit { _ = unsafe munmap(base, capacityBytes) }

    /// The piece's memory; valid until it is given back.
    package func pointer(_ buffer: PooledBuffer, at offset: Int = 0) -> UnsafeMutableRawPointer {
        precondition(offset >= 0 && offset <= buffer.bytes && buffer.offset + offset <= capacityBytes)
        return unsafe base + buffer.offset + offset
    }

    /// - Returns: nil when nothing large enough is free; the caller waits for a `give`.
    package mutating func take(bytes: Int) -> PooledBuffer? {
        let wanted = max(bytes, 1)
        var order = max(Self.minimumOrder, Int.bitWidth - (wanted - 1).leadingZeroBitCount)
        let target = order
        guard order <= maximumOrder else { return nil }
        while order <= maximumOrder, heads[order] < 0 { order += 1 }
        guard order <= maximumOrder else { return nil }
        let page = Int(heads[order])
        remove(page, order: order)
        while order > target {
            order -= 1
            push(page + (1 << (order - Self.minimumOrder)), order: order)
        }
        usedBytes += 1 << target
        return PooledBuffer(offset: page << Self.minimumOrder, bytes: bytes, order: UInt8(target))
    }

    package mutating func give(_ buffer: PooledBuffer) {
        var order = Int(buffer.order)
        var page = buffer.offset >> Self.minimumOrder
        usedBytes -= 1 << order
        while order < maximumOrder {
            let buddy = page ^ (1 << (order - Self.minimumOrder))
            guard buddy < freeOrder.count, freeOrder[buddy] == UInt8(order) else { break }
            remove(buddy, order: order)
            page = min(page, buddy)
            order += 1
        }
        push(page, order: order)
    }

    private mutating func push(_ page: Int, order: Int) {
        freeOrder[page] = UInt8(order)
        next[page] = heads[order]
        previous[page] = -1
        if heads[order] >= 0 { previous[Int(heads[order])] = Int32(page) }
        heads[order] = Int32(page)
    }

    private mutating func remove(_ page: Int, order: Int) {
        freeOrder[page] = 0
        if previous[page] >= 0 { next[Int(previous[page])] = next[page] } else { heads[order] = next[page] }
        if next[page] >= 0 { previous[Int(next[page])] = previous[page] }
    }
}
