internal import MirrorFormat

/// The write path: edges, fan-out to every plex from one buffer (R14), and the acknowledgement (R2, R16).
extension Mirror {
    /// The lock is held and the mirror is marked dirty.
    mutating func startMutation(_ index: Int) {
        if slots[index].kind == .repair { return startRepairCopy(index) }
        if sparing.isTableDoubtful, slots[index].kind == .client { return finish(index, .ioError) }
        if slots[index].kind == .scrubRepair { return writeScrubRepair(index) }
        slots[index].fragment = .head
        advance(index)
    }

    /// Starts the next piece of a mutation, or ends it.
    private mutating func advance(_ index: Int) {
        let request = slots[index].request
        let plan = BufferPlan(request.kind, offset: request.offset, length: request.length)
        switch request.kind {
        case .read, .flush, .allocation: preconditionFailure("no mutation")
        case .write: advanceWrite(index, plan)
        case .zeroes: advanceZeroes(index, plan)
        case .trim: advanceTrim(index, plan)
        }
    }

    private mutating func advanceWrite(_ index: Int, _ plan: BufferPlan) {
        let block = Limits.blockBytes
        let needsHead = plan.cutsHead || (plan.cutsTail && plan.bodyLength == block)
        let needsTail = plan.cutsTail && plan.bodyLength > block
        if slots[index].fragment == .done {
            acknowledge(index)
        } else if needsHead, !slots[index].headRead {
            edgeRead(index, at: plan.bodyOffset, into: plan.bodyLength)
        } else if needsTail, !slots[index].tailRead {
            edgeRead(index, at: plan.bodyOffset + plan.bodyLength - block, into: plan.bodyLength + block)
        } else {
            slots[index].fragment = .done
            slots[index].transfer = Slot.Transfer(
                kind: .write, offset: plan.bodyOffset, length: plan.bodyLength, bufferOffset: 0,
                isDurable: isDurable(index))
            fanOutMutation(index)
        }
    }

    /// Head block, whole blocks, tail block, one after the other, all under one lock.
    private mutating func advanceZeroes(_ index: Int, _ plan: BufferPlan) {
        let block = Limits.blockBytes
        let bodyEnd = plan.bodyOffset + plan.bodyLength
        let isOneBlock = plan.bodyLength == block
        if slots[index].fragment == .head {
            slots[index].fragment = .middle
            if plan.cutsHead || (plan.cutsTail && isOneBlock) {
                edgeRead(index, at: plan.bodyOffset, into: 0)
                return
            }
        }
        if slots[index].fragment == .middle {
            slots[index].fragment = .tail
            let start = plan.bodyOffset + (plan.cutsHead ? block : 0)
            let end = bodyEnd - (plan.cutsTail ? block : 0)
            if start < end {
                let request = slots[index].request
                slots[index].transfer = Slot.Transfer(
                    kind: request.mayDeallocate ? .deallocate : .zero, offset: start, length: end - start,
                    bufferOffset: 0, isDurable: request.isForcedUnitAccess || mayHeal(request))
                fanOutMutation(index)
                return
            }
        }
        if slots[index].fragment == .tail {
            slots[index].fragment = .done
            if plan.cutsTail, !isOneBlock {
                edgeRead(index, at: bodyEnd - block, into: block)
                return
            }
        }
        acknowledge(index)
    }

    /// A trim covers the whole blocks inside its range; less than one is nothing to do.
    private mutating func advanceTrim(_ index: Int, _ plan: BufferPlan) {
        let block = Limits.blockBytes
        let start = plan.bodyOffset + (plan.cutsHead ? block : 0)
        let end = plan.bodyOffset + plan.bodyLength - (plan.cutsTail ? block : 0)
        guard slots[index].fragment != .done, start < end else {
            acknowledge(index)
            return
        }
        slots[index].fragment = .done
        slots[index].transfer = Slot.Transfer(
            kind: .deallocate, offset: start, length: end - start, bufferOffset: 0,
            isDurable: slots[index].request.isForcedUnitAccess || mayHeal(slots[index].request))
        fanOutMutation(index)
    }

    private mutating func edgeRead(_ index: Int, at offset: UInt64, into bufferOffset: UInt64) {
        slots[index].step = .edgeRead
        slots[index].tried = .empty
        slots[index].transfer = Slot.Transfer(
            kind: .read, offset: offset, length: Limits.blockBytes, bufferOffset: bufferOffset, isDurable: false)
        submitRead(index)
    }

