package import MirrorFormat

/// A disk that is open and carries, or shall carry, a plex.
package struct Attachment: Sendable {
    package var uuid: PlexUUID
    package var layout: Layout
    /// Of the last superblock written to it; the next one is one higher.
    package var sequence: UInt64
    /// How much has to be copied when it joins.
    package var basis: JoinBasis
    /// Of its superblock; torn ones are wiped before the next update, see `Mirror.wipeTornCopies`.
    package var copies: SuperblockCopies
    /// Nil: it has none that counts.
    package var remaps: RemapTable?

    package init(
        uuid: PlexUUID, layout: Layout, sequence: UInt64, basis: JoinBasis,
        copies: SuperblockCopies = SuperblockCopies()
    ) {
        self.uuid = uuid
        self.layout = layout
        // Where copies were lost, the newest state may lie in the pair whose turn it is.
        self.sequence = copies.areAllOverwritten(by: sequence + 1) ? sequence + 1 : sequence
        self.basis = basis
        self.copies = copies
    }

    /// - Parameter remaps: nil: not read, or the superblock says that there is none.
    package init(
        _ superblock: Superblock, basis: JoinBasis, remaps: RemapTable? = nil,
        copies: SuperblockCopies = SuperblockCopies()
    ) {
        let isLost = superblock.isRemapped && remaps?.isDamaged ?? true
        self.init(
            uuid: superblock.plex, layout: superblock.layout, sequence: superblock.sequence,
            basis: isLost ? .everything("its remap table can't be read") : basis, copies: copies)
        if superblock.isRemapped, !isLost { self.remaps = remaps }
    }
}

/// What the running mirror knows of one slot of the member table beyond the record.
struct Plex {
    /// Nil: no disk is open for it.
    var attachment: Attachment?
    /// Operations submitted and not completed, of whatever kind.
    var inFlight = 0
    var readsInFlight = 0
    /// Where the last read ended: a reader that goes on from here is served by the same disk.
    var lastReadEnd: UInt64 = .max
    /// Close the disk when nothing is in flight.
    var isReleasing = false
    var lastFailure = DiskFailure.truncated
    /// A flush failed on the last good plex: nothing that a later flush says can be believed (R8).
    var flushFailed = false
    /// When the last flush ended that the engine itself asked for, and drew conclusions from: monotonic nanoseconds.
    var flushBelievedAt: UInt64 = 0
    /// The last superblock update failed, and may have left a torn pair of copies.
    var isPairSuspect = false
    var eventsThrough: UInt64 = 0
    /// The newest record in the block that is being written.
    var eventLogWritten: UInt64 = 0
    var eventWriteInFlight = false
    var eventLogDisabled = false
    /// What is copied to it, and why; nil unless it is being rebuilt.
    var copyReason: String?
    /// A page of the bitmap with a higher sequence must be on all plexes before this one is proven, and another
    /// before it is promoted; see `proveJoined`.
    var joinMark: UInt64 = 0
    var isProven = false
    var badBlocks = BadBlocks()
    /// Blocks that lie in the spare pool.
    var remaps = RemapTable(slotCount: 0)
    /// When pages of it that could not be written anew are tried again.
    var settleAt: UInt64 = 0
    var ledger = LedgerCopy()
    /// When the last write of any kind was done: monotonic nanoseconds.
    var wroteAt: UInt64 = 0
    var readTimes = ReadTimes()
    /// Ten times what 99 of 100 reads took when that was last looked at.
    var hedgeAfter: UInt64 = 0
    /// Reads that were asked of another plex as well, since the disk was opened; and those that the other one answered
    /// first since it was last judged.
    var hedged: UInt64 = 0
    var lostRaces = 0
    /// Is read in need only.
    var isSlow = false
    /// In a row, against what it counts as.
    var badJudgements = 0
    /// Reads that it may get although it is slow.
    var probes = 0
}

extension Assembly {
    /// The plexes whose disks the mirror will use; all others stay closed.
    package var participants: PlexSet {
        current.union(behind).union(recovering).union(returning).union(losers)
    }
}

