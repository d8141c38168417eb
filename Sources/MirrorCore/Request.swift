internal import MirrorFormat

/// The driver's name for a client request; opaque to the core.
package struct RequestID: Hashable, Sendable, BitwiseCopyable {
    package var value: UInt64
    package init(_ value: UInt64) { self.value = value }
}

/// Names a buffer of the driver's. Payload bytes never enter the core.
package struct BufferID: Hashable, Sendable, BitwiseCopyable {
    package var value: UInt32
    package init(_ value: UInt32) { self.value = value }

    package static let none = BufferID(.max)
    private static let windowBase: UInt32 = 0xFFFF_0000

    /// One of the `resyncWindowsIdle` buffers of `resyncWindowBytes` that the driver keeps for the resync.
    package static func window(_ index: Int) -> BufferID { BufferID(windowBase + UInt32(index)) }

    package var windowIndex: Int? {
        value >= Self.windowBase && self != .none ? Int(value - Self.windowBase) : nil
    }

    /// As large as the request's own, for a read that another plex has not answered. The driver makes it when an
    /// operation names it, and gives it up when that has ended, unless it is adopted (`Effect.adopt`).
    func copy(for plex: PlexIndex) -> BufferID { BufferID(value | UInt32(plex.value + 1) << Self.copyShift) }

    private static let copyShift: UInt32 = 24

    /// 0: the request's own.
    package var copyNumber: Int { windowIndex == nil && self != .none ? Int(value >> Self.copyShift) : 0 }

    /// The request's own, of a copy.
    package var original: BufferID {
        windowIndex == nil && self != .none ? BufferID(value & (1 << Self.copyShift - 1)) : self
    }
}

package enum RequestKind: UInt8, Sendable, BitwiseCopyable {
    case read
    case write
    /// Zeroes that may be holes or must be allocated, see `Request.mayDeallocate`.
    case zeroes
    /// Contents are dropped; they read as zero afterwards, on all plexes alike (R15).
    case trim
    case flush
    /// Which parts are holes; the driver asks the plex that the core names.
    case allocation
}

/// What a client asks for. Offset and length are in bytes, any alignment, inside the mirror.
package struct Request: Sendable, BitwiseCopyable {
    package var id: RequestID
    package var kind: RequestKind
    package var offset: UInt64
    package var length: UInt64
    package var isForcedUnitAccess: Bool
    package var mayDeallocate: Bool
    package var buffer: BufferID

    package init(
        id: RequestID, kind: RequestKind, offset: UInt64 = 0, length: UInt64 = 0, isForcedUnitAccess: Bool = false,
        mayDeallocate: Bool = true, buffer: BufferID = .none
    ) {
        self.id = id
        self.kind = kind
        self.offset = offset
        self.length = length
        self.isForcedUnitAccess = isForcedUnitAccess
        self.mayDeallocate = mayDeallocate
        self.buffer = buffer
    }
}

package enum ReplyStatus: UInt8, Sendable, BitwiseCopyable {
    case ok
    case ioError
    case noSpace
    case shuttingDown
    /// Answer to `.allocation` where no plex may be asked: everything counts as allocated.
    case allAllocated
}

/// Where a request's bytes lie in its buffer.
///
/// A request is widened to whole blocks of 4 KiB: `body`. The client's bytes lie at `payloadOffset` in it.
/// A write whose edges cut a block needs the rest of that block from the disk: it is read into one of two
/// scratch blocks behind the body and copied into place. Example: write of 1,000 bytes at 5,000: body
/// 4096..<8192 (4,096 bytes), payload at 904, scratch at 4,096, 8,192 bytes... 12,288 in all.
/// Zeroes with cut edges need only the two edge blocks, at 0 and 4,096.
package struct BufferPlan: Sendable, BitwiseCopyable {
    package let bodyOffset: UInt64
    package let bodyLength: UInt64
    package let payloadOffset: UInt64
    package let cutsHead: Bool
    package let cutsTail: Bool
    /// How large the buffer must be.
    package let bufferBytes: UInt64

    package init(_ kind: RequestKind, offset: UInt64, length: UInt64) {
        let block = Limits.blockBytes
        let end = offset + length
        bodyOffset = offset & ~(block - 1)
        let bodyEnd = (end + block - 1) & ~(block - 1)
        bodyLength = length == 0 ? 0 : bodyEnd - bodyOffset
        payloadOffset = offset - bodyOffset
        cutsHead = length > 0 && offset != bodyOffset
        cutsTail = length > 0 && end != bodyEnd
        switch kind {
        case .read: bufferBytes = bodyLength
        case .write: bufferBytes = bodyLength + (cutsHead || cutsTail ? 2 * block : 0)
        case .zeroes: bufferBytes = cutsHead || cutsTail ? 2 * block : 0
        case .trim, .flush, .allocation: bufferBytes = 0
        }
    }
}