    /// The rest of a cut block is in the buffer: put the pieces together.
    mutating func edgeReadFinished(_ index: Int) {
        let request = slots[index].request
        let plan = BufferPlan(request.kind, offset: request.offset, length: request.length)
        let end = request.offset + request.length
        let transfer = slots[index].transfer
        if !isEqual(offset: transfer.offset, length: transfer.length) { slots[index].cutsUnequal = true }
        if request.kind == .write {
            mergeEdge(index, plan, end: end)
            advance(index)
            return
        }
        let from = max(request.offset, transfer.offset)
        let to = min(end, transfer.offset + Limits.blockBytes)
        emit(
            .fillZeroes(request.buffer, at: transfer.bufferOffset + from - transfer.offset, count: to - from))
        slots[index].transfer.kind = .write
        slots[index].transfer.isDurable = isDurable(index)
        fanOutMutation(index)
    }

    /// Or else the other bytes of a cut block, which other plexes may have in another version, would be told to readers
    /// as they are now, and be taken back when power fails (R7).
    private func isDurable(_ index: Int) -> Bool {
        slots[index].request.isForcedUnitAccess || slots[index].cutsUnequal || mayHeal(slots[index].request)
    }

    private mutating func mergeEdge(_ index: Int, _ plan: BufferPlan, end: UInt64) {
        let block = Limits.blockBytes
        let buffer = slots[index].request.buffer
        let isTailBlock = slots[index].transfer.offset + block == plan.bodyOffset + plan.bodyLength
        let scratch = slots[index].transfer.bufferOffset
        if slots[index].transfer.offset == plan.bodyOffset {
            slots[index].headRead = true
            if plan.cutsHead { emit(.copyBytes(buffer, from: scratch, to: 0, count: plan.payloadOffset)) }
        } else {
            slots[index].tailRead = true
        }
        if isTailBlock, plan.cutsTail {
            let used = end - (plan.bodyOffset + plan.bodyLength - block)
            emit(
                .copyBytes(
                    buffer, from: scratch + used, to: plan.bodyLength - block + used, count: block - used))
        }
    }

    // MARK: fan-out

    private mutating func fanOutMutation(_ index: Int) {
        if !slots[index].hasFannedOut {
            slots[index].hasFannedOut = true
            slots[index].good = mutant == .recoveringMissesWrites ? working : working.union(recovering)
        }
        var targets = slots[index].good.intersection(working.union(recovering))
        if mutant == .trimOnOnePlex, slots[index].transfer.kind == .deallocate, let first = targets.first {
            targets = PlexSet(first)
        }
        fanOut(index, to: targets)
    }

    /// The number of fragments is fixed before the first is submitted: a completion can't end the request
    /// early (R16).
    mutating func fanOut(_ index: Int, to targets: PlexSet) {
        slots[index].step = .fanOut
        slots[index].failed = .empty
        slots[index].failedByMedia = .empty
        slots[index].isSpared = false
        slots[index].lacking = .empty
        slots[index].transients = 0
        guard !targets.isEmpty else {
            fanOutFinished(index)
            return
        }
        slots[index].pending = targets
        for plex in 0..<PlexSet.capacity { slots[index].progress[plex] = 0 }
        var rest = targets
        while let plex = rest.first {
            rest.remove(plex)
            submit(operation(index, plex))
        }
    }

    /// The slot's transfer on one plex, from where it got to.
    func operation(_ index: Int, _ plex: PlexIndex) -> DiskOperation {
        let transfer = slots[index].transfer
        let done = slots[index].progress[Int(plex.value)]
        let whole = DiskOperation(
            tag: DiskTag(owner: .request, plex: plex, slot: index, generation: slots[index].generation),
            plex: plex, kind: transfer.kind, isDurable: transfer.isDurable,
            isSparse: slots[index].kind == .resyncWindow && !slots[index].windowEqualises,
            isVerified: transfer.kind == .write && isVerified(slots[index].kind),
            isUncached: slots[index].isOfScrub && transfer.kind != .write,
            buffer: slots[index].hedges.contains(plex)
                ? slots[index].request.buffer.copy(for: plex) : slots[index].request.buffer,
            bufferOffset: transfer.bufferOffset + done, offset: transfer.offset + done,
            length: transfer.length - done, request: slots[index].request.id)
        // What is put back is written where it belongs.
        return hasRemaps && !(slots[index].isPutBack && transfer.kind == .write) ? mapped(whole) : whole
    }

