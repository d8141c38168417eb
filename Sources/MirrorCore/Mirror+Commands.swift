package import MirrorFormat

package struct CommandID: Hashable, Sendable {
    package var value: UInt64
    package init(_ value: UInt64) { self.value = value }

    /// Of what the mirror orders itself; nobody waits for the answer.
    package static let own = CommandID(.max)
}

/// What an administrator asks for at runtime.
package enum Command: Sendable {
    /// `break --keep`: the plex becomes a disk of its own, under this name; if asked for, only if all its blocks lie in
    /// their own places.
    case breakOff(PlexIndex, name: String, mustBeWhole: Bool = false)
    /// `break --nokeep`: forget the plex, present or not.
    case remove(PlexIndex)
    case takeOffline(PlexIndex)
    /// A disk was opened for this slot of the member table; copy to it what it lacks. When it is in sync the plex that it
    /// replaces is forgotten, if it replaces one.
    case join(PlexIndex, Attachment, replacing: PlexIndex? = nil)
    case resync(ResyncOrder)
    /// `clear`: the counters of a plex begin anew.
    case clear(PlexIndex)
    /// `write-mostly`: whether the plex is read only where no other can be.
    case writeMostly(PlexIndex, Bool)
    /// `reactivate`: a plex in sync whose disk is good again; what lies in its spare pool goes back, and what is bad is
    /// tried again.
    case reactivate(PlexIndex)
    case scrub(ScrubOrder)
    case stop
}

/// What can be asked of background copying. Holds until the mirror is closed.
package enum ResyncOrder: Sendable, Equatable {
    case pause, resume
    /// Bytes per second; nil: as fast as clients leave room for.
    case limit(UInt64?)
    /// Whether what was copied is read back and compared.
    case verify(Bool)
    case priority(ResyncPriority)
}

/// Among the mirrors of a server: while one copies, those below it don't.
package enum ResyncPriority: UInt8, Sendable, CaseIterable, Comparable {
    case low, normal, high

    package var text: String {
        switch self {
        case .low: "low"
        case .normal: "normal"
        case .high: "high"
        }
    }

    package static func < (one: Self, other: Self) -> Bool { one.rawValue < other.rawValue }
}

package enum Answer: Sendable, Equatable {
    case done(String)
    /// Nothing was changed; the text says why and what to do.
    case refused(String)
    /// Begun but not finished.
    case failed(String)
}

/// The command that is being carried out. One at a time; others wait.
struct RunningCommand {
    enum Step {
        case puttingBack, draining, flushing, cleaning, recording(ticket: UInt64), detaching, ending
    }

    var id: CommandID
    var command: Command
    var step: Step
    var detached: Record?
    var detachOutstanding = 0
    /// Of a plex that is broken off: what can't be read natively.
    var remaps: [RemapTable.Remap] = []
    /// Copies to be wiped when the present ones are.
    var detachNext: [Int] = []
    var detachFailed = false
}

extension Mirror {
    /// The next answer, if there is one.
    package mutating func takeAnswer() -> (CommandID, Answer)? { answers.isEmpty ? nil : answers.removeFirst() }

    /// Whether a command given now would have to wait; one of the mirror's own, too.
    package var isCommanded: Bool { running != nil || !waitingCommands.isEmpty }

    mutating func accept(_ id: CommandID, _ command: Command) {
        waitingCommands.append((id, command))
        nextCommand()
    }

    private mutating func nextCommand() {
        while running == nil, !waitingCommands.isEmpty {
            let next = waitingCommands.removeFirst()
            begin(next.0, next.1)
        }
    }

    mutating func answer(_ answer: Answer) {
        guard let id = running?.id else { return }
        running = nil
        answers.append((id, answer))
        emit(.answer)
        nextCommand()
    }

    private mutating func begin(_ id: CommandID, _ command: Command) {
        running = RunningCommand(id: id, command: command, step: .draining)
        if phase == .stopping || phase == .stopped {
            answer(.refused("the mirror \(record.name) is being stopped"))
            return
        }
        if case .stop = command {
            beginStop()
            return
        }
        if case .scrub(let order) = command {
            answer(obey(order))
            return
        }
        guard !isReadOnly else {
            answer(.refused("the mirror \(record.name) is served read-only"))
            return
        }
        guard phase == .running else {
            answer(.refused("the mirror \(record.name) is still being opened; try again"))
            return
        }
        switch command {
        case .breakOff(let plex, let name, _): beginBreak(plex, name: name)
        case .clear(let plex): clear(plex)
        case .writeMostly(let plex, let isWanted): setWriteMostly(plex, isWanted)
        case .reactivate(let plex): beginReactivating(plex)
        case .remove(let plex): beginRemove(plex)
        case .takeOffline(let plex): beginOffline(plex)
        case .join(let plex, let attachment, let replaced): beginJoin(plex, attachment, replacing: replaced)
        case .resync(let order): answer(.done(obey(order)))
        case .scrub, .stop: break
        }
    }