extension Mirror {
    /// Takes the plexes of an assembly over and asks for the record that opens the mirror, if one is needed.
    mutating func adopt(_ assembly: Assembly) {
        working = assembly.current
        adoptPages(assembly)
        // Bits beside a clean mark can't be; they are believed all the same.
        let isUnclean = !record.isClean || !tracking.intent.isEmpty
        let mustEqualise = !tracking.intent.isEmpty && working.count > 1
        if mustEqualise, record.pinned.map({ !working.contains($0) }) ?? true { record.pinned = newest(assembly) }
        if isReadOnly {
            // Nothing may be written, so plexes that may differ can't be made equal: one answers for all.
            if mustEqualise, let pinned = record.pinned { working = PlexSet(pinned) }
            for plex in working.members { attach(plex, assembly) }
            phase = .running
            return
        }
        for plex in assembly.participants.members { attach(plex, assembly) }
        // A plex that is trusted again is not at risk for what it said in an earlier life; the counters stay.
        for plex in working.members { record[plex].cause = .none }
        if mustEqualise { beginUnequal(tracking.intent) } else { record.pinned = nil }
        let isMisleading = record.isClean && !tracking.intent.isEmpty
        if isMisleading { record.isClean = false }
        gate = record.isClean ? .clean : .dirty
        missAtOpen(assembly.missing)
        joinAtOpen(assembly)
        if mustEqualise || isMisleading || commit.wantsGeneration || !joining.isEmpty { wantCommit() }
        openStep(isUnclean: isUnclean)
    }

    private mutating func adoptPages(_ assembly: Assembly) {
        let found = working.members.compactMap { plex in
            assembly.found[plex].map { found in
                // Of a disk whose bitmap was not read nothing is known.
                (plex, found.pages ?? FoundPages(of: found.superblock, bitsPerPage: limits.bitsPerPage))
            }
        }
        tracking.adopt(
            found, maps: record.members.compactMap(\.missedWriteMap),
            isClean: record.isClean || mutant == .badPageIsClean, time: now.unixNanoseconds)
        suspectSetBack(found)
    }

    /// Every plex has the page that is written before bits are cleared (`WriteTracking.askForWitness`). One that lacks it,
    /// although its record is the newest, has a torn page or is a disk in an earlier state: what it lacks is not under
    /// any bit. Everything is copied over it, then.
    private mutating func suspectSetBack(_ found: [(PlexIndex, FoundPages)]) {
        guard !record.isClean,
            let newest = found.max(by: { ($0.1.lastClear, $0.1.sequence) < ($1.1.lastClear, $1.1.sequence) })
        else { return }
        let suspects = PlexSet(
            mask: found.reduce(0) { $1.1.sequence < newest.1.lastClear ? $0 | PlexSet($1.0).mask : $0 })
        guard !suspects.isEmpty else { return }
        tracking.insertIntent(0..<tracking.regionCount)
        record.pinned = newest.0
        log(
            .plexReturned, plex: suspects.first,
            text: "plex \(list(suspects)) is back in an earlier state than its record says; all of it is copied")
    }

    /// Nobody knows which plexes have got what was written last. Of two that differ the one whose bitmap is newer is
    /// the better guess: the other may have been set back.
    private func newest(_ assembly: Assembly) -> PlexIndex? {
        working.members.max { sequence($0, assembly) < sequence($1, assembly) }
    }

    private func sequence(_ plex: PlexIndex, _ assembly: Assembly) -> UInt64 {
        assembly.found[plex]?.pages?.sequence ?? 0
    }

    /// Plexes that the record lists in sync and that are not there: they begin to miss writes now.
    private mutating func missAtOpen(_ missing: PlexSet) {
        for plex in record.plexes(in: .recovering).members where plexes[Int(plex.value)].attachment == nil {
            record[plex].role = .stale
            record[plex].cause = FailureCause(operation: .absence, time: now.unixNanoseconds)
            goOnCounting(plex, epoch: durableEpoch)
            // On record, or its disk would have to show every clearing from now on to be given the rest only.
            wantCommit()
        }
        guard !missing.isEmpty else { return }
        for plex in missing.members {
            record[plex].role = .stale
            record[plex].cause = FailureCause(operation: .absence, time: now.unixNanoseconds)
            startCounting(plex, epoch: durableEpoch)
        }
        commit.beginGeneration(.startedDegraded)
        log(.startedDegraded, text: "started without plex \(list(missing))")
    }