    func isVerified(_ kind: Slot.Kind) -> Bool {
        switch kind {
        case .repair, .scrubRepair: true
        case .resyncWindow: resync.isVerifying
        case .free, .client, .internalFlush, .scrub: false
        }
    }

    mutating func requestCompleted(_ tag: DiskTag, _ result: DiskResult) {
        let index = tag.slot
        let plex = tag.plex
        if slots[index].isOfScrub, slots[index].step == .reading { return scrubCompleted(tag, result) }
        precondition(slots[index].generation == tag.generation && slots[index].pending.contains(plex))
        var failure: DiskFailure?
        // One that was expelled meanwhile gets nothing more.
        let mayContinue = working.contains(plex) || recovering.contains(plex)
        switch result {
        case .transferred(let bytes):
            let transfer = slots[index].transfer
            let moves = transfer.kind == .read || transfer.kind == .write
            guard moves || hasRemaps else { break }
            let position = Int(plex.value)
            let left = transfer.length - slots[index].progress[position]
            let asked = hasRemaps ? operation(index, plex).length : left
            if asked < left, bytes >= asked || !moves {
                // Behind a block that lies elsewhere, or before one.
                slots[index].progress[position] += asked
                if mayContinue {
                    submit(operation(index, plex))
                    return
                }
                failure = .truncated
            } else if moves, bytes < asked {
                // A short transfer is legal; one that moves nothing means that the backing ends here.
                let whole = bytes & ~(Limits.blockBytes - 1)
                slots[index].progress[position] += whole
                if mayContinue, whole > 0 || (bytes > 0 && retryTransient(index)) {
                    submit(operation(index, plex))
                    return
                }
                failure = .truncated
            }
        case .failed(let reported):
            if mayContinue, reported.kind == .transient, retryTransient(index) {
                submit(operation(index, plex))
                return
            }
            failure = mutant == .differenceIgnored && reported.kind == .differs ? nil : reported
        }
        slots[index].pending.remove(plex)
        if slots[index].transfer.kind == .flush { failure = believeFlush(plex, failure) }
        switch slots[index].step {
        case .reading where slots[index].isProbe: probed(index, failure)
        case .reading, .edgeRead:
            if let failure { readFailed(index, plex, failure) } else { readDone(index, plex) }
        case .fanOut:
            if let failure {
                plexes[Int(plex.value)].lastFailure = failure
                slots[index].failed.insert(plex)
                if isBadBlock(failure) { slots[index].failedByMedia.insert(plex) }
                if failure.kind == .lost { flushBehindWriteFailed(plex, failure) }
                slots[index].good.remove(plex)
            } else if mutant == .forgetFragmentError {
                slots[index].failed = .empty
                slots[index].good = slots[index].good.union(PlexSet(plex))
            }
            if slots[index].pending.isEmpty { fanOutFinished(index) }
        case .idle, .held, .lock, .gate, .parked, .retryWait, .failureRecord, .pinRecord, .healRecord,
            .promotionWait, .sparing:
            preconditionFailure("no operation can be in flight in this step")
        }
    }

    /// What was written can't be read, or can't be written: this range of this disk.
    private func isBadBlock(_ failure: DiskFailure) -> Bool {
        failure.kind == .media || failure.kind == .differs && failure.errorNumber != 0
    }

    /// A flush that a write brought along failed (R8). Nothing that a later one says can be believed.
    mutating func flushFailed(_ plex: PlexIndex, _ failure: DiskFailure) {
        plexes[Int(plex.value)].flushFailed = true
        plexes[Int(plex.value)].lastFailure = failure
        expel(plex, operation: .flush, failure, offset: 0)
    }

    /// The operating system reports a failed flush once: another one on the same disk, even one that was under
    /// way at that time, may then succeed although data is lost (R8). It counts as failed from here on.
    private mutating func believeFlush(_ plex: PlexIndex, _ failure: DiskFailure?) -> DiskFailure? {
        let position = Int(plex.value)
        if let failure {
            flushBehindWriteFailed(plex, failure)
            return failure
        }
        return plexes[position].flushFailed && mutant != .hideFlushError ? plexes[position].lastFailure : nil
    }

    private mutating func readDone(_ index: Int, _ plex: PlexIndex) {
        if slots[index].transfer.kind == .queryAllocation {
            plexes[Int(plex.value)].readsInFlight -= 1
            let request = slots[index].request
            let holds =
                canServe(plex, offset: request.offset, length: request.length) && !mayAnotherKnowBetter(than: plex)
            finish(index, holds ? .ok : .allAllocated)
        } else {
            readSucceeded(index, plex)
        }
    }

