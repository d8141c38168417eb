/// What each cell may hold, judged from outside: from what clients sent and were told.
///
/// Per cell a list of versions in the order in which their writes were issued. All of them are what a power
/// loss may bring back; those that are `isVisible` are what a read may return now.
///
/// - An acknowledged write hides everything issued before it; forced unit access also drops it.
/// - An answered flush drops everything before the last write that was acknowledged when it was issued.
/// - A power loss makes all that are left visible again. SIGKILL changes nothing of what was acknowledged.
/// - A read that returns one of several hides the others; and among those from before the last start it
///   drops the others for ever (R7): what was once told must not flip.
struct Oracle {
    struct Version {
        var stamp: UInt32
        /// Order of issue over all cells.
        var issue: UInt32
        /// Moment of the acknowledgement in `clock`; nil: not acknowledged.
        var acknowledged: UInt32?
        var isInFlight: Bool
        var isVisible: Bool
        /// Number of the start of the server in which it was issued.
        var start: UInt32
        /// No client wrote it there: a disk lied, or a bit flipped. Without checksums nobody can tell.
        var isGhost = false
    }

    private(set) var cells: [[Version]]
    /// Counts issues and acknowledgements.
    private(set) var clock: UInt32 = 1
    private(set) var start: UInt32 = 0

    init(cellCount: Int) {
        let blank = Version(stamp: 0, issue: 0, acknowledged: 0, isInFlight: false, isVisible: true, start: 0)
        cells = Array(repeating: [blank], count: cellCount)
    }

    mutating func beginStart() { start += 1 }

    mutating func tick() -> UInt32 {
        clock += 1
        return clock
    }

    /// - Returns: the order number of the write.
    mutating func issue(_ range: Range<Int>, write: UInt32, isZero: Bool) -> UInt32 {
        let number = tick()
        for cell in range {
            let stamp = isZero ? 0 : Geometry.stamp(write: write, cell: cell)
            cells[cell].append(
                Version(
                    stamp: stamp, issue: number, acknowledged: nil, isInFlight: true, isVisible: true, start: start))
        }
        return number
    }

    mutating func acknowledge(_ range: Range<Int>, issue: UInt32, isDurable: Bool) {
        let moment = tick()
        for cell in range {
            var position = cells[cell].count - 1
            while position >= 0, cells[cell][position].issue != issue { position -= 1 }
            guard position >= 0 else { continue }
            cells[cell][position].isInFlight = false
            cells[cell][position].acknowledged = moment
            if isDurable {
                cells[cell].removeFirst(position)
            } else {
                for earlier in 0..<position { cells[cell][earlier].isVisible = false }
            }
        }
    }

    /// The client was told of an error: the write may have happened, or not, or in part.
    mutating func fail(_ range: Range<Int>, issue: UInt32) {
        for cell in range {
            for index in cells[cell].indices where cells[cell][index].issue == issue {
                cells[cell][index].isInFlight = false
            }
        }
    }

    /// A flush that was issued at `moment` is answered.
    mutating func flushed(since moment: UInt32) {
        for cell in cells.indices where cells[cell].count > 1 {
            let last = cells[cell].lastIndex { $0.acknowledged.map { $0 <= moment } ?? false }
            if let last, last > 0 { cells[cell].removeFirst(last) }
        }
    }

    func isLegal(_ stamp: UInt32, at cell: Int) -> Bool {
        cells[cell].contains { $0.isVisible && $0.stamp == stamp }
    }

    /// What a value was put there instead of, and hence what overwrites it.
    enum Haunting {
        /// This write of a client.
        case write(issue: UInt32)
        /// A copy between plexes, which excludes writes: those in flight wait for it.
        case copy
        /// It came by itself: those in flight may have been there before or come after.
        case now
    }

    /// A disk came to hold other values than it was given. Until the cell is written again they may be read,
    /// from this plex or from one that was copied from it, in turn with the right one.
    ///
    mutating func haunt(_ cell: Int, with stamps: [UInt32], from moment: Haunting) {
        let number = tick()
        let versions = cells[cell]
        let place =
            switch moment {
            case .write(let issue): versions.firstIndex { $0.issue == issue }.map { $0 + 1 }
            case .copy: versions.firstIndex { $0.isInFlight }
            case .now: versions.count
            }
        for stamp in stamps {
            let ghost = Version(
                stamp: stamp, issue: number, acknowledged: nil, isInFlight: false, isVisible: true, start: start,
                isGhost: true)
            cells[cell].insert(ghost, at: place ?? versions.count)
        }
    }

    /// Whether plexes may differ in the cell, through no fault of the engine's.
    func isHaunted(_ cell: Int) -> Bool { cells[cell].contains(where: \.isGhost) }

    /// A client has been told the value.
    mutating func observe(_ stamp: UInt32, at cell: Int, pins: Bool) {
        guard cells[cell].count > 1, !isHaunted(cell) else { return }
        let present = start
        let matches = cells[cell].filter { $0.isVisible && $0.stamp == stamp }
        let isOld = !matches.isEmpty && matches.allSatisfy { $0.start < present }
        for index in cells[cell].indices {
            let version = cells[cell][index]
            if version.stamp != stamp, !version.isInFlight { cells[cell][index].isVisible = false }
        }
        if isOld, pins { cells[cell].removeAll { $0.start < present && $0.stamp != stamp } }
    }

    /// The server is gone: nothing will be answered any more.
    mutating func crash(powerLost: Bool) {
        for cell in cells.indices {
            for index in cells[cell].indices {
                cells[cell][index].isInFlight = false
                guard powerLost, cells[cell].count > 1 else { continue }
                cells[cell][index].isVisible = true
                // Which of them it is nobody knows: no promise stands any more.
                cells[cell][index].acknowledged = nil
            }
        }
    }

    /// The server said that it stopped clean: what is visible is durable.
    mutating func stoppedClean() {
        for cell in cells.indices where cells[cell].count > 1 { cells[cell].removeAll { !$0.isVisible } }
    }

    /// The only legal value, if it was acknowledged by `moment` and nothing came after it.
    func settled(_ cell: Int, by moment: UInt32) -> UInt32? {
        guard let last = cells[cell].last, let acknowledged = last.acknowledged, acknowledged <= moment else {
            return nil
        }
        return last.stamp
    }

    /// Whether the value is legal when only writes issued up to `issue` count.
    func legal(through issue: UInt32) -> [[UInt32]] {
        cells.map { $0.filter { $0.isVisible && ($0.issue <= issue || $0.isGhost) }.map(\.stamp) }
    }

    func describe(_ cell: Int) -> String {
        cells[cell].map { version in
            let write = version.stamp >> Geometry.cellBits
            let mark = version.isInFlight ? "?" : version.acknowledged == nil ? "!" : ""
            return "\(write)\(mark)\(version.isVisible ? "" : "-")@\(version.start)"
        }.joined(separator: " ")
    }
}
