package import MirrorFormat

/// A disk that is open and carries, or shall carry, a plex.
package struct Attachment: Sendable {
    package var uuid: PlexUUID
    package var layout: Layout
    /// Of the last superblock written to it; the next one is one higher.
    package var sequence: UInt64

    package init(uuid: PlexUUID, layout: Layout, sequence: UInt64) {
        self.uuid = uuid
        self.layout = layout
        self.sequence = sequence
    }

    package init(_ superblock: Superblock) {
        self.init(uuid: superblock.plex, layout: superblock.layout, sequence: superblock.sequence)
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
    /// The last superblock update failed, and may have left a torn pair of copies.
    var isPairSuspect = false
    var eventsThrough: UInt64 = 0
    /// The newest record in the block that is being written.
    var eventLogWritten: UInt64 = 0
    var eventWriteInFlight = false
    var eventLogDisabled = false
}

extension Assembly {
    /// The plexes whose disks the mirror will use; all others stay closed.
    package var participants: PlexSet { current.union(behind).union(recovering) }
}

extension Mirror {
    /// Takes the plexes of an assembly over and asks for the record that opens the mirror, if one is needed.
    mutating func adopt(_ assembly: Assembly) {
        working = assembly.current
        let isUnclean = !record.isClean
        let mustEqualise = isUnclean && working.count > 1
        if isUnclean, record.pinned.map({ !working.contains($0) }) ?? true { record.pinned = working.first }
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
        if mustEqualise { equalBelow = 0 } else { record.pinned = nil }
        gate = isUnclean ? .dirty : .clean
        joinAtOpen(assembly)
        if !assembly.missing.isEmpty {
            for plex in assembly.missing.members {
                record[plex].role = .stale
                record[plex].cause = FailureCause(operation: .absence, time: now.unixNanoseconds)
            }
            commit.beginGeneration(.startedDegraded)
            log(.startedDegraded, text: "started without plex \(list(assembly.missing))")
        }
        for plex in record.plexes(in: .recovering).subtracting(joining).members { record[plex].role = .stale }
        if mustEqualise || commit.wantsGeneration || !joining.isEmpty { wantCommit() }
        openStep()
    }

    /// Plexes that are behind or half rebuilt take part as targets of the resync.
    private mutating func joinAtOpen(_ assembly: Assembly) {
        for plex in assembly.behind.members {
            record[plex].role = .recovering
            record[plex].recoveryOffset = 0
            commit.beginGeneration(.memberBehind)
        }
        joining = assembly.behind.union(assembly.recovering)
        for plex in joining.members {
            // The offset is the truth only if the mirror was stopped in good order and the plex was there:
            // then everything below it is copied and every later write went to it as well.
            let isContinued = record.isClean && assembly.found[plex]?.record.epoch == record.epoch
            if !isContinued { record[plex].recoveryOffset = 0 }
        }
    }

    private mutating func attach(_ plex: PlexIndex, _ assembly: Assembly) {
        guard let found = assembly.found[plex] else { preconditionFailure("a participant was not found") }
        plexes[Int(plex.value)].attachment = Attachment(found.superblock)
        leaveOutNumbers(plex)
        plexes[Int(plex.value)].eventsThrough = eventLog.lastSequence
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
        guard plexes[index].isReleasing, plexes[index].inFlight == 0 else { return }
        plexes[index] = Plex()
        emit(.release(plex))
        stoppedIfReleased()
    }

    /// A write to the event log, or one to an expelled plex, may outlast the answer to `stop`.
    func isEveryDiskReleased() -> Bool { plexes.allSatisfy { $0.attachment == nil } }

    mutating func stoppedIfReleased() {
        guard phase == .stopped, !isStoppedTold, isEveryDiskReleased() else { return }
        isStoppedTold = true
        emit(.stopped)
    }

    func list(_ set: PlexSet) -> String { set.members.map(\.description).joined(separator: ", ") }
}