    mutating func retryTransient(_ index: Int) -> Bool {
        slots[index].transients += 1
        return slots[index].transients <= limits.transientRetries
    }

    /// Or a flush of its own.
    mutating func flushBehindWriteFailed(_ plex: PlexIndex, _ failure: DiskFailure) {
        plexes[Int(plex.value)].flushFailed = true
        plexes[Int(plex.value)].lastFailure = failure
        guard mutant != .hideFlushError, !reliable(working.subtracting(PlexSet(plex))).isEmpty else { return }
        // At once, without waiting for the other plexes' answers: what it dropped must be read by no one, least of all to
        // be copied onto a plex that still has it.
        expel(plex, operation: .flush, failure, offset: 0)
    }

    // MARK: after the fan-out

    mutating func fanOutFinished(_ index: Int) {
        let failed = slots[index].failed
        if !failed.isEmpty, !isFailureShared(index), beginSparing(index) { return }
        switch slots[index].kind {
        case .free: preconditionFailure("a free slot has no fan-out")
        case .internalFlush:
            internalFlushFinished(index)
            return
        case .resyncWindow:
            windowWritten(index)
            return
        case .repair:
            repairWritten(index)
            return
        case .scrub: preconditionFailure("writes nothing")
        case .scrubRepair:
            scrubRepairWritten(index)
            return
        case .client: break
        }
        let survivors = slots[index].good.intersection(working)
        if failed.isEmpty {
            fanOutSucceeded(index)
        } else if !survivors.isEmpty {
            expelAll(failed, for: index)
            fanOutSucceeded(index)
        } else if slots[index].transfer.kind == .flush, !working.subtracting(failed).isEmpty {
            // A plex was promoted while this flush was under way: it is good, and was not asked.
            expelAll(failed, for: index)
            startFlush(index)
        } else if slots[index].transfer.kind == .flush, !slots[index].good.intersection(becomingInSync).isEmpty {
            // It has all that was written and has flushed it: when it is on record, there is a good plex.
            slots[index].step = .promotionWait
            commit.needsWake = true
        } else {
            failedEverywhere(index)
        }
    }

    /// A client's request failed on all good plexes, and perhaps on what they share: it is tried again first.
    private func isFailureShared(_ index: Int) -> Bool {
        slots[index].kind == .client && slots[index].good.intersection(working).isEmpty && working.count > 1
            && slots[index].commonFailures < limits.commonFailureRetries
    }

    /// In sync but for the record that says so.
    var becomingInSync: PlexSet { recovering.filter { record[$0].role == .inSync } }

    /// Those of the plexes that never failed a flush.
    func reliable(_ plexes: PlexSet) -> PlexSet { plexes.filter { !self.plexes[Int($0.value)].flushFailed } }

    /// The promotion that a flush or a read waits for has happened, or has failed.
    mutating func promotionEnded(_ index: Int) {
        guard slots[index].transfer.kind == .read else { return fanOutFinished(index) }
        slots[index].step = slots[index].resumeStep
        submitRead(index)
    }

    func operationName(_ index: Int) -> FailedOperation {
        switch slots[index].transfer.kind {
        case .read, .queryAllocation, .compare, .checksum, .findData: .read
        case .write: .write
        case .deallocate, .zero: .zero
        case .flush: .flush
        case .writeMetadata: .metadata
        }
    }

    mutating func expelAll(_ failed: PlexSet, for index: Int) {
        let operation = operationName(index)
        for plex in failed.members {
            if operation == .flush && mutant == .hideFlushError { continue }
            let failure = plexes[Int(plex.value)].lastFailure
            switch failure.kind {
            case .differs: expel(plex, operation: .verification, failure, offset: slots[index].transfer.offset)
            case .lost: flushFailed(plex, failure)
            case .media, .noSpace, .transient, .unsupported, .gone, .late:
                expel(plex, operation: operation, failure, offset: slots[index].transfer.offset)
            }
        }
        if operation == .flush && mutant == .hideFlushError { slots[index].good = slots[index].good.union(failed) }
    }

    private mutating func fanOutSucceeded(_ index: Int) {
        switch slots[index].request.kind {
        case .write, .zeroes, .trim:
            if hasBadBlocks { overwritten(index) }
            heal(slots[index].good.subtracting(slots[index].lacking), slots[index].transfer)
            advance(index)
        case .read: equaliseBehindRead(index)
        case .flush: acknowledge(index)
        case .allocation: preconditionFailure("has no fan-out")
        }
    }

