internal import MirrorFormat

/// Admission: from the client to the lock.
extension Mirror {
    mutating func admit(_ request: Request) {
        precondition(request.offset <= record.dataBytes && request.length <= record.dataBytes - request.offset)
        if phase == .stopping || phase == .stopped {
            emit(.reply(request.id, .shuttingDown))
            return
        }
        if request.length == 0, request.kind != .flush {
            emit(.reply(request.id, .ok))
            return
        }
        precondition(!isReadOnly || request.kind == .read || request.kind == .flush || request.kind == .allocation)
        let index = takeSlot(.client)
        slots[index].request = request
        slots[index].countsAsMutation = request.kind.isMutation
        clientRequestsInFlight += 1
        lastClientAt = now.nanoseconds
        if phase == .opening || (holdsMutations && request.kind.isMutation) {
            slots[index].step = .held
            heldQueue.append(index, in: &slots)
        } else {
            start(index)
        }
    }

    /// Those that waited for the mirror to open or for a break go on, in order.
    mutating func releaseHeld() {
        var queue = heldQueue
        heldQueue = SlotQueue()
        while let index = queue.popFirst(in: &slots) {
            if phase == .stopping {
                finish(index, .shuttingDown)
            } else {
                start(index)
            }
        }
    }

    private mutating func start(_ index: Int) {
        let request = slots[index].request
        if request.kind.isMutation {
            mutationsInFlight += 1
            lastMutationAt = now.nanoseconds
        }
        switch request.kind {
        case .flush: startFlush(index)
        case .write, .zeroes, .trim:
            acquire(index, isExclusive: true)
        case .read:
            if mutant == .readWithoutLock {
                lockGranted(index)
            } else {
                acquire(index, isExclusive: !isEqual(offset: request.offset, length: request.length))
            }
        case .allocation: acquire(index, isExclusive: false)
        }
    }

    mutating func acquire(_ index: Int, isExclusive: Bool) {
        slots[index].step = .lock
        slots[index].isExclusive = isExclusive
        let request = slots[index].request
        let isUnlocked =
            mutant == .resyncWithoutLock && slots[index].kind == .resyncWindow
            || mutant == .repairWithoutLock && slots[index].kind == .repair
            || mutant == .scrubWithoutLock && slots[index].kind == .scrub
            || mutant == .scrubRepairUnlocked && slots[index].kind == .scrubRepair
        if isUnlocked {
            lockGranted(index)
            return
        }
        let held = locks.acquire(
            owner: UInt32(index), offset: request.offset, length: request.length, isExclusive: isExclusive)
        slots[index].holdsLock = true
        if held { lockGranted(index) }
    }

    private mutating func lockGranted(_ index: Int) {
        let request = slots[index].request
        switch slots[index].kind {
        case .resyncWindow: startRead(index)
        case .repair: startRepair(index)
        case .scrub: startScrub(index)
        case .scrubRepair: startScrubRepair(index)
        case .free, .internalFlush: preconditionFailure("holds no lock")
        case .client:
            switch request.kind {
            case .flush: preconditionFailure("holds no lock")
            case .write, .zeroes, .trim: passGate(index)
            case .allocation: startAllocation(index)
            case .read:
                let equal = isEqual(offset: request.offset, length: request.length)
                if !equal, !slots[index].isExclusive, mutant != .readWithoutLock {
                    // The plexes began to differ while this one waited: it must be alone to make them equal.
                    releaseLock(index)
                    acquire(index, isExclusive: true)
                } else {
                    startRead(index)
                }
            }
        }
    }

    /// Gives the range up; whoever waited for it goes on from `settle`.
    mutating func releaseLock(_ index: Int) {
        guard slots[index].holdsLock else { return }
        slots[index].holdsLock = false
        locks.release(owner: UInt32(index), granted: &granted)
        // A granted request can finish at once and grant others: a loop instead of recursion.
        guard !isGranting else { return }
        isGranting = true
        var position = 0
        while position < granted.count {
            lockGranted(Int(granted[position]))
            position += 1
        }
        granted.removeAll(keepingCapacity: true)
        isGranting = false
    }

    // MARK: slots

    mutating func takeSlot(_ kind: Slot.Kind) -> Int {
        guard let index = freeSlots.popLast() else { preconditionFailure("more requests than the driver may send") }
        let generation = slots[index].generation &+ 1
        slots[index] = Slot()
        slots[index].generation = generation
        slots[index].kind = kind
        return index
    }

    /// Answers a client request and forgets it.
    mutating func finish(_ index: Int, _ status: ReplyStatus) {
        precondition(slots[index].kind == .client && slots[index].pending.isEmpty)
        emit(.reply(slots[index].request.id, status))
        clientRequestsInFlight -= 1
        if slots[index].countsAsMutation, slots[index].step != .held { mutationsInFlight -= 1 }
        lastClientAt = now.nanoseconds
        let hasEqualised = slots[index].equalisedTo != nil
        freeSlot(index)
        if hasEqualised { loneIsEqual() }
        if isSuspended { resumeIfNoneFails() }
        drained()
    }

    mutating func freeSlot(_ index: Int) {
        precondition(slots[index].pending.isEmpty, "an operation is still in flight (R14)")
        if slots[index].hasLetGo, slots[index].request.buffer.windowIndex != nil, mutant != .lateBufferReused {
            emit(.detach(slots[index].request.buffer))
        }
        slots[index].kind = .free
        slots[index].step = .idle
        releaseLock(index)
        freeSlots.append(index)
    }
}

extension RequestKind {
    var isMutation: Bool {
        switch self {
        case .write, .zeroes, .trim: true
        case .read, .flush, .allocation: false
        }
    }
}
