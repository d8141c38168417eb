internal import Bytes
internal import MirrorFormat

/// Writing the mirror's record to all superblocks, round after round, until what is on disk is what is true.
///
/// One round at a time. Changes that come during a round wait for the next, and are written together. A
/// round has two phases: first every working plex, then those that are new to the set (joining, under
/// rebuild, being promoted). A newcomer's superblock therefore never claims more than the others know: if
/// power fails between the phases, the old members can go on without it, and it is behind.
struct RecordCommit {
    /// Number of the last round that was begun; a ticket is the number of the round to wait for.
    var round: UInt64 = 0
    var isWanted = false
    var isRunning = false
    var isInSecondPhase = false
    /// The targets' torn copies are being wiped; then the record is written.
    var isWiping = false
    /// The last round reached no plex at all.
    var isFailing = false
    /// Someone is parked who needs a wake-up although no record may be wanted.
    var needsWake = false
    var retryAt: UInt64 = 0
    var outstanding = 0
    /// Operations of this round that were tried again.
    var transients: UInt8 = 0
    var targets = PlexSet.empty
    var newcomers = PlexSet.empty
    var failed = PlexSet.empty
    var snapshot: Record?
    private(set) var generationReason: GenerationReason?

    var wantsGeneration: Bool { generationReason != nil }

    /// The round under way is about the disk that the plex had before: it says nothing of the one that it has now, and
    /// must not be written to it.
    mutating func forget(_ plex: PlexIndex) {
        targets.remove(plex)
        newcomers.remove(plex)
        failed.remove(plex)
    }

    /// The next round begins a new generation (R9).
    mutating func beginGeneration(_ reason: GenerationReason) { generationReason = generationReason ?? reason }

    mutating func takeGenerationReason() -> GenerationReason? {
        defer { generationReason = nil }
        return generationReason
    }
}

extension Mirror {
    /// Asks for a round that contains everything changed so far.
    ///
    /// - Returns: its number; see `RecordCommit.round`.
    @discardableResult
    mutating func wantCommit() -> UInt64 {
        commit.isWanted = true
        return commit.round + 1
    }

    /// Called when an event has been handled in full, so that changes that belong together share a round.
    mutating func beginCommitIfWanted() {
        guard commit.isWanted, !commit.isRunning, !isReadOnly, phase != .stopped, !working.isEmpty,
            now.nanoseconds >= commit.retryAt
        else { return }
        commit.isWanted = false
        commit.isRunning = true
        commit.isInSecondPhase = false
        commit.round += 1
        commit.failed = .empty
        commit.transients = 0
        if let reason = commit.takeGenerationReason() {
            record.begin(
                Generation(entropy.nextUUID()), because: reason, inSync: possibleInSync, time: now.unixNanoseconds)
        }
        // The same record once more keeps its number; another one says how many were tried before it. A disk that has
        // taken one although it said no is then no further ahead of the others than it says, see `Record.descends`.
        if !commit.isFailing || commit.snapshot != record {
            record.unconfirmed = commit.isFailing ? record.unconfirmed + 1 : 0
            record.epoch += 1
            record.updatedTime = now.unixNanoseconds
        }
        commit.snapshot = record
        possibleInSync = possibleInSync.union(record.inSync)
        commit.newcomers = recovering.union(readyToJoin)
        let first = mutant == .recordOnOnePlex ? PlexSet(working.first ?? PlexIndex(0)) : working
        writeRecord(to: first)
    }

    private mutating func writeRecord(to targets: PlexSet) {
        commit.targets = targets
        commit.isWiping = targets.members.contains { plexes[Int($0.value)].attachment?.copies.torn.isEmpty == false }
        if commit.isWiping { wipeTornCopies() } else { writeCopies() }
    }

    /// Sectors of updates that were cut off must not add up to a whole superblock together with sectors of this one, if
    /// it is cut off as well: of the one update the sector with the checksum, of the other the rest, which is the
    /// same in both. A record would appear that was never finished, beside another one of its epoch.
    private mutating func wipeTornCopies() {
        commit.outstanding = 0
        for plex in commit.targets.members {
            guard let attachment = plexes[Int(plex.value)].attachment else { preconditionFailure("no disk to wipe") }
            for copy in 0..<Layout.superblockCopies where attachment.copies.torn.contains(copy) {
                commit.outstanding += 1
                submitCopy(copy, plex, attachment)
            }
        }
    }

