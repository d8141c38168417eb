internal import MirrorFormat

/// A block that one plex can't read and another can is written anew where it lies: most disks put it elsewhere by
/// themselves then. It is read back before that is believed.
///
/// First the range whose reading failed is narrowed down, half by half, to blocks of 4 KiB. Each bad one is then locked
/// like a client's write, its region's intent bit set (R1), read from a plex that can, and written durably to the one that
/// could not. Readers see the same bytes before and after; if it fails the plex is no worse than before, and stays.
extension Mirror {
    /// A read of the plex failed that another plex may answer.
    mutating func suspect(_ plex: PlexIndex, _ failure: DiskFailure, offset: UInt64, length: UInt64) {
        guard failure.kind == .media, !isReadOnly, working.contains(plex), working.count > 1 else { return }
        let end = offset + length
        var start = offset
        while start < end {
            let stop = min(end, start + limits.resyncWindowBytes)
            // What is known to be bad is tried again at its own time.
            if !plexes[Int(plex.value)].badBlocks.overlaps(start, stop - start) {
                repairs.add(Repairs.Suspect(plex: plex, start: start, end: stop, isBad: length <= stop - start))
            }
            start = stop
        }
    }

    mutating func pumpRepairs() {
        guard !repairs.isPumping else { return }
        repairs.isPumping = true
        while repairs.slot == nil, mayRepair, let suspect = repairs.next() {
            guard working.contains(suspect.plex), working.count > 1 || suspect.isPutBack else {
                if suspect.isPutBack { putNextBack() }
                continue
            }
            if suspect.isBad, suspect.end - suspect.start > Limits.blockBytes {
                repairs.halve(suspect)
            } else {
                begin(suspect)
            }
        }
        repairs.isPumping = false
    }

    private var mayRepair: Bool {
        phase == .running && !isReadOnly && !isSuspended && !holdsMutations
            && resync.windows.contains { !$0.isUsed }
    }

    private mutating func begin(_ suspect: Repairs.Suspect) {
        guard let window = resync.windows.firstIndex(where: { !$0.isUsed }) else { return }
        let index = takeSlot(.repair)
        slots[index].request = Request(
            id: RequestID(0), kind: .read, offset: suspect.start, length: suspect.end - suspect.start,
            buffer: .window(window))
        slots[index].windowTargets = PlexSet(suspect.plex)
        slots[index].isProbe = !suspect.isBad
        slots[index].isPutBack = suspect.isPutBack
        resync.windows[window] = Resync.Window(slot: index, isUsed: true)
        repairs.window = window
        repairs.slot = index
        acquire(index, isExclusive: suspect.isBad)
    }

    private func subject(_ index: Int) -> PlexIndex {
        guard let plex = slots[index].windowTargets.first else { preconditionFailure("a repair of no plex") }
        return plex
    }

    /// The range is locked.
    mutating func startRepair(_ index: Int) {
        let request = slots[index].request
        let plex = subject(index)
        guard working.contains(plex), working.count > 1 || slots[index].isPutBack, phase == .running, !holdsMutations,
            // Where plexes may differ all are about to be written anyway.
            isEqual(offset: request.offset, length: request.length)
        else {
            endRepair(index)
            return
        }
        guard slots[index].isProbe else {
            slots[index].countsAsMutation = true
            mutationsInFlight += 1
            passGate(index)
            return
        }
        slots[index].step = .reading
        slots[index].transfer = Slot.Transfer(kind: .read, offset: request.offset, length: request.length)
        slots[index].source = plex
        slots[index].pending = PlexSet(plex)
        plexes[Int(plex.value)].readsInFlight += 1
        submit(operation(index, plex))
    }

    /// - Parameter failure: nil: the plex can read it after all.
    mutating func probed(_ index: Int, _ failure: DiskFailure?) {
        let plex = subject(index)
        let request = slots[index].request
        let end = request.offset + request.length
        plexes[Int(plex.value)].readsInFlight -= 1
        switch failure?.kind {
        case nil: plexes[Int(plex.value)].badBlocks.remove(request.offset..<end)
        case .media where request.length > Limits.blockBytes:
            repairs.halve(Repairs.Suspect(plex: plex, start: request.offset, end: end, isBad: true))
        case .media: repairs.push(Repairs.Suspect(plex: plex, start: request.offset, end: end, isBad: true))
        case .gone: if let failure { expel(plex, operation: .read, failure, offset: request.offset) }
        case .noSpace, .transient, .unsupported, .differs, .lost, .late: break
        }
        endRepair(index)
    }

    /// The region's bit is set: nobody but this one touches the block.
    mutating func startRepairCopy(_ index: Int) {
        if !slots[index].isPutBack { slots[index].tried = slots[index].windowTargets }
        startRead(index)
    }

    /// Another plex's bytes are in the buffer.
    mutating func repairRead(_ index: Int) {
        let plex = subject(index)
        guard working.contains(plex) else {
            endRepair(index)
            return
        }
        slots[index].transfer.kind = .write
        slots[index].transfer.isDurable = true
        slots[index].good = PlexSet(plex)
        fanOut(index, to: PlexSet(plex))
    }

