internal import MirrorFormat

/// What happens when a disk says no: expelling a plex (R3), failures that all plexes share, retries.
extension Mirror {
    /// Takes a plex out after an error. It gets no more I/O from here on; what it missed is acknowledged only
    /// when the remaining plexes have it on record, see `commit`.
    ///
    /// Scenarios:
    ///  - in sync, not the last: expelled, a new generation begins;
    ///  - in sync, the last: stays, for it is all there is; the request fails, not the mirror;
    ///  - being rebuilt or joining: its rebuild ends;
    ///  - anything else: it was expelled already, this is one of the requests that were in flight.
    ///
    /// What it may lack afterwards was counted all the time: whatever was written since the last flush of all plexes is
    /// under an intent bit, so the cache of a disk that was pulled out may go with it. That count does not hold where a
    /// flush failed on a disk that is there, see `isCountDoubtful`.
    mutating func expel(_ plex: PlexIndex, operation: FailedOperation, _ failure: DiskFailure, offset: UInt64) {
        let isWorking = working.contains(plex)
        let wasJoining = joining.contains(plex)
        guard isWorking || recovering.contains(plex) || joining.contains(plex) else { return }
        if isWorking, working.count == 1 {
            lastPlexFailed(plex, operation: operation, failure, offset: offset)
            return
        }
        working.remove(plex)
        recovering.remove(plex)
        joining.remove(plex)
        resync.promoting.remove(plex)
        if operation == .write || operation == .zero { record[plex].writeErrors += 1 }
        countMissed(plex, wasWorking: isWorking, wasJoining: wasJoining)
        let isAbsent = operation == .absence || failure == .absent
        if operation == .flush, isCountDoubtful(plex, failure) { record[plex].missedWriteMap = nil }
        if mutant == .missesFromFailureOn, isAbsent, isWorking { forgetUnflushed() }
        record[plex].role = .failed
        record[plex].cause = FailureCause(
            operation: isAbsent ? .absence : operation, errorNumber: failure.errorNumber, offset: offset,
            time: now.unixNanoseconds)
        let isFirst = mutant != .noGenerationIfDegraded || record.configured.subtracting(PlexSet(plex)) == working
        if isWorking || possibleInSync.contains(plex), isFirst { commit.beginGeneration(.expelled) }
        repin()
        log(
            isAbsent ? .plexMissing : .plexFailed, plex: plex, errorNumber: failure.errorNumber,
            offset: offset,
            text: describe(record[plex].cause))
        wantCommit()
        release(plex)
    }

    /// Flushes that were under way together with one that failed may have said yes to what was lost (R8), and bits were
    /// cleared because they did. On a disk that is gone none says so: but for one that ended before, while another was
    /// under way that took the error and has not told of it until now.
    private func isCountDoubtful(_ plex: PlexIndex, _ failure: DiskFailure) -> Bool {
        guard failure == .absent else { return failure.kind != .late }
        let believedAt = plexes[Int(plex.value)].flushBelievedAt
        return slots.contains {
            $0.kind != .free && $0.step == .fanOut && $0.transfer.kind == .flush
                && $0.submittedAt[Int(plex.value)] < believedAt
        }
    }

    /// Of a mutant.
    private mutating func forgetUnflushed() {
        var settled = tracking.durable
        for index in slots.indices where slots[index].kind != .free && slots[index].countsAsMutation {
            let request = slots[index].request
            let regions = tracking.regions(request.offset, request.length)
            for region in regions { settled.remove(region) }
        }
        tracking.removeIntent(settled, witness: tracking.witness)
    }

    private mutating func lastPlexFailed(
        _ plex: PlexIndex, operation: FailedOperation, _ failure: DiskFailure, offset: UInt64
    ) {
        plexes[Int(plex.value)].lastFailure = failure
        if operation == .write || operation == .zero { record[plex].writeErrors += 1 }
        record[plex].cause = FailureCause(
            operation: operation, errorNumber: failure.errorNumber, offset: offset, time: now.unixNanoseconds)
    }

    /// The pinned source must be a working plex. The last working plex differs from nobody, but only once that
    /// is on record (`loneIsEqual`): before, a restart may find a plex that was expelled and that says
    /// otherwise, and what a reader was told would flip (R7).
    mutating func repin() {
        if let pinned = record.pinned, !working.contains(pinned) {
            record.pinned = working.first
        }
    }

    ///
    /// One under rebuild may have got some of it from a plex that was pinned before: then it goes on to the end.
    mutating func loneIsEqual() {
        guard hasUnequal, working.count == 1, possibleInSync.isSubset(of: working), recovering.isEmpty,
            // It may be about to tell what it has read from a plex that is gone now.
            !slots.contains(where: { $0.kind == .client && $0.equalisedTo != nil })
        else { return }
        endUnequal()
    }

