internal import MirrorCore
internal import MirrorFormat

/// One life of the server process: the engine and what the real driver keeps beside it.
final class Server {
    var mirror: Mirror
    let isReadOnly: Bool
    /// The disk behind each plex, while it is open.
    var disks: [Int?]
    var windows: [[UInt32]]
    var isStopping = false
    /// Whose flush failed before the mirror opened. If that was all of them, nothing read is known to last.
    var openFlushFailed = PlexSet.empty
    var openedWith = PlexSet.empty
    var isOpenedInDoubt: Bool { !openFlushFailed.isEmpty && openedWith.isSubset(of: openFlushFailed) }
    /// The in-sync set of the last record seen on disk.
    var knownInSync = PlexSet.empty
    /// Who was a plex, and whom it was to replace, when that was last looked at.
    var members = PlexSet.empty
    var replacing: [PlexIndex?] = []
    /// The highest that a leading disk showed.
    var knownEpoch: UInt64 = 0

    init(mirror: consuming Mirror, isReadOnly: Bool, disks: [Int?], windows: [[UInt32]]) {
        self.mirror = mirror
        self.isReadOnly = isReadOnly
        self.disks = disks
        self.windows = windows
    }
}

/// A request of a client, from issue to reply and a little beyond.
struct ClientRequest {
    var request: Request
    var plan: BufferPlan
    var buffer: [UInt32]
    /// Cells of the payload.
    var cells: Range<Int>
    var write: UInt32 = 0
    /// See `Oracle.issue`; for flushes the moment of issue.
    var issue: UInt32 = 0
    var isAnswered = false
    /// Where an operation on its behalf failed.
    var failed = PlexSet.empty
    var operations = 0
}

/// An operation on its way through a disk.
struct Flight {
    enum Plan {
        case succeed
        /// Moves only so many bytes.
        case short(UInt64)
        case fail(errorNumber: Int32, effect: SimulatedDisk.Landing)
        /// A flush that fails and loses data.
        case loseFlush(errorNumber: Int32)
        /// A write that is said to have succeeded and never happened.
        case drop
        /// A write that happened to another block.
        case misdirect(toBlock: Int)
    }

    var operation: DiskOperation
    var disk: Int
    var plan: Plan
    var metadata: [UInt8] = []
    var isExecuted = false
    /// Its own: a copy of a request's buffer, or one that nobody else uses any more; nil: that of its request or window.
    var memory: [UInt32]?
    /// Nobody waits for it.
    var isZombie = false
    /// Position in the disk's order of execution at submission (flush) or execution (write).
    var mark: UInt64 = 0
}

/// A command and what is to be checked when it is answered.
struct PendingCommand {
    enum Kind { case breakOff, remove, takeOffline, join, resync, scrub, other, stop }
    var id: UInt64
    var kind: Kind
    var plex: PlexIndex
    var disk: Int
    /// Break: writes that were under way when it was given.
    var awaited: [Int] = []
    var cut: UInt32 = 0
    var isExact = false
    /// Break: what the copy may hold.
    var copy: [[UInt32]]?
}
