/// A known bug of a real mirror, built in on purpose: the simulator must find each (5-testing, "Mutants").
/// `none` everywhere but in the simulator. Numbers in comments: the list of real bugs in the DocC page
/// `Simulation`.
package enum Mutant: UInt8, Sendable, CaseIterable, BitwiseCopyable {
    case none
    /// A write is acknowledged before the failed plex is recorded (md e0185f09, gmirror).
    case acknowledgeBeforeRecord
    /// A record counts as durable when the first plex has it.
    case recordOnOnePlex
    /// The read balancer serves a plex that is being rebuilt (md 76156437).
    case readFromRecovering
    /// A resync window does not lock its range: it overwrites a newer write (md 133d452).
    case resyncWithoutLock
    /// The resync skips its first window (md 3256db26).
    case resyncSkipsFirstWindow
    /// A rebuilt plex is promoted without a flush.
    case promoteWithoutFlush
    /// A failed flush on one plex is hidden (md cff18e5f).
    case hideFlushError
    /// A plex one epoch behind counts as current (md 58c1e75d).
    case acceptOneEpochBehind
    /// An error of one fragment is forgotten when a later one succeeds (DRBD 497149ded).
    case forgetFragmentError
    /// FLUSH is answered without flushing (ublk mirror).
    case flushDoesNothing
    /// A plex that joins while a resync runs starts at its cursor (md 3338c48b).
    case joinAtCursor
    /// An interrupted rebuild counts as finished after a restart (md 5d0d702c).
    case interruptedMeansFinished
    /// After a crash reads are balanced over plexes that may differ (SPDK raid1).
    case readsNotPinned
    /// After a crash a read is answered without making the plexes equal.
    case readWithoutRepair
    /// Data is written before the mirror is marked dirty (R1).
    case dataBeforeDirty
    /// Reads do not wait for overlapping writes.
    case readWithoutLock
    /// Assembly trusts the plex with the lowest index (gmirror).
    case lowestIndexLeads
    /// Data is written to a joining plex whose own superblock still calls it in sync.
    case joinBeforeSuperblock
    /// FLUSH leaves out a plex that is about to be promoted.
    case flushSkipsRecovering
    /// A trim reaches one plex only (md raid10 3a23dcde).
    case trimOnOnePlex
    /// A broken-off plex is taken without waiting for writes in flight.
    case breakWithoutDrain
    /// A failed plex is used again after a restart (dm-raid1, SPDK #3497).
    case failedReturnsInSync
    /// Marked clean at stop without a flush.
    case cleanWithoutFlush
    /// An intent bit counts when one plex has it.
    case intentOnOnePlex
    /// Intent bits are cleared without a flush.
    case clearWithoutFlush
    /// An intent bit is cleared although a write is in flight in its region.
    case clearInFlight
    /// An intent bit is cleared although its region was written to after the flush.
    case clearTouched
    /// Intent bits are cleared while a plex is absent, and not counted for it (md c3ec4d60).
    case clearWhileDegraded
    /// Intent bits are cleared before the missed-write maps that take them over are durable.
    case clearBeforeMove
    /// A disk that was set back to an earlier state is trusted to have what it had when it left (md 2006).
    case deltaWithoutEvidence
    /// What a returning disk wrote on its own is not copied back.
    case joinForgetsOwnChanges
    /// A plex that joins gets what its map says, and not what is still under intent bits.
    case joinForgetsIntent
    /// Of a disk that is pulled out only what is written afterwards is counted: its cache went with it.
    case missesFromFailureOn
    /// No new generation is begun if another plex was out already (DRBD 499533fe3).
    case noGenerationIfDegraded
    /// A page of the intent bitmap that can't be read counts as empty.
    case badPageIsClean
    /// A plex under rebuild gets no writes, and nobody counts them (DRBD 18bf57ca9).
    case recoveringMissesWrites
    /// What was copied leaves the missed-write map without a flush (dm-integrity 118ba36).
    case checkpointWithoutFlush
    /// A plex that is being replaced is forgotten while the new one is still being copied to.
    case replacedTooEarly
    /// A copy that was read back and is not the same counts as done.
    case differenceIgnored
    /// A block is written anew while clients may write to it.
    case repairWithoutLock
    /// What a plex does not hold is read from it.
    case badRangeServed
    /// A write to what a plex does not hold is acknowledged before it is on record that it does now.
    case healedTooEarly
    /// After a start blocks that lie in the spare pool are looked for in their own places.
    case remapForgotten
    /// A write is acknowledged before the table says where the block lies.
    case remapNotWritten
    /// The first block is put into the spare pool before it is on record that there is a table.
    case remapUnannounced
    /// A scrub reads one plex and compares it with none (ZFS #13642).
    case scrubReadsOnePlex
    /// Clients write where the scrub compares.
    case scrubWithoutLock
    /// Clients write where a block is given the version of another plex.
    case scrubRepairUnlocked
    /// A finished scrub counts for plexes that are away: what they missed is forgotten (ZFS #6103).
    case scrubForgetsMissed
    /// A read that is waited for no more may still land in the buffer that the next one fills (DRBD, disk-timeout).
    case lateBufferReused
    /// The answer of the second plex that was asked is told from the buffer of the first.
    case hedgeNotAdopted
    /// A disk is closed, and may come back, although what was given up is still under way on it.
    case zombieForgotten
}
