internal import MirrorFormat

/// What plexes could not read and others could: to be narrowed down to single blocks and written anew in place.
struct Repairs {
    struct Suspect: BitwiseCopyable {
        var plex: PlexIndex
        var start: UInt64
        var end: UInt64
        /// Reading it failed; otherwise that is to be found out.
        var isBad: Bool
        /// It is to come out of the spare pool.
        var isPutBack = false
    }

    /// Beyond these nothing is noted: it is found again by whoever reads there next.
    static let mostSuspects = 256

    /// The next one last.
    private(set) var suspects: [Suspect] = []
    /// The slot of the repair that is being done, one at a time.
    var slot: Int?
    /// The resync window whose buffer it has.
    var window = 0
    var isPumping = false
    var puttingBack: PuttingBack?

    func covers(_ plex: PlexIndex, _ start: UInt64, _ end: UInt64) -> Bool {
        suspects.contains { $0.plex == plex && $0.start <= start && $0.end >= end }
    }

    mutating func add(_ suspect: Suspect) {
        guard suspects.count < Self.mostSuspects, !covers(suspect.plex, suspect.start, suspect.end) else { return }
        suspects.insert(suspect, at: 0)
    }

    /// The lower half comes first.
    mutating func halve(_ suspect: Suspect) {
        let blocks = (suspect.end - suspect.start) / Limits.blockBytes
        let middle = suspect.start + blocks / 2 * Limits.blockBytes
        suspects.append(Suspect(plex: suspect.plex, start: middle, end: suspect.end, isBad: false))
        suspects.append(Suspect(plex: suspect.plex, start: suspect.start, end: middle, isBad: false))
    }

    var areWaiting: Bool { !suspects.isEmpty }

    mutating func push(_ suspect: Suspect) { suspects.append(suspect) }

    mutating func next() -> Suspect? { suspects.popLast() }
}

/// Blocks of one plex that can be neither read nor written anew, and how often that went well lately.
struct BadBlocks {
    /// Beyond these they are counted no more: the disk is past saving.
    static let most = 4096

    /// Byte offsets, ascending.
    private(set) var offsets: [UInt64] = []
    /// When they are tried again.
    var retryAt: UInt64 = 0
    /// When the last blocks were written anew, or put into the spare pool: nanoseconds since 1970, oldest first.
    private var corrected: [UInt64] = []

    var isEmpty: Bool { offsets.isEmpty }

    mutating func insert(_ offset: UInt64) {
        guard offsets.count < Self.most else { return }
        let position = offsets.firstIndex { $0 >= offset } ?? offsets.count
        if position < offsets.count, offsets[position] == offset { return }
        offsets.insert(offset, at: position)
    }

    mutating func remove(_ range: Range<UInt64>) { offsets.removeAll { range.contains($0) } }

    func overlaps(_ offset: UInt64, _ length: UInt64) -> Bool {
        offsets.contains { $0 < offset + length && offset < $0 + Limits.blockBytes }
    }

    /// Neighbours joined: offset and length in bytes.
    var ranges: [(offset: UInt64, length: UInt64)] {
        Record.runs(of: offsets).map { ($0.lowerBound, $0.upperBound - $0.lowerBound) }
    }

    mutating func countCorrected(at unixNanoseconds: UInt64, _ limits: Limits) {
        corrected.append(unixNanoseconds)
        if corrected.count > limits.correctedUntilAtRisk { corrected.removeFirst() }
    }

    /// So many blocks had to be written anew in so short a time that more will follow.
    func isWearingOut(at unixNanoseconds: UInt64, _ limits: Limits) -> Bool {
        guard corrected.count >= limits.correctedUntilAtRisk, let oldest = corrected.first else { return false }
        // A clock that was set back makes nothing younger.
        return oldest > unixNanoseconds || unixNanoseconds - oldest < limits.correctedNanoseconds
    }

    mutating func forgetCorrected() { corrected = [] }
}
