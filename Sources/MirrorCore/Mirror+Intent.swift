internal import MirrorFormat

/// R1: no data is written to any plex before the intent bits of its regions are on every in-sync plex.
extension Mirror {
    /// The range is locked. Goes on at once if its regions are marked, as those of a hot set are.
    mutating func passGate(_ index: Int) {
        let request = slots[index].request
        let regions = tracking.regions(request.offset, request.length)
        if !tracking.active.containsAll(of: regions) { firstTouch(regions, offset: request.offset) }
        tracking.writers.note(end: request.offset + request.length)
        if isMarked(regions) {
            startMutation(index)
            return
        }
        if mutant == .dataBeforeDirty {
            tracking.insertIntent(regions)
            startMutation(index)
            return
        }
        slots[index].step = .gate
        gateQueue.append(index, in: &slots)
        tracking.insertIntent(regions)
        if gate == .clean { markDirty() }
    }

    private func isMarked(_ regions: Range<Int>) -> Bool {
        gate == .dirty && tracking.durable.containsAll(of: regions)
    }

    /// The first write to these regions since the cleaner looked.
    private mutating func firstTouch(_ regions: Range<Int>, offset: UInt64) {
        tracking.touch(regions)
        setAhead(of: regions, offset: offset)
    }

    /// A writer that comes into one region after the other goes on, most likely: bits ahead of it are set in one page
    /// write, and it never waits for one. When it has used up half of them the next are set. There are never more of them
    /// than twice what it has come through, but for the first few.
    ///
    /// Example: 1 MiB regions; the writer waits for regions 0, 1 and 2. Entering 2 it has crossed two borders, which sets 3
    /// through 10; entering 6 sets 7 through 18, entering 10 sets up to 30, entering 16 sets up to 48, and from there on 32
    /// at a time: one page write for 17 MiB.
    private mutating func setAhead(of regions: Range<Int>, offset: UInt64) {
        let limit = max(1, min(limits.setAheadRegions, Int(limits.setAheadBytes / tracking.regionBytes)))
        let run = tracking.writers.enter(
            regions, offset: offset, regionBytes: tracking.regionBytes, limit: max(limit, limits.setAheadAfter))
        guard run >= limits.setAheadAfter else { return }
        let count = min(limit, max(limits.setAheadFirst, 2 * run))
        let next = regions.upperBound
        let probe = min(next + max(1, count / 2), tracking.regionCount) - 1
        guard next < tracking.regionCount, !tracking.intent.contains(probe) else { return }
        tracking.insertIntent(next..<min(next + count, tracking.regionCount))
    }

    private mutating func markDirty() {
        record.isClean = false
        gate = .marking(ticket: wantCommit())
    }

    /// A round of the record became durable: the mark may be there.
    mutating func gateAfterCommit(round: UInt64) {
        if case .marking(let ticket) = gate, ticket <= round {
            gate = .dirty
            openGate()
        }
    }

    /// Bits became durable: writes that waited for them go on, in order.
    mutating func openGate() {
        guard gate == .dirty, !gateQueue.isEmpty else { return }
        var queue = gateQueue
        gateQueue = SlotQueue()
        while let index = queue.popFirst(in: &slots) {
            let request = slots[index].request
            let regions = tracking.regions(request.offset, request.length)
            if isMarked(regions) {
                startMutation(index)
            } else {
                // The bits of a page that was being cleared are to be set again.
                tracking.insertIntent(regions)
                gateQueue.append(index, in: &slots)
            }
        }
    }
}
