internal import BasicContainers
internal import Control
internal import Logging
internal import MirrorCore
internal import MirrorFormat

/// The verbs that change something: break, join, offline, online, stop.
extension Reactor {
    /// - Parameters:
    ///   - request: for a mirror of this reactor.
    ///   - asker: the control connection to be answered.
    mutating func command(_ request: ControlRequest, from asker: UInt64) {
        guard let name = request.mirror, let mirror = served(name) else {
            respond(.failure(unknownMirror(request.mirror ?? "")), to: asker)
            return
        }
        do throws(DiskError) {
            switch request.verb {
            case .status, .events, .resolve: preconditionFailure("no command for one mirror")
            case .stop:
                deliver(.tick, to: mirror)  // The event log is written at ticks; there will be no other.
                send(.stop, to: mirror, for: asker)
            case .break:
                let plex = try find(request.plex, in: mirror)
                if request.keep ?? true {
                    send(.breakOff(plex, name: detachedName(mirror, plex)), to: mirror, for: asker)
                } else {
                    send(.remove(plex), to: mirror, for: asker)
                }
            case .offline: send(.takeOffline(try find(request.plex, in: mirror)), to: mirror, for: asker)
            case .online:
                let plex = try find(request.plex, in: mirror)
                guard let path = mirrors[mirror].paths[Int(plex.value)] else {
                    throw DiskError(
                        "the disk of plex \(plex) was not seen by this server; name it: plexus join \(name) DISK")
                }
                try join(path, mirror, asker, force: false, expected: plex)
            case .join:
                guard let path = request.disk else { throw DiskError("which disk?") }
                try join(path, mirror, asker, force: request.force ?? false, expected: nil)
            }
        } catch {
            respond(.failure(error.description), to: asker)
        }
    }

