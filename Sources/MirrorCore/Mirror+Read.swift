internal import MirrorFormat

/// The read path: pick a plex, fail over, and where plexes may differ make them equal first (R7).
extension Mirror {
    mutating func startRead(_ index: Int) {
        let request = slots[index].request
        let plan = BufferPlan(.read, offset: request.offset, length: request.length)
        slots[index].step = .reading
        slots[index].transfer = Slot.Transfer(
            kind: .read, offset: plan.bodyOffset, length: plan.bodyLength, bufferOffset: 0, isDurable: false)
        slots[index].readEnd = plan.bodyOffset + plan.bodyLength
        submitRead(index)
    }

    /// Reads the transfer's range from the best plex not yet tried.
    mutating func submitRead(_ index: Int) {
        let transfer = slots[index].transfer
        guard let plex = chooseSource(offset: transfer.offset, length: transfer.length, tried: slots[index].tried)
        else {
            if !readAroundBad(index) { noSourceLeft(index) }
            return
        }
        slots[index].source = plex
        ask(index, plex)
    }

    /// For the transfer's range, beside others that may have been asked before.
    mutating func ask(_ index: Int, _ plex: PlexIndex) {
        let transfer = slots[index].transfer
        let position = Int(plex.value)
        plexes[position].readsInFlight += 1
        plexes[position].lastReadEnd = transfer.offset + transfer.length
        if plexes[position].isSlow { plexes[position].probes -= 1 }
        slots[index].pending.insert(plex)
        slots[index].progress[position] = 0
        submit(operation(index, plex))
    }

    /// Sequential readers stay on one disk; otherwise the plex with the fewest reads in flight; ties in turn.
    mutating func chooseSource(offset: UInt64, length: UInt64, tried: PlexSet) -> PlexIndex? {
        var best: PlexIndex?
        var bestCost = Int.max
        let candidates = mutant == .readFromRecovering ? working.union(recovering) : working
        for step in 0..<UInt8(PlexSet.capacity) {
            let plex = PlexIndex(Int((nextReadPlex &+ step) & 7))
            guard candidates.contains(plex), !tried.contains(plex), canServe(plex, offset: offset, length: length)
            else { continue }
            let goesOn = plexes[Int(plex.value)].lastReadEnd == offset
            var cost = plexes[Int(plex.value)].readsInFlight * 2 - (goesOn ? 3 : 0)
            if hasReluctant { cost += reluctance(plex) }
            // It would fail again, and a disk can take many seconds for that.
            if hasBadBlocks, plexes[Int(plex.value)].badBlocks.overlaps(offset, length) { cost += 1 << 20 }
            if cost < bestCost {
                bestCost = cost
                best = plex
            }
        }
        nextReadPlex = (nextReadPlex &+ 1) & 7
        return best
    }

    /// A read came back with all its bytes.
    mutating func readSucceeded(_ index: Int, _ plex: PlexIndex) {
        plexes[Int(plex.value)].readsInFlight -= 1
        if mayAnotherKnowBetter(than: plex) {
            dropOthers(index)
            slots[index].resumeStep = slots[index].step
            slots[index].step = .promotionWait
            commit.needsWake = true
            return
        }
        let transfer = slots[index].transfer
        guard canServe(plex, offset: transfer.offset, length: transfer.length) else {
            // It was expelled meanwhile (R12), or another plex answers for all now: then it is no failure of
            // this one, and it may be asked again should the pin come back.
            if !working.contains(plex) { slots[index].tried.insert(plex) }
            if !movePin(toHolder: plex, for: index) { readAgain(index) }
            return
        }
        raceWon(index, plex)
        slots[index].source = plex
        switch slots[index].kind {
        case .free, .internalFlush, .scrub, .scrubRepair: preconditionFailure("reads nothing")
        case .resyncWindow: windowRead(index, from: plex)
        case .repair: repairRead(index)
        case .client:
            if slots[index].step == .edgeRead {
                edgeReadFinished(index)
            } else if isEqual(offset: transfer.offset, length: transfer.length) || isReadOnly
                || mutant == .readWithoutRepair || mutant == .readsNotPinned
            {
                if readNextPiece(index, from: transfer.offset + transfer.length) { return }
                // A piece before it may have been made equal.
                if slots[index].hasFannedOut { acknowledge(index) } else { finish(index, .ok) }
            } else if !slots[index].isExclusive, mutant != .readWithoutLock {
                // Plexes began to differ while it was read: it must be alone to make them equal.
                releaseLock(index)
                acquire(index, isExclusive: true)
            } else {
                slots[index].pieceEnd = transfer.offset + transfer.length
                let all = working.union(recovering)
                slots[index].good = slots[index].hasFannedOut ? slots[index].good.intersection(all) : all
                slots[index].hasFannedOut = true
                slots[index].equalisedTo = transfer.offset
                equaliseBehindRead(index)
            }
        }
    }

    /// The plex may have dropped what it could not flush. It is kept while there is no better one, but one is just being
    /// recorded as such.
    func mayAnotherKnowBetter(than plex: PlexIndex) -> Bool {
        plexes[Int(plex.value)].flushFailed && !becomingInSync.isEmpty && mutant != .hideFlushError
    }