    /// Those that could not be wiped count as failed whatever becomes of the record.
    private mutating func tornCopiesWiped() {
        commit.isWiping = false
        for plex in commit.targets.subtracting(commit.failed).members {
            plexes[Int(plex.value)].attachment?.copies.torn = .none
        }
        // Where nothing was written no pair is suspect: the newest copies lie in the other one.
        commit.targets = commit.targets.intersection(working.union(recovering).union(joining)).subtracting(
            commit.failed)
        if commit.targets.isEmpty { recordWritten() } else { writeCopies() }
    }

    private mutating func writeCopies() {
        commit.outstanding = commit.targets.count * 2
        for plex in commit.targets.members {
            let index = Int(plex.value)
            // A failed update may have torn its pair of copies: the other pair is all there is, so the next update
            // goes to the same pair again.
            let step: UInt64 = plexes[index].isPairSuspect ? 2 : 1
            plexes[index].attachment?.sequence += step
            guard let attachment = plexes[index].attachment else { preconditionFailure("no disk to record on") }
            let copies = Superblock.copies(ofSequence: attachment.sequence)
            for copy in [copies.0, copies.1] {
                submitCopy(copy, plex, attachment)
            }
        }
    }

    private mutating func submitCopy(_ copy: Int, _ plex: PlexIndex, _ attachment: Attachment) {
        submitMetadata(
            owner: .commit, plex: plex, slot: copy, generation: UInt32(truncatingIfNeeded: commit.round),
            offset: Layout.superblockOffset(copy: copy, diskBytes: attachment.layout.diskBytes))
    }

    mutating func submitMetadata(
        owner: DiskTag.Owner, plex: PlexIndex, slot: Int, generation: UInt32, offset: UInt64
    ) {
        submit(
            DiskOperation(
                tag: DiskTag(owner: owner, plex: plex, slot: slot, generation: generation), plex: plex,
                kind: .writeMetadata, isDurable: true, buffer: .none, bufferOffset: 0, offset: offset,
                length: Limits.blockBytes, request: RequestID(0)))
    }

    mutating func commitCompleted(_ tag: DiskTag, _ result: DiskResult) {
        switch result {
        case .transferred: break
        case .failed(let failure):
            if failure.kind == .transient, retryRecord(tag) { return }
            plexes[Int(tag.plex.value)].lastFailure = failure
            commit.failed.insert(tag.plex)
        }
        commit.outstanding -= 1
        guard commit.outstanding == 0 else { return }
        if phase == .stopped {
            // A stop was given up meanwhile, and the disks are being closed.
            commit.isRunning = false
            return
        }
        if commit.isWiping { tornCopiesWiped() } else { recordWritten() }
    }

    private mutating func recordWritten() {
        for plex in commit.targets.members { plexes[Int(plex.value)].isPairSuspect = commit.failed.contains(plex) }
        if commit.isInSecondPhase { secondPhaseFinished() } else { firstPhaseFinished() }
    }

    /// EAGAIN and the like are no reason to give a plex up.
    private mutating func retryRecord(_ tag: DiskTag) -> Bool {
        guard commit.transients < limits.transientRetries, phase != .stopped,
            let attachment = plexes[Int(tag.plex.value)].attachment,
            working.union(recovering).union(joining).contains(tag.plex)
        else { return false }
        commit.transients += 1
        submitCopy(tag.slot, tag.plex, attachment)
        return true
    }

    private mutating func firstPhaseFinished() {
        if working.subtracting(commit.failed).isEmpty {
            recordReachedNobody()
            return
        }
        let failed = commit.failed.intersection(working)
        for plex in failed.members {
            expel(plex, operation: .metadata, plexes[Int(plex.value)].lastFailure, offset: 0)
        }
        guard failed.isEmpty else {
            // To a fixpoint (R3): the next round records that these are gone, too.
            commit.isRunning = false
            return
        }
        if let named = commit.snapshot?.inSync, !named.isSubset(of: working.union(recovering)) {
            // A plex that the record names in sync left during the round, perhaps without having it: whoever
            // waits, waits for a record that says so (R1, R2).
            commit.isRunning = false
            commit.isWanted = true
            return
        }
        let newcomers = commit.newcomers.intersection(recovering.union(joining))
        commit.isInSecondPhase = true
        if newcomers.isEmpty {
            commit.targets = .empty
            secondPhaseFinished()
        } else {
            writeRecord(to: newcomers)
        }
    }

