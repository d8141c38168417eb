internal import MirrorFormat

/// How long operations have been under way, and those that nobody waits for any more.
///
/// A disk may take an operation and never answer. The operation can't be taken back: its buffer must stay as it is, and
/// what it writes may land at any time. So a plex that does not answer is taken out like one that fails (R3), whoever
/// waited for it goes on as after an error, and the operation is remembered until its completion comes; until then the
/// disk stays open and is not taken back.
struct Lateness {
    /// An operation of the engine's own; those of slots are found there.
    struct Operation: BitwiseCopyable {
        var tag: UInt64
        var submittedAt: UInt64
    }

    /// Nobody waits for it.
    struct Zombie: BitwiseCopyable {
        var tag: UInt64
        var bytes: UInt64
        /// The read of a plex that stays in use: its completion is to be counted there.
        var isRead: Bool
        var isFlush: Bool
    }

    /// In order of submission.
    var operations: [Operation] = []
    var zombies: [Zombie] = []
    /// Of buffers that zombies keep from being used.
    var pinnedBytes: UInt64 = 0
    var tickedAt: UInt64 = 0
    /// Nobody was late before: this process stood still itself.
    var judgedFrom: UInt64 = 0
    /// No good plex answers; since when.
    var allLateSince: UInt64?

    mutating func begun(_ tag: DiskTag, at nanoseconds: UInt64) {
        operations.append(Operation(tag: tag.raw, submittedAt: nanoseconds))
    }

    mutating func ended(_ tag: DiskTag) {
        guard let position = operations.firstIndex(where: { $0.tag == tag.raw }) else { return }
        operations.remove(at: position)
    }

    mutating func add(_ tag: DiskTag, bytes: UInt64, isRead: Bool, isFlush: Bool = false) {
        zombies.append(Zombie(tag: tag.raw, bytes: bytes, isRead: isRead, isFlush: isFlush))
        pinnedBytes += bytes
    }

    /// - Returns: what was given up and has ended now; nil: somebody waits for it.
    mutating func reap(_ tag: DiskTag) -> Zombie? {
        guard !zombies.isEmpty, let position = zombies.firstIndex(where: { $0.tag == tag.raw }) else { return nil }
        let zombie = zombies.remove(at: position)
        pinnedBytes -= zombie.bytes
        return zombie
    }

    func zombies(of plex: PlexIndex) -> Int { zombies.count { DiskTag(raw: $0.tag).plex == plex } }
}

/// What one plex owes: when the oldest operation of each sort was submitted; nil: none is under way.
struct Owed: BitwiseCopyable {
    var write: UInt64?
    /// Flushes and zeroing, which may take their time.
    var flush: UInt64?
    var read: UInt64?

    mutating func add(_ kind: DiskOperation.Kind, _ submittedAt: UInt64) {
        switch kind {
        case .write, .writeMetadata: write = min(write ?? .max, submittedAt)
        case .flush, .deallocate, .zero: flush = min(flush ?? .max, submittedAt)
        case .read, .queryAllocation, .compare, .checksum, .findData: read = min(read ?? .max, submittedAt)
        }
    }
}

/// How long reads of one plex take: counts by power of two and quarter, so that a percentile is right within a quarter.
/// Old ones fade: all counts are halved now and then.
struct ReadTimes {
    private var counts = InlineArray<128, UInt16>(repeating: 0)
    private var total: UInt32 = 0
    private static let most: UInt32 = 4096

    /// - Parameter nanoseconds: from about a microsecond on they are told apart.
    mutating func count(_ nanoseconds: UInt64) {
        counts[Self.bucket(nanoseconds)] += 1
        total += 1
        if total >= Self.most { fade() }
    }

    mutating func fade() {
        total = 0
        for index in counts.indices {
            counts[index] >>= 1
            total += UInt32(counts[index])
        }
    }

    /// Few are kept until there are more.
    mutating func fadeIfMany() { if total >= 64 { fade() } }

    /// Upper bound of the time within which `share` of a thousand were done; nil: too few are known.
    func within(_ share: UInt32) -> UInt64? {
        guard total >= 16 else { return nil }
        let wanted = (UInt64(total) * UInt64(share) + 999) / 1000
        var seen: UInt64 = 0
        for index in counts.indices {
            seen += UInt64(counts[index])
            if seen >= wanted { return Self.bound(index) }
        }
        return nil
    }

    private static func bucket(_ nanoseconds: UInt64) -> Int {
        let value = max(nanoseconds >> 8, 4)
        let power = 63 - value.leadingZeroBitCount
        return min(127, (power - 2) * 4 + Int((value >> (power - 2)) & 3))
    }

    private static func bound(_ bucket: Int) -> UInt64 {
        let power = bucket / 4 + 2
        return ((UInt64(bucket % 4) + 5) << (power - 2)) << 8
    }
}
