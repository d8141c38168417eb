internal import MirrorCore

/// One thing that clients, administrators or fate do, for `Exploration`.
enum ScriptStep: Hashable {
    case write(Range<Int>)
    case forcedWrite(Range<Int>)
    case zeroes(Range<Int>)
    case trim(Range<Int>)
    case flush
    case read(Range<Int>)
    /// A write that fails on one plex; how much of it that disk takes all the same.
    case failingWrite(Range<Int>, disk: Int, effect: SimulatedDisk.Landing)
    /// The disk is pulled.
    case vanish(Int)
    /// It is put back, and given to the mirror again.
    case comeBack(Int)
    /// A new disk in a free place, to take the place of another; `Scenario` only.
    case replace(Int, disk: Int)
    /// A block, of the data or behind them of the spare pool, can be neither read nor written from now on; as are all
    /// up to `scrubAndRepair` in scripts of their `Exploration.Theme` only.
    case stick(Int, disk: Int)
    /// It can again.
    case unstick(Int)
    case reactivate(Int)
    /// A cell on the platter changes by itself.
    case rot(Int, disk: Int)
    case scrub
    /// With the version of this plex.
    case scrubAndRepair(Int)
    case breakOff(Int)
    case remove(Int)
    case takeOffline(Int)
    case stop
    case kill
    /// With all that was not flushed.
    case losePower

    /// Everything that can be done to a mirror of so many plexes. Cells: the writes overlap, or do not, and
    /// some cut blocks.
    static func alphabet(plexes: Int, blocks: Int) -> [ScriptStep] {
        let block = Geometry.sectorsPerBlock * Geometry.cellsPerSector
        let last = (blocks - 1) * block
        var steps: [ScriptStep] = [
            .write(0..<2 * block),
            .write(block..<2 * block),
            .write(last..<last + block),
            .write(block + 4..<block + 9),
            .forcedWrite(block..<2 * block),
            .zeroes(block + 3..<2 * block + 2),
            .trim(0..<2 * block),
            .flush,
            .stop, .kill, .losePower,
        ]
        for disk in 0..<plexes {
            steps += [
                .failingWrite(0..<2 * block, disk: disk, effect: .none),
                .failingWrite(0..<2 * block, disk: disk, effect: .torn),
                .vanish(disk), .comeBack(disk), .breakOff(disk), .remove(disk), .takeOffline(disk),
            ]
        }
        return steps
    }

    /// The disk that it names.
    var disk: Int? {
        switch self {
        case .failingWrite(_, let disk, _), .vanish(let disk), .comeBack(let disk), .breakOff(let disk),
            .remove(let disk), .takeOffline(let disk), .replace(_, let disk), .stick(_, let disk),
            .unstick(let disk), .reactivate(let disk), .rot(_, let disk), .scrubAndRepair(let disk):
            disk
        case .scrub: nil
        case .write, .forcedWrite, .zeroes, .trim, .flush, .read, .stop, .kill, .losePower: nil
        }
    }

    var isRestart: Bool {
        switch self {
        case .stop, .kill, .losePower: true
        case .write, .forcedWrite, .zeroes, .trim, .flush, .read, .failingWrite, .vanish, .comeBack, .breakOff, .remove,
            .takeOffline, .replace, .stick, .unstick, .reactivate, .rot, .scrub, .scrubAndRepair:
            false
        }
    }
}

/// When the next step follows.
enum Pace: Int, CaseIterable {
    /// At once: steps overlap.
    case together
    /// When the last is answered; what goes on in the background goes on.
    case answered
    /// When all has come to rest.
    case settled
}

extension ScriptStep: CustomStringConvertible {
    var description: String {
        switch self {
        case .write(let cells): "write \(cells)"
        case .forcedWrite(let cells): "fua \(cells)"
        case .zeroes(let cells): "zero \(cells)"
        case .trim(let cells): "trim \(cells)"
        case .flush: "flush"
        case .read(let cells): "read \(cells)"
        case .failingWrite(let cells, let disk, let effect): "write \(cells) failing on \(disk) (\(effect))"
        case .vanish(let disk): "vanish \(disk)"
        case .comeBack(let disk): "return \(disk)"
        case .replace(let plex, let disk): "replace \(plex) by \(disk)"
        case .stick(let block, let disk): "stick block \(block) on \(disk)"
        case .unstick(let disk): "unstick \(disk)"
        case .reactivate(let disk): "reactivate \(disk)"
        case .rot(let cell, let disk): "rot cell \(cell) on \(disk)"
        case .scrub: "scrub"
        case .scrubAndRepair(let disk): "repair by \(disk)"
        case .breakOff(let disk): "break \(disk)"
        case .remove(let disk): "remove \(disk)"
        case .takeOffline(let disk): "offline \(disk)"
        case .stop: "stop"
        case .kill: "kill"
        case .losePower: "power"
        }
    }
}
