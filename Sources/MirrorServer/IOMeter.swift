internal import Control
internal import MirrorCore
internal import NBDProtocol

/// Counts what was asked of a mirror, or of one of its plexes, and how long it took.
struct IOMeter {
    enum Kind: Int, CaseIterable {
        case read, write
        /// Trim as well.
        case zero
        case flush
        /// Superblocks, pages of the bitmap, blocks of the event log; of a plex only.
        case metadata

        init?(_ kind: DiskOperation.Kind) {
            switch kind {
            case .read: self = .read
            case .write: self = .write
            case .deallocate, .zero: self = .zero
            case .flush: self = .flush
            case .writeMetadata: self = .metadata
            case .compare, .checksum: self = .read
            case .queryAllocation, .findData: return nil
            }
        }

        init?(_ command: NBDProtocol.Command) {
            switch command {
            case .read: self = .read
            case .write: self = .write
            case .trim, .writeZeroes: self = .zero
            case .flush: self = .flush
            case .cache, .blockStatus: return nil
            }
        }
    }

    /// By kind, then by `LatencyScale`; empty until there is something to count.
    private var counts: [UInt64] = []
    private var bytes = InlineArray<5, UInt64>(repeating: 0)
    private var longest = InlineArray<5, UInt64>(repeating: 0)

    /// - Parameters:
    ///   - begun: monotonic nanoseconds; a little later than `now` if another thread read the clock.
    mutating func count(_ kind: Kind, bytes moved: UInt64, from begun: UInt64, to now: UInt64) {
        count(kind, bytes: moved, nanoseconds: now > begun ? now - begun : 0)
    }

    mutating func count(_ kind: Kind, bytes moved: UInt64, nanoseconds: UInt64) {
        let index = kind.rawValue
        if counts.isEmpty { counts = Array(repeating: 0, count: Kind.allCases.count * LatencyScale.bucketCount) }
        counts[index * LatencyScale.bucketCount + LatencyScale.bucket(nanoseconds: nanoseconds)] += 1
        bytes[index] &+= moved
        longest[index] = max(longest[index], nanoseconds)
    }

    func report(_ kind: Kind) -> LatencyReport {
        let first = kind.rawValue * LatencyScale.bucketCount
        return LatencyReport(
            bytes: bytes[kind.rawValue], counts: counts.dropFirst(first).prefix(LatencyScale.bucketCount),
            longest: longest[kind.rawValue])
    }
}
