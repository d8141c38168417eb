/// Serialises overlapping requests (R13): readers share, everything else excludes, first come first served.
///
/// A request that arrives is blocked by every earlier one, waiting or holding, that overlaps it, unless
/// both are readers. Each waiter counts its blockers; releasing one takes it off the counts of those behind
/// it. Hence no request overtakes an overlapping one, none starves, and those that do not overlap never
/// wait for each other.
///
/// The entries lie in one flat array that is scanned in full: at 64 requests in flight that is 64
/// comparisons on neighbouring memory, cheaper than any tree.
package struct RangeLock {
    private struct Entry: BitwiseCopyable {
        var start: UInt64
        var end: UInt64
        var order: UInt64
        var owner: UInt32
        var blockers: UInt32
        var isExclusive: Bool
    }

    private var entries: [Entry] = []
    private var nextOrder: UInt64 = 0
    private var waiting = 0

    /// - Parameter capacity: how many owners there can be at once.
    package init(capacity: Int) { entries.reserveCapacity(capacity) }

    package var count: Int { entries.count }

    /// Widens the range to whole blocks and queues for it.
    ///
    /// - Returns: whether it is held at once; if not, a later `release` reports the owner.
    package mutating func acquire(owner: UInt32, offset: UInt64, length: UInt64, isExclusive: Bool) -> Bool {
        let start = offset & ~(Limits.blockBytes - 1)
        let end = (offset + length + Limits.blockBytes - 1) & ~(Limits.blockBytes - 1)
        var blockers: UInt32 = 0
        for index in entries.indices
        where entries[index].start < end && start < entries[index].end
            && (isExclusive || entries[index].isExclusive)
        {
            blockers += 1
        }
        entries.append(
            Entry(
                start: start, end: end, order: nextOrder, owner: owner, blockers: blockers,
                isExclusive: isExclusive))
        nextOrder += 1
        if blockers > 0 { waiting += 1 }
        return blockers == 0
    }

    /// Gives the owner's range up; appends those that hold theirs from now on, oldest first.
    package mutating func release(owner: UInt32, granted: inout [UInt32]) {
        guard let index = entries.firstIndex(where: { $0.owner == owner }) else {
            preconditionFailure("released a range that is not held")
        }
        let released = entries[index]
        precondition(released.blockers == 0, "released a range while waiting for it")
        // Order is kept, so that the scan below meets waiters oldest first.
        entries.remove(at: index)
        guard waiting > 0 else { return }
        for index in entries.indices
        where entries[index].order > released.order && entries[index].blockers > 0
            && entries[index].start < released.end && released.start < entries[index].end
            && (released.isExclusive || entries[index].isExclusive)
        {
            entries[index].blockers -= 1
            if entries[index].blockers == 0 {
                waiting -= 1
                granted.append(entries[index].owner)
            }
        }
    }
}
