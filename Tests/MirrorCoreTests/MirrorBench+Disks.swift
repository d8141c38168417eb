import MirrorFormat
import Testing

@testable import MirrorCore

/// Disks that go and come back, and servers that are started again.
extension MirrorBench {
    /// The disk in this slot is another one from now on, unless it carries the same plex.
    func insert(_ plex: Int, _ attachment: MirrorCore.Attachment) {
        if case .found(let superblock) = disks[plex]?.scan(), superblock.plex == attachment.uuid { return }
        replaceDisk(plex, with: DiskImage(blank: attachment.layout, bitsPerPage: bitsPerPage))
    }

    /// The disk of a plex, as a server finds it that is to join it.
    ///
    /// - Parameter image: nil: as it is now.
    func attachment(_ plex: Int, image: DiskImage? = nil) throws -> MirrorCore.Attachment {
        guard let image = image ?? disks[plex], let found = image.found(disk: plex) else { throw Missing() }
        let own = found.superblock.record
        let pages =
            own.mirror == record.mirror
            ? found.pages : image.pages(of: found.superblock, mirror: own.parent?.mirror)
        return MirrorCore.Attachment(
            found.superblock, basis: JoinBasis(found.superblock, pages, joining: record), remaps: found.remaps)
    }

    /// All bits are set, and the cleaner has looked once: from now on five seconds of rest count.
    static func resting(_ record: Record = freshRecord()) throws -> MirrorBench {
        let bench = try MirrorBench(record)
        bench.dirty()
        bench.tick()
        #expect(bench.pending.isEmpty)
        return bench
    }

    /// Nobody writes for so long that the cleaner looks twice: bits that can be cleared are.
    func rest() {
        for _ in 0..<2 {
            tick(afterMilliseconds: 5000)
            settle()
        }
    }

    /// Client writes of one block at the beginning of each region, one after the other.
    func write(regions: [Int]) {
        for region in regions {
            send(1_000_000 + UInt64(region), .write, UInt64(region) * record.regionBytes)
            settle()
        }
    }

    /// The regions that the resync has written to a plex, in the order of the regions. Clients of these tests write
    /// less than a region at once.
    func regionsCopied(to plex: Int) -> [Int] {
        let copies = submitted(.write).filter { $0.plex == plex && $0.length >= record.regionBytes }
        let regions = copies.flatMap { copy in
            Int(copy.offset / record.regionBytes)..<Int((copy.offset + copy.length) / record.regionBytes)
        }
        return regions.sorted()
    }

    /// Which sheet the operation writes a page of; nil: none.
    func sheet(_ operation: Operation) -> Int? {
        guard operation.isPage, let layout = disks[operation.plex]?.layout else { return nil }
        return (0..<FoundPages.sheetCount).first { layout.pageOffset(sheet: $0, index: 0) == operation.offset }
    }

    /// The sheets of the pages that are on their way, in ascending order; of a mirror with one page per sheet.
    var pagesWaiting: [Int] { waiting(.writeMetadata).compactMap(sheet).sorted() }

    /// Nil: damaged, or never written.
    func page(_ plex: Int, sheet: Int) -> BitmapPage? { disks[plex]?.page(sheet: sheet, of: record.mirror) }

    /// Joins the disk of a plex that was in use before.
    @discardableResult
    func rejoin(_ plex: Int) throws -> UInt64 { command(.join(PlexIndex(plex), try attachment(plex))) }

    /// What is on all disks, for `assemble`.
    func foundPlexes(without absent: PlexSet = .empty) -> [FoundPlex] {
        disks.keys.sorted().filter { !absent.contains(PlexIndex($0)) }.compactMap { disks[$0]?.found(disk: $0) }
    }

    /// The server was killed, or has stopped, and another is started on the same disks.
    func restarted(without absent: PlexSet = .empty, isReadOnly: Bool = false) throws -> MirrorBench {
        var options = AssemblyOptions()
        options.allowDegraded = !absent.isEmpty
        options.isReadOnly = isReadOnly
        guard let assembly = assemble(foundPlexes(without: absent), options: options).assembly else { throw Missing() }
        let next = MirrorBench(assembly, isReadOnly: isReadOnly, limits: limits, seed: nextSeed())
        for plex in absent.members { next.replaceDisk(Int(plex.value), with: disks[Int(plex.value)]) }
        return next
    }
}

extension DiskFailure {
    static let media = DiskFailure(errorNumber: 5, isBlockDevice: false)
    static let noSpace = DiskFailure(errorNumber: 28, isBlockDevice: false)
    static let gone = DiskFailure(errorNumber: 19, isBlockDevice: false)
    static let busy = DiskFailure(errorNumber: 16, isBlockDevice: false)
}
