internal import BasicContainers
internal import MirrorCore

/// When scrubs begin by themselves, and how fast they may read.
struct ScrubPolicy: Sendable, Equatable {
    /// So long after the last one, or after the mirror was made; nil: never.
    var everySeconds: UInt64?
    /// Bytes per second of each plex; nil: no limit. An order of the user's holds until this changes.
    var limit: UInt64?

    /// A time such as 30d, 12h or 90m; nil: anything else.
    static func seconds(_ text: String) -> Int? {
        let units: [Character: Int] = ["d": 86_400, "h": 3600, "m": 60]
        guard let unit = text.last.flatMap({ units[$0] }), let count = number(text.dropLast()), count > 0,
            count <= 3_650 * 86_400 / unit
        else { return nil }
        return count * unit
    }

    /// A number of bytes such as 512, 4K or 20M; nil: anything else.
    static func bytes(_ text: String) -> UInt64? {
        let units: [Character: Int] = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30]
        let unit = text.last.flatMap { units[$0] }
        guard let count = number(unit == nil ? Substring(text) : text.dropLast()), count > 0, count < 1 << 31 else {
            return nil
        }
        return UInt64(count) * UInt64(unit ?? 1)
    }

    private static func number(_ digits: Substring) -> Int? {
        digits.allSatisfy { $0.isASCII && $0.isNumber } ? Int(digits) : nil
    }
}

extension Reactor {
    /// The tick's part: what the configuration says, when that has changed.
    mutating func followScrubPolicy(_ mirror: Int, _ policy: ScrubPolicy) {
        guard mirrors[mirror].scrubPolicy != policy else { return }
        if mirrors[mirror].scrubPolicy.limit != policy.limit { mirrors[mirror].mirror.limitScrub(policy.limit) }
        mirrors[mirror].scrubPolicy = policy
        mirrors[mirror].mirror.scheduleScrub(every: policy.everySeconds.map { $0 * 1_000_000_000 })
    }
}
