internal import MirrorFormat

/// Who misses what: starting the count when a plex leaves, and deciding when it comes back whether what was counted
/// is enough.
extension Mirror {
    // MARK: leaving

    /// A plex that held everything until now begins to miss writes. What it may lack at this moment is under an
    /// intent bit, and is moved into the map when the bit is cleared.
    ///
    /// - Parameter epoch: of the last record that it surely has.
    mutating func startCounting(_ plex: PlexIndex, epoch: UInt64) {
        record[plex].missedWriteMap = nil
        guard let slot = tracking.freeSlot else { return }
        let map = MissedWriteMap(
            slot: slot, id: entropy.next() | 1, startsFull: false, epoch: epoch, lastClear: tracking.lastClear)
        record[plex].missedWriteMap = map
        tracking.openMap(map)
    }

    /// A plex under rebuild leaves again: its map counts on, from what it holds now.
    mutating func goOnCounting(_ plex: PlexIndex, epoch: UInt64) {
        guard let slot = record[plex].missedWriteMap?.slot else { return }
        record[plex].missedWriteMap?.epoch = epoch
        record[plex].missedWriteMap?.lastClear = tracking.required[Int(slot)]
    }

    /// The plex was in use and is not any more, for whatever reason.
    mutating func countMissed(_ plex: PlexIndex, wasWorking: Bool, wasJoining: Bool) {
        if wasWorking {
            startCounting(plex, epoch: durableEpoch)
        } else if record[plex].role == .inSync {
            // It was complete, but nothing on its disk says so yet: a state from before it was, to which the disk may be
            // set back, could not be told from the last.
            record[plex].missedWriteMap = nil
        } else if !wasJoining {
            goOnCounting(plex, epoch: durableEpoch)
        }
        tracking.forget(plex)
        cleaner.checkpoints[Int(plex.value)] = nil
        resync.sweeps[Int(plex.value)] = Sweep()
        resync.uncopied[Int(plex.value)] = BadBlocks()
        resync.lookForUncopied()
        plexes[Int(plex.value)].copyReason = nil
    }

    /// Slots whose last mention is gone from all records can be used again.
    ///
    /// - Parameter durable: the record that all disks have. It may name a map that was dropped while it was on its way:
    ///   if another absence took that slot now and power failed, its pages would say of the one on record that nothing
    ///   was missed.
    mutating func closeUnusedMaps(durable: Record) {
        for slot in 0..<UInt8(Layout.missedWriteMapCount) where tracking.maps[Int(slot)] != nil {
            let isUsed = (record.members + durable.members).contains { $0.missedWriteMap?.slot == slot }
            if !isUsed { tracking.closeMap(slot: slot) }
        }
    }

    // MARK: coming back

    /// Why a plex can't be made whole by copying what was counted; nil: it can.
    ///
    /// The count holds for a disk in the state in which it left, or a later one. It shows that state by its record,
    /// and by its bitmap: every clearing of a bit is written to all plexes, so a disk that lacks the last one before
    /// it left is an older copy of itself, and lacks writes that nobody counted. One that has it may lack only what was
    /// written under bits that are still set, and those are copied. (What must be there is the witness that is written
    /// before the clearing, see `WriteTracking`: a disk that fails or is killed in a clearing is no older copy.)
    func objection(toDelta plex: PlexIndex, _ evidence: PlexEvidence) -> String? {
        if mutant == .deltaWithoutEvidence { return record[plex].missedWriteMap == nil ? "no map" : nil }
        guard let map = record[plex].missedWriteMap else { return "what it lacks was not counted" }
        if evidence.epoch < map.epoch || evidence.sequence < max(map.lastClear, tracking.required[Int(map.slot)]) {
            return "its disk is in an earlier state than the one in which it left"
        }
        return nil
    }

