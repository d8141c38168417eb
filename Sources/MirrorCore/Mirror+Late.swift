internal import MirrorFormat

/// Disks that do not answer: the deadline, and letting go of what they owe; see `Lateness`.
extension Mirror {
    private static let timedOut: Int32 = 110  // ETIMEDOUT

    private static var late: DiskFailure { DiskFailure(kind: .late, errorNumber: timedOut) }

    var isWatchingLate: Bool { limits.writeDeadlineNanoseconds > 0 }

    /// Get I/O of any sort.
    private var participants: PlexSet { working.union(recovering).union(joining) }

    /// The tick's part.
    mutating func watchLate() {
        defer {
            lateness.tickedAt = now.nanoseconds
            stoppedIfReleased()
        }
        guard isWatchingLate, phase != .stopped || !lateness.operations.isEmpty else { return }
        // After a pause of our own nobody else is to blame for it.
        if now.nanoseconds - lateness.tickedAt > limits.stallNanoseconds { lateness.judgedFrom = now.nanoseconds }
        var owed = InlineArray<8, Owed>(repeating: Owed())
        if plexes.indices.contains(where: { plexes[$0].inFlight > 0 }) { collectOwed(&owed) }
        expelLate(owed)
        letGoOfTheLost(owed)
        letGoOfReads(owed)
        if phase == .running { watchSlow(owed) }
    }

    private func collectOwed(_ owed: inout InlineArray<8, Owed>) {
        for index in slots.indices where !slots[index].pending.isEmpty {
            var rest = slots[index].pending
            while let plex = rest.first {
                rest.remove(plex)
                owed[Int(plex.value)].add(slots[index].transfer.kind, slots[index].submittedAt[Int(plex.value)])
            }
        }
        for operation in lateness.operations {
            // The engine's own are metadata, but for what sparing writes.
            owed[Int(DiskTag(raw: operation.tag).plex.value)].add(.writeMetadata, operation.submittedAt)
        }
    }

    func age(_ submittedAt: UInt64?) -> UInt64 {
        guard let submittedAt else { return 0 }
        let from = max(submittedAt, lateness.judgedFrom)
        return now.nanoseconds > from ? now.nanoseconds - from : 0
    }

    /// How long the plex has owed a write and done none.
    private func silence(_ plex: PlexIndex, _ owed: Owed) -> UInt64 {
        guard let write = owed.write else { return 0 }
        return age(max(write, plexes[Int(plex.value)].wroteAt))
    }

    private func isLate(_ plex: PlexIndex, _ owed: Owed) -> Bool {
        silence(plex, owed) >= limits.writeDeadlineNanoseconds
            || age(owed.write) >= limits.patienceNanoseconds || age(owed.flush) >= limits.patienceNanoseconds
    }

    // MARK: the deadline

    /// R3, and never the last: a plex is given up for being late only where another one is not.
    private mutating func expelLate(_ owed: InlineArray<8, Owed>) {
        guard phase != .stopped, !isReadOnly else { return }
        let late = participants.filter { isLate($0, owed[Int($0.value)]) }
        guard !late.isEmpty else { return noneIsLate() }
        let prompt = working.filter { plex in
            let known = owed[Int(plex.value)]
            return !plexes[Int(plex.value)].flushFailed && silence(plex, known) < limits.writeDeadlineNanoseconds / 2
                && age(known.write) < limits.patienceNanoseconds / 2
                && age(known.flush) < limits.patienceNanoseconds / 2
        }
        // Nor one that alone holds something.
        let expendable = late.filter { onlyPossibleHolding(of: $0) == nil }
        if prompt.isEmpty || expendable.isEmpty { return allAreLate(late) }
        noneIsLate()
        for plex in expendable.members {
            let isFlush =
                !(silence(plex, owed[Int(plex.value)]) >= limits.writeDeadlineNanoseconds)
                && age(owed[Int(plex.value)].flush) >= limits.patienceNanoseconds
            expel(plex, operation: isFlush ? .flush : .write, Self.late, offset: lateOffset(plex))
        }
    }

    /// Where the oldest write of a request is that the plex owes.
    private func lateOffset(_ plex: PlexIndex) -> UInt64 {
        var offset: UInt64 = 0
        var oldest = UInt64.max
        for slot in slots where slot.pending.contains(plex) && slot.transfer.kind == .write {
            guard slot.submittedAt[Int(plex.value)] < oldest else { continue }
            oldest = slot.submittedAt[Int(plex.value)]
            offset = slot.transfer.offset
        }
        return offset
    }

    private mutating func allAreLate(_ late: PlexSet) {
        guard lateness.allLateSince == nil, !late.intersection(working).isEmpty else { return }
        lateness.allLateSince = now.nanoseconds
        log(
            .suspended, plex: working.count == 1 ? working.first : nil, errorNumber: Self.timedOut,
            text: working.count == 1
                ? "the only good plex does not answer; requests wait"
                : "plex \(list(late)) does not answer, and no other can go on without it; requests wait")
    }

