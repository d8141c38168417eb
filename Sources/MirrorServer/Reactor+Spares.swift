internal import BasicContainers
internal import Control
internal import Glibc
internal import Logging
internal import MirrorCore
internal import MirrorFormat
internal import URing

/// A disk that stands by to take the place of a plex. It is open, and locked.
struct HotSpare {
    var disk: Disk
    var mark: SpareMark
}

/// Hot spares: naming and dismissing them, and taking one when a plex is out for long.
extension Reactor {
    // MARK: by order

    mutating func spare(_ request: ControlRequest, _ mirror: Int, for asker: UInt64) throws(DiskError) {
        let path = try disk(of: request)
        if request.remove ?? false { return try dismiss(path, mirror, for: asker) }
        guard !mirrors[mirror].mirror.status().isReadOnly else {
            throw DiskError("mirror \(mirrors[mirror].name) is served read-only")
        }
        guard mirrors[mirror].spares.count < limits.spares else {
            throw DiskError("mirror \(mirrors[mirror].name) has \(limits.spares) spares already")
        }
        try open(
            path, mirror, .spare, force: request.force ?? false, mayCreate: request.create ?? false, for: asker)
    }

    /// The disk is open and was found fit: it gets its mark, on a thread.
    mutating func mark(_ opened: OpenedDisk, _ opening: PendingOpening) throws(DiskError) {
        let record = mirrors[opening.mirror].mirror.record
        try checkContents(opened, record, opening)
        guard opened.disk.metadata == nil else {
            throw DiskError("\(opening.path): a disk with a metadata file can't stand by as a spare; add it")
        }
        _ = try freshAttachment(opened.disk, record)
        let mark = SpareMark(
            mirror: record.mirror, name: record.name, diskBytes: opened.disk.bytes, time: now.unixNanoseconds)
        let ticket = takeTicket()
        openings[ticket] = opening
        opener.begin(ticket) {
            do throws(DiskError) {
                try opened.disk.makeSpare(mark)
                return .marked(.success(HotSpare(disk: opened.disk, mark: mark)))
            } catch {
                opened.giveBack()
                return .marked(.failure(error))
            }
        }
    }

    mutating func marked(_ opening: PendingOpening, _ result: Result<HotSpare, DiskError>) {
        let mirror = opening.mirror
        var response = ControlResponse()
        switch result {
        case .failure(let error): response.error = error.description
        case .success(let spare) where mirrors[mirror].isStopped:
            spare.disk.shut()
            response.error = "mirror \(mirrors[mirror].name) was stopped meanwhile; \(opening.path) is its spare"
        case .success(let spare):
            mirrors[mirror].spares.append(spare)
            group.claim(opening.path, mirror: mirrors[mirror].name)
            response.message =
                "\(opening.path) is a spare of mirror \(mirrors[mirror].name); name it to plexus serve from now on, beside the disks"
        }
        if let asker = opening.asker { respond(response, to: asker) }
    }

    private mutating func dismiss(_ path: String, _ mirror: Int, for asker: UInt64) throws(DiskError) {
        guard let index = mirrors[mirror].spares.firstIndex(where: { $0.disk.path == path }) else {
            throw DiskError("\(path): is no spare of mirror \(mirrors[mirror].name)")
        }
        let spare = mirrors[mirror].spares.remove(at: index)
        group.giveUp(path)
        let ticket = takeTicket()
        openings[ticket] = PendingOpening(path: path, mirror: mirror, purpose: .spare, force: false, asker: asker)
        opener.begin(ticket) {
            defer { spare.disk.shut() }
            return .dismissed(Result { () throws(DiskError) in try spare.disk.wipeSpareMark() })
        }
    }

    mutating func dismissed(_ opening: PendingOpening, _ result: Result<Void, DiskError>) {
        guard let asker = opening.asker else { return }
        var response = ControlResponse()
        switch result {
        case .success: response.message = "\(opening.path) is no spare any more"
        case .failure(let error): response.error = error.description
        }
        respond(response, to: asker)
    }

    // MARK: by itself

    /// A plex that has been out for long, whose disk was looked for, and for which nothing else is on its way, gets a
    /// successor.
    mutating func takeSpare(_ mirror: Int) {
        guard !mirrors[mirror].spares.isEmpty, !mirrors[mirror].mirror.isCommanded,
            now.nanoseconds >= mirrors[mirror].returning.nextSpareAt, !isTakingBack(mirror)
        else { return }
        let record = mirrors[mirror].mirror.record
        let late = mirrors[mirror].mirror.plexesOut.filter { plex in
            isLate(plex, mirror) && !record.members.contains { $0.role != .absent && $0.replaces == plex }
        }
        guard let plex = late.first,
            let index = mirrors[mirror].spares.firstIndex(where: { !$0.disk.hasVanished })
        else { return }
        mirrors[mirror].returning.nextSpareAt = now.nanoseconds + limits.spareRetryNanoseconds
        let spare = mirrors[mirror].spares.remove(at: index)
        let path = spare.disk.path
        group.giveUp(path)
        logger.notice("mirror=\(mirrors[mirror].name): \(path), a spare, is to take the place of plex \(plex)")
        do throws(DiskError) {
            try join(
                OpenedDisk(disk: spare.disk, scan: .none, spare: spare),
                PendingOpening(path: path, mirror: mirror, purpose: .new(replacing: plex), force: true, asker: nil))
        } catch {
            logger.error("mirror=\(mirrors[mirror].name): \(error.description)")
            standBy(spare)
        }
    }

    private func isLate(_ plex: PlexIndex, _ mirror: Int) -> Bool {
        let watch = mirrors[mirror].returning
        let policies = group.policies
        guard watch.isOut(plex, forSeconds: policies.spareSeconds, now: now.nanoseconds) else { return false }
        // Its own disk, if that is there, needs less.
        return !policies.rejoins || watch.hanging > 0
            || (watch.ticket == nil && watch.thoroughAt >= watch.outSince[Int(plex.value)] ?? .max)
    }

    private func isTakingBack(_ mirror: Int) -> Bool {
        openings.values.contains { opening in
            guard opening.mirror == mirror, case .returning = opening.purpose else { return false }
            return true
        }
    }

    /// The mirror is stopped.
    mutating func releaseSpares(_ mirror: Int) {
        for spare in mirrors[mirror].spares {
            group.giveUp(spare.disk.path)
            spare.disk.shut()
        }
        mirrors[mirror].spares = []
    }
}
