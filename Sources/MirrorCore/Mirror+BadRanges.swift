internal import MirrorFormat

/// Blocks that a plex in sync does not hold, because nobody could read them when it was copied to. They are on record, so
/// that nothing is served from there; reads are put together from what the plexes do hold, and whoever writes there, client
/// or repair, heals them: durably, and that is on record before it counts.
extension Mirror {
    /// After a change of the record.
    mutating func lookForBadRanges() { hasBadRanges = !record.badRanges.isEmpty }

    /// At the start: what is on record is tried to be healed soon.
    mutating func adoptBadRanges() {
        lookForBadRanges()
        for range in record.badRanges where working.contains(range.plex) {
            listBad(range.plex, range, retryAt: now.nanoseconds + limits.resyncRetryNanoseconds)
        }
    }

    private mutating func listBad(_ plex: PlexIndex, _ range: BadRange, retryAt: UInt64) {
        let position = Int(plex.value)
        plexes[position].badBlocks.retryAt = retryAt
        for block in 0..<UInt64(range.blocks) {
            plexes[position].badBlocks.insert(range.offset + block * Limits.blockBytes)
        }
        hasBadBlocks = true
    }

    // MARK: reading around them

    /// No plex can serve all that is to be read: perhaps one piece after the other.
    ///
    /// - Returns: whether the read goes on.
    mutating func readAroundBad(_ index: Int) -> Bool {
        guard hasBadRanges else { return false }
        let transfer = slots[index].transfer
        let end = transfer.offset + transfer.length
        if slots[index].kind == .client, slots[index].step == .reading,
            let border = nextBorder(transfer.offset, end)
        {
            slots[index].transfer.length = border - transfer.offset
            slots[index].tried = .empty
            submitRead(index)
            return true
        }
        // The plex that answers for all has not got it.
        guard !isReadOnly, !isEqual(offset: transfer.offset, length: transfer.length), let pinned = record.pinned,
            record.isBad(pinned, offset: transfer.offset, length: transfer.length),
            !working.subtracting(slots[index].tried).filter({
                !record.isBad($0, offset: transfer.offset, length: transfer.length)
            }).isEmpty
        else { return false }
        slots[index].tried.insert(pinned)
        movePin(from: pinned, for: index)
        return true
    }

    /// Where, inside the range, something begins or ends that some plex does not hold.
    private func nextBorder(_ start: UInt64, _ end: UInt64) -> UInt64? {
        var border: UInt64?
        for range in record.badRanges {
            for place in [range.offset, range.end] where place > start && place < end {
                border = min(border ?? place, place)
            }
        }
        return border
    }

    /// The next piece of a read that is put together; false: it was the last.
    mutating func readNextPiece(_ index: Int, from position: UInt64) -> Bool {
        let request = slots[index].request
        guard position < slots[index].readEnd else { return false }
        let plan = BufferPlan(.read, offset: request.offset, length: request.length)
        slots[index].step = .reading
        slots[index].tried = .empty
        slots[index].transfer = Slot.Transfer(
            kind: .read, offset: position, length: slots[index].readEnd - position,
            bufferOffset: position - plan.bodyOffset)
        submitRead(index)
        return true
    }

    // MARK: healing

    /// A write there has to be durable: afterwards it is on record that the plex holds it.
    func mayHeal(_ request: Request) -> Bool {
        guard hasBadRanges || resync.hasUncopied else { return false }
        let plan = BufferPlan(.read, offset: request.offset, length: request.length)
        let end = plan.bodyOffset + plan.bodyLength
        return record.badRanges.contains { $0.offset < end && plan.bodyOffset < $0.end }
            || resync.uncopied.contains { $0.overlaps(plan.bodyOffset, plan.bodyLength) }
    }

    /// Whoever has written there is answered when that is on record: see `healTicket`.
    mutating func heal(_ plexes: PlexSet, _ transfer: Slot.Transfer) {
        guard hasBadRanges || resync.hasUncopied else { return }
        let end = transfer.offset + transfer.length
        var hasHealed = false
        for plex in plexes.members {
            resync.uncopied[Int(plex.value)].remove(transfer.offset..<end)
            guard transfer.isDurable, working.contains(plex) || record[plex].role == .inSync,
                record.isBad(plex, offset: transfer.offset, length: transfer.length)
            else { continue }
            if record.heal(plex, offset: transfer.offset, length: transfer.length) {
                self.plexes[Int(plex.value)].badBlocks.remove(transfer.offset..<end)
                hasHealed = true
            } else {
                // There is no room on record for the pieces that are left.
                expel(plex, operation: .metadata, self.plexes[Int(plex.value)].lastFailure, offset: transfer.offset)
            }
        }
        resync.lookForUncopied()
        lookForBadRanges()
        if hasHealed { healTicket = wantCommit() }
    }

    // MARK: copying around them

    /// No plex can read this block, again.
    ///
    /// - Returns: whether the plexes under rebuild go without it.
    mutating func goWithout(_ block: UInt64, _ targets: PlexSet) -> Bool {
        let blocks = resync.uncopied.reduce(0) { $0 + $1.offsets.count } + targets.count
        let ranges = resync.uncopied.reduce(record.badRanges.count) { $0 + $1.ranges.count } + targets.count
        guard blocks <= limits.blocksToGoWithout, ranges <= Record.badRangeCapacity / 2 else { return false }
        for plex in targets.members {
            resync.uncopied[Int(plex.value)].insert(block)
            log(
                .badBlock, plex: plex, offset: block, length: Limits.blockBytes,
                text: "no plex can read it: plex \(plex) goes without it")
        }
        resync.lookForUncopied()
        return true
    }

    /// What the plex goes without comes on record together with its being in sync.
    mutating func recordUncopied(_ plex: PlexIndex) {
        let index = Int(plex.value)
        record.setBad(plex, blocks: resync.uncopied[index].offsets)
        for range in record.badRanges(of: plex) {
            listBad(plex, range, retryAt: now.nanoseconds + limits.repairRetryNanoseconds)
        }
        resync.uncopied[index] = BadBlocks()
        resync.lookForUncopied()
        lookForBadRanges()
    }

    /// The plex is forgotten, or has another disk.
    mutating func forgetBadRanges(_ plex: PlexIndex) {
        record.setBad(plex, blocks: [])
        resync.uncopied[Int(plex.value)] = BadBlocks()
        resync.lookForUncopied()
        lookForBadRanges()
    }

    /// Of what is on record as bad of a plex.
    func badRegions(_ plex: PlexIndex) -> RegionSet {
        var regions = RegionSet(count: tracking.regionCount)
        for range in record.badRanges(of: plex) { regions.insert(tracking.regions(range.offset, range.length)) }
        return regions
    }
}
