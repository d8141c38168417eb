package import MirrorFormat

/// Names an operation until its completion is reaped. Fits the 64 bits that io_uring carries.
package struct DiskTag: Hashable, Sendable, BitwiseCopyable {
    package enum Owner: UInt8, Sendable, BitwiseCopyable {
        case request, commit, eventLog, detach, bitmap, scrub, sparing
    }

    package let raw: UInt64

    /// - Parameters:
    ///   - slot: below 65,536.
    ///   - generation: of the slot, so that a late completion is never taken for another's.
    init(owner: Owner, plex: PlexIndex, slot: Int, generation: UInt32) {
        raw =
            UInt64(owner.rawValue) << 56 | UInt64(plex.value) << 48 | UInt64(UInt16(slot)) << 32
            | UInt64(generation)
    }

    package init(raw: UInt64) { self.raw = raw }

    package var plex: PlexIndex { PlexIndex(Int((raw >> 48) & 7)) }
    /// Of the slot, or whatever else an operation belongs to.
    package var generationOfSlot: UInt32 { generation }
    var owner: Owner { Owner(rawValue: UInt8(raw >> 56)) ?? .detach }
    var slot: Int { Int((raw >> 32) & 0xFFFF) }
    var generation: UInt32 { UInt32(truncatingIfNeeded: raw) }
}

/// One thing to do on one plex's disk. The completion must come back exactly once, in any order.
package struct DiskOperation: Sendable, BitwiseCopyable {
    package enum Kind: UInt8, Sendable, BitwiseCopyable {
        case read
        case write
        /// Make `length` bytes read as zero, freeing them.
        case deallocate
        /// Make `length` bytes read as zero, keeping them allocated.
        case zero
        case flush
        /// 4 KiB whose bytes `Mirror.encodeMetadata` supplies when the effect is taken; always durable.
        case writeMetadata
        /// Ask which parts of the range are holes; the result stays with the driver, for `request`.
        case queryAllocation
        /// Read it and compare it with the buffer; failed(differs) if it is not the same.
        case compare
        /// Read it; the result is its CRC-32C.
        case checksum
        /// How much of the range, from its beginning, is a hole; 0 where nobody knows.
        case findData

        /// Bytes of the operation lie in a buffer of the request's or the window's.
        var holdsBuffer: Bool {
            switch self {
            case .read, .write, .compare: true
            case .deallocate, .zero, .flush, .writeMetadata, .queryAllocation, .checksum, .findData: false
            }
        }
    }

    package var tag: DiskTag
    package var plex: PlexIndex
    package var kind: Kind
    /// Durable when completed: RWF_DSYNC, or a flush behind it.
    package var isDurable: Bool
    /// Of a write: stretches of zeroes may be made to read as zero instead, and freed.
    package var isSparse = false
    /// Of a write, or the zeroing of a block: it is read back before it counts as done, and compared.
    package var isVerified = false
    /// Of what reads: from the disk itself, not from a cache.
    package var isUncached = false
    package var buffer: BufferID
    package var bufferOffset: UInt64
    package var offset: UInt64
    package var length: UInt64
    package var request: RequestID
}

package enum DiskErrorKind: UInt8, Sendable, BitwiseCopyable {
    /// This range of this disk.
    case media
    /// Thin backing is full.
    case noSpace
    /// To be tried again; never counted.
    case transient
    /// Our mistake or an alignment: never a media error.
    case unsupported
    /// The device is not there any more.
    case gone
    /// What was written does not read back; with an error number it can't be read at all.
    case differs
    /// A flush behind the write failed: anything written before may be lost, too.
    case lost
    /// It did not answer in time. What was asked of it may happen yet.
    case late
}

package struct DiskFailure: Sendable, Hashable, BitwiseCopyable {
    package var kind: DiskErrorKind
    package var errorNumber: Int32

    package init(kind: DiskErrorKind, errorNumber: Int32) {
        self.kind = kind
        self.errorNumber = errorNumber
    }

    /// The table of 3-correctness, "Errors". Linux error numbers, written out because the core imports no C.
    ///
    /// - Parameter isBlockDevice: a disk that was pulled while open answers ENOSPC to writes.
    package init(errorNumber: Int32, isBlockDevice: Bool) {
        self.errorNumber = errorNumber
        switch errorNumber {
        case 28, 122, 27: kind = isBlockDevice ? .gone : .noSpace  // ENOSPC, EDQUOT, EFBIG
        case 11, 4, 12, 16: kind = .transient  // EAGAIN, EINTR, ENOMEM, EBUSY
        case 22, 95: kind = .unsupported  // EINVAL, EOPNOTSUPP
        case 6, 19, 9, 107, 103, 116: kind = .gone  // ENXIO, ENODEV, EBADF, ENOTCONN, ECONNABORTED, ESTALE
        default: kind = .media  // EIO, EREMOTEIO, ENODATA, EILSEQ, and whatever else a driver invents
        }
    }

    /// The driver has looked, and the disk is not there any more: it was pulled out. ENODEV.
    package static let absent = DiskFailure(kind: .gone, errorNumber: 19)

    /// A read or write that moved nothing: the backing was truncated or the disk pulled.
    package static let truncated = DiskFailure(kind: .gone, errorNumber: 0)
}

package enum DiskResult: Sendable, BitwiseCopyable {
    /// Bytes moved, for reads and writes; what `checksum` and `findData` say; for anything else the number means
    /// nothing.
    case transferred(UInt64)
    case failed(DiskFailure)
}
