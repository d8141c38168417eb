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
    /// Nil: the server itself, stopping.
    var control: Int?
    /// To be closed again if the command is refused; with the path that the plex had before.
    var disk: (Disk, PlexIndex, oldPath: String?)?
    var mirror: Int
    var stopsServer = false
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
        while controls[control.index] === control, let line = control.inbox.nextLine() {
            handle(line, from: control)
        }
        endIfAnswered(control)
    }

    /// A program that only closed its sending half still gets its answers.
    mutating func endIfAnswered(_ control: ControlConnection) {
        guard control.hasEnded, !commands.values.contains(where: { $0.control == control.index }) else { return }
        shutControl(control)
    }

    private mutating func handle(_ line: [UInt8], from control: ControlConnection) {
        guard let request = try? ControlRequest(line: line) else {
            respond(.failure("this request can't be understood"), to: control)
            return
        }
        guard request.version == ControlRequest.currentVersion else {
            respond(
                .failure("the server speaks version \(ControlRequest.currentVersion) of the control protocol"),
                to: control)
            return
        }
        switch request.verb {
        case .status: reportStatus(request, to: control)
        case .events: reportEvents(request, to: control)
        case .resolve: resolve(request, from: control)
        case .break, .join, .offline, .online, .stop: command(request, from: control)
        }
    }

    mutating func respond(_ response: ControlResponse, to control: ControlConnection) {
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
            respond(response, to: control)
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
        for (id, command) in commands where command.control == control.index { commands[id]?.control = nil }
    }

    // MARK: reading verbs

    private mutating func reportStatus(_ request: ControlRequest, to control: ControlConnection) {
        var reports = mirrors.indices.map { mirror in
            mirrors[mirror].report(clients: connections.count { $0?.mirror == mirror })
        }
        reports += refused.map(\.report)
        if let name = request.mirror {
            reports = reports.filter { $0.name == name }
            guard !reports.isEmpty else {
                respond(.failure(unknownMirror(name)), to: control)
                return
            }
        }
        var response = ControlResponse()
        response.status = StatusReport(
            server: StatusReport.Server(pid: getpid(), version: plexusVersion), mirrors: reports)
        respond(response, to: control)
    }

    private mutating func reportEvents(_ request: ControlRequest, to control: ControlConnection) {
        let chosen = mirrors.indices.filter { request.mirror == nil || mirrors[$0].name == request.mirror }
        guard !chosen.isEmpty || request.mirror == nil else {
            respond(.failure(unknownMirror(request.mirror ?? "")), to: control)
            return
        }
        let events = chosen.flatMap { mirror in mirrors[mirror].events.map { mirrors[mirror].report($0) } }
            .sorted { ($0.time, $0.mirror, $0.sequence) < ($1.time, $1.mirror, $1.sequence) }
        let isFollowing = request.follow ?? false
        var response = ControlResponse(isLast: !isFollowing)
        response.events = events
        respond(response, to: control)
        control.isFollowing = isFollowing
        control.followed = request.mirror
    }

    mutating func publishEvents(of mirror: Int) {
        for event in mirrors[mirror].mirror.takeEvents() {
            mirrors[mirror].append(event)
            let report = mirrors[mirror].report(event)
            logger.info("\(report.journalLine)")
            for case let control? in controls
            where control.isFollowing && (control.followed == nil || control.followed == report.mirror) {
                var response = ControlResponse(isLast: false)
                response.events = [report]
                respond(response, to: control)
            }
        }
    }

    func unknownMirror(_ name: String) -> String {
        let names = mirrors.indices.map { mirrors[$0].name }.joined(separator: ", ")
        return "there is no mirror \(name) here; served: \(names.isEmpty ? "none" : names)"
    }
}