    /// Why the plex must stay; nil if it may go.
    func objection(toLosing plex: PlexIndex) -> String? {
        guard record[plex].role != .absent else { return "mirror \(record.name) has no plex \(plex)" }
        if working == PlexSet(plex) || reliable(working.union(becomingInSync)) == PlexSet(plex) {
            return "plex \(plex) is the last good copy of mirror \(record.name); join another one first"
        }
        if let range = onlyPossibleHolding(of: plex) {
            return
                "plex \(range.plex) does not hold \(range.length) bytes at \(range.offset), which plex \(plex) may still be able to read; that is being tried: wait a minute, or write there"
        }
        return nil
    }

    // MARK: break --nokeep, offline

    private mutating func beginRemove(_ plex: PlexIndex) {
        if let objection = objection(toLosing: plex) {
            answer(.refused(objection))
            return
        }
        let uuid = record[plex].uuid
        let successor = successor(of: plex)
        guard running?.id != .own || mayForgetReplaced(plex) else {
            // It might when this was ordered; what it rested on has failed or was taken out since.
            answer(.refused("nothing has taken the place of plex \(plex)"))
            return
        }
        log(
            .brokenOff, plex: plex,
            text: "forgotten: \(uuid)" + (successor.map { ", replaced by plex \($0)" } ?? ""))
        leave(plex, .removed)
        let predecessor = successor == nil ? nil : record[plex].replaces
        record.members[Int(plex.value)] = .absent
        forgetBadRanges(plex)
        forgetReplacing(plex, leaving: predecessor)
        awaitRecord()
    }

    private mutating func beginOffline(_ plex: PlexIndex) {
        if let objection = objection(toLosing: plex) {
            answer(.refused(objection))
            return
        }
        guard working.contains(plex) || recovering.contains(plex) else {
            answer(.refused("plex \(plex) is not in use"))
            return
        }
        leave(plex, .takenOffline)
        record[plex].role = .offline
        record[plex].cause = FailureCause(operation: .user, time: now.unixNanoseconds)
        log(.offline, plex: plex, text: "taken out by the user")
        awaitRecord()
    }

    private mutating func leave(_ plex: PlexIndex, _ reason: GenerationReason) {
        let mattered = working.contains(plex) || possibleInSync.contains(plex)
        if working.union(recovering).union(joining).contains(plex) {
            countMissed(plex, wasWorking: working.contains(plex), wasJoining: joining.contains(plex))
        }
        working.remove(plex)
        recovering.remove(plex)
        joining.remove(plex)
        resync.promoting.remove(plex)
        if mattered { commit.beginGeneration(reason) }
        repin()
    }

    // MARK: join

    private mutating func beginJoin(_ plex: PlexIndex, _ attachment: Attachment, replacing replaced: PlexIndex?) {
        let state = plexes[Int(plex.value)]
        guard !working.contains(plex), !recovering.contains(plex), !joining.contains(plex) else {
            answer(.refused("plex \(plex) takes part already"))
            return
        }
        // A write that was given up may still land on the disk, after anything we write now (zombie).
        guard state.inFlight == 0, state.attachment == nil else {
            answer(.refused("plex \(plex) still has I/O outstanding; try again when it has ended"))
            return
        }
        guard record.index(of: attachment.uuid).map({ $0 == plex }) ?? true else {
            answer(.refused("the disk is another plex of this mirror"))
            return
        }
        guard attachment.layout.fits(record) else {
            answer(.refused("the disk is laid out for another size"))
            return
        }
        if let replaced, let objection = objection(toReplacing: replaced, by: plex) {
            answer(.refused(objection))
            return
        }
        let old = record[plex]
        var member = Member(uuid: attachment.uuid, role: .recovering)
        member.replaces = replaced ?? (old.uuid == attachment.uuid ? old.replaces : nil)
        member.isWriteMostly = old.uuid == attachment.uuid && old.isWriteMostly
        var basis = attachment.basis
        if old.uuid == attachment.uuid, old.role != .absent {
            member.readErrors = old.readErrors
            member.writeErrors = old.writeErrors
            member.corrected = old.corrected
            member.spared = old.spared
            member.missedWriteMap = old.missedWriteMap
        } else if case .evidence = basis {
            basis = .everything("it takes the place of another disk")
        }
        if old.uuid != attachment.uuid {
            forgetReplacing(plex)
            forgetBadRanges(plex)
        }
        if old.uuid == attachment.uuid, old.role == .failed || old.role == .stale {
            returned(plex)
        }
        record[plex] = member
        plexes[Int(plex.value)] = Plex()
        attach(plex, attachment)
        plexes[Int(plex.value)].ledger = .unknown
        commit.forget(plex)
        planCopy(plex, basis)
        leaveOutNumbers(plex)
        plexes[Int(plex.value)].eventsThrough = eventLog.lastSequence
        joining.insert(plex)
        if mutant == .joinBeforeSuperblock { joined(plex) }
        awaitRecord()
    }

    /// The command goes on when all that it changed is on record.
    mutating func awaitRecord() {
        let ticket = wantCommit()
        running?.step = .recording(ticket: ticket)
    }

