/// How many requests of one kind there were since the server started, and how long they took.
///
/// A time is known to an eighth of itself: it is the upper end of the interval that it was counted in, at most the longest
/// time there was. It does not say more than one turn of the server's loop can tell, some ten microseconds under load.
public struct LatencyReport: Codable, Sendable, Equatable {
    public var requests: UInt64
    public var bytes: UInt64
    /// Half of them took no longer. Null, like all times, if there were none.
    public var p50Microseconds: Double?
    public var p99Microseconds: Double?
    public var p999Microseconds: Double?
    public var maxMicroseconds: Double?
    /// Pairs: so many microseconds at most and more than the pair before, and how many. Intervals without any are left out.
    public var histogram: [[Double]]

    /// - Parameters:
    ///   - counts: by interval of `LatencyScale`.
    ///   - longest: nanoseconds.
    package init(bytes: UInt64, counts: some Collection<UInt64>, longest: UInt64) {
        var histogram: [[Double]] = []
        for (bucket, count) in counts.enumerated() where count > 0 {
            histogram.append([Double(LatencyScale.upperNanoseconds(bucket)) / 1000, Double(count)])
        }
        self.init(bytes: bytes, histogram: histogram, longest: Double(longest) / 1000)
    }

    /// - Parameter longest: microseconds; nil: the end of the last interval.
    private init(bytes: UInt64, histogram: [[Double]], longest: Double?) {
        self.bytes = bytes
        self.histogram = histogram
        requests = histogram.reduce(0) { $0 + UInt64($1[1]) }
        guard let last = histogram.last else { return }
        let longest = min(longest ?? last[0], last[0])
        p50Microseconds = quantile(0.5, longest)
        p99Microseconds = quantile(0.99, longest)
        p999Microseconds = quantile(0.999, longest)
        maxMicroseconds = longest
    }

    private func quantile(_ part: Double, _ longest: Double) -> Double {
        let rank = (Double(requests) * part).rounded(.up)
        var passed = 0.0
        for entry in histogram {
            passed += entry[1]
            if passed >= rank { return min(entry[0], longest) }
        }
        return longest
    }

    /// What was added since an earlier report of the same server; all of it if that was another's.
    public func since(_ earlier: LatencyReport?) -> LatencyReport {
        guard let earlier, earlier.requests <= requests, earlier.bytes <= bytes else { return self }
        var before = Dictionary(earlier.histogram.map { ($0[0], $0[1]) }, uniquingKeysWith: +)
        let added = histogram.map { [$0[0], $0[1] - (before.removeValue(forKey: $0[0]) ?? 0)] }
        guard before.isEmpty, added.allSatisfy({ $0[1] >= 0 }) else { return self }
        let isLongestNew = maxMicroseconds != earlier.maxMicroseconds
        return LatencyReport(
            bytes: bytes - earlier.bytes, histogram: added.filter { $0[1] > 0 },
            longest: isLongestNew ? maxMicroseconds : nil)
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(requests, forKey: .requests)
        try container.encode(bytes, forKey: .bytes)
        try container.encode(p50Microseconds, forKey: .p50Microseconds)
        try container.encode(p99Microseconds, forKey: .p99Microseconds)
        try container.encode(p999Microseconds, forKey: .p999Microseconds)
        try container.encode(maxMicroseconds, forKey: .maxMicroseconds)
        try container.encode(histogram, forKey: .histogram)
    }
}

/// Intervals of time that grow by an eighth, from 128 ns to 137 s: eight to a power of two (as HdrHistogram's).
package enum LatencyScale {
    package static let bucketCount = 224

    @inline(__always)
    package static func bucket(nanoseconds: UInt64) -> Int {
        let units = nanoseconds >> 7
        guard units >= 8 else { return Int(units) }
        let exponent = 63 - units.leadingZeroBitCount
        return min(((exponent - 2) << 3) + Int(units >> UInt64(exponent - 3)) & 7, bucketCount - 1)
    }

    /// Times in the bucket are shorter.
    package static func upperNanoseconds(_ bucket: Int) -> UInt64 {
        guard bucket >= 8 else { return UInt64(bucket + 1) << 7 }
        return UInt64(bucket & 7 + 9) << UInt64((bucket >> 3) + 6)
    }
}
