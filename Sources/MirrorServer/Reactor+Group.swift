internal import BasicContainers
internal import Control
internal import MirrorCore
internal import MirrorFormat
internal import NBDProtocol
internal import URing

/// What goes between the reactors of one server. With one reactor nothing does.
extension Reactor {
    var isAlone: Bool { group.mailboxes.count == 1 }
    /// The one with the listening sockets and the control socket.
    var isFirst: Bool { place == 0 }

    /// What is copied by one mirror waits for those whose copying comes first.
    mutating func takeTurns(_ index: Int) {
        let priority = mirrors[index].mirror.resyncPriority
        group.copies(mirrors[index].name, mirrors[index].mirror.wantsToCopy ? priority : nil)
        mirrors[index].mirror.copy(behind: group.copiesBefore(priority))
    }

    // MARK: leaving

    mutating func post(_ note: Note, to reactor: Int) {
        if reactor == place { read(note) } else { outgoing[reactor].notes.append(note) }
    }

    mutating func broadcast(_ note: Note) {
        for reactor in outgoing.indices where reactor != place { outgoing[reactor].notes.append(note) }
    }

    /// Everything that this turn had for others.
    mutating func leaveMail() {
        guard !isAlone else { return }
        for reactor in outgoing.indices where !outgoing[reactor].isEmpty {
            group.mailboxes[reactor].leave(&outgoing[reactor])
        }
        // Only now: whoever sees that no mirror runs any more has the last replies in its mailbox.
        if stoppedMirrors > 0 {
            group.mirrorsStopped(stoppedMirrors)
            stoppedMirrors = 0
        }
    }

    /// Takes what others left, and does it.
    mutating func takeMail() {
        guard !isAlone, group.mailboxes[place].hasMail else { return }
        group.mailboxes[place].take(&incoming)
        var batch = Mailbox.Contents()
        swap(&batch, &incoming)
        // Notes first: a mirror that is told of comes before requests to it.
        for note in batch.notes { read(note) }
        for letter in batch.requests { begin(letter) }
        for letter in batch.replies { replied(letter) }
        batch.removeAll()
        swap(&batch, &incoming)
    }

    private mutating func read(_ note: Note) {
        switch note {
        case .adopt(let connection, let place): adopt(connection, place)
        case .mirrorAdded(let export, let place):
            routes.append(Route(export: export, place: place))
            updateCatalog()
        case .mirrorStopped(let place): routeStopped(place)
        case .opened: unopened -= 1
        case .command(let request, let asker): command(request, from: asker)
        case .response(let response, let asker): respond(response, to: asker)
        case .event(let report, let reactor): publish(report, from: reactor)
        case .gather(let request, let ticket):
            post(.gathered(gather(request), ticket: ticket, from: place), to: 0)
        case .gathered(let part, let ticket, let reactor): gathered(part, ticket, from: reactor)
        case .standBy(let spare): standBy(spare)
        case .stop: beginStop()
        case .handOver(let attempt): stopReading(attempt)
        case .drained(let reactor, let attempt, let complaint): drained(reactor, attempt, complaint)
        case .handOverCancelled: resumeReading()
        case .unpin(let address): unpin(address)
        case .unpinned(let address): unpinned(address)
        case .complaint(let text): stopComplaints.append(text)
        }
    }

    // MARK: mirrors

    /// To be called once the mirror no longer takes requests.
    mutating func mirrorStopped(_ index: Int) {
        mirrors[index].isStopped = true
        group.copies(mirrors[index].name, nil)
        releaseSpares(index)
        group.leave(mirrors[index].mirror.record.mirror)
        let stopped = MirrorPlace(reactor: place, index: index)
        broadcast(.mirrorStopped(stopped))
        routeStopped(stopped)
        if isAlone {
            group.mirrorsStopped(1)
        } else {
            stoppedMirrors += 1
        }
    }

    private mutating func routeStopped(_ place: MirrorPlace) {
        guard let route = route(to: place) else { return }
        routes[route].isStopped = true
        updateCatalog()
        // Those that are left to another server are served on.
        if handover == nil { endConnections(to: route) }
    }

    // MARK: requests

    /// A request that came from the sockets of another reactor.
    private mutating func begin(_ letter: RequestLetter) {
        if let outcome = outcomeAtOnce(letter.request, letter.mirror) {
            outgoing[letter.origin].replies.append(ReplyLetter(job: letter.job, outcome: outcome, extentCount: 0))
            return
        }
        let job: Int
        if let free = freeJobs.popLast() {
            job = free
        } else {
            // Bounded by what the mirrors have room for.
            job = jobs.count
            jobs.append(ClientJob())
        }
        jobs[job] = ClientJob(
            isUsed: true, generation: jobs[job].generation &+ 1, origin: letter.origin, originJob: letter.job,
            mirror: letter.mirror, request: letter.request, memory: letter.memory, ownMemory: letter.memory,
            memoryBytes: letter.memoryBytes,
            completeAt: letter.completeAt)
        handToCore(job)
    }

    /// Hands a job to the reactor of its mirror.
    mutating func send(_ job: Int, to target: MirrorPlace) {
        outgoing[target.reactor].requests.append(
            RequestLetter(
                origin: place, job: job, mirror: target.index, request: jobs[job].request, memory: jobs[job].memory,
                memoryBytes: jobs[job].memoryBytes, completeAt: jobs[job].completeAt))
    }

    /// The core has ended the request of another reactor.
    mutating func sendReply(_ job: Int, _ status: ReplyStatus) {
        outgoing[jobs[job].origin].replies.append(
            ReplyLetter(
                job: jobs[job].originJob, outcome: .ended(status), extentCount: jobs[job].extentCount,
                isOwnPinned: jobs[job].isOwnPinned, late: jobs[job].late))
        freeJob(job)
    }

    private mutating func replied(_ letter: ReplyLetter) {
        jobs[letter.job].extentCount = letter.extentCount
        jobs[letter.job].isOwnPinned = letter.isOwnPinned
        jobs[letter.job].late = letter.late
        switch letter.outcome {
        case .ended(let status): ended(letter.job, status)
        case .notFast: endedNotFast(letter.job)
        }
    }

    // MARK: connections

    /// Gives a client to the reactor that shall serve it.
    mutating func hand(_ connection: Connection, to reactor: Int, _ place: MirrorPlace) {
        forget(connection)
        outgoing[reactor].notes.append(.adopt(connection, place))
    }
}