    // MARK: stop

    private mutating func beginStop() {
        phase = .stopping
        releaseHeld()
        drained()
    }

    /// Something ended: a command may have waited for it.
    mutating func drained() {
        breakDrained()
        guard phase == .stopping, case .draining = running?.step, case .stop = running?.command,
            clientRequestsInFlight == 0, resync.windowsInFlight == 0
        else { return }
        if isReadOnly {
            finishStop("")
            return
        }
        running?.step = .flushing
        if mutant == .cleanWithoutFlush {
            stopFlushed(good: working.union(recovering), everywhere: true)
        } else {
            startInternalFlush(.stop, working.union(recovering))
        }
    }

    mutating func stopFlushed(good: PlexSet, everywhere: Bool) {
        guard case .stop = running?.command else { return }
        // What remains is to move and clear the intent bits; `finalCleaningEnded` goes on.
        running?.step = .cleaning
        cleanForStop(flushed: working.isSubset(of: good) ? good : .empty)
    }

    /// - Parameter isClean: no intent bit is left on any plex.
    mutating func finalCleaningEnded(isClean: Bool) {
        guard case .stop = running?.command, case .cleaning = running?.step else { return }
        record.isClean = isClean && !hasUnequal
        awaitRecord()
    }

    var isStopWaiting: Bool { waitingCommands.contains { if case .stop = $0.1 { true } else { false } } }

    /// Nothing can be recorded: a stop does not wait for it, nor for a command that does.
    mutating func giveUpForStop() {
        if phase == .stopping {
            abandonStop()
            return
        }
        guard isStopWaiting, let running else { return }
        switch running.step {
        case .puttingBack, .draining, .recording:
            repairs.puttingBack = nil
            holdsMutations = false
            answer(.failed("the state could not be recorded on any plex; given up for the stop"))
        case .flushing, .cleaning, .detaching, .ending: break
        }
    }

    /// The record can't be written any more: leave without the clean mark, and without a promise.
    private mutating func abandonStop() {
        while sparing.job != nil, !sparing.isInFlight { abandonSparing() }
        // The end of one may let another go on, to where it waits for the same.
        while let index = slots.firstIndex(where: { Self.waitsForRecord($0) }) {
            gateQueue = SlotQueue()
            heldQueue = SlotQueue()
            switch slots[index].kind {
            case .client: finish(index, .ioError)
            case .repair: giveUpRepair(index)
            case .scrubRepair: giveUpScrubRepair(index)
            case .free, .internalFlush, .resyncWindow, .scrub: giveUpWindow(index)
            }
        }
        // A window that is being read would go on to write to a disk that is closed by then.
        guard clientRequestsInFlight == 0, resync.windowsInFlight == 0, case .stop = running?.command else { return }
        finishStop("the state could not be recorded on any plex; the next start will resync")
    }

    private static func waitsForRecord(_ slot: Slot) -> Bool {
        switch slot.step {
        case .parked, .gate, .failureRecord, .pinRecord, .healRecord, .promotionWait, .held, .retryWait:
            slot.kind != .free
        case .idle, .lock, .reading, .edgeRead, .fanOut, .sparing: false
        }
    }

    private mutating func finishStop(_ complaint: String) {
        phase = .stopped
        answer(
            complaint.isEmpty
                ? .done("mirror \(record.name) is stopped\(record.isClean ? " and clean" : "")") : .failed(complaint))
        for plex in 0..<PlexSet.capacity { release(PlexIndex(plex)) }
        stoppedIfReleased()
    }

    mutating func commandAfterCommit(round: UInt64) {
        guard let running, case .recording(let ticket) = running.step, ticket <= round else { return }
        switch running.command {
        case .breakOff(let plex, _, _): beginDetach(plex)
        case .remove(let plex): beginDetach(plex)
        case .takeOffline(let plex):
            release(plex)
            answer(.done("plex \(plex) is offline"))
        case .join(let plex, _, _):
            if joining.contains(plex) {
                // Its own changes are on their way into the maps; a record follows, see `isReadyToJoin`.
                self.running?.step = .recording(ticket: round + 1)
            } else if recovering.contains(plex) || working.contains(plex) {
                let next = record[plex].replaces.map { "; plex \($0) is forgotten when it is in sync" } ?? ""
                answer(.done("plex \(plex) is being rebuilt; it gets \(copyReason(plex))\(next)"))
            } else {
                answer(.failed("plex \(plex) could not take the superblock: \(describe(record[plex].cause))"))
            }
        case .clear(let plex): answer(.done("the counters of plex \(plex) begin anew"))
        case .writeMostly(let plex, let isWanted):
            let others = isWanted ? "only where no other plex can be" : "like the others"
            answer(.done("plex \(plex) is read \(others)"))
        case .resync, .scrub, .reactivate: break
        case .stop:
            finishStop(
                record.isClean ? "" : "stopped, but not every plex could be made equal; the next start will resync")
        }
    }
}