    /// R2: every plex that any disk may list as in sync has it. Whoever lacks it is being expelled; until
    /// that is on record everywhere, the client waits.
    mutating func acknowledge(_ index: Int) {
        let isCovered =
            !slots[index].hasFannedOut || possibleInSync.isSubset(of: slots[index].good.intersection(trusted))
            || mutant == .acknowledgeBeforeRecord || mutant == .trimOnOnePlex || isReadOnly
        if let healTicket, slots[index].countsAsMutation, mutant != .healedTooEarly {
            // This request, or one of which it is the follower.
            slots[index].step = .healRecord
            slots[index].ticket = healTicket
        } else if isCovered {
            // Who had what another could put nowhere may have left since.
            let isLost = hasBadRanges && slots[index].countsAsMutation && lacksHolder(index)
            finish(index, isLost ? .ioError : slots[index].status)
        } else if slots[index].request.kind == .flush,
            !possibleInSync.subtracting(slots[index].good).intersection(trusted).isEmpty
        {
            // A plex came into the set while this flush was under way.
            startFlush(index)
        } else {
            slots[index].step = .parked
            commit.needsWake = true
        }
    }

    /// Where a write that succeeded is still known to be. Not on a plex that was expelled since, nor on one
    /// whose flush failed: it may have dropped it again. If that holds for all of them, there is no better one, unless
    /// one is just being recorded as such.
    private var trusted: PlexSet {
        let all = working.union(recovering)
        return reliable(working).isEmpty && becomingInSync.isEmpty ? all : reliable(all)
    }

    // MARK: flush

    mutating func startFlush(_ index: Int) {
        if mutant == .flushDoesNothing || isReadOnly {
            finish(index, .ok)
            return
        }
        slots[index].transfer = Slot.Transfer(kind: .flush)
        slots[index].hasFannedOut = true
        // Plexes under rebuild are flushed too: one may be promoted between this reply and a power loss,
        // and then has to have what was promised here.
        let targets = mutant == .flushSkipsRecovering ? working : working.union(recovering)
        slots[index].good = targets
        fanOutFlush(index, targets)
    }

    mutating func startInternalFlush(_ purpose: FlushPurpose, _ targets: PlexSet, plex: PlexIndex? = nil) {
        let index = takeSlot(.internalFlush)
        slots[index].purpose = purpose
        slots[index].source = plex
        slots[index].transfer = Slot.Transfer(kind: .flush)
        slots[index].good = targets
        slots[index].hasFannedOut = true
        fanOutFlush(index, targets)
    }

    private mutating func fanOutFlush(_ index: Int, _ targets: PlexSet) {
        var usable = targets
        targets.forEach { plex in
            guard plexes[Int(plex.value)].flushFailed else { return }
            usable.remove(plex)
        }
        let suspect = targets.subtracting(usable)
        slots[index].good = slots[index].good.subtracting(suspect)
        if usable.isEmpty, !suspect.isEmpty {
            slots[index].step = .fanOut
            slots[index].failed = suspect
            fanOutFinished(index)
        } else {
            fanOut(index, to: usable)
            // A plex whose earlier flush failed stays failed: the kernel forgets the error, we do not.
            slots[index].failed = slots[index].failed.union(suspect)
        }
    }

    private mutating func internalFlushFinished(_ index: Int) {
        let purpose = slots[index].purpose
        let good = slots[index].good
        let failed = slots[index].failed
        let plex = slots[index].source
        freeSlot(index)
        for plex in good.members { plexes[Int(plex.value)].flushBelievedAt = now.nanoseconds }
        // Plexes that were not asked did not fail: a break flushes one, another may be new.
        let survivors = working.subtracting(failed)
        for plex in failed.members where !survivors.isEmpty || recovering.contains(plex) {
            expel(plex, operation: .flush, plexes[Int(plex.value)].lastFailure, offset: 0)
        }
        if survivors.isEmpty, !failed.intersection(working).isEmpty {
            latchFlushFailure(failed.intersection(working))
        }
        switch purpose {
        case .open: openFlushed()
        case .clean: cleaningFlushed(good: good)
        case .stop: stopFlushed(good: good, everywhere: failed.isEmpty)
        case .promote: if let plex { promoteFlushed(plex, succeeded: good.contains(plex)) }
        case .equalised: equalisedFlushed(everywhere: working.isSubset(of: good))
        case .breakOff: if let plex { breakFlushed(plex, succeeded: good.contains(plex)) }
        }
    }
}