    /// R7: what is about to be told becomes true on every plex, durably, before it is told: one stretch of regions
    /// that may differ after the other. Regions between them have no intent bit (R1), and need no repair.
    mutating func equaliseBehindRead(_ index: Int) {
        let request = slots[index].request
        let plan = BufferPlan(.read, offset: request.offset, length: request.length)
        guard let source = slots[index].source, let position = slots[index].equalisedTo,
            let range = nextUnequal(position..<slots[index].pieceEnd)
        else {
            if !readNextPiece(index, from: slots[index].pieceEnd) { acknowledge(index) }
            return
        }
        slots[index].equalisedTo = range.upperBound
        slots[index].transfer = Slot.Transfer(
            kind: .write, offset: range.lowerBound, length: range.upperBound - range.lowerBound,
            bufferOffset: range.lowerBound - plan.bodyOffset, isDurable: true)
        fanOut(index, to: slots[index].good.intersection(working.union(recovering)).subtracting(PlexSet(source)))
    }

    /// The first stretch of the range in which plexes may differ.
    private func nextUnequal(_ range: Range<UInt64>) -> Range<UInt64>? {
        guard hasUnequal, !range.isEmpty else { return nil }
        let regions = tracking.regions(range.lowerBound, range.upperBound - range.lowerBound)
        guard let first = resync.unequal.next(from: regions.lowerBound), first < regions.upperBound else { return nil }
        let end = resync.unequal.endOfRun(from: first, limit: regions.upperBound)
        return max(
            range.lowerBound, UInt64(first) * tracking.regionBytes)..<min(
                range.upperBound, UInt64(end) * tracking.regionBytes)
    }

    mutating func readFailed(_ index: Int, _ plex: PlexIndex, _ failure: DiskFailure) {
        plexes[Int(plex.value)].readsInFlight -= 1
        slots[index].tried.insert(plex)
        if failure.kind != .media { slots[index].failedOtherwise = true }
        let transfer = slots[index].transfer
        if working.contains(plex) {
            if failure.kind != .late { countReadError(index, plex, failure) }
            if transfer.kind == .read {
                suspect(plex, failure, offset: transfer.offset, length: transfer.length)
            }
            if failure.kind == .gone {
                expel(plex, operation: .read, failure, offset: transfer.offset)
            } else if slots[index].pending.isEmpty, !isEqual(offset: transfer.offset, length: transfer.length),
                record.pinned == plex
            {
                movePin(from: plex, for: index)
                return
            }
        }
        readAgain(index)
    }

    private mutating func countReadError(_ index: Int, _ plex: PlexIndex, _ failure: DiskFailure) {
        let transfer = slots[index].transfer
        record[plex].readErrors += 1
        hasNewCounters = true
        log(
            .readError, plex: plex, errorNumber: failure.errorNumber, offset: transfer.offset,
            length: transfer.length, text: "read failed on plex \(plex)")
    }

    /// Unless another plex has been asked already.
    private mutating func readAgain(_ index: Int) {
        guard slots[index].pending.isEmpty else { return }
        if slots[index].isRace { endRace(index) }
        submitRead(index)
    }

    /// The plex that answers for all can't read this range. What it said before is on every plex by now,
    /// so another may take over, once that is on record.
    private mutating func movePin(from plex: PlexIndex, for index: Int) {
        guard !isReadOnly, let next = working.subtracting(slots[index].tried).first else {
            submitRead(index)
            return
        }
        movePin(to: next, for: index)
    }

    /// Plexes began to differ here while several were asked, and the one that answers for all could not.
    private mutating func movePin(toHolder plex: PlexIndex, for index: Int) -> Bool {
        let transfer = slots[index].transfer
        guard slots[index].pending.isEmpty, slots[index].isRace, !isReadOnly, working.contains(plex),
            let pinned = record.pinned, slots[index].tried.contains(pinned),
            !isEqual(offset: transfer.offset, length: transfer.length)
        else { return false }
        movePin(to: plex, for: index)
        return true
    }

    mutating func movePin(to next: PlexIndex, for index: Int) {
        if slots[index].isRace { endRace(index) }
        record.pinned = next
        slots[index].resumeStep = slots[index].step
        slots[index].step = .pinRecord
        waitForRecord(index)
    }

    private mutating func noSourceLeft(_ index: Int) {
        switch slots[index].kind {
        case .free, .internalFlush, .scrub, .scrubRepair: preconditionFailure("reads nothing")
        case .resyncWindow: windowSourceFailed(index)
        case .repair: repairHasNoSource(index)
        case .client:
            // No plex has these bytes. Never zeroes, never garbage.
            finish(index, .ioError)
        }
    }

    /// Which parts are holes: asked of a plex that may serve reads there, or nobody.
    mutating func startAllocation(_ index: Int) {
        let request = slots[index].request
        guard isEqual(offset: request.offset, length: request.length),
            let plex = chooseSource(offset: request.offset, length: request.length, tried: .empty),
            !hasRemap(plex, offset: request.offset, length: request.length)
        else {
            finish(index, .allAllocated)
            return
        }
        slots[index].step = .reading
        slots[index].source = plex
        slots[index].transfer = Slot.Transfer(
            kind: .queryAllocation, offset: request.offset, length: request.length, bufferOffset: 0,
            isDurable: false)
        slots[index].pending = PlexSet(plex)
        plexes[Int(plex.value)].readsInFlight += 1
        submit(operation(index, plex))
    }
}
