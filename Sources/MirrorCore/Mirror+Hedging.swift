internal import MirrorFormat

/// Reads that take too long are asked of another plex as well, into a copy of the request's buffer; the first valid answer wins.
extension Mirror {
    /// Whether there are reads that somebody else could be asked for.
    package var awaitsReads: Bool {
        isWatchingLate && working.count > 1 && plexes.indices.contains { plexes[$0].readsInFlight > 0 }
    }

    /// Asks another plex for what takes too long. To be called every 25 ms or so while there is something to wait for
    /// (`awaitsReads`). The first valid answer wins.
    package mutating func hedgeReads(now: Instant) {
        self.now = now
        guard awaitsReads, phase != .stopped else { return }
        for index in slots.indices where slots[index].kind == .client && !slots[index].pending.isEmpty {
            switch slots[index].step {
            case .reading, .edgeRead: hedge(index)
            case .idle, .held, .lock, .gate, .fanOut, .parked, .retryWait, .failureRecord, .sparing, .healRecord,
                .pinRecord, .promotionWait:
                break
            }
        }
    }

    private mutating func hedge(_ index: Int) {
        let transfer = slots[index].transfer
        guard transfer.kind == .read, lateness.pinnedBytes + transfer.length <= limits.pinnedBytes else { return }
        var rest = slots[index].pending
        while let plex = rest.first {
            rest.remove(plex)
            guard age(slots[index].submittedAt[Int(plex.value)]) >= plexes[Int(plex.value)].hedgeNanoseconds(limits)
            else { return }
        }
        let asked = slots[index].tried.union(slots[index].pending)
        guard let other = chooseSource(offset: transfer.offset, length: transfer.length, tried: asked) else {
            return movePinFromLate(index)
        }
        slots[index].pending.forEach { plexes[Int($0.value)].hedged += 1 }
        slots[index].hedges.insert(other)
        slots[index].isRace = true
        ask(index, other)
    }

    /// Only one plex may be asked here, and it does not answer.
    private mutating func movePinFromLate(_ index: Int) {
        let transfer = slots[index].transfer
        guard let plex = slots[index].pending.first, slots[index].pending.count == 1, record.pinned == plex,
            !isReadOnly, !isEqual(offset: transfer.offset, length: transfer.length),
            age(slots[index].submittedAt[Int(plex.value)]) >= limits.patienceNanoseconds,
            !working.subtracting(slots[index].tried).subtracting(PlexSet(plex)).isEmpty
        else { return }
        letGo(index, plex)
    }

    /// The plex has answered with all bytes: the others are waited for no more.
    mutating func raceWon(_ index: Int, _ plex: PlexIndex) {
        countReadTime(index, plex)
        guard slots[index].isRace else { return }
        let transfer = slots[index].transfer
        let isCopy = slots[index].hedges.contains(plex)
        for loser in slots[index].pending.members {
            dropRead(index, loser)
            if isCopy { plexes[Int(loser.value)].lostRaces += 1 }
        }
        if isCopy, mutant != .hedgeNotAdopted {
            emit(
                .adopt(
                    slots[index].request.buffer.copy(for: plex), offset: transfer.bufferOffset,
                    length: transfer.length))
        }
        endRace(index)
    }

    /// What was read can't be used, and will be read again.
    mutating func dropOthers(_ index: Int) {
        guard slots[index].isRace else { return }
        let meetsMain = !slots[index].pending.subtracting(slots[index].hedges).isEmpty
        for loser in slots[index].pending.members { dropRead(index, loser) }
        if meetsMain { detachBuffer(index) }
        endRace(index)
    }

    private mutating func dropRead(_ index: Int, _ plex: PlexIndex) {
        lateness.add(
            DiskTag(owner: .request, plex: plex, slot: index, generation: slots[index].generation),
            bytes: slots[index].transfer.length, isRead: true)
        slots[index].hasLetGo = true
        slots[index].pending.remove(plex)
    }

    /// Nothing is under way: from here on tags are others than those of zombies.
    mutating func endRace(_ index: Int) {
        slots[index].hedges = .empty
        slots[index].isRace = false
        slots[index].generation &+= 1
    }

    private mutating func countReadTime(_ index: Int, _ plex: PlexIndex) {
        guard isWatchingLate, slots[index].kind == .client else { return }
        let begun = slots[index].submittedAt[Int(plex.value)]
        plexes[Int(plex.value)].readTimes.count(now.nanoseconds > begun ? now.nanoseconds - begun : 0)
    }
}

extension Plex {
    /// How long a read may take before another plex is asked.
    func hedgeNanoseconds(_ limits: Limits) -> UInt64 {
        min(max(limits.hedgeNanoseconds, hedgeAfter), max(limits.hedgeNanoseconds, limits.writeDeadlineNanoseconds))
    }
}
