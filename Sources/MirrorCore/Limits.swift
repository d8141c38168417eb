package import MirrorFormat

/// Every bound of the mirror engine, in one place.
package struct Limits: Sendable {
    /// The unit of disk I/O and of the range lock. Requests that do not fit it are widened by
    /// read-modify-write; every disk made since 2011 takes it, so any disk can join any mirror.
    package static let blockBytes: UInt64 = 4096

    /// Client requests that one mirror holds at once.
    package var requests = 1024
    /// Of these beyond `requests`: resync windows and internal flushes.
    package var internalRequests = 24
    /// Resync windows in flight and their largest size, while no client is active.
    package var resyncWindowsIdle = 4
    package var resyncWindowBytes: UInt64 = 1 << 20
    /// While one is: as much as it hardly notices to wait for.
    package var resyncWindowsBusy = 1
    package var resyncWindowBytesBusy: UInt64 = 64 << 10
    /// How long after a client request the mirror counts as busy.
    package var clientActiveNanoseconds: UInt64 = 50_000_000
    /// Before an unreadable source is tried again.
    package var resyncRetryNanoseconds: UInt64 = 10_000_000_000
    /// How far a scrub got is recorded so often.
    package var scrubRecordNanoseconds: UInt64 = 5_000_000_000
    /// EAGAIN and the like, per operation, at once; afterwards the operation has failed.
    package var transientRetries: UInt8 = 16
    /// A write that failed on every plex alike is tried again so often, so far apart, before its error is
    /// told: a link that blinked must not cost a plex.
    package var commonFailureRetries: UInt8 = 3
    package var commonFailureRetryNanoseconds: UInt64 = 1_000_000_000
    /// A region's intent bit is cleared when nothing was written there for this long, and at most twice as long.
    package var cleanAfterNanoseconds: UInt64 = 5_000_000_000
    /// Intent bits are set so far ahead of a sequential writer, see `setAhead`.
    package var setAheadRegions = 32
    package var setAheadBytes: UInt64 = 64 << 20
    /// But not before it has crossed so many borders of regions, and at first no further than this.
    package var setAheadAfter = 2
    package var setAheadFirst = 8
    /// Pages of the bitmap and of the maps in flight at once, and of these at most so many of either.
    package var pageWrites = 8
    package var pageWritesPerKind = 4
    /// Bits of one page; smaller in the simulator.
    package var bitsPerPage = BitmapPage.bitCount
    /// Error counters are recorded at most so often.
    package var counterRecordNanoseconds: UInt64 = 10_000_000_000
    /// A plex that failed so often within that time does not come back unasked.
    package var failuresUntilDistrusted = 3
    package var distrustNanoseconds: UInt64 = 3_600_000_000_000
    /// A block that can't be written anew is tried again that much later.
    package var repairRetryNanoseconds: UInt64 = 600_000_000_000
    /// So many blocks that nobody can read may a plex lack that is made in sync nevertheless. Each two may become a
    /// range of its own on record, see `Record.badRangeCapacity`.
    package var blocksToGoWithout = 128
    /// So many blocks written anew within that time put a plex at risk.
    package var correctedUntilAtRisk = 10
    package var correctedNanoseconds: UInt64 = 600_000_000_000
    /// A plex whose bad blocks take longer than that to be put elsewhere is given up, if others have what it lacks.
    package var sparingNanoseconds: UInt64 = 5_000_000_000
    /// A plex that has owed a write for so long and done none meanwhile is given up, if another one is not late; 0: never,
    /// nor is any read hedged.
    package var writeDeadlineNanoseconds: UInt64 = 2_000_000_000
    /// A flush, or zeroing, may take so many times as long, and a single write beside others that are done.
    package var patienceFactor: UInt64 = 5
    package var patienceNanoseconds: UInt64 { writeDeadlineNanoseconds * patienceFactor }
    /// A read that takes longer, and ten times longer than 99 of 100 on that plex, is asked of another one as well.
    package var hedgeNanoseconds: UInt64 = 50_000_000
    /// In buffers of operations that were given up; beyond these they are waited for.
    package var pinnedBytes: UInt64 = 64 << 20
    /// Ticks that lie further apart tell of a process that stood still.
    package var stallNanoseconds: UInt64 = 1_000_000_000
    /// So often is it judged who is slow, and so many judgements in a row must agree.
    package var slowJudgeNanoseconds: UInt64 = 2_000_000_000
    package var slowJudgements = 3
    /// Half of its reads take longer than that, and so many times longer than on the fastest; or it was late for so many
    /// that another one answered first.
    package var slowNanoseconds: UInt64 = 5_000_000
    package var slowFactor: UInt64 = 5
    package var slowLosses = 4
    /// Reads that a slow plex gets nevertheless, from one judgement to the next.
    package var slowProbes = 4
    /// Events kept in memory for writing to plexes that lag behind; a multiple of `EventRecord.perBlock`.
    package var eventRing = 64

    package init() {}
}

/// A moment, as the reactor or the simulator tells it; the core has no clock.
package struct Instant: Sendable, BitwiseCopyable {
    /// Monotonic.
    package var nanoseconds: UInt64
    /// Nanoseconds since 1970, for people.
    package var unixNanoseconds: UInt64

    package init(nanoseconds: UInt64, unixNanoseconds: UInt64) {
        self.nanoseconds = nanoseconds
        self.unixNanoseconds = unixNanoseconds
    }
}

/// xoshiro256** (Blackman and Vigna, 2018), seeded from outside: by the operating system's entropy in the
/// server, by the seed in the simulator. The core draws generations and UUIDs from it.
package struct Entropy: Sendable, BitwiseCopyable {
    private var s0: UInt64
    private var s1: UInt64
    private var s2: UInt64
    private var s3: UInt64

    package init(_ s0: UInt64, _ s1: UInt64, _ s2: UInt64, _ s3: UInt64) {
        self.s0 = s0
        self.s1 = s1
        self.s2 = s2
        // The all-zero state is the generator's only fixed point.
        self.s3 = s0 | s1 | s2 | s3 == 0 ? 1 : s3
    }

    package mutating func next() -> UInt64 {
        let product = s1 &* 5
        let result = ((product << 7) | (product >> 57)) &* 9
        let shifted = s1 << 17
        s2 ^= s0
        s3 ^= s1
        s1 ^= s2
        s0 ^= s3
        s2 ^= shifted
        s3 = (s3 << 45) | (s3 >> 19)
        return result
    }

    package mutating func nextUUID() -> UUID128 { UUID128(high: next(), low: next()) }
}
