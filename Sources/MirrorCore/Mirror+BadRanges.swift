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
            listBad(range)
        }
    }

    private mutating func listBad(_ range: BadRange) {
        let position = Int(range.plex.value)
        plexes[position].badBlocks.retryAt = now.nanoseconds + limits.resyncRetryNanoseconds
        for block in 0..<UInt64(range.blocks) {
            plexes[position].badBlocks.insert(range.offset + block * Limits.blockBytes)
        }
        hasBadBlocks = true
    }

    /// What only this plex may hold of what another one lacks, unless it is known not to be able to read it.
    func onlyPossibleHolding(of plex: PlexIndex) -> BadRange? {
        guard working.contains(plex) else { return nil }
        let others = working.subtracting(PlexSet(plex))
        return record.badRanges.first { range in
            guard others.contains(range.plex),
                others.filter({ !record.isBad($0, offset: range.offset, length: range.length) }).isEmpty,
                !record.isBad(plex, offset: range.offset, length: range.length)
            else { return false }
            return !(0..<UInt64(range.blocks)).allSatisfy {
                plexes[Int(plex.value)].badBlocks.overlaps(range.offset + $0 * Limits.blockBytes, Limits.blockBytes)
            }
        }
    }

    /// No other plex in sync holds anything of this range, and that in one piece: nobody differs.
    func isSoleHolder(_ plex: PlexIndex, _ offset: UInt64, _ length: UInt64) -> Bool {
        working.subtracting(PlexSet(plex)).filter { other in
            !record.badRanges.contains {
                $0.plex == other && $0.offset <= offset && offset + length <= $0.end
            }
        }.isEmpty
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
            record.isBad(pinned, offset: transfer.offset, length: transfer.length)
        else { return false }
        let holders = working.subtracting(slots[index].tried).filter {
            !record.isBad($0, offset: transfer.offset, length: transfer.length)
        }
        // One that holds everything can keep the pin.
        guard let next = holders.filter({ record.badRanges(of: $0).isEmpty }).first ?? holders.first else {
            return false
        }
        slots[index].tried.insert(pinned)
        movePin(to: next, for: index)
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
        let new = targets.filter { !resync.uncopied[Int($0.value)].overlaps(block, Limits.blockBytes) }
        var uncopied = resync.uncopied
        for plex in new.members { uncopied[Int(plex.value)].insert(block) }
        let isLittle = targets.members.allSatisfy {
            uncopied[Int($0.value)].offsets.count <= limits.blocksToGoWithout
        }
        guard isLittle, pieces(uncopied, besides: targets) <= Record.badRangeCapacity else { return false }
        resync.uncopied = uncopied
        for plex in new.members {
            log(
                .badBlock, plex: plex, offset: block, length: Limits.blockBytes,
                text: "no plex can read it: plex \(plex) goes without it")
        }
        resync.lookForUncopied()
        return true
    }

    /// How many ranges there may be on record at worst, when clients have written to every other block: writing makes that
    /// number no larger.
    private func pieces(_ uncopied: [BadBlocks], besides targets: PlexSet) -> Int {
        record.badRanges.reduce(0) { targets.contains($1.plex) ? $0 : $0 + Int($1.blocks / 2 + $1.blocks % 2) }
            + uncopied.reduce(0) { sum, blocks in
                blocks.ranges.reduce(sum) { $0 + Int(($1.length / Limits.blockBytes + 1) / 2) }
            }
    }

    /// What a plex in sync did not take, and could put nowhere else, comes on record.
    ///
    /// - Returns: false: there is no room for that.
    mutating func goOnWithout(_ blocks: [UInt64], _ plex: PlexIndex) -> Bool {
        var bad = BadBlocks()
        for range in record.badRanges(of: plex) {
            for block in 0..<UInt64(range.blocks) { bad.insert(range.offset + block * Limits.blockBytes) }
        }
        for block in blocks { bad.insert(block) }
        var listed = resync.uncopied
        listed[Int(plex.value)] = bad
        guard bad.offsets.count <= limits.blocksToGoWithout,
            pieces(listed, besides: PlexSet(plex)) <= Record.badRangeCapacity
        else { return false }
        record.setBad(plex, blocks: bad.offsets)
        for range in record.badRanges(of: plex) { listBad(range) }
        lookForBadRanges()
        return true
    }

    /// Some of what the request has written is on no plex that it went to.
    func lacksHolder(_ index: Int) -> Bool {
        guard slots[index].hasFannedOut else { return false }
        let request = slots[index].request
        let plan = BufferPlan(.read, offset: request.offset, length: request.length)
        let edge = request.kind == .trim ? Limits.blockBytes : 0
        let first = plan.bodyOffset + (plan.cutsHead ? edge : 0)
        let last = plan.bodyOffset + plan.bodyLength - (plan.cutsTail ? edge : 0)
        let holders = working.intersection(slots[index].good)
        return record.badRanges.contains { range in
            let start = max(range.offset, first)
            let end = min(range.end, last)
            return start < end && holders.filter { !record.isBad($0, offset: start, length: end - start) }.isEmpty
        }
    }

    /// What the plex goes without comes on record together with its being in sync.
    mutating func recordUncopied(_ plex: PlexIndex) {
        setBad(plex, resync.uncopied[Int(plex.value)].offsets)
        for range in record.badRanges(of: plex) { listBad(range) }
    }

    /// The plex is forgotten, or has another disk.
    mutating func forgetBadRanges(_ plex: PlexIndex) { setBad(plex, []) }

    private mutating func setBad(_ plex: PlexIndex, _ blocks: [UInt64]) {
        record.setBad(plex, blocks: blocks)
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
