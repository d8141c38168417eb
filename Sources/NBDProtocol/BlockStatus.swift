/// A piece of the export as the engine knows it; pieces follow one another from the offset of the request.
package struct AllocationExtent: Sendable, BitwiseCopyable, Equatable {
    package var lengthBytes: UInt64
    package var flags: UInt32

    package init(lengthBytes: UInt64, flags: UInt32) {
        self.lengthBytes = lengthBytes
        self.flags = flags
    }
}

/// A piece of the export as a BLOCK_STATUS reply tells it.
package struct Extent: Sendable, BitwiseCopyable, Equatable {
    package var lengthBytes: UInt32
    package var flags: UInt32

    package init(lengthBytes: UInt32, flags: UInt32) {
        self.lengthBytes = lengthBytes
        self.flags = flags
    }
}

/// The context `base:allocation`. Source: `doc/proto.md`, "`base:` metadata context".
package enum BlockStatus {
    package static let contextName: StaticString = "base:allocation"
    /// Writing here may need space. Clear, it promises that a write will not fail with ENOSPC.
    package static let hole: UInt32 = 1 << 0
    /// Reads as zeroes. Clear, it promises nothing.
    package static let zero: UInt32 = 1 << 1

    /// Turns what the engine knows into the extents of a reply: equal neighbours merged, none of length 0, nothing
    /// beyond the request (so that a reply of REQ_ONE and any other obey the same bound), at most
    /// `maximumExtents`, and exactly one with `reqOne`.
    ///
    /// Example: a request of 100 over (30, hole), (20, hole), (0, data), (80, data) gives (50, hole), (50, data);
    /// with `reqOne` only (50, hole).
    ///
    /// The reply may cover less than the request, which the protocol allows: the client asks again from there. If
    /// `allocation` says nothing, the reply is "data" for the whole request, which is always true.
    ///
    /// - Parameters:
    ///   - requestBytes: not 0; the request lies inside the export.
    ///   - reply: storage that is used again; does not allocate if its capacity is `maximumExtents`.
    package static func reduce(
        _ allocation: Span<AllocationExtent>, requestBytes: UInt32, reqOne: Bool, maximumExtents: Int,
        into reply: inout [Extent]
    ) {
        precondition(requestBytes > 0 && maximumExtents > 0)
        reply.removeAll(keepingCapacity: true)
        let limit = reqOne ? 1 : maximumExtents
        var remaining = requestBytes
        var last = Extent(lengthBytes: 0, flags: 0)
        for index in allocation.indices where remaining > 0 && allocation[index].lengthBytes > 0 {
            let flags = allocation[index].flags
            if last.lengthBytes > 0 && flags != last.flags {
                reply.append(last)
                last.lengthBytes = 0
                if reply.count == limit { return }
            }
            let taken = UInt32(min(allocation[index].lengthBytes, UInt64(remaining)))
            last = Extent(lengthBytes: last.lengthBytes + taken, flags: flags)
            remaining -= taken
        }
        reply.append(last.lengthBytes > 0 ? last : Extent(lengthBytes: requestBytes, flags: 0))
    }
}
