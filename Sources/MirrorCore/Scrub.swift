package import MirrorFormat

/// What can be asked of the scrub.
package enum ScrubOrder: Sendable, Equatable {
    /// Compares everything, or with one under way goes on with it in this manner.
    case start(ScrubManner)
    case stop
    /// Bytes per second; nil: as fast as clients leave room for. Until the mirror is closed.
    case limit(UInt64?)
}

package struct ScrubManner: Sendable, Equatable {
    /// What is a hole on all plexes is read, too.
    package var readsHoles = false
    package var repairs = false
    /// Whose version counts; nil: that of a majority of three or more.
    package var preferred: PlexIndex?

    package init(readsHoles: Bool = false, repairs: Bool = false, preferred: PlexIndex? = nil) {
        self.readsHoles = readsHoles
        self.repairs = repairs
        self.preferred = preferred
    }
}

/// Comparing all plexes in sync, window by window, and what came of it.
///
/// Each window has a buffer of the resync's, and no clients' write is in flight in it (R13), so that a difference is
/// always one (R14). One plex is read into the buffer; the driver reads the others and compares. Wherever that finds
/// something, or a disk can't read, the range is halved, down to blocks of 4 KiB.
struct Scrub {
    /// What a window, or the repair of a block, is at.
    struct Job {
        var slot: Int
        var start: UInt64
        var end: UInt64
        /// Still to be compared, the next one last.
        var pieces: [Range<UInt64>] = []
        /// The one that is being compared, by which plexes, and what came of it.
        var piece: Range<UInt64> = 0..<0
        var compared = PlexSet.empty
        var differing = PlexSet.empty
        var unreadable = PlexSet.empty
        var checksums = [UInt32](repeating: 0, count: PlexSet.capacity)
        /// So much at the beginning is a hole on all plexes that were asked.
        var holeBytes = UInt64.max
        var part: Part
        /// Of a repair: whose version was found in no majority.
        var tried = PlexSet.empty
        /// A plex did not answer, and is waited for no more.
        var isLate = false

        init(slot: Int, _ range: Range<UInt64>) {
            self.slot = slot
            start = range.lowerBound
            end = range.upperBound
            pieces = [range]
            part = Part(start: start, end: end)
        }
    }

    /// A stretch that was compared, and the blocks that were noticed in it.
    struct Part {
        var start: UInt64
        var end: UInt64
        var found: UInt64 = 0
        var unreadable: UInt64 = 0
        var unrecorded: UInt64 = 0
    }

    /// A window that waits long for its lock lets so many others go ahead.
    private static let mostParts = 64

    private(set) var ledger: ScrubLedger
    /// What the ledger says of the scrub, and is behind with.
    var state: ScrubState
    /// By window of the resync.
    var jobs: [Job?]
    /// Windows start here or later.
    var cursor: UInt64 = 0
    /// Compared already, behind something that is not.
    private(set) var parts: [Part] = []
    var pace = Pace()
    /// Blocks to be repaired, by offset, the next one first.
    var repairs: [UInt64] = []
    /// Whose version wins if power fails in a repair: on record, durably.
    var pinned: PlexIndex?
    var isPumping = false
    var recordedAt: UInt64 = 0
    /// A scrub is begun by itself when the last was so long ago, in nanoseconds; nil: never.
    var interval: UInt64?
    /// Turns over the plexes that are read into the buffer.
    var turn = 0

    init(windows count: Int, _ ledger: ScrubLedger, dataBytes: UInt64) {
        self.ledger = ledger
        self.ledger.confine(to: dataBytes)
        state = self.ledger.state
        jobs = Array(repeating: nil, count: count)
        cursor = state.position
    }

    var openEntries: [Mismatch] { ledger.entries.compactMap { $0.flatMap { $0.isOpen ? $0 : nil } } }

    /// Blocks in which plexes are known to differ.
    var mismatches: UInt64 { UInt64(openEntries.count) + state.unrecorded }

