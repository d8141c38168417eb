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
    /// The same, and nobody has asked for it.
    case returning(PlexIndex)
    /// It is to stand by.
    case spare
    /// A new plex, which may take the place of another.
    case new(replacing: PlexIndex?)
}

extension JoinPurpose {
    /// What it holds is of no use.
    var isOfNewDisk: Bool {
        switch self {
        case .new, .spare: true
        case .anything, .known, .returning: false
        }
    }
}

/// A disk that is being opened.
struct PendingOpening {
    var path: String
    var mirror: Int
    var purpose: JoinPurpose
    var force: Bool
    /// Key of the control connection, of the first reactor. Nil: the server does it by itself.
    var asker: UInt64?
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
        if mayCreate, request.metadata != nil {
            throw DiskError(
                "\(path): a file that is made has room for its metadata; give one of --create and --metadata")
        }
        try open(
            request.metadata ?? path, mirror, .new(replacing: replacing), force: request.force ?? false,
            mayCreate: mayCreate, data: request.metadata == nil ? nil : path, for: asker)
    }

    /// Has a disk opened that is to join. What comes of it is decided when it is open, see `opened`.
    ///
    /// - Parameters:
    ///   - mayCreate: where there is no file one is made.
    ///   - data: a disk whose metadata go into a new file at `path`.
    ///   - asker: nil: nobody, the server does it by itself.
    mutating func open(
        _ path: String, _ mirror: Int, _ purpose: JoinPurpose, force: Bool, mayCreate: Bool = false,
        data: String? = nil, for asker: UInt64?
    ) throws(DiskError) {
        if let owner = group.owner(of: path) { throw DiskError("\(path): is in use by mirror \(owner) already") }
        guard openings.count < limits.openings else { throw DiskError("\(path): too many disks are being opened") }
        guard !openings.values.contains(where: { $0.path == path }) else {
            throw DiskError("\(path): is being opened already; a disk that hangs keeps whoever opens it waiting")
        }
        let record = mirrors[mirror].mirror.record
        var wish = OpenedDisk.Wish(path: path, mirror: record.mirror, force: force)
        if mayCreate { wish.newFile = try newFile(path, record) }
        if let data {
            let whole = try wholeBytes(path, record)
            wish.data = OpenedDisk.Wish.Data(path: data, bytes: record.dataBytes, wholeBytes: whole)
        }
        if purpose.isOfNewDisk {
            wish.advice =
                mayCreate ? "no file is made among devices" : "to have a sparse file made there: --create"
        }
        let ticket = takeTicket()
        openings[ticket] = PendingOpening(path: path, mirror: mirror, purpose: purpose, force: force, asker: asker)
        let wanted = wish
        opener.begin(ticket) {
            .opened(Result { () throws(DiskError) in try OpenedDisk.open(wanted) })
        }
    }

    /// A sparse file as large as the mirror's data and metadata need.
    private func newFile(_ path: String, _ record: Record) throws(DiskError) -> OpenedDisk.Wish.NewFile? {
        guard !path.hasPrefix("/dev/") || path.hasPrefix("/dev/shm/") else { return nil }
        return OpenedDisk.Wish.NewFile(bytes: try wholeBytes(path, record), allocatedFrom: record.dataBytes)
    }

    /// Of the mirror's data and metadata.
    private func wholeBytes(_ path: String, _ record: Record) throws(DiskError) -> UInt64 {
        let bytes = try? Layout.diskBytes(
            forData: record.dataBytes, regionBytes: record.regionBytes, spareBytes: nil)
        guard let bytes else { throw DiskError("\(path): can't be laid out for mirror \(record.name)") }
        return bytes
    }

    mutating func takeDiskNews() {
        for (ticket, news) in opener.take() {
            switch news {
            case .opened(let result):
                if let opening = openings.removeValue(forKey: ticket) { opened(opening, result) }
            case .marked(let result):
                if let opening = openings.removeValue(forKey: ticket) { marked(opening, result) }
            case .dismissed(let result):
                if let opening = openings.removeValue(forKey: ticket) { dismissed(opening, result) }
            case .reloaded(let result): reloaded(result)
            case .seen(let plexes):
                if let mirror = searches.removeValue(forKey: ticket) { seen(plexes, mirror, ticket: ticket) }
            }
        }
    }

    private mutating func opened(_ opening: PendingOpening, _ result: Result<OpenedDisk, DiskError>) {
        do throws(DiskError) {
            let opened = try result.get()
            do throws(DiskError) {
                guard !mirrors[opening.mirror].isStopped else {
                    throw DiskError("mirror \(mirrors[opening.mirror].name) was stopped meanwhile")
                }
                if case .spare = opening.purpose {
                    try mark(opened, opening)
                } else {
                    try join(opened, opening)
                }
            } catch {
                opened.giveBack()
                throw error
            }
        } catch {
            if let asker = opening.asker { respond(.failure(error.description), to: asker) }
            if case .returning(let plex) = opening.purpose { object(opening.mirror, plex, error.description) }
        }
    }

    /// Finds out whether the disk may become a plex of this mirror, and hands it to the core.
    mutating func join(_ opened: OpenedDisk, _ opening: PendingOpening) throws(DiskError) {
        let mirror = opening.mirror
        let path = opening.path
        let (plex, attachment) = try judge(opened, mirrors[mirror].mirror.record, opening)
        try check(plex, opened, opening)
        let index = Int(plex.value)
        guard mirrors[mirror].disks[index] == nil else {
            throw DiskError(
                "plex \(plex) takes part already, or still has I/O outstanding; see plexus status \(mirrors[mirror].name)"
            )
        }
        let oldPath = mirrors[mirror].paths[index]
        mirrors[mirror].setDisk(opened.disk, of: plex)
        group.claim(path, mirror: mirrors[mirror].name)
        mirrors[mirror].paths[index] = path
        mirrors[mirror].plexMeters[index] = IOMeter()
        let replaced: PlexIndex? = if case .new(let replaced) = opening.purpose { replaced } else { nil }
        send(
            .join(plex, attachment, replacing: replaced == plex ? nil : replaced), to: mirror, for: opening.asker,
            disk: PendingCommand.NewDisk(
                disk: opened.disk, plex: plex, oldPath: oldPath, isMade: opened.isMade, spare: opened.spare))
    }

    /// It must be the plex that was meant, and, unasked, still be one that is taken back.
    private func check(_ plex: PlexIndex, _ opened: OpenedDisk, _ opening: PendingOpening) throws(DiskError) {
        switch opening.purpose {
        case .anything, .new, .spare: break
        case .known(let expected):
            if expected != plex { throw DiskError("\(opening.path): is plex \(plex) now, not plex \(expected)") }
        case .returning(let expected):
            // What is being carried out may change what this is judged by.
            guard !mirrors[opening.mirror].mirror.isCommanded else {
                throw DiskError("\(opening.path): is taken back when what was ordered before is done")
            }
            guard expected == plex, case .found(let superblock) = opened.scan else {
                throw DiskError("\(opening.path): is not plex \(expected) any more")
            }
            let objection = mirrors[opening.mirror].objection(
                toReturnOf: plex, superblock, opened.pages, unixNanoseconds: now.unixNanoseconds)
            if let objection { throw DiskError("\(opening.path): \(objection)") }
        }
    }

    private func judge(
        _ opened: OpenedDisk, _ record: Record, _ opening: PendingOpening
    ) throws(DiskError) -> (PlexIndex, Attachment) {
        if case .found(let superblock) = opened.scan, !opening.purpose.isOfNewDisk,
            let known = try judgeKnown(opened, superblock, record, force: opening.force)
        {
            return known
        }
        try checkContents(opened, record, opening)
        let plex = try vacancy(in: opening.mirror, opened.disk, opening.purpose)
        let reason = opened.spare != nil ? "it was a spare" : "it is new to this mirror"
        return (plex, try freshAttachment(opened.disk, record, reason))
    }

    /// What lies on a disk that is to be overwritten.
    func checkContents(_ opened: OpenedDisk, _ record: Record, _ opening: PendingOpening) throws(DiskError) {
        let path = opened.disk.path
        if case .found(let superblock) = opened.scan, opening.purpose.isOfNewDisk {
            try checkUnknown(opened.disk, superblock, record)
        }
        guard !opening.force else { return }
        switch opened.scan {
        case .found(let superblock):
            throw DiskError(
                "\(path): is a plex of mirror \(superblock.record.name) (\(superblock.record.mirror)); to overwrite it: --force"
            )
        case .damaged, .futureFormat, .unknownFeature, .forked:
            throw DiskError(
                "\(path): carries Plexus metadata that is damaged or of another version; to overwrite it: --force")
        case .none:
            guard let signature = opened.signature else { return }
            throw DiskError("\(path): holds \(signature); its contents would be lost. To overwrite it: --force")
        }
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
        _ opened: OpenedDisk, _ superblock: Superblock, _ record: Record, force: Bool
    ) throws(DiskError) -> (PlexIndex, Attachment)? {
        let disk = opened.disk
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
            Attachment(
                superblock, basis: basis(opened, superblock, record), remaps: opened.remaps, copies: opened.copies)
        )
    }

    /// How much must be copied. A copy that was broken off may have been mounted: only the time of its file's last
    /// change can tell.
    private func basis(_ opened: OpenedDisk, _ superblock: Superblock, _ record: Record) -> JoinBasis {
        if let objection = opened.objection { return .everything(objection) }
        return JoinBasis(superblock, opened.pages, joining: record)
    }

    /// A free place; where there is none a disk may still take the place of one that is not in use.
    private func vacancy(
        in mirror: Int, _ disk: Disk, _ purpose: JoinPurpose
    ) throws(DiskError) -> PlexIndex {
        let record = mirrors[mirror].mirror.record
        // The disk of a plex that was forgotten may still have something to end.
        let free = record.members.indices.first {
            record.members[$0].role == .absent && mirrors[mirror].disks[$0] == nil
        }
        guard let free else {
            if case .new(let replaced?) = purpose, record[replaced].role != .inSync,
                record[replaced].role != .recovering, mirrors[mirror].disks[Int(replaced.value)] == nil
            {
                return replaced
            }
            throw DiskError(
                "\(disk.path): mirror \(record.name) has \(PlexSet.capacity) plexes already; forget one first: plexus break \(record.name) PLEX --nokeep"
            )
        }
        return PlexIndex(free)
    }

    func freshAttachment(
        _ disk: Disk, _ record: Record, _ reason: String = "it is new to this mirror"
    ) throws(DiskError) -> Attachment {
        let layout: Layout
        do throws(LayoutError) {
            layout = try Layout(
                joining: disk.bytes, dataBytes: record.dataBytes, regionBytes: record.regionBytes)
        } catch {
            switch error {
            case .diskTooSmall(let has, let needs):
                let advice =
                    has >= record.dataBytes ? "; its metadata can lie in a file on another disk: --metadata FILE" : ""
                throw DiskError(
                    "\(disk.path): is too small: it has \(has) bytes, mirror \(record.name) needs \(needs)\(advice)")
            case .regionSizeInvalid: throw DiskError("\(disk.path): can't be laid out for mirror \(record.name)")
            }
        }
        guard disk.fits(layout) else {
            throw DiskError(
                "\(disk.path): was made for another mirror; remove it, and make a new one: --metadata FILE")
        }
        var entropy = systemEntropy()
        return Attachment(
            uuid: PlexUUID(entropy.nextUUID()), layout: layout, sequence: 0,
            basis: .everything(reason), copies: SuperblockCopies(torn: .all))
    }
}