    /// Plexes that are behind, half rebuilt, or back again take part as targets of the resync.
    private mutating func joinAtOpen(_ assembly: Assembly) {
        joining = assembly.behind.union(assembly.recovering).union(assembly.returning).union(assembly.losers)
        for plex in joining.members {
            guard let found = assembly.found[plex] else { continue }
            // As it was found: since then it says what the disks themselves say of their remap tables.
            var basis = JoinBasis(found.superblock, found.pages, joining: assembly.record)
            if found.lacksRemaps { basis = .everything("its remap table can't be read") }
            if assembly.losers.contains(plex) {
                basis = basisOfLoser(plex, found, basis)
                log(.splitBrain, plex: plex, text: "resolved: what plex \(plex) wrote alone is overwritten")
            } else if assembly.behind.contains(plex) {
                basis = basisOfBehind(basis)
                startCounting(plex, epoch: 0)
                commit.beginGeneration(.memberBehind)
            } else if assembly.recovering.contains(plex) {
                // It took part until the end: its disk must be as new as the others'.
                goOnCounting(plex, epoch: record[plex].missedWriteMap?.epoch ?? 0)
            } else {
                returned(plex)
            }
            record[plex].role = .recovering
            plexes[Int(plex.value)].ledger = .unknown
            planCopy(plex, basis)
        }
    }

    /// Both sides have counted what they wrote since they parted, if each recorded that the other was gone.
    private mutating func basisOfLoser(_ plex: PlexIndex, _ found: FoundPlex, _ basis: JoinBasis) -> JoinBasis {
        commit.beginGeneration(.resolved)
        let isFork = found.record.generation == record.generation
        guard record[plex].role == .inSync || isFork else { return basis }
        record[plex].missedWriteMap = nil
        return .everything("it parted without being recorded as out")
    }

    /// A plex that the record lists in sync and whose own superblock is older: power failed while the record was being
    /// written, or its disk was set back. If its own record calls it in sync, and its bitmap is as new as
    /// the others', it lacks nothing but what is under intent bits.
    private func basisOfBehind(_ basis: JoinBasis) -> JoinBasis {
        guard case .evidence(let evidence) = basis, !evidence.listsItselfInSync else { return basis }
        return .everything("its own superblock does not call it in sync")
    }

    private mutating func attach(_ plex: PlexIndex, _ assembly: Assembly) {
        guard let found = assembly.found[plex] else { preconditionFailure("a participant was not found") }
        attach(
            plex,
            Attachment(
                found.superblock, basis: .everything("it was in use"), remaps: found.remaps, copies: found.copies))
        leaveOutNumbers(plex)
        plexes[Int(plex.value)].eventsThrough = eventLog.lastSequence
    }

    /// The disk is there; what its own superblock says of a remap table holds.
    mutating func attach(_ plex: PlexIndex, _ attachment: Attachment) {
        plexes[Int(plex.value)].attachment = attachment
        let found = mutant == .remapForgotten ? nil : attachment.remaps
        plexes[Int(plex.value)].remaps = found ?? RemapTable(attachment.layout)
        record[plex].isRemapped = attachment.remaps != nil
        lookForRemaps()
        lookForReluctant()
    }

    /// The last server may have been cut off in the middle of the next update, and so may the one before: sectors of
    /// both lie in the older pair of copies. If this server began an update of the same number and were cut off as well,
    /// these sectors could add up to a whole superblock beside a different one of the same number: a fork, and
    /// the disk would be refused. So each server leaves out some numbers, as many as chance will have it; an even
    /// count, for the next update has to go to the other pair.
    mutating func leaveOutNumbers(_ plex: PlexIndex) {
        plexes[Int(plex.value)].attachment?.sequence += 2 * (1 + entropy.next() % (1 << 20))
    }

    /// Marks the plex's disk for closing; it happens when its last operation has come back.
    mutating func release(_ plex: PlexIndex) {
        guard plexes[Int(plex.value)].attachment != nil else { return }
        plexes[Int(plex.value)].isReleasing = true
        releaseIfIdle(plex)
    }

    mutating func releaseIfIdle(_ plex: PlexIndex) {
        let index = Int(plex.value)
        let isForgotten = mutant == .zombieForgotten && plexes[index].inFlight == lateness.zombies(of: plex)
        guard plexes[index].isReleasing, plexes[index].inFlight == 0 || isForgotten else { return }
        plexes[index] = Plex()
        emit(.release(plex))
        stoppedIfReleased()
    }

    /// A write to the event log, or one to an expelled plex, may outlast the answer to `stop`. What was given up is not
    /// waited for.
    func isEveryDiskReleased() -> Bool {
        plexes.indices.allSatisfy { index in
            plexes[index].attachment == nil
                || plexes[index].isReleasing && plexes[index].inFlight == lateness.zombies(of: PlexIndex(index))
        }
    }

    mutating func stoppedIfReleased() {
        guard phase == .stopped, !isStoppedTold, isEveryDiskReleased() else { return }
        isStoppedTold = true
        emit(.stopped)
    }

    func list(_ set: PlexSet) -> String { set.members.map(\.description).joined(separator: ", ") }
}