    private mutating func secondPhaseFinished() {
        let written = commit.targets.subtracting(commit.failed)
        for plex in commit.failed.members {
            expel(plex, operation: .metadata, plexes[Int(plex.value)].lastFailure, offset: 0)
        }
        commit.isRunning = false
        guard let snapshot = commit.snapshot else { preconditionFailure("a round without a record") }
        guard snapshot.inSync.isSubset(of: working.union(recovering.intersection(written))) else {
            // As in the first phase: the record names a plex in sync that has not got it, and is gone.
            commit.isWanted = true
            return
        }
        commit.isFailing = false
        commit.needsWake = false
        possibleInSync = snapshot.inSync
        durableEpoch = snapshot.epoch
        durableGeneration = snapshot.generation
        loneIsEqual()
        for plex in snapshot.inSync.intersection(recovering).intersection(written).members { promoted(plex) }
        for plex in joining.intersection(written).members { joined(plex) }
        closeUnusedMaps(durable: snapshot)
        resumeIfNoneFails()
        let round = commit.round
        gateAfterCommit(round: round)
        settlePages()
        cleaningGoesOn()
        sparingAfterCommit(round: round)
        wakeSlots(round: round)
        tryOpen()
        commandAfterCommit(round: round)
        forgetReplaced()
    }

    /// No plex took the record. Nobody is expelled, nothing more is acknowledged, and it is tried again.
    private mutating func recordReachedNobody() {
        commit.isRunning = false
        commit.isWanted = true
        commit.isFailing = true
        commit.retryAt = now.nanoseconds + limits.commonFailureRetryNanoseconds
        let failure = working.first.map { plexes[Int($0.value)].lastFailure } ?? .truncated
        suspend(failure)
        giveUpForStop()
    }

    /// The tick's part: the round is begun when the wait is over.
    mutating func retryCommit() {
        if commit.needsWake, !commit.isRunning, !commit.isWanted { wantCommit() }
    }

    /// Fills the 4 KiB that a `writeMetadata` operation writes. To be called when the effect is taken.
    package func encodeMetadata(_ operation: DiskOperation, into bytes: inout MutableRawSpan) {
        precondition(operation.kind == .writeMetadata)
        switch operation.tag.owner {
        case .commit:
            guard let snapshot = commit.snapshot, let attachment = plexes[Int(operation.plex.value)].attachment
            else { preconditionFailure("no record to write") }
            if commit.isWiping { return bytes.clear() }
            let superblock = Superblock(
                record: snapshot, plex: attachment.uuid, sequence: attachment.sequence, layout: attachment.layout,
                writer: writer)
            superblock.encode(copy: operation.tag.slot, into: &bytes)
        case .eventLog: encodeEventBlock(operation, into: &bytes)
        case .detach: encodeDetached(operation, into: &bytes)
        case .bitmap: encodePage(operation, into: &bytes)
        case .sparing: encodeRemapPage(operation, into: &bytes)
        case .scrub: scrub.ledger.encode(page: operation.tag.slot, mirror: record.mirror, into: &bytes)
        case .request: preconditionFailure("requests write no metadata")
        }
    }

    // MARK: opening

    /// After a crash, whatever lies in a cache is made durable before anyone may read it (R7).
    mutating func openStep(isUnclean: Bool) {
        if isUnclean {
            startInternalFlush(.open, working)
        } else {
            isOpenFlushed = true
        }
        pumpPages()
        beginCommitIfWanted()
        tryOpen()
    }

    mutating func openFlushed() {
        isOpenFlushed = true
        tryOpen()
    }

    mutating func tryOpen() {
        guard phase == .opening, isOpenFlushed, !commit.isWanted, !commit.isRunning else { return }
        // Plexes are made equal only where all of them say that they may differ (R1).
        guard !hasUnequal || tracking.isIntentDurable(on: possibleInSync) else { return }
        phase = .running
        releaseHeld()
        pumpResync()
    }
}
