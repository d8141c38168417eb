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
        guard !mirrors[opening.mirror].isStopped else {
            throw DiskError("mirror \(mirrors[opening.mirror].name) was stopped meanwhile")
        }
        let record = mirrors[opening.mirror].mirror.record
        try checkContents(opened, record, opening)
        _ = try freshAttachment(opened.disk, record)
        let mark = SpareMark(
            mirror: record.mirror, name: record.name, diskBytes: opened.disk.bytes, time: now.unixNanoseconds)
        let ticket = nextCommand
        nextCommand += 1
        openings[ticket] = opening
        opener.begin(ticket) {
            do throws(DiskError) {
                try opened.disk.write(mark)
                return .marked(HotSpare(disk: opened.disk, mark: mark), nil)
            } catch {
                opened.giveBack()
                return .marked(nil, error)
            }
        }
    }

    mutating func marked(_ opening: PendingOpening, _ spare: HotSpare?, _ error: DiskError?) {
        guard let spare else {
            if let asker = opening.asker { respond(.failure(error?.description ?? ""), to: asker) }
            return
        }
        let mirror = opening.mirror
        var response = ControlResponse()
        if mirrors[mirror].isStopped {
            spare.disk.shut()
            response.error = "mirror \(mirrors[mirror].name) was stopped meanwhile; \(opening.path) is its spare"
        } else {
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
        let ticket = nextCommand
        nextCommand += 1
        openings[ticket] = PendingOpening(path: path, mirror: mirror, purpose: .spare, force: false, asker: asker)
        opener.begin(ticket) {
            defer { spare.disk.shut() }
            do throws(DiskError) {
                try spare.disk.wipeSpareMark()
                return .dismissed(nil)
            } catch {
                return .dismissed(error)
            }
        }
    }

    mutating func dismissed(_ opening: PendingOpening, _ error: DiskError?) {
        guard let asker = opening.asker else { return }
        var response = ControlResponse()
        response.message = "\(opening.path) is no spare any more"
        respond(error.map { .failure($0.description) } ?? response, to: asker)
    }

    // MARK: by itself

    /// A plex that has been out for long, and for which nothing else is on its way, gets a successor.
    mutating func takeSpare(_ mirror: Int) {
        guard !mirrors[mirror].spares.isEmpty, !mirrors[mirror].mirror.isCommanded else { return }
        let record = mirrors[mirror].mirror.record
        let delay = group.policies.spareSeconds * 1_000_000_000
        let late = mirrors[mirror].mirror.plexesThatMayReturn.filter { plex in
            now.unixNanoseconds >= record[plex].cause.time + delay
                && !record.members.contains { $0.role != .absent && $0.replaces == plex }
        }
        guard let plex = late.first,
            let index = mirrors[mirror].spares.firstIndex(where: { !$0.disk.hasVanished })
        else { return }
        let spare = mirrors[mirror].spares.remove(at: index)
        let path = spare.disk.path
        group.giveUp(path)
        logger.notice("mirror=\(mirrors[mirror].name): \(path), a spare, takes the place of plex \(plex)")
        do throws(DiskError) {
            try join(
                OpenedDisk(disk: spare.disk, scan: .none, wasSpare: true),
                PendingOpening(path: path, mirror: mirror, purpose: .new(replacing: plex), force: true, asker: nil))
        } catch {
            spare.disk.shut()
            logger.error("mirror=\(mirrors[mirror].name): \(error.description)")
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
