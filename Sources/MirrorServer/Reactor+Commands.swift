internal import BasicContainers
internal import Control
internal import Glibc
internal import Logging
internal import MirrorCore
internal import MirrorFormat

/// The verbs that change something; those that bring a disk in are in `Reactor+Joining`.
extension Reactor {
    /// - Parameters:
    ///   - request: for a mirror of this reactor.
    ///   - asker: the control connection to be answered.
    mutating func command(_ request: ControlRequest, from asker: UInt64) {
        guard let name = request.mirror, let mirror = served(name) else {
            respond(.failure(unknownMirror(request.mirror ?? "")), to: asker)
            return
        }
        guard handover == nil else {
            return respond(.failure("another server is taking over; ask that one"), to: asker)
        }
        do throws(DiskError) {
            switch request.verb {
            case .status, .events, .resolve, .takeover: preconditionFailure("no command for one mirror")
            case .stop:
                deliver(.tick, to: mirror)  // The event log is written at ticks; there will be no other.
                send(.stop, to: mirror, for: asker)
            case .break:
                let plex = try find(request.plex, in: mirror)
                if request.keep ?? true {
                    let name = detachedName(mirror, plex)
                    send(
                        .breakOff(plex, name: name, mustBeWhole: request.materialise ?? false), to: mirror, for: asker)
                } else {
                    send(.remove(plex), to: mirror, for: asker)
                }
            case .clear: send(.clear(try find(request.plex, in: mirror)), to: mirror, for: asker)
            case .writeMostly:
                let plex = try find(request.plex, in: mirror)
                send(.writeMostly(plex, request.writeMostly ?? true), to: mirror, for: asker)
            case .reactivate:
                let plex = try find(request.plex, in: mirror)
                guard !mirrors[mirror].mirror.goodPlexes.contains(plex) else {
                    return send(.reactivate(plex), to: mirror, for: asker)
                }
                try bringBack(plex, mirror, name, for: asker)
            case .offline: send(.takeOffline(try find(request.plex, in: mirror)), to: mirror, for: asker)
            case .online:
                try bringBack(try find(request.plex, in: mirror), mirror, name, for: asker)
            case .join: try open(disk(of: request), mirror, .anything, force: request.force ?? false, for: asker)
            case .add: try bringNew(request, mirror, replacing: nil, for: asker)
            case .replace:
                try bringNew(request, mirror, replacing: try find(request.plex, in: mirror), for: asker)
            case .spare: try spare(request, mirror, for: asker)
            case .dissolve:
                try checkDissolving(mirror)
                deliver(.tick, to: mirror)
                send(.stop, to: mirror, for: asker, dissolves: true)
            case .resync: send(.resync(try order(request)), to: mirror, for: asker)
            case .scrub: try scrub(request, mirror, for: asker)
            }
        } catch {
            respond(.failure(error.description), to: asker)
        }
    }

    private mutating func bringBack(
        _ plex: PlexIndex, _ mirror: Int, _ name: String, for asker: UInt64
    ) throws(DiskError) {
        guard let path = mirrors[mirror].paths[Int(plex.value)] else {
            throw DiskError("the disk of plex \(plex) was not seen by this server; name it: plexus join \(name) DISK")
        }
        try open(path, mirror, .known(plex), force: false, for: asker)
    }

    private func order(_ request: ControlRequest) throws(DiskError) -> ResyncOrder {
        switch request.order {
        case "pause": return .pause
        case "resume": return .resume
        case "limit":
            guard request.limit != 0 else { throw DiskError("a limit of nothing: to stop a resync pause it") }
            return .limit(request.limit)
        case "verify": return .verify(true)
        case "believe": return .verify(false)
        case "priority":
            guard let priority = ResyncPriority.allCases.first(where: { $0.text == request.priority }) else {
                throw DiskError("a priority is high, normal or low")
            }
            return .priority(priority)
        default: throw DiskError("a resync can be told to pause, to resume, to verify, a limit, or a priority")
        }
    }

    private func detachedName(_ mirror: Int, _ plex: PlexIndex) -> String {
        let suffix = "-plex\(plex)"
        var name = mirrors[mirror].name
        while name.utf8.count + suffix.utf8.count > Superblock.maximumNameBytes { name.removeLast() }
        return name + suffix
    }

    private mutating func scrub(_ request: ControlRequest, _ mirror: Int, for asker: UInt64) throws(DiskError) {
        switch request.order {
        case "report":
            var response = ControlResponse()
            response.scrub = mirrors[mirror].scrubReport()
            respond(response, to: asker)
        case "start":
            var manner = ScrubManner(readsHoles: request.all ?? false, repairs: request.repair ?? false)
            if request.plex != nil { manner.preferred = try find(request.plex, in: mirror) }
            send(.scrub(.start(manner)), to: mirror, for: asker)
        case "stop": send(.scrub(.stop), to: mirror, for: asker)
        case "limit":
            guard request.limit != 0 else { throw DiskError("a limit of nothing: to end a scrub stop it") }
            send(.scrub(.limit(request.limit)), to: mirror, for: asker)
        default: throw DiskError("a scrub can be told to start, to stop, a limit, or to report")
        }
    }