    /// A write, zeroing or flush failed on every plex that clients are served from.
    mutating func failedEverywhere(_ index: Int) {
        let failed = slots[index].failed
        let failure = working.first.map { plexes[Int($0.value)].lastFailure } ?? .truncated
        let offset = slots[index].transfer.offset
        for plex in failed.intersection(recovering).members {
            expel(plex, operation: operationName(index), plexes[Int(plex.value)].lastFailure, offset: offset)
        }
        // A plex under rebuild that took the write is now ahead of its source.
        let isFlush = slots[index].transfer.kind == .flush
        if !isFlush {
            let regions = tracking.regions(offset, slots[index].transfer.length)
            for plex in slots[index].good.intersection(recovering).members { rewindResync(plex, regions) }
        }
        if isFlush { latchFlushFailure(working) }
        let lost = failed.intersection(working).filter { plexes[Int($0.value)].lastFailure.kind == .lost }
        if !lost.isEmpty { latchFlushFailure(lost) }
        let mayRetry =
            working.count > 1 && !isFlush && lost.isEmpty && failure.kind != .noSpace && failure.kind != .unsupported
            && slots[index].commonFailures < limits.commonFailureRetries && phase == .running
        if mayRetry {
            slots[index].commonFailures += 1
            slots[index].step = .retryWait
            slots[index].retryAt = now.nanoseconds + limits.commonFailureRetryNanoseconds
            suspend(failure)
            return
        }
        slots[index].status = failure.kind == .noSpace ? .noSpace : .ioError
        working.forEach { plex in
            guard !isFlush, failure.kind == .media else { return }
            record[plex].writeErrors += 1
        }
        // A flush that fails while no bit is set leaves the plexes as equal as they were.
        let isCleanFlush = isFlush && tracking.intent.isEmpty
        guard !isCleanFlush, working.count > 1 || !possibleInSync.isSubset(of: working) else {
            finish(index, slots[index].status)
            return
        }
        // Each plex may have kept another part of it: they count as different until copied over, and that
        // is on record before the client hears of the error.
        if isFlush {
            beginUnequal(tracking.intent)
        } else {
            let request = slots[index].request
            var regions = RegionSet(count: tracking.regionCount)
            regions.insert(tracking.regions(request.offset, request.length))
            beginUnequal(regions)
        }
        slots[index].step = .failureRecord
        waitForRecord(index)
    }

    /// After a failed flush the kernel may forget what it could not write; a later success proves nothing.
    mutating func latchFlushFailure(_ set: PlexSet) {
        for plex in set.members {
            plexes[Int(plex.value)].flushFailed = true
            record[plex].cause = FailureCause(
                operation: .flush, errorNumber: plexes[Int(plex.value)].lastFailure.errorNumber, offset: 0,
                time: now.unixNanoseconds)
        }
        // Those under rebuild may have what their source has lost.
        rewindResync(tracking.intent)
    }

    mutating func suspend(_ failure: DiskFailure) {
        suspensionCause = failure
        guard !isSuspended else { return }
        isSuspended = true
        log(.suspended, errorNumber: failure.errorNumber, text: "all plexes fail alike; requests wait")
    }

    /// Requests that failed on all plexes alike go out again.
    mutating func retryWaiting() {
        guard isSuspended, !commit.isFailing, !tracking.isFailing else { return }
        var isWaiting = false
        for index in slots.indices where slots[index].step == .retryWait {
            guard now.nanoseconds >= slots[index].retryAt || phase != .running else {
                isWaiting = true
                continue
            }
            let targets = slots[index].good.union(slots[index].failed).intersection(working.union(recovering))
            slots[index].good = targets
            fanOut(index, to: targets)
        }
        if !isWaiting { resumeIfNoneFails() }
    }

    /// The suspension is over when no request is left that failed everywhere and was not answered since.
    mutating func resumeIfNoneFails() {
        guard isSuspended, !commit.isFailing, !tracking.isFailing,
            !slots.contains(where: { $0.kind == .client && $0.commonFailures > 0 })
        else { return }
        resume()
    }

    mutating func resume() {
        guard isSuspended else { return }
        isSuspended = false
        log(.resumed, text: "requests go on")
    }

    /// Counters survive a restart, at the price of a record now and then.
    mutating func recordCounters() {
        guard hasNewCounters, phase == .running, !isReadOnly,
            now.nanoseconds - countersRecordedAt >= limits.counterRecordNanoseconds
        else { return }
        hasNewCounters = false
        countersRecordedAt = now.nanoseconds
        wantCommit()
    }

    /// The slot goes on when a record that contains all that was changed so far is durable.
    mutating func waitForRecord(_ index: Int) { slots[index].ticket = wantCommit() }

    /// A record became durable: whoever waited for it goes on.
    mutating func wakeSlots(round: UInt64) {
        if let ticket = healTicket, ticket <= round { healTicket = nil }
        for index in slots.indices {
            switch slots[index].step {
            case .parked: acknowledge(index)
            case .failureRecord where slots[index].ticket <= round: finish(index, slots[index].status)
            case .pinRecord where slots[index].ticket <= round && slots[index].kind == .scrubRepair:
                sourcePinned(index)
            case .pinRecord where slots[index].ticket <= round:
                slots[index].step = slots[index].resumeStep
                submitRead(index)
            case .healRecord where slots[index].ticket <= round: acknowledge(index)
            case .promotionWait: promotionEnded(index)
            case .sparing, .idle, .held, .lock, .gate, .reading, .edgeRead, .fanOut, .retryWait, .failureRecord,
                .pinRecord,
                .healRecord:
                break
            }
        }
    }
}