    /// The plex is to be rebuilt: what its map says, or everything.
    mutating func planCopy(_ plex: PlexIndex, _ basis: JoinBasis) {
        var reason: String
        switch basis {
        case .everything(let text): reason = text
        case .evidence(let evidence):
            guard let objection = objection(toDelta: plex, evidence) else {
                if let slot = record[plex].missedWriteMap?.slot, mutant != .joinForgetsOwnChanges {
                    tracking.insertMissed(evidence.changes, slot: slot)
                }
                plexes[Int(plex.value)].copyReason = "what changed while it was away"
                return
            }
            reason = objection
        }
        plexes[Int(plex.value)].copyReason = "everything, because \(reason)"
        record[plex].missedWriteMap = nil
        // A slot of its own: the record on disk may still name the old one.
        guard let slot = tracking.freeSlot else { return }
        let map = MissedWriteMap(
            slot: slot, id: entropy.next() | 1, startsFull: true, epoch: durableEpoch, lastClear: 0)
        record[plex].missedWriteMap = map
        tracking.openMap(map)
    }

    /// What the disk itself changed must be in the maps of the others before its own bitmap is overwritten.
    func isReadyToJoin(_ plex: PlexIndex) -> Bool {
        guard let slot = record[plex].missedWriteMap?.slot else { return true }
        return tracking.isMapDurable(slot: slot, on: working)
    }

    var readyToJoin: PlexSet { joining.filter { isReadyToJoin($0) } }

    /// A plex's own superblock says "recovering": now data may be written to it.
    mutating func joined(_ plex: PlexIndex) {
        let index = Int(plex.value)
        joining.remove(plex)
        recovering.insert(plex)
        var todo = RegionSet(count: tracking.regionCount, isFull: true)
        if let slot = record[plex].missedWriteMap?.slot, let map = tracking.maps[Int(slot)] {
            // A region under an intent bit may hold writes that went everywhere but here. From now on the map has them
            // too: the bit may be cleared before they are copied.
            if mutant != .joinForgetsIntent { tracking.insertMissed(tracking.intent, slot: slot) }
            todo = tracking.maps[Int(slot)] ?? map
        }
        todo.formUnion(badRegions(plex))
        resync.uncopied[index] = BadBlocks()
        resync.sweeps[index] = Sweep(todo)
        if mutant == .joinAtCursor, let other = recovering.subtracting(PlexSet(plex)).first {
            resync.sweeps[index].position = resync.sweeps[Int(other.value)].position
            resync.sweeps[index].todo = resync.sweeps[Int(other.value)].todo
        }
        if mutant == .resyncSkipsFirstWindow, let first = todo.next(from: 0) { resync.sweeps[index].todo.remove(first) }
        tracking.initialise(plex)
        plexes[index].isProven = false
        plexes[index].joinMark = tracking.askForWitness()
        cleaner.flushed.remove(plex)
        resync.isAnnounced = false
        let regions = resync.sweeps[index].todo.population
        log(
            .joined, plex: plex, length: min(UInt64(regions) * tracking.regionBytes, record.dataBytes),
            text: "plex \(plex) joined; \(regions) of \(todo.count) regions are copied: \(copyReason(plex))")
        pumpResync()
    }

    /// A plex that is in sync must show a page from after its return: when all plexes, it among them, have got one,
    /// that is asked of everybody. An older state of its disk is recognised then, see `objection(toDelta:)`.
    mutating func proveJoined() {
        for plex in recovering.members {
            let index = Int(plex.value)
            if plexes[index].isProven || !tracking.isWitnessed(since: plexes[index].joinMark) { continue }
            plexes[index].isProven = true
            tracking.raiseLastClear(to: tracking.witness)
            plexes[index].joinMark = tracking.askForWitness()
        }
    }

    func copyReason(_ plex: PlexIndex) -> String { plexes[Int(plex.value)].copyReason ?? "everything" }

    /// For all that are being rebuilt.
    var copyReasons: String { recovering.members.map { copyReason($0) }.joined(separator: "; ") }
}
