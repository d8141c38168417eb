internal import MirrorFormat

/// Clearing intent bits (R6), lazily, in cycles of some seconds:
///
///  1. Regions whose bit is set and that nobody wrote to since the last look are candidates. Those with a write in
///     flight are not; nor are those where plexes may differ.
///  2. All plexes are flushed. Now every candidate is durable on all of them, or was written to again meanwhile.
///  3. What an absent plex misses moves into its map, on all plexes. All get a page that tells later who has seen this
///     moment (`WriteTracking.askForWitness`).
///  4. What was copied to plexes under rebuild is taken out of their maps.
///  5. The bits are cleared, but for those of regions that were written to since step 1.
///
/// If power fails anywhere between, a bit is set that need not be: some bytes are copied for nothing.
struct Cleaner {
    enum Step {
        case idle, flushing, leaving, moving, noting, clearing
    }

    var step = Step.idle
    /// The cycle before the clean mark: every bit goes.
    var isFinal = false
    var candidates: RegionSet
    /// What each plex under rebuild still lacked when the flush began.
    var checkpoints: [RegionSet?] = Array(repeating: nil, count: PlexSet.capacity)
    /// Who was flushed.
    var flushed = PlexSet.empty
    /// See `WriteTracking.askForWitness`.
    var mark: UInt64?
    var witness: UInt64 = 0
    var nextAt: UInt64 = 0

    init(regions: Int) { candidates = RegionSet(count: regions) }
}

extension Mirror {
    mutating func cleanIfIdle() {
        // A clean mirror has no bits; what is copied to a plex under rebuild is noted all the same.
        guard phase == .running, !isReadOnly, !isSuspended, cleaner.step == .idle,
            gate == .dirty || !recovering.isEmpty, now.nanoseconds >= cleaner.nextAt,
            reliable(working) == working
        else { return }
        cleaner.nextAt = now.nanoseconds + limits.cleanAfterNanoseconds
        cleaner.candidates = tracking.durable
        cleaner.candidates.subtract(tracking.active)
        if hasUnequal { cleaner.candidates.subtract(resync.unequal) }
        markInFlight()
        cleaner.candidates.subtract(tracking.active)
        guard !cleaner.candidates.isEmpty || hasCheckpoint else { return }
        startCleaning(isFinal: false)
    }

    /// From now on `active` holds what is touched after this moment, or still in flight.
    private mutating func markInFlight() {
        tracking.forgetTouches()
        if mutant == .clearInFlight { return }
        for index in slots.indices where slots[index].kind != .free && slots[index].countsAsMutation {
            let request = slots[index].request
            tracking.touch(tracking.regions(request.offset, request.length))
        }
        for window in resync.windows where window.isUsed && window.equalises {
            tracking.touch(tracking.regions(window.start, window.end - window.start))
        }
    }

    /// A plex under rebuild has got something since its map was last written.
    private var hasCheckpoint: Bool {
        recovering.members.contains { plex in
            guard let slot = record[plex].missedWriteMap?.slot, let map = tracking.maps[Int(slot)] else { return false }
            return map != lacking(plex)
        }
    }

    /// What it goes without it lacks, until it is on record as in sync without it.
    private func lacking(_ plex: PlexIndex) -> RegionSet {
        var regions = resync.sweeps[Int(plex.value)].todo
        for offset in resync.uncopied[Int(plex.value)].offsets {
            regions.insert(tracking.regions(offset, Limits.blockBytes))
        }
        return regions
    }

    private mutating func startCleaning(isFinal: Bool) {
        cleaner.isFinal = isFinal
        cleaner.step = .flushing
        cleaner.flushed = working.union(recovering)
        cleaner.checkpoints = Array(repeating: nil, count: PlexSet.capacity)
        for plex in recovering.members {
            cleaner.checkpoints[Int(plex.value)] = lacking(plex)
            if mutant == .checkpointWithoutFlush, let slot = record[plex].missedWriteMap?.slot {
                tracking.keepMissed(resync.sweeps[Int(plex.value)].todo, slot: slot, witness: tracking.witness)
            }
        }
        if mutant == .clearWithoutFlush, !isFinal {
            cleaningFlushed(good: working.union(recovering))
        } else if !isFinal {
            startInternalFlush(.clean, working.union(recovering))
        }
    }

    /// - Parameter good: who was flushed.
    mutating func cleaningFlushed(good: PlexSet) {
        guard cleaner.step == .flushing else { return }
        cleaner.flushed = cleaner.flushed.intersection(good)
        guard mayGoOn else {
            cleaner.step = .idle
            return
        }
        moveCandidates()
        cleaner.mark = cleaner.candidates.isEmpty && !hasCheckpoint ? nil : tracking.askForWitness()
        cleaner.step = .moving
        cleaningGoesOn()
    }