    private func detachedName(_ mirror: Int, _ plex: PlexIndex) -> String {
        let suffix = "-plex\(plex)"
        var name = mirrors[mirror].name
        while name.utf8.count + suffix.utf8.count > Superblock.maximumNameBytes { name.removeLast() }
        return name + suffix
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

    private mutating func send(
        _ command: Command, to mirror: Int, for asker: UInt64,
        disk: (Disk, PlexIndex, oldPath: String?)? = nil
    ) {
        let id = CommandID(nextCommand)
        nextCommand += 1
        commands[id] = PendingCommand(asker: asker, disk: disk, mirror: mirror)
        deliver(.command(id, command), to: mirror)
    }

    mutating func answerCommands(of mirror: Int) {
        while let (id, answer) = mirrors[mirror].mirror.takeAnswer() {
            guard let pending = commands.removeValue(forKey: id) else { continue }
            var response = ControlResponse()
            switch answer {
            case .done(let text): response.message = mirrors[mirror].withPaths(text)
            case .refused(let text):
                response.error = mirrors[mirror].withPaths(text)
                // The core did not take the disk over.
                if let (disk, plex, oldPath) = pending.disk {
                    if mirrors[mirror].disks[Int(plex.value)]?.file == disk.file {
                        mirrors[mirror].setDisk(nil, of: plex)
                    }
                    mirrors[mirror].paths[Int(plex.value)] = oldPath
                    group.giveUp(disk.path)
                    disk.shut()
                }
            case .failed(let text): response.error = mirrors[mirror].withPaths(text)
            }
            if case .failed(let text) = answer {
                logger.warning("mirror=\(mirrors[mirror].name): \(text)")
                if pending.asker == nil { post(.complaint(text), to: 0) }
            }
            if let asker = pending.asker { respond(response, to: asker) }
        }
    }

    // MARK: join

    /// Opens the disk, finds out whether it may become a plex of this mirror, and hands it to the core.
    private mutating func join(
        _ path: String, _ mirror: Int, _ asker: UInt64, force: Bool, expected: PlexIndex?
    ) throws(DiskError) {
        if let owner = group.owner(of: path) { throw DiskError("\(path): is in use by mirror \(owner) already") }
        let disk = try Disk.open(path, .readWrite)
        do throws(DiskError) {
            let (plex, attachment) = try judge(disk, mirrors[mirror].mirror.record, force: force)
            if let expected, expected != plex {
                throw DiskError("\(path): is plex \(plex) now, not plex \(expected)")
            }
            let index = Int(plex.value)
            guard mirrors[mirror].disks[index] == nil else {
                throw DiskError(
                    "plex \(plex) takes part already, or still has I/O outstanding; see plexus status \(mirrors[mirror].name)"
                )
            }
            let oldPath = mirrors[mirror].paths[index]
            mirrors[mirror].setDisk(disk, of: plex)
            group.claim(path, mirror: mirrors[mirror].name)
            mirrors[mirror].paths[index] = path
            mirrors[mirror].plexMeters[index] = IOMeter()
            send(.join(plex, attachment), to: mirror, for: asker, disk: (disk, plex, oldPath))
        } catch {
            disk.shut()
            throw error
        }
    }

    private func judge(_ disk: Disk, _ record: Record, force: Bool) throws(DiskError) -> (
        PlexIndex, Attachment
    ) {
        switch try disk.scan() {
        case .found(let superblock):
            if let known = try judgeKnown(disk, superblock, record, force: force) { return known }
            if !force {
                throw DiskError(
                    "\(disk.path): is a plex of mirror \(superblock.record.name) (\(superblock.record.mirror)); to overwrite it: --force"
                )
            }
        case .damaged, .futureFormat, .unknownFeature, .forked:
            if !force {
                throw DiskError(
                    "\(disk.path): carries Plexus metadata that is damaged or of another version; to overwrite it: --force"
                )
            }
        case .none:
            if !force, let signature = try Signature.find(on: disk) {
                throw DiskError(
                    "\(disk.path): holds \(signature); its contents would be lost. To overwrite it: --force")
            }
        }
        return try (vacancy(in: record, disk), freshAttachment(disk, record))
    }

    /// A disk that was a plex of this mirror, or was broken off it.
    private func judgeKnown(
        _ disk: Disk, _ superblock: Superblock, _ record: Record, force: Bool
    ) throws(DiskError) -> (PlexIndex, Attachment)? {
        let own = superblock.record
        let isMember = own.mirror == record.mirror
        guard isMember || own.parent?.mirror == record.mirror, let plex = record.index(of: superblock.plex) else {
            return nil
        }
        if isMember, !record.descends(from: own), !force {
            throw DiskError(
                "\(disk.path): split brain: it went on without this mirror (epoch \(own.epoch), last change \(isoTime(own.updatedTime))); joining it overwrites those changes. To do so: --force"
            )
        }
        // A copy that was broken off begins with epoch 1; each start for writing raises it.
        if !isMember, own.epoch > 1 || own.configured.count > 1, !force {
            throw DiskError(
                "\(disk.path): was broken off and then served as mirror \(own.name) (last change \(isoTime(own.updatedTime))); joining it overwrites what was changed there. To do so: --force"
            )
        }
        guard superblock.layout.dataBytes == record.dataBytes else { return nil }
        return (
            plex,
            Attachment(superblock, basis: basis(disk, superblock, record), copies: try disk.superblockCopies())
        )
    }

    /// How much must be copied. A copy that was broken off may have been mounted: only the time of its file's last
    /// change can tell.
    private func basis(_ disk: Disk, _ superblock: Superblock, _ record: Record) -> JoinBasis {
        let own = superblock.record
        if own.mirror != record.mirror, let objection = disk.objection(toUntouchedSince: own.updatedTime) {
            return .everything(objection)
        }
        let pagesOf = own.mirror == record.mirror ? nil : own.parent?.mirror
        return JoinBasis(superblock, disk.pages(of: superblock, mirror: pagesOf), joining: record)
    }

    private func vacancy(in record: Record, _ disk: Disk) throws(DiskError) -> PlexIndex {
        guard let free = record.members.firstIndex(where: { $0.role == .absent }) else {
            throw DiskError(
                "\(disk.path): mirror \(record.name) has \(PlexSet.capacity) plexes already; forget one first: plexus break \(record.name) PLEX --nokeep"
            )
        }
        return PlexIndex(free)
    }

    private func freshAttachment(_ disk: Disk, _ record: Record) throws(DiskError) -> Attachment {
        do throws(LayoutError) {
            let layout = try Layout(
                joining: disk.bytes, dataBytes: record.dataBytes, regionBytes: record.regionBytes)
            var entropy = systemEntropy()
            return Attachment(
                uuid: PlexUUID(entropy.nextUUID()), layout: layout, sequence: 0,
                basis: .everything("it is new to this mirror"), copies: SuperblockCopies(torn: .all))
        } catch {
            switch error {
            case .diskTooSmall(let has, let needs):
                throw DiskError("\(disk.path): is too small: it has \(has) bytes, mirror \(record.name) needs \(needs)")
            case .regionSizeInvalid: throw DiskError("\(disk.path): can't be laid out for mirror \(record.name)")
            }
        }
    }
}
