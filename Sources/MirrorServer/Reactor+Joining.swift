internal import BasicContainers
internal import Control
internal import Glibc
internal import MirrorCore
internal import MirrorFormat

/// What a disk is brought in for.
enum JoinPurpose {
    /// Whatever it was of this mirror, or a new plex.
    case anything
    /// This plex, which is out.
    case known(PlexIndex)
    /// A new plex, which may take the place of another.
    case new(replacing: PlexIndex?)
}

/// Bringing disks in: join, online, add, replace.
extension Reactor {
    func disk(of request: ControlRequest) throws(DiskError) -> String {
        guard let path = request.disk else { throw DiskError("which disk?") }
        return path
    }

    /// `add` and `replace`.
    mutating func bringNew(
        _ request: ControlRequest, _ mirror: Int, replacing: PlexIndex?, for asker: UInt64
    ) throws(DiskError) {
        let path = try disk(of: request)
        let mayCreate = request.create ?? false
        let isThere = unsafe access(path, F_OK) == 0
        guard isThere || mayCreate else {
            throw DiskError("\(path): does not exist; to have a sparse file made there: --create")
        }
        if !isThere { try create(path, like: mirror) }
        do throws(DiskError) {
            try join(
                path, mirror, .new(replacing: replacing), force: request.force ?? false, isMade: !isThere, for: asker)
        } catch {
            if !isThere { unsafe unlink(path) }
            throw error
        }
    }

    /// A sparse file as large as the mirror's data and metadata need.
    private func create(_ path: String, like mirror: Int) throws(DiskError) {
        guard !path.hasPrefix("/dev/") || path.hasPrefix("/dev/shm/") else {
            throw DiskError("\(path): there is no such device, and no file is made among devices")
        }
        let record = mirrors[mirror].mirror.record
        let bytes = try? Layout.diskBytes(
            forData: record.dataBytes, regionBytes: record.regionBytes, spareBytes: nil)
        guard let bytes else { throw DiskError("\(path): can't be laid out for mirror \(record.name)") }
        try Disk.create(path, bytes: bytes, allocatedFrom: record.dataBytes)
    }

    /// Opens the disk, finds out whether it may become a plex of this mirror, and hands it to the core.
    mutating func join(
        _ path: String, _ mirror: Int, _ purpose: JoinPurpose, force: Bool, isMade: Bool = false, for asker: UInt64
    ) throws(DiskError) {
        if let owner = group.owner(of: path) { throw DiskError("\(path): is in use by mirror \(owner) already") }
        let disk = try Disk.open(path, .readWrite)
        do throws(DiskError) {
            let record = mirrors[mirror].mirror.record
            let (plex, attachment) = try judge(disk, record, purpose, force: force)
            if case .known(let expected) = purpose, expected != plex {
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
            let replaced: PlexIndex? = if case .new(let replaced) = purpose { replaced } else { nil }
            send(
                .join(plex, attachment, replacing: replaced == plex ? nil : replaced), to: mirror, for: asker,
                disk: PendingCommand.NewDisk(disk: disk, plex: plex, oldPath: oldPath, isMade: isMade))
        } catch {
            disk.shut()
            throw error
        }
    }

    private func judge(
        _ disk: Disk, _ record: Record, _ purpose: JoinPurpose, force: Bool
    ) throws(DiskError) -> (PlexIndex, Attachment) {
        switch try disk.scan() {
        case .found(let superblock):
            if case .new = purpose {
                try checkUnknown(disk, superblock, record)
            } else if let known = try judgeKnown(disk, superblock, record, force: force) {
                return known
            }
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
        return try (vacancy(in: record, disk, purpose), freshAttachment(disk, record))
    }

    /// A disk that is a plex of this mirror already would lose what makes a delta possible.
    private func checkUnknown(_ disk: Disk, _ superblock: Superblock, _ record: Record) throws(DiskError) {
        let own = superblock.record
        guard own.mirror == record.mirror || own.parent?.mirror == record.mirror,
            let plex = record.index(of: superblock.plex)
        else { return }
        throw DiskError(
            "\(disk.path): is plex \(plex) of mirror \(record.name); take it back with plexus join \(record.name) \(disk.path)"
        )
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

    /// A free place; where there is none a disk may still take the place of one that is not in use.
    private func vacancy(
        in record: Record, _ disk: Disk, _ purpose: JoinPurpose
    ) throws(DiskError) -> PlexIndex {
        guard let free = record.members.firstIndex(where: { $0.role == .absent }) else {
            if case .new(let replaced?) = purpose, record[replaced].role != .inSync,
                record[replaced].role != .recovering
            {
                return replaced
            }
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
