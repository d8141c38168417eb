internal import MirrorFormat

/// Blocks in which plexes differ are given the version of the plex that the user chose, or of a strict majority of three
/// or more; of two nobody is believed unasked.
///
/// Under the lock of the block, exclusively: all are read again, for clients may have written there since. Then the
/// source is pinned on record, durably: if power fails from here on, it is what the others are made equal to. Then the
/// region's intent bit is set (R1), and the others are written durably and read back.
extension Mirror {
    var repairingWindow: Int? {
        scrub.jobs.firstIndex { $0.map { slots[$0.slot].kind == .scrubRepair } ?? false }
    }

    /// One at a time, with no window under way.
    mutating func pumpScrubRepairs() {
        while scrub.isIdle, !isReadOnly, !holdsMutations, let offset = scrub.repairs.first,
            mayCompare(offset, Limits.blockBytes), let window = resync.windows.firstIndex(where: { !$0.isUsed })
        {
            scrub.repairs.removeFirst()
            let index = takeScrubSlot(.scrubRepair, offset..<offset + Limits.blockBytes, window: window)
            acquire(index, isExclusive: true)
        }
    }

    /// The block is locked.
    mutating func startScrubRepair(_ index: Int) {
        let request = slots[index].request
        guard mayCompare(request.offset, request.length), !holdsMutations else { return putRepairOff(index) }
        tryNextVersion(index)
    }

    private mutating func tryNextVersion(_ index: Int) {
        let window = scrubWindow(index)
        guard let job = scrub.jobs[window] else { return }
        let holders = working.filter { !record.isBad($0, offset: job.start, length: Limits.blockBytes) }
        guard holders.count > 1, let source = nextVersion(holders.subtracting(job.tried)) else {
            return endScrubRepair(index)
        }
        scrub.jobs[window]?.piece = job.start..<job.end
        scrub.jobs[window]?.compared = holders
        scrub.jobs[window]?.differing = .empty
        scrub.jobs[window]?.unreadable = .empty
        scrub.jobs[window]?.tried.insert(source)
        readForScrub(index, job.start..<job.end, from: source)
    }

    /// If power fails in a repair the source's version of the whole region counts: one that was outvoted elsewhere is
    /// asked last. Of the others one that is pinned already saves a record.
    private func nextVersion(_ plexes: PlexSet) -> PlexIndex? {
        if let preferred = scrub.state.preferred { return plexes.contains(preferred) ? preferred : nil }
        let entries = scrub.openEntries
        return plexes.members.min { rank($0, entries) < rank($1, entries) }
    }

    private func rank(_ plex: PlexIndex, _ entries: [Mismatch]) -> Int {
        entries.reduce(0) { $0 + ($1.odd.contains(plex) ? 2 : 0) } + (record.pinned == plex ? 0 : 1)
    }

    /// Who was asked has answered, and all that matters is as it was.
    mutating func repairAnswered(_ index: Int) {
        let window = scrubWindow(index)
        guard let job = scrub.jobs[window], let source = slots[index].source else { return }
        guard job.compared.contains(source), job.compared.count > 1 else { return putRepairOff(index) }
        guard job.unreadable.isEmpty else {
            leaveOutUnreadable(index)
            return endScrubRepair(index)
        }
        if slots[index].transfer.kind == .read {
            return ask(index, job.compared.subtracting(PlexSet(source)), .compare, job.piece)
        }
        if job.differing.isEmpty {
            scrub.close(job.piece, same: job.compared, of: record.configured, at: now.unixNanoseconds)
            return endScrubRepair(index)
        }
        let same = job.compared.count - job.differing.count
        let isMajority = job.compared.count > 2 && same * 2 > job.compared.count
        guard scrub.state.preferred != nil || isMajority else { return tryNextVersion(index) }
        pinSource(index, source)
    }

    private mutating func pinSource(_ index: Int, _ source: PlexIndex) {
        if record.pinned == source, scrub.pinned == source, !commit.isWanted, !commit.isRunning {
            return sourcePinned(index)
        }
        record.pinned = source
        slots[index].step = .pinRecord
        waitForRecord(index)
    }

    /// It is on record.
    mutating func sourcePinned(_ index: Int) {
        let request = slots[index].request
        guard mayCompare(request.offset, request.length), !holdsMutations, let source = slots[index].source,
            record.pinned == source, working.contains(source), isStillWanted(source)
        else { return putRepairOff(index) }
        scrub.pinned = source
        slots[index].countsAsMutation = true
        mutationsInFlight += 1
        passGate(index)
    }

    /// The order may have been withdrawn, or given for another plex, since.
    private func isStillWanted(_ source: PlexIndex) -> Bool {
        scrub.state.repairs && (scrub.state.preferred ?? source) == source
    }

    /// The region's bit is set.
    mutating func writeScrubRepair(_ index: Int) {
        let request = slots[index].request
        guard let job = scrub.jobs[scrubWindow(index)], mayCompare(request.offset, request.length),
            let source = slots[index].source, isStillWanted(source)
        else { return putRepairOff(index) }
        // Those under rebuild may have got the other version already.
        let targets = job.differing.intersection(working).union(recovering)
        slots[index].transfer.kind = .write
        slots[index].transfer.isDurable = true
        slots[index].good = targets
        fanOut(index, to: targets)
    }

    mutating func scrubRepairWritten(_ index: Int) {
        let window = scrubWindow(index)
        guard let job = scrub.jobs[window], let source = slots[index].source else { return }
        expelAll(slots[index].failed, for: index)
        // Or on record as not holding it.
        let failed = slots[index].failed.union(slots[index].lacking)
        heal(slots[index].good.subtracting(slots[index].lacking), slots[index].transfer)
        if hasBadBlocks { overwritten(index) }
        let written = job.differing.intersection(working).subtracting(failed)
        for plex in written.members {
            record[plex].corrected += 1
            hasNewCounters = true
            log(
                .corrected, plex: plex, offset: job.start, length: Limits.blockBytes,
                text: "scrub: written anew on plex \(plex) with the version of plex \(source), and read back")
        }
        if !written.isEmpty {
            scrub.countRepaired(job.start)
            let same = job.compared.intersection(working).subtracting(failed)
            scrub.close(job.piece, same: same, of: record.configured, source: source, at: now.unixNanoseconds)
        }
        endScrubRepair(index)
    }

    /// The mirror is being stopped, and the repair waits for a record that can't be written.
    mutating func giveUpScrubRepair(_ index: Int) { endScrubRepair(index) }

    /// It comes again when there is nothing in its way.
    mutating func putRepairOff(_ index: Int) {
        if scrub.state.isRunning { scrub.repairs.insert(slots[index].request.offset, at: 0) }
        endScrubRepair(index)
    }

    private mutating func endScrubRepair(_ index: Int) { freeScrubSlot(index, scrubWindow(index)) }

    /// No repair is under way: whom plexes are made equal to after a crash is open again.
    mutating func unpinRepaired() {
        guard scrub.pinned != nil, scrub.isIdle else { return }
        scrub.pinned = nil
        guard !hasUnequal, record.pinned != nil else { return }
        record.pinned = nil
        wantCommit()
    }
}
