internal import BasicContainers
internal import Control
internal import Glibc
internal import Logging
internal import MirrorCore
internal import MirrorFormat
internal import URing

/// A program on the control socket.
final class ControlConnection {
    let index: Int
    let generation: UInt32
    let file: Int32
    var inbox: LineBuffer
    var outbox: [UInt8] = []
    /// Follows the events of this mirror, or of all.
    var isFollowing = false
    var followed: String?
    var isWaitingToSend = false
    /// Nothing more comes from it; it is closed when it has its answers.
    var hasEnded = false
    /// A request that was not answered yet. The next one waits for that, so that answers come in order.
    var isAwaiting = false
    /// Its requests are being taken up, one after the other.
    var isHandling = false
    var asksToStop = false

    /// 24 bits of index and 32 of generation, as for NBD connections.
    var key: UInt64 { UInt64(generation) << 24 | UInt64(index) }

    init(index: Int, generation: UInt32, file: Int32, limits: ServerLimits) {
        self.index = index
        self.generation = generation
        self.file = file
        inbox = LineBuffer(limitBytes: limits.controlLineBytes)
    }
}

/// A command of the core that somebody waits for.
struct PendingCommand {
    /// Key of the control connection, of the first reactor. Nil: the server itself, stopping.
    var asker: UInt64?
    /// To be closed again if the command is refused.
    var disk: NewDisk?
    var mirror: Int
    /// A stop after which the disk is to be a plain one.
    var dissolves = false

    struct NewDisk {
        var disk: Disk
        var plex: PlexIndex
        /// That the plex had before.
        var oldPath: String?
        /// A file that was made for this.
        var isMade: Bool
        /// That it was, and is again if it is not wanted.
        var spare: HotSpare?
    }
}

extension Reactor {
    mutating func acceptControl() {
        guard let controlListener else { return }
        while true {
            guard let file = controlListener.accept() else { return }
            let index = controls.firstIndex { $0 == nil } ?? controls.count
            guard index < limits.controlConnections else {
                Glibc.close(file)
                continue
            }
            if index == controls.count { controls.append(nil) }
            let control = ControlConnection(index: index, generation: nextGeneration, file: file, limits: limits)
            nextGeneration &+= 1
            controls[index] = control
            poll(file, .controlInput, control.key)
        }
    }

    private func control(_ key: UInt64) -> ControlConnection? {
        let index = Int(key & 0xFF_FFFF)
        guard index < controls.count, let control = controls[index], control.key == key else { return nil }
        return control
    }

    mutating func controlWritable(_ key: UInt64) {
        guard let control = control(key) else { return }
        control.isWaitingToSend = false
        flushControl(control)
    }

    mutating func controlReady(_ key: UInt64, hasMore: Bool) {
        guard let control = control(key) else { return }
        var chunk = [UInt8](repeating: 0, count: 16_384)
        while true {
            let count = unsafe recv(control.file, &chunk, chunk.count, Int32(MSG_DONTWAIT))
            if count < 0, errno == EINTR { continue }
            if count < 0, errno == EAGAIN { break }
            guard count > 0 else {
                control.hasEnded = true
                break
            }
            guard control.inbox.append(chunk[..<count]) else {
                shutControl(control)
                return
            }
        }
        if !hasMore, !control.hasEnded { poll(control.file, .controlInput, key) }
        handleRequests(control)
    }

    private mutating func handleRequests(_ control: ControlConnection) {
        guard !control.isHandling else { return }
        control.isHandling = true
        while controls[control.index] === control, !control.isAwaiting, let line = control.inbox.nextLine() {
            handle(line, from: control)
        }
        control.isHandling = false
        // A program that only closed its sending half still gets its answers.
        if control.hasEnded, !control.isAwaiting { shutControl(control) }
    }