    /// None of the others can read it either. It stays as it is until somebody writes there.
    mutating func repairHasNoSource(_ index: Int) {
        let request = slots[index].request
        // Or those that can may not be asked, for plexes have begun to differ.
        if isEqual(offset: request.offset, length: request.length), !slots[index].isPutBack {
            noteBad(subject(index), request.offset)
        }
        endRepair(index)
    }

    mutating func repairWritten(_ index: Int) {
        let plex = subject(index)
        if slots[index].isPutBack { return puttingBackWritten(index, plex) }
        let offset = slots[index].request.offset
        let failure = plexes[Int(plex.value)].lastFailure
        if !working.contains(plex) {
            // It left meanwhile.
        } else if slots[index].lacking.contains(plex) {
            // Neither its place nor the pool takes it: it is on record that the plex does not hold it.
        } else if !slots[index].failed.contains(plex),
            plexes[Int(plex.value)].remaps[offset / Limits.blockBytes] != nil,
            slots[index].isSpared
        {
            heal(PlexSet(plex).subtracting(slots[index].lacking), slots[index].transfer)
        } else if !slots[index].failed.contains(plex) {
            corrected(index, plex, offset)
        } else {
            switch failure.kind {
            // It holds what it held, or what it should hold.
            case .media, .transient, .unsupported: noteBad(plex, offset, failure)
            case .differs where failure.errorNumber != 0: noteBad(plex, offset, failure)
            case .differs: expel(plex, operation: .verification, failure, offset: offset)
            case .lost: flushFailed(plex, failure)
            case .gone, .noSpace, .late: expel(plex, operation: .write, failure, offset: offset)
            }
        }
        endRepair(index)
    }

    private mutating func corrected(_ index: Int, _ plex: PlexIndex, _ offset: UInt64) {
        plexes[Int(plex.value)].badBlocks.remove(offset..<offset + Limits.blockBytes)
        countCorrected(plex)
        heal(PlexSet(plex), slots[index].transfer)
        record[plex].corrected += 1
        hasNewCounters = true
        log(
            .corrected, plex: plex, offset: offset, length: Limits.blockBytes,
            text: "written anew on plex \(plex) and read back")
    }

    /// At the start: a disk that was wearing out when the last server stopped still is.
    mutating func adoptCorrected(_ events: [EventRecord]) {
        for event in events {
            guard let plex = event.plex, working.contains(plex) else { continue }
            switch event.code {
            case .corrected, .spared: plexes[Int(plex.value)].badBlocks.countCorrected(at: event.time, limits)
            // It may be another disk since.
            case .joined, .cleared: plexes[Int(plex.value)].badBlocks.forgetCorrected()
            default: break
            }
        }
    }

    private mutating func countCorrected(_ plex: PlexIndex) {
        plexes[Int(plex.value)].badBlocks.countCorrected(at: now.unixNanoseconds, limits)
    }

    private mutating func noteBad(_ plex: PlexIndex, _ offset: UInt64, _ failure: DiskFailure? = nil) {
        let position = Int(plex.value)
        let isNew = !plexes[position].badBlocks.overlaps(offset, Limits.blockBytes)
        if plexes[position].badBlocks.isEmpty {
            plexes[position].badBlocks.retryAt = now.nanoseconds + limits.repairRetryNanoseconds
        }
        plexes[position].badBlocks.insert(offset)
        hasBadBlocks = true
        guard isNew else { return }
        log(
            .badBlock, plex: plex, errorNumber: failure?.errorNumber ?? 0, offset: offset, length: Limits.blockBytes,
            text: failure == nil
                ? "no other plex can read it" : "can't be written anew on plex \(plex)")
    }

    /// The mirror is being stopped, and the repair waits for a record that can't be written.
    mutating func giveUpRepair(_ index: Int) { endRepair(index) }

    mutating func endRepair(_ index: Int) {
        let isPutBack = slots[index].isPutBack
        repairs.slot = nil
        resync.windows[repairs.window].isUsed = false
        if slots[index].countsAsMutation { mutationsInFlight -= 1 }
        freeSlot(index)
        if isPutBack { putNextBack() }
        pumpRepairs()
        pumpResync()
        drained()
    }

    /// Clients have written over blocks that could not be read.
    mutating func overwritten(_ index: Int) {
        let transfer = slots[index].transfer
        for plex in slots[index].good.subtracting(slots[index].lacking).members
        where !plexes[Int(plex.value)].badBlocks.isEmpty {
            plexes[Int(plex.value)].badBlocks.remove(transfer.offset..<transfer.offset + transfer.length)
        }
    }

    /// The tick's part.
    mutating func retryRepairs() {
        guard hasBadBlocks else { return pumpRepairs() }
        hasBadBlocks = plexes.contains { !$0.badBlocks.isEmpty }
        for plex in working.members {
            let position = Int(plex.value)
            guard !plexes[position].badBlocks.isEmpty, now.nanoseconds >= plexes[position].badBlocks.retryAt else {
                continue
            }
            plexes[position].badBlocks.retryAt = now.nanoseconds + limits.repairRetryNanoseconds
            for offset in plexes[position].badBlocks.offsets.prefix(Repairs.mostSuspects) {
                // What it does not hold it may well be able to read.
                let isBad = record.isBad(plex, offset: offset, length: Limits.blockBytes)
                repairs.add(
                    Repairs.Suspect(plex: plex, start: offset, end: offset + Limits.blockBytes, isBad: isBad))
            }
        }
        pumpRepairs()
    }
}
