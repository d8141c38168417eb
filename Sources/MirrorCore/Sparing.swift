internal import MirrorFormat

/// Putting blocks that a disk does not take into its spare pool, or back: one at a time for the whole mirror. Those that
/// wait hold the locks of their ranges.
///
/// A write that failed is written again in halves, down to single blocks of 4 KiB. Each that still fails gets a slot:
///
///     data to the slot, durable -> read back, compared -> table page, copy A -> copy B -> in force
///
/// Power may fail at any moment: until the table names the slot the block's own place counts, and nobody was told that
/// the write is done. Before the first remap of a plex the table is written anew, empty, in full, and that there is one is
/// on record on all plexes: old software can't take the disk for one without.
struct Sparing {
    enum Purpose: BitwiseCopyable {
        /// Bad blocks of the slot's transfer are put into the pool.
        case spare
        /// The slot's block is in its own place again: the table is to forget it.
        case withdraw
        /// Pages of the table are to be written anew; no slot waits for that.
        case settle
    }

    struct Job: BitwiseCopyable {
        var slot: Int
        var plex: PlexIndex
        var purpose: Purpose
    }

    enum Step: BitwiseCopyable {
        /// A piece is written where it belongs.
        case piece(ByteRange)
        /// An empty page of the table, copy 0 or 1.
        case clearing(page: Int, copy: Int)
        /// That there is a table is being recorded.
        case announcing(ticket: UInt64)
        /// The block is written to a spare slot.
        case filling(slot: Int)
        /// The page that has changed: the first write to one of its copies, or the second to the other.
        case table(copy: Int)
        /// No copy of it could be written, and there is no other plex; tried again then.
        case tableWait(until: UInt64)
        /// What could be put nowhere is being recorded.
        case listing(ticket: UInt64)
    }

    struct ByteRange: BitwiseCopyable {
        var start: UInt64
        var end: UInt64
        var length: UInt64 { end - start }
    }

    /// Slots of the pool that are tried for one block.
    static let mostTries = 8

    var queue: [Job] = []
    var job: Job?
    var step = Step.tableWait(until: 0)
    /// Names an operation beside its predecessors.
    var serial: UInt32 = 0
    var isInFlight = false
    /// Still to be written, the next one last.
    var pieces: [ByteRange] = []
    /// The block that is being spared.
    var block: UInt64 = 0
    var tries = 0
    var transients: UInt8 = 0
    /// The table as it will be.
    var table = RemapTable(slotCount: 0)
    /// Of it, to be written: the first one is being written.
    var pages: [RemapTable.Unsettled] = []
    var isFirstCopyGood = false
    /// Byte offsets of blocks that could be put nowhere.
    var lost: [UInt64] = []
    var failure = DiskFailure.truncated
    /// When the job began, and the present block.
    var begunAt: UInt64 = 0
    var blockBegunAt: UInt64 = 0
    /// That no copy of the table can be written: told once.
    var isWaitTold = false
    /// It could not be written, and was given up for a stop.
    var isTableDoubtful = false
    /// Writes that moved less than a block.
    var shortWrites: UInt8 = 0

    func has(slot: Int) -> Bool { job?.slot == slot || queue.contains { $0.slot == slot } }
}