    private mutating func handle(_ line: [UInt8], from control: ControlConnection) {
        control.isAwaiting = true
        let asker = control.key
        guard let request = try? ControlRequest(line: line) else {
            respond(.failure("this request can't be understood"), to: asker)
            return
        }
        guard request.version == ControlRequest.currentVersion else {
            respond(
                .failure("the server speaks version \(ControlRequest.currentVersion) of the control protocol"),
                to: asker)
            return
        }
        switch request.verb {
        case .status, .events: startGathering(request, for: control)
        case .resolve: resolve(request, from: asker)
        case .takeover: beginHandover(to: asker)
        case .stop where request.mirror == nil:
            control.asksToStop = true
            respond(stopAll(), to: asker)
        case .break, .join, .add, .replace, .spare, .resync, .scrub, .dissolve, .offline, .online, .clear, .writeMostly,
            .reactivate, .stop:
            guard let name = request.mirror, let route = route(to: name) else {
                respond(.failure(unknownMirror(request.mirror ?? "")), to: asker)
                return
            }
            post(.command(request, asker: asker), to: routes[route].place.reactor)
        }
    }

    /// Answers a request, on whatever reactor it was carried out.
    mutating func respond(_ response: ControlResponse, to asker: UInt64) {
        guard isFirst else { return post(.response(response, asker: asker), to: 0) }
        guard let control = control(asker) else { return }
        control.isAwaiting = false
        write(response, to: control)
        handleRequests(control)
    }

    private mutating func write(_ response: ControlResponse, to control: ControlConnection) {
        guard controls[control.index] === control, let line = try? response.line() else { return }
        control.outbox += line
        control.outbox.append(UInt8(ascii: "\n"))
        flushControl(control)
    }

