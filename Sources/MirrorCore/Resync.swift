internal import MirrorFormat

/// Regions that are to be copied to one target, and how far the copying got.
struct Sweep {
    /// A region stays until all of it is copied.
    var todo = RegionSet(count: 0)
    /// Regions of which a window could not be read; tried again in the next round.
    var skipped = RegionSet(count: 0)
    /// Windows start here or later.
    var position: UInt64 = 0
    /// Regions at the beginning, for the percentage.
    var total = 0

    init() {}

    init(_ todo: RegionSet) {
        self.todo = todo
        skipped = RegionSet(count: todo.count)
        suspect = RegionSet(count: todo.count)
        total = todo.population
    }

    var isDone: Bool { todo.isEmpty }
    /// Regions in which something could not be read: the next time block by block.
    var suspect = RegionSet(count: 0)

    /// The sweep may have ended meanwhile.
    mutating func suspect(_ regions: Range<Int>) { if regions.upperBound <= suspect.count { suspect.insert(regions) } }

    /// The next stretch to copy, at most `windowBytes`; nil: the end is reached.
    func next(_ regionBytes: UInt64, _ windowBytes: UInt64, _ dataBytes: UInt64) -> Range<UInt64>? {
        guard position < dataBytes, let region = todo.next(from: Int(position / regionBytes)) else { return nil }
        let start = max(position, UInt64(region) * regionBytes)
        var limit = min(todo.count, region + Int(windowBytes / regionBytes) + 2)
        if let next = suspect.next(from: region) { limit = min(limit, max(next, region + 1)) }
        if suspect.contains(region) { return start..<min(start + Limits.blockBytes, dataBytes) }
        let runEnd = UInt64(todo.endOfRun(from: region, limit: limit)) * regionBytes
        return start..<min(runEnd, start + windowBytes, dataBytes)
    }
}

/// Background copying: what plexes under rebuild have missed, and after a crash the dirty regions of the pinned plex
/// onto the other in-sync ones. Each target has a `Sweep` over the regions it needs, in windows of up to 1 MiB;
/// targets whose sweeps meet share the windows.
///
/// A window takes its range lock exclusively, reads, writes the targets, and lets go: a client's write comes
/// wholly before it (and is copied) or wholly after (and goes to the targets itself). It can't overwrite
/// a newer write (R13).
struct Resync {
    struct Window: BitwiseCopyable {
        var slot: Int
        var isUsed = false
        var start: UInt64 = 0
        var end: UInt64 = 0
        var targets = PlexSet.empty
        var equalises = false
    }

    /// The sweep that makes plexes equal after a crash comes behind those of the eight plexes.
    static let equaliser = PlexSet.capacity

    var sweeps: [Sweep] = Array(repeating: Sweep(), count: PlexSet.capacity + 1)
    /// Blocks that nobody could read, by the plex that goes without them.
    var uncopied = Array(repeating: BadBlocks(), count: PlexSet.capacity)
    private(set) var hasUncopied = false
    var isEqualiseFlushing = false
    /// When the flush at the end of that is tried again.
    var flushRetryAt: UInt64 = 0
    var promoting = PlexSet.empty
    /// Got a window since their last flush was begun.
    var unflushed = PlexSet.empty
    var windows: [Window]
    /// Set while the source of some window can't be read: when to try again, and where it failed.
    var retryAt: UInt64 = 0
    var blockedAt: UInt64?
    var isAnnounced = false
    /// Bytes copied since the announcement.
    var copied: UInt64 = 0
    /// By the user's order: nothing is begun.
    var isPaused = false
    /// By the user's order: what was copied is read back and compared.
    var isVerifying = false
    var priority = ResyncPriority.normal
    /// The mirror whose copying comes first, so that nothing is begun here.
    var isBehind: String?
    private var pace = Pace()
    /// The last that was finished since the start.
    var last: Finished?

    struct Finished {
        var plex: PlexIndex?
        var copied: UInt64
        var reason: String
    }

    init(windows count: Int) { windows = Array(repeating: Window(slot: -1), count: count) }

    /// Where working plexes may differ.
    var unequal: RegionSet { sweeps[Self.equaliser].todo }

    var windowsInFlight: Int { windows.reduce(0) { $0 + ($1.isUsed ? 1 : 0) } }

    func hasWindow(_ sweep: Int, in range: Range<UInt64>) -> Bool {
        windows.contains { window in
            window.isUsed && window.start < range.upperBound && range.lowerBound < window.end
                && (sweep == Self.equaliser ? window.equalises : window.targets.contains(PlexIndex(sweep)))
        }
    }

    /// A window of the sweep is done, or was in vain.
    mutating func ended(
        _ sweep: Int, _ window: Range<UInt64>, isCopied: Bool, regionBytes: UInt64, dataBytes: UInt64
    ) {
        let first = Int(window.lowerBound / regionBytes)
        let end = Int((window.upperBound + regionBytes - 1) / regionBytes)
        guard end <= sweeps[sweep].todo.count else { return }
        for region in first..<end {
            if !isCopied { sweeps[sweep].skipped.insert(region) }
            let range = UInt64(region) * regionBytes..<min(UInt64(region + 1) * regionBytes, dataBytes)
            let isWhole =
                sweeps[sweep].position >= range.upperBound && !sweeps[sweep].skipped.contains(region)
                && !hasWindow(sweep, in: range)
            guard isWhole else { continue }
            sweeps[sweep].todo.remove(region)
            sweeps[sweep].suspect.remove(region)
        }
    }

    /// The regions must be copied again, or for the first time.
    mutating func again(_ sweep: Int, _ regions: Range<Int>, regionBytes: UInt64) {
        sweeps[sweep].todo.insert(regions)
        sweeps[sweep].position = min(sweeps[sweep].position, UInt64(regions.lowerBound) * regionBytes)
    }

    mutating func lookForUncopied() { hasUncopied = uncopied.contains { !$0.isEmpty } }

    // MARK: limit

    /// Bytes per second; nil: no limit.
    var limit: UInt64? { pace.limit }

    mutating func limit(to rate: UInt64?, at nanoseconds: UInt64) { pace.limit(to: rate, at: nanoseconds) }

    var largestWindow: UInt64 { pace.largestWindow }

    mutating func mayCopy(at nanoseconds: UInt64) -> Bool { pace.mayGoOn(at: nanoseconds) }

    mutating func spend(_ bytes: UInt64) { pace.spend(bytes) }

    var bytesPerSecond: UInt64 { pace.bytesPerSecond }

    mutating func beginCounting(at nanoseconds: UInt64) {
        copied = 0
        pace.begin(at: nanoseconds)
    }

    mutating func count(_ bytes: UInt64, at nanoseconds: UInt64) {
        copied += bytes
        pace.count(bytes, at: nanoseconds)
    }
}
