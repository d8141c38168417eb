/// Keeps background work at a rate, and counts what it does.
struct Pace {
    /// Bytes per second; nil: no limit.
    private(set) var limit: UInt64?
    private var allowance: Int64 = 0
    private var allowanceAt: UInt64 = 0
    /// Done in the last whole second, and the running second's start.
    private(set) var bytesPerSecond: UInt64 = 0
    private var secondStart: UInt64 = 0
    private var secondBytes: UInt64 = 0

    mutating func limit(to rate: UInt64?, at nanoseconds: UInt64) {
        limit = rate
        allowance = 0
        allowanceAt = nanoseconds
    }

    /// So that a low limit does not mean a long stretch now and nothing for seconds.
    var largestWindow: UInt64 {
        guard let limit else { return .max }
        return max(limit / 16 / Limits.blockBytes, 1) * Limits.blockBytes
    }

    /// A bucket that fills at the rate of the limit, for a quarter of a second at most: longer than the server's ticks.
    mutating func mayGoOn(at nanoseconds: UInt64) -> Bool {
        guard let limit else { return true }
        // 1 GiB/s for an hour are 3.9e12 bytes; times a rate in nanoseconds that would not fit an integer.
        let grown = Double(limit) * Double(nanoseconds - allowanceAt) / 1e9
        guard grown >= 1 else { return allowance > 0 }
        allowanceAt = nanoseconds
        allowance = min(allowance + Int64(min(grown, 1e15)), Int64(max(limit / 4, Limits.blockBytes)))
        return allowance > 0
    }

    mutating func spend(_ bytes: UInt64) { if limit != nil { allowance -= Int64(bytes) } }

    mutating func giveBack(_ bytes: UInt64) { if limit != nil { allowance += Int64(bytes) } }

    mutating func begin(at nanoseconds: UInt64) {
        secondStart = nanoseconds
        secondBytes = 0
    }

    mutating func count(_ bytes: UInt64, at nanoseconds: UInt64) {
        secondBytes += bytes
        let elapsed = nanoseconds - secondStart
        guard elapsed >= 1_000_000_000 else { return }
        bytesPerSecond = UInt64(Double(secondBytes) * 1e9 / Double(elapsed))
        secondStart = nanoseconds
        secondBytes = 0
    }
}