    var isIdle: Bool { jobs.allSatisfy { $0 == nil } }

    // MARK: windows

    /// The next stretch that is neither compared nor being compared; nil: there is none.
    mutating func next(atMost bytes: UInt64, _ dataBytes: UInt64) -> Range<UInt64>? {
        guard parts.count < Self.mostParts || cursor <= state.position else { return nil }
        let taken = parts.map { $0.start..<$0.end } + jobs.compactMap { $0.map { $0.start..<$0.end } }
        while let range = taken.first(where: { $0.contains(cursor) }) { cursor = range.upperBound }
        guard cursor < dataBytes else { return nil }
        let end = taken.reduce(min(cursor + bytes, dataBytes)) { end, range in
            range.lowerBound > cursor ? min(end, range.lowerBound) : end
        }
        defer { cursor = end }
        return cursor..<end
    }

    mutating func compared(_ part: Part) {
        parts.append(part)
        while let index = parts.firstIndex(where: { $0.start == state.position }) {
            let next = parts.remove(at: index)
            state.position = next.end
            state.found += next.found
            state.unreadable += next.unreadable
            state.unrecorded += next.unrecorded
        }
    }

    mutating func begin(_ manner: ScrubManner, at unixNanoseconds: UInt64) {
        let lastFinished = state.lastFinished
        state = ScrubState()
        state.isRunning = true
        state.started = unixNanoseconds
        state.lastFinished = lastFinished
        cursor = 0
        parts = []
        follow(manner)
    }

    mutating func follow(_ manner: ScrubManner) {
        state.readsHoles = manner.readsHoles
        state.repairs = manner.repairs
        state.preferred = manner.preferred
        repairs = manner.repairs ? openEntries.map(\.offset).sorted() : []
    }

    // MARK: ledger

    /// - Returns: whether it is new; nil: there is no room for it.
    mutating func note(_ mismatch: Mismatch) -> Bool? {
        if let place = place(of: mismatch.offset), let known = ledger[place] {
            var entry = mismatch
            entry.firstSeen = known.firstSeen
            ledger[place] = entry
            return false
        }
        guard let place = freePlace else { return nil }
        ledger[place] = mismatch
        return true
    }

    /// Those that were closed longest ago make room.
    private var freePlace: Int? {
        if let place = ledger.entries.firstIndex(where: { $0 == nil }) { return place }
        return ledger.entries.indices.filter { ledger[$0]?.isOpen == false }
            .min { ledger[$0]?.closed ?? 0 < ledger[$1]?.closed ?? 0 }
    }

    /// Of the open entry about a block.
    private func place(of offset: UInt64) -> Int? {
        ledger.entries.firstIndex { $0?.offset == offset && $0?.isOpen == true }
    }

    /// All plexes of these are the same in the range.
    ///
    /// - Parameter members: those that the mirror has: of others nothing needs to be known any more.
    mutating func close(
        _ range: Range<UInt64>, same plexes: PlexSet, of members: PlexSet, source: PlexIndex? = nil,
        at unixNanoseconds: UInt64
    ) {
        for place in ledger.entries.indices {
            guard let entry = ledger[place], entry.isOpen, range.contains(entry.offset),
                entry.plexes.intersection(members).isSubset(of: plexes)
            else { continue }
            ledger[place]?.closed = unixNanoseconds
            ledger[place]?.source = source
        }
    }

    /// The block was repaired. If the ledger had no room for it, it counts no more.
    mutating func countRepaired(_ offset: UInt64) {
        state.repaired += 1
        guard place(of: offset) == nil else { return }
        if let index = parts.firstIndex(where: { $0.start <= offset && offset < $0.end && $0.unrecorded > 0 }) {
            parts[index].unrecorded -= 1
        } else if state.unrecorded > 0 {
            state.unrecorded -= 1
        }
    }

    /// The ledger is told how far the scrub got.
    mutating func record() {
        let state = state
        ledger.change { $0 = state }
    }

    var isBehind: Bool { ledger.state != state }
}
