internal import BasicContainers
internal import Control
internal import Foundation
internal import Glibc
internal import Logging
internal import MirrorCore
internal import MirrorFormat
internal import NBDProtocol

/// Another process takes over, see `Handover`: no request is read any more, those that are here are answered, and then
/// everything is stopped as always, but for the sockets.
struct HandoverStage {
    /// Key of its control connection; known to the first reactor.
    var asker: UInt64?
    var deadline: UInt64
    /// Reactors whose clients do not have all their answers yet; known to the first.
    var missing: Set<Int>
    var hasReported = false
    /// All clients have all answers: what follows is the stop.
    var hasEnded = false
    /// Which one this is: what is said of an earlier one does not count.
    var attempt: UInt64
    /// Paths of all that was open before the stop.
    var disks: [String] = []
}

extension Reactor {
    mutating func beginHandover(to asker: UInt64) {
        guard !isStopping, handover == nil, !settings.isReloading else {
            return respond(.failure("the server is stopping, or reads its configuration"), to: asker)
        }
        logger.info("another server takes over")
        let attempt = takeTicket()
        broadcast(.handOver(attempt))
        stopReading(attempt, asker: asker)
    }

    /// SIGUSR2: the program that is installed now is to take over, in the same service and with the same log.
    func beginSuccessor() {
        // It is not the one that is meant any more; the other one is told of by this one.
        unsafe unsetenv("WATCHDOG_PID")
        guard let control = controlListener?.path, let program = Self.installedProgram else {
            return logger.error("SIGUSR2: there is no control socket, by which another server could take over")
        }
        var none = sigset_t()
        unsafe sigemptyset(&none)
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        let texts = [program, "serve", "--takeover", "--control", control]
        var words = unsafe texts.map { unsafe strdup($0) } + [nil]
        var pid: pid_t = 0
        let result = withRightToStayInMemory {
            unsafe posix_spawn(&pid, program, nil, &attributes, &words, environ)
        }
        unsafe words.forEach { unsafe free($0) }
        unsafe posix_spawnattr_destroy(&attributes)
        if result != 0 { logger.error("\(program): can't be run: \(errorText(result)); this server goes on") }
    }

    /// Where this program was started from; an upgrade has put another one there.
    private static var installedProgram: String? {
        guard let path = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") else {
            return nil
        }
        let deleted = " (deleted)"
        return path.hasSuffix(deleted) ? String(path.dropLast(deleted.count)) : path
    }

    /// - Parameter asker: known to the first reactor.
    mutating func stopReading(_ attempt: UInt64, asker: UInt64? = nil) {
        handover = HandoverStage(
            asker: asker, deadline: now.nanoseconds + limits.handoverNanoseconds,
            missing: Set(group.mailboxes.indices), attempt: attempt)
        // Its disk would stay open here.
        if !openings.isEmpty { report("a disk is being opened") }
        for index in mirrors.indices where !mirrors[index].isStopped {
            let status = mirrors[index].mirror.status()
            if status.state == .suspended {
                report("mirror \(status.record.name) is suspended: \(status.reason ?? "")")
            } else if mirrors[index].report().plexes.contains(where: { $0.unanswered > 0 }) {
                report("a disk of mirror \(status.record.name) still owes answers")
            }
        }
        // What a handshake has agreed on so far can't be handed over. Such a client tries again.
        guard handover != nil else { return }
        for case let connection? in connections where connection.session.phase != .transmission { close(connection) }
    }

    /// To be called at each turn.
    mutating func followHandover() {
        guard let stage = handover, !isStopping else { return }
        if stage.asker != nil, now.nanoseconds > stage.deadline {
            return cancelHandover("not all clients took their answers in time, or disks took too long")
        }
        guard !stage.hasReported, connections.allSatisfy({ $0?.isDrained ?? true }) else { return }
        report(nil)
    }

    private mutating func report(_ complaint: String?) {
        guard handover?.hasReported == false else { return }
        handover?.hasReported = true
        post(.drained(from: place, attempt: handover?.attempt ?? 0, complaint: complaint), to: 0)
    }

    mutating func drained(_ reactor: Int, _ attempt: UInt64, _ complaint: String?) {
        guard handover?.attempt == attempt, !isStopping else { return }
        if let complaint { return cancelHandover(complaint) }
        handover?.missing.remove(reactor)
        guard handover?.missing.isEmpty == true else { return }
        handover?.disks = group.claimedPaths
        handover?.hasEnded = true
        beginStop()
    }

    mutating func cancelHandover(_ complaint: String) {
        guard let asker = handover?.asker else {
            handover = nil
            return
        }
        logger.warning("the other server does not take over: \(complaint)")
        broadcast(.handOverCancelled)
        resumeReading()
        respond(.failure("\(complaint); this server goes on"), to: asker)
    }

    mutating func resumeReading() {
        handover = nil
        closeHungUp()
        for case let connection? in connections {
            connection.isReadable = true
            enqueue(connection)
        }
        isAcceptPaused = true
        hasFreed = true
    }

    // MARK: at the end

    /// Instead of closing them.
    mutating func leaveClients() {
        for (index, connection) in connections.enumerated() {
            guard let connection, let export = connection.session.export, connection.isDrained else { continue }
            connections[index] = nil
            group.leave(
                Handover.Client(
                    file: connection.file,
                    report: TakeoverReport.Client(
                        export: export.name, size: export.sizeBytes,
                        structuredReplies: connection.session.structuredReplies,
                        hasAllocationContext: connection.session.allocationContextID != nil,
                        received: connection.inbox, discarding: connection.discarding)))
        }
    }

    /// The connection of the process that takes over, which is nobody's here any more.
    mutating func takePeer() -> Int32? {
        guard let asker = handover?.asker, let index = controls.firstIndex(where: { $0?.key == asker }),
            let control = controls[index]
        else { return nil }
        controls[index] = nil
        return control.file
    }

    // MARK: at the start

    /// The other process has left. What its clients have sent meanwhile waits in their sockets.
    mutating func takeInheritance() {
        guard let clients = inherited?.clients else { return }
        inherited = nil
        for index in listeners.indices { accept(index) }
        for client in clients {
            guard let route = route(to: client.report.export),
                routes[route].export.sizeBytes == client.report.size
            else {
                logger.error("mirror=\(client.report.export): is not served here, a client of it is cut off")
                Glibc.close(client.file)
                continue
            }
            let connection = Connection(
                file: client.file,
                resuming: Session(
                    resuming: routes[route].export, structuredReplies: client.report.structuredReplies,
                    hasAllocationContext: client.report.hasAllocationContext, limits: .standard),
                received: client.report.received, discarding: client.report.discarding, now: now.nanoseconds)
            group.connectionEntered()
            let place = routes[route].place
            post(.adopt(connection, place), to: group.reactor(forClientsOf: place))
        }
    }
}