    /// For every plex that gets no writes. One that left after the flush has all of it, but its disk may come back in the
    /// state before: it shows no clearing then that it lacks.
    private mutating func moveCandidates() {
        guard mutant != .clearWhileDegraded else { return }
        for slot in openSlots where !isBeingCopied(slot) { tracking.insertMissed(cleaner.candidates, slot: slot) }
    }

    /// Those that some record on disk may name: a plex that is being forgotten, or was given a new map, counts on
    /// in the old one until that is on record.
    private var openSlots: [UInt8] { (0..<UInt8(tracking.maps.count)).filter { tracking.maps[Int($0)] != nil } }

    /// The plex that this slot counts for gets all writes.
    private func isBeingCopied(_ slot: UInt8) -> Bool {
        recovering.members.contains { record[$0].missedWriteMap?.slot == slot }
    }

    /// Whoever counts as in sync after a restart must have been flushed: a plex that is being expelled and may lack a
    /// write is still on record until that is written. And a flush that failed since tells that the one before, if it
    /// was under way together with it, may have said yes to what was lost.
    private var mayGoOn: Bool {
        possibleInSync.union(working).isSubset(of: cleaner.flushed)
            && (mutant == .hideFlushError || reliable(working) == working)
    }

    /// Called whenever pages or the record became durable.
    mutating func cleaningGoesOn() {
        switch cleaner.step {
        case .idle, .flushing: break
        case .leaving: cleanWhenLeft()
        case .moving: noteIfMoved()
        case .noting: clearIfNoted()
        case .clearing: endIfCleared()
        }
    }

    private var areMapsDurable: Bool {
        openSlots.allSatisfy { tracking.isMapDurable(slot: $0, on: possibleInSync) } || mutant == .clearBeforeMove
    }

    private mutating func noteIfMoved() {
        moveCandidates()
        guard areMapsDurable, cleaner.mark.map({ tracking.isWitnessed(since: $0) }) ?? true else { return }
        guard mayGoOn else { return abandonCleaning() }
        cleaner.witness = tracking.witness
        for plex in recovering.members {
            guard let slot = record[plex].missedWriteMap?.slot,
                let checkpoint = cleaner.checkpoints[Int(plex.value)]
            else { continue }
            // Some of it may have to be copied again since, see `rewindResync`.
            var left = checkpoint
            left.formUnion(resync.sweeps[Int(plex.value)].todo)
            tracking.keepMissed(left, slot: slot, witness: cleaner.witness)
        }
        cleaner.checkpoints = Array(repeating: nil, count: PlexSet.capacity)
        cleaner.step = .noting
        clearIfNoted()
    }

    private mutating func clearIfNoted() {
        moveCandidates()
        guard areMapsDurable else { return }
        guard mayGoOn else { return abandonCleaning() }
        cleaner.step = .idle
        if mutant != .clearTouched { cleaner.candidates.subtract(tracking.active) }
        if hasUnequal { cleaner.candidates.subtract(resync.unequal) }
        if !cleaner.candidates.isEmpty { tracking.removeIntent(cleaner.candidates, witness: cleaner.witness) }
        guard cleaner.isFinal else { return }
        cleaner.step = .clearing
        endIfCleared()
    }

    private mutating func abandonCleaning() {
        cleaner.step = .idle
        if cleaner.isFinal { finalCleaningEnded(isClean: false) }
    }

    private mutating func endIfCleared() {
        guard tracking.isIntentDurable(on: possibleInSync) else { return }
        cleaner.step = .idle
        finalCleaningEnded(isClean: mayGoOn && tracking.intent.isEmpty)
    }

    // MARK: at the stop

    /// The last flush is done and nothing is in flight: every bit can go, unless plexes may differ.
    mutating func cleanForStop(flushed: PlexSet) {
        cleaner.candidates = tracking.intent
        tracking.forgetTouches()
        startCleaning(isFinal: true)
        cleaner.flushed = flushed
        guard !hasUnequal, working.isSubset(of: flushed) else {
            cleaner.step = .idle
            finalCleaningEnded(isClean: false)
            return
        }
        cleaner.step = .leaving
        cleanWhenLeft()
    }

    /// A plex that failed the last flush counts as in sync until it is on record that it does not.
    private mutating func cleanWhenLeft() {
        guard !mayGoOn else {
            cleaner.step = .flushing
            cleaningFlushed(good: cleaner.flushed)
            return
        }
        guard !commit.isWanted, !commit.isRunning else { return }
        cleaner.step = .idle
        finalCleaningEnded(isClean: false)
    }
}