    private func find(_ text: String?, in mirror: Int) throws(DiskError) -> PlexIndex {
        guard let text, let plex = mirrors[mirror].plex(named: text) else {
            throw DiskError(
                "mirror \(mirrors[mirror].name) has no plex \(text ?? ""); see plexus status \(mirrors[mirror].name) for their numbers"
            )
        }
        return plex
    }

    mutating func stopAll() -> ControlResponse {
        beginStop()
        var response = ControlResponse()
        response.message = "stopping: requests in flight are answered, then everything is flushed and marked clean"
        return response
    }

    mutating func send(
        _ command: Command, to mirror: Int, for asker: UInt64?,
        disk: PendingCommand.NewDisk? = nil, dissolves: Bool = false
    ) {
        let id = CommandID(takeTicket())
        commands[id] = PendingCommand(asker: asker, disk: disk, mirror: mirror, dissolves: dissolves)
        deliver(.command(id, command), to: mirror)
    }

    // MARK: dissolve

    private func checkDissolving(_ mirror: Int) throws(DiskError) {
        let status = mirrors[mirror].mirror.status()
        let name = mirrors[mirror].name
        if status.isReadOnly { throw DiskError("mirror \(name) is served read-only") }
        guard status.plexes.count == 1, status.state == .healthy else {
            throw DiskError(
                status.plexes.count > 1
                    ? "mirror \(name) has \(status.plexes.count) plexes; take all but one out first: plexus break \(name) PLEX"
                    : "mirror \(name) is \(status.state.rawValue): \(status.reason ?? "")")
        }
        if let plex = status.plexes.first, !mirrors[mirror].mirror.remaps(of: plex.index).isEmpty {
            throw DiskError(
                "blocks of mirror \(name) lie in the spare pool of its disk; put them back first: plexus reactivate \(name) \(plex.index)"
            )
        }
    }

    /// The mirror is stopped and clean, and lets go of its only disk.
    mutating func dissolve(_ mirror: Int, _ plex: PlexIndex, _ disk: Disk) {
        guard let (asker, only) = mirrors[mirror].dissolver, only == plex else { return }
        mirrors[mirror].dissolver = nil
        var response = ControlResponse()
        do throws(DiskError) {
            let bytes = mirrors[mirror].mirror.record.dataBytes
            // The mirror has let go of it; what it says itself counts.
            let table = disk.remaps(of: try disk.superblock())
            guard table?.isEmpty ?? true, table?.isDamaged != true else {
                throw DiskError("\(disk.path): blocks lie in its spare pool")
            }
            try disk.wipeMetadata(behind: bytes)
            response.message =
                "mirror \(mirrors[mirror].name) is dissolved: \(disk.dataPath) is a plain disk, its data are \(bytes) bytes"
        } catch {
            response.error = "\(error.description); mirror \(mirrors[mirror].name) is stopped, and may still be served"
        }
        respond(response, to: asker)
    }

    mutating func answerCommands(of mirror: Int) {
        while let (id, answer) = mirrors[mirror].mirror.takeAnswer() {
            guard let pending = commands.removeValue(forKey: id) else { continue }
            var response = ControlResponse()
            switch answer {
            case .done(let text):
                if pending.dissolves, let asker = pending.asker {
                    // Commands that came before may have changed who takes part.
                    let members = mirrors[mirror].mirror.record.configured
                    if members.count == 1, let only = members.first, mirrors[mirror].disks[Int(only.value)] != nil {
                        mirrors[mirror].dissolver = (asker, only)
                    } else {
                        respond(
                            .failure(
                                "\(text), but it has not one plex any more, and was not dissolved"
                            ), to: asker)
                    }
                    continue
                }
                response.message = mirrors[mirror].withPaths(text)
            case .refused(let text):
                response.error = mirrors[mirror].withPaths(text)
                // The core did not take the disk over.
                if let refused = pending.disk { giveBack(refused, mirror) }
            case .failed(let text): response.error = mirrors[mirror].withPaths(text)
            }
            if case .refused(let text) = answer, pending.asker == nil, pending.disk != nil {
                logger.warning("mirror=\(mirrors[mirror].name): \(text)")
            }
            if case .failed(let text) = answer {
                logger.warning("mirror=\(mirrors[mirror].name): \(text)")
                if pending.asker == nil, pending.disk == nil { post(.complaint(text), to: 0) }
            }
            if let asker = pending.asker { respond(response, to: asker) }
        }
    }

    private mutating func giveBack(_ new: PendingCommand.NewDisk, _ mirror: Int) {
        if mirrors[mirror].disks[Int(new.plex.value)]?.file == new.disk.file {
            mirrors[mirror].setDisk(nil, of: new.plex)
        }
        mirrors[mirror].paths[Int(new.plex.value)] = new.oldPath
        group.giveUp(new.disk.path)
        if let spare = new.spare { return standBy(spare) }
        new.disk.shut()
        if new.isMade { unsafe unlink(new.disk.path) }
    }
}