    mutating func noneIsLate() {
        guard lateness.allLateSince != nil else { return }
        lateness.allLateSince = nil
        log(.resumed, text: "the disks answer again")
    }

    // MARK: letting go

    /// Of plexes that are out: nobody waits for what they owe.
    private mutating func letGoOfTheLost(_ owed: InlineArray<8, Owed>) {
        let inUse = phase == .stopped ? .empty : participants
        for index in 0..<UInt8(PlexSet.capacity) {
            let plex = PlexIndex(Int(index))
            guard !inUse.contains(plex), plexes[Int(index)].inFlight > 0 else { continue }
            let known = owed[Int(index)]
            let oldest = max(age(known.write), age(known.flush), age(known.read))
            let isExpelledForIt = record[plex].cause.errorNumber == Self.timedOut
            guard oldest >= limits.writeDeadlineNanoseconds || isExpelledForIt && oldest > 0 else { continue }
            letGo(of: plex)
        }
    }

    private mutating func letGo(of plex: PlexIndex) {
        let isInUse = participants.contains(plex)
        for index in slots.indices where slots[index].pending.contains(plex) { letGo(index, plex) }
        for operation in lateness.operations {
            let tag = DiskTag(raw: operation.tag)
            // A command is waiting that will end with that plex: it has more time.
            // At the end, of a plex in use, what no start depends on.
            guard tag.plex == plex, !isInUse || tag.owner == .eventLog || tag.owner == .scrub,
                tag.owner != .detach || age(operation.submittedAt) >= limits.patienceNanoseconds
            else { continue }
            letGo(tag)
        }
    }

    /// The slot goes on as if the operation had failed.
    mutating func letGo(_ index: Int, _ plex: PlexIndex) {
        guard slots[index].pending.contains(plex) else { return }
        let transfer = slots[index].transfer
        let bytes = transfer.kind.holdsBuffer ? transfer.length : 0
        guard lateness.pinnedBytes + bytes <= limits.pinnedBytes else { return }
        let tag = DiskTag(owner: .request, plex: plex, slot: index, generation: slots[index].generation)
        let isRead = slots[index].step == .reading || slots[index].step == .edgeRead
        // The plex stays in use: as long as it does not answer it has that much more to do than others.
        let stays = isRead && working.contains(plex)
        if stays { plexes[Int(plex.value)].readsInFlight += 1 }
        lateness.add(tag, bytes: bytes, isRead: stays, isFlush: transfer.kind == .flush)
        slots[index].hasLetGo = true
        if isRead {
            slots[index].isRace = true
            if !slots[index].hedges.contains(plex) { detachBuffer(index) }
        }
        requestCompleted(tag, .failed(Self.late))
    }

    private mutating func letGo(_ tag: DiskTag) {
        guard lateness.operations.contains(where: { $0.tag == tag.raw }) else { return }
        lateness.ended(tag)
        var bytes: UInt64 = 0
        if tag.owner == .sparing, let job = sparing.job, job.slot >= 0 {
            slots[job.slot].hasLetGo = true
            if slots[job.slot].transfer.kind.holdsBuffer { bytes = slots[job.slot].transfer.length }
        }
        lateness.add(tag, bytes: bytes, isRead: false)
        route(tag, .failed(Self.late))
    }

    /// A flush that failed, though nobody waits for it, tells of what was written before (R8): what the plex missed is no
    /// longer all that it lacks.
    mutating func zombieEnded(_ zombie: Lateness.Zombie, _ plex: PlexIndex, _ result: DiskResult) {
        guard case .failed(let failure) = result, zombie.isFlush || failure.kind == .lost,
            record[plex].missedWriteMap != nil, phase != .stopped
        else { return }
        record[plex].missedWriteMap = nil
        wantCommit()
    }

    /// What is read into the slot's buffer from here on does not meet what a zombie still puts there.
    mutating func detachBuffer(_ index: Int) {
        guard slots[index].request.buffer != .none, mutant != .lateBufferReused else { return }
        emit(.detach(slots[index].request.buffer))
    }

    /// The engine's own reads of plexes that stay in use: a disk may take long over a block that it can hardly read,
    /// and somebody else may know it.
    private mutating func letGoOfReads(_ owed: InlineArray<8, Owed>) {
        let late = working.filter { age(owed[Int($0.value)].read) >= limits.patienceNanoseconds }
        guard working.count > 1, !late.isEmpty else { return }
        for index in slots.indices where slots[index].step == .reading {
            switch slots[index].kind {
            case .resyncWindow, .repair, .scrub, .scrubRepair: break
            case .free, .client, .internalFlush: continue
            }
            for plex in slots[index].pending.members
            where age(slots[index].submittedAt[Int(plex.value)]) >= limits.patienceNanoseconds {
                letGo(index, plex)
            }
        }
    }
}