    private mutating func flushControl(_ control: ControlConnection) {
        while !control.outbox.isEmpty, !control.isWaitingToSend {
            let count = unsafe Glibc.send(
                control.file, control.outbox, control.outbox.count,
                Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
            if count < 0, errno == EINTR { continue }
            if count < 0, errno == EAGAIN {
                control.isWaitingToSend = true
                ring.preparePollOnce(
                    control.file, events: UInt32(POLLOUT),
                    userData: UInt64(Source.controlOutput.rawValue) << 56 | control.key)
                break
            }
            guard count > 0 else {
                shutControl(control)
                return
            }
            control.outbox.removeFirst(count)
        }
        if control.outbox.count > limits.controlOutputBytes { shutControl(control) }
    }

    /// The server leaves: whoever asked for it hears how that went.
    mutating func endControl(_ control: ControlConnection) {
        if control.asksToStop, !stopComplaints.isEmpty {
            var response = ControlResponse()
            response.message = stopComplaints.joined(separator: "; ")
            write(response, to: control)
        }
        shutControl(control)
    }

    mutating func shutControl(_ control: ControlConnection) {
        guard controls[control.index] === control else { return }
        controls[control.index] = nil
        ring.preparePollRemoval(
            of: UInt64(Source.controlInput.rawValue) << 56 | control.key,
            userData: UInt64(Source.ignored.rawValue) << 56)
        shutdown(control.file, Int32(SHUT_RDWR))
        Glibc.close(control.file)
    }

    // MARK: reading verbs

    /// Asks all reactors, this one at once.
    private mutating func startGathering(_ request: ControlRequest, for control: ControlConnection) {
        let ticket = takeTicket()
        gatherings[ticket] = Gathering(
            request: request, asker: control.key, missing: Set(group.mailboxes.indices))
        broadcast(.gather(request, ticket: ticket))
        gathered(gather(request), ticket, from: place)
    }

    /// What this reactor knows.
    func gather(_ request: ControlRequest) -> GatheredReports {
        var reports = GatheredReports()
        let chosen = mirrors.indices.filter { request.mirror == nil || mirrors[$0].name == request.mirror }
        if request.verb == .events {
            reports.events = chosen.flatMap { mirror in mirrors[mirror].events.map { mirrors[mirror].report($0) } }
            return reports
        }
        reports.mirrors = chosen.map { mirrors[$0].report() }
        for route in routes.indices {
            reports.waiting[routes[route].name, default: 0] += routes[route].waitingJobs.count
            reports.clients[routes[route].name, default: 0] += connections.count { $0?.route == route }
        }
        return reports
    }

    mutating func gathered(_ part: GatheredReports, _ ticket: UInt64, from reactor: Int) {
        guard var gathering = gatherings.removeValue(forKey: ticket) else { return }
        gathering.reports.add(part)
        gathering.missing.remove(reactor)
        guard gathering.missing.isEmpty else {
            gatherings[ticket] = gathering
            return
        }
        switch gathering.request.verb {
        case .events: answerEvents(gathering)
        case .status, .resolve, .break, .join, .add, .replace, .spare, .resync, .scrub, .dissolve, .offline, .online,
            .clear, .writeMostly, .reactivate, .stop, .takeover:
            answerStatus(gathering)
        }
    }

    private mutating func answerStatus(_ gathering: Gathering) {
        var positions: [String: Int] = [:]
        for route in routes.indices { positions[routes[route].name] = route }
        var reports = gathering.reports.complete().sorted { positions[$0.name] ?? 0 < positions[$1.name] ?? 0 }
        if let name = gathering.request.mirror {
            reports += refused.map(\.report).filter { $0.name == name }
            guard !reports.isEmpty else { return respond(.failure(unknownMirror(name)), to: gathering.asker) }
        } else {
            reports += refused.map(\.report)
        }
        var response = ControlResponse()
        response.status = StatusReport(
            server: StatusReport.Server(pid: getpid(), version: plexusVersion, sockets: shownSockets), mirrors: reports)
        respond(response, to: gathering.asker)
    }

    /// Absolute paths, and HOST:PORT. localhost may have two addresses and has one name.
    private var shownSockets: [String] {
        var shown: [String] = []
        for case let listener? in listeners where !listener.address.hasPrefix("fd ") {
            let isRelative = !listener.isTCP && !listener.address.hasPrefix("/")
            let text = isRelative ? "\(currentDirectory())/\(listener.address)" : listener.address
            if !shown.contains(text) { shown.append(text) }
        }
        return shown
    }

    private func currentDirectory() -> String {
        guard let path = unsafe getcwd(nil, 0) else { return "" }
        defer { unsafe free(path) }
        return unsafe String(cString: path)
    }

    private mutating func answerEvents(_ gathering: Gathering) {
        let name = gathering.request.mirror
        guard name == nil || routes.indices.contains(where: { routes[$0].name == name }) else {
            return respond(.failure(unknownMirror(name ?? "")), to: gathering.asker)
        }
        let isFollowing = gathering.request.follow ?? false
        var response = ControlResponse(isLast: !isFollowing)
        response.events = gathering.reports.events
            .sorted { ($0.time, $0.mirror, $0.sequence) < ($1.time, $1.mirror, $1.sequence) }
        let follower = control(gathering.asker)
        respond(response, to: gathering.asker)
        guard isFollowing, let follower else { return }
        follower.isFollowing = true
        follower.followed = name
        for report in gathering.later { show(report, to: follower) }
    }

    mutating func publishEvents(of mirror: Int) {
        for event in mirrors[mirror].mirror.takeEvents() {
            mirrors[mirror].append(event)
            let report = mirrors[mirror].report(event)
            logger.info("\(report.journalLine)")
            post(.event(report, from: place), to: 0)
        }
    }

    /// To all who follow; who has asked and has no answer yet gets behind it what the answer does not hold.
    mutating func publish(_ report: EventReport, from reactor: Int) {
        eventProgram?.tell(report)
        for case let control? in controls where control.isFollowing { show(report, to: control) }
        for (ticket, gathering) in gatherings where !gathering.missing.contains(reactor) {
            gatherings[ticket]?.later.append(report)
        }
    }

    private mutating func show(_ report: EventReport, to control: ControlConnection) {
        guard control.followed == nil || control.followed == report.mirror else { return }
        var response = ControlResponse(isLast: false)
        response.events = [report]
        write(response, to: control)
    }

    func unknownMirror(_ name: String) -> String {
        let names = routes.indices.map { routes[$0].name }.joined(separator: ", ")
        return "there is no mirror \(name) here; served: \(names.isEmpty ? "none" : names)"
    }
}
