public import Control
internal import MirrorCore
internal import MirrorFormat

/// `plexus examine`: what lies on disks, without a lock, a write, or a server.
public struct Examination: Codable, Sendable {
    public struct DiskReport: Codable, Sendable {
        public var disk: String
        public var error: String?
        public var diskSize: UInt64?
        /// Whose metadata these are, where they lie in a file of their own.
        public var dataDisk: String?
        public var mirror: String?
        public var name: String?
        public var plex: String?
        public var index: Int?
        public var role: String?
        public var sequence: UInt64?
        public var generation: String?
        public var epoch: UInt64?
        public var clean: Bool?
        public var pinned: Int?
        public var size: UInt64?
        public var regionSize: UInt64?
        public var updated: String?
        public var host: String?
        public var parentMirror: String?
        /// UUID of the mirror whose spare this is; `name` is its name.
        public var spareOf: String?
        public var members: [MemberReport] = []
        public var history: [PastReport] = []
        public var areas: [AreaReport] = []
        public var events = 0
        public var bitmap: BitmapReport?
        /// Absent: it has no remap table.
        public var remaps: RemapReport?
        /// Absent: no scrub has left anything there.
        public var scrub: ScrubLedgerReport?
    }

    /// What lies in the spare pool of this disk.
    public struct RemapReport: Codable, Sendable {
        public var slots: Int
        public var free: Int
        /// Slots that take no data.
        public var dead: Int
        /// Both copies of some page are damaged or can't be read.
        public var isDamaged: Bool
        /// Byte offset of each block of 4 KiB in the data, and of where it lies on the disk.
        public var blocks: [[UInt64]]
    }

    /// The intent bitmap as it lies on this disk, and the missed-write maps beside it.
    public struct BitmapReport: Codable, Sendable {
        public var regions: UInt64
        /// Unreadable pages count in full.
        public var dirty: Int
        /// Pages of bitmap and maps that are damaged or can't be read.
        public var damagedPages: Int
        public var sequence: UInt64
    }

    public struct MemberReport: Codable, Sendable {
        public var index: Int
        public var plex: String
        public var role: String
        /// Regions that this plex has missed, by the map on this disk, without those under intent bits; null: no map.
        public var missedRegions: Int?
        public var readErrors: UInt64
        public var writeErrors: UInt64
        /// What this plex does not hold although it is in sync: offset and length in bytes.
        public var badRanges: [[UInt64]]
    }

    public struct PastReport: Codable, Sendable {
        public var generation: String
        public var epoch: UInt64
        public var ended: String
        public var reason: String
    }

    public struct AreaReport: Codable, Sendable {
        public var kind: String
        public var offset: UInt64
        public var length: UInt64
    }

    public struct VerdictReport: Codable, Sendable {
        public var mirror: String
        public var name: String
        /// `startable`, `incomplete`, `split`, `failed` or `refused`.
        public var verdict: String
        public var text: String
    }

    public var version = 1
    public var disks: [DiskReport] = []
    public var verdicts: [VerdictReport] = []

    public init(disks paths: [String]) {
        var found: [Found] = []
        for path in paths {
            var report = DiskReport(disk: path)
            do throws(DiskError) {
                let disk = try Disk.open(path, .readOnly)
                defer { disk.shut() }
                report.diskSize = disk.bytes
                report.dataDisk = disk.metadata?.dataPath
                if let mark = try disk.spareMark() {
                    report.spareOf = mark.mirror.description
                    report.name = mark.name
                    report.updated = isoTime(mark.time)
                    disks.append(report)
                    continue
                }
                let superblock = try disk.superblock()
                let pages = disk.pages(of: superblock)
                let remaps = disk.remaps(of: superblock)
                report.fill(superblock, pages)
                report.remaps = remaps.map { Examination.RemapReport($0, superblock.layout) }
                var ledger = disk.scrubLedger(of: superblock)
                ledger.confine(to: superblock.record.dataBytes)
                report.scrub = ScrubLedgerReport(ledger)
                report.events = try disk.events(of: superblock).count
                found.append(Found(path: path, superblock: superblock, pages: pages, remaps: remaps))
            } catch {
                report.error = error.description
            }
            disks.append(report)
        }
        verdicts = Self.judge(found)
    }

    private struct Found {
        var path: String
        var superblock: Superblock
        var pages: FoundPages
        var remaps: RemapTable?
    }

    private static func judge(_ found: [Found]) -> [VerdictReport] {
        var order: [MirrorUUID] = []
        for one in found where !order.contains(one.superblock.record.mirror) {
            order.append(one.superblock.record.mirror)
        }
        return order.map { mirror in
            let group = found.filter { $0.superblock.record.mirror == mirror }
            let plexes = group.enumerated().map {
                FoundPlex(
                    disk: $0.offset, superblock: $0.element.superblock, pages: $0.element.pages,
                    remaps: $0.element.remaps)
            }
            let record = group[0].superblock.record
            switch assemble(plexes) {
            case .assembled(let assembly): return startable(assembly)
            case .refused(let refusal):
                let explained = Opening.explain(refusal, group.map(\.path), plexes)
                let word =
                    switch refusal {
                    case .incomplete: "incomplete"
                    case .split: "split"
                    case .noCurrentPlex: "failed"
                    case .clonedPlex, .mustStayReadOnly: "refused"
                    }
                return VerdictReport(
                    mirror: mirror.description, name: record.name, verdict: word,
                    text: "\(explained.reason); \(explained.action)")
            }
        }
    }

    private static func startable(_ assembly: Assembly) -> VerdictReport {
        func list(_ set: PlexSet) -> String { set.members.map(\.description).joined(separator: ", ") }
        var text = "can be served; in sync: plex \(list(assembly.current))"
        if !assembly.behind.isEmpty { text += "; behind, to be rebuilt: plex \(list(assembly.behind))" }
        if !assembly.recovering.isEmpty { text += "; rebuild to be continued: plex \(list(assembly.recovering))" }
        if !assembly.returning.isEmpty { text += "; back again, gets what it missed: plex \(list(assembly.returning))" }
        let dirty = assembly.dirtyRegions
        if dirty > 0, assembly.current.count > 1 {
            text +=
                "; it was not stopped cleanly: \(dirty) dirty regions of \(assembly.record.regionBytes) bytes will be copied from plex \((assembly.record.pinned ?? assembly.current.first)?.description ?? "?")"
        }
        return VerdictReport(
            mirror: assembly.record.mirror.description, name: assembly.record.name, verdict: "startable", text: text)
    }
}

extension Examination.RemapReport {
    fileprivate init(_ table: RemapTable, _ layout: Layout) {
        slots = table.slotCount
        free = table.freeSlots
        dead = table.dead.count
        isDamaged = table.isDamaged
        blocks = table.remaps.map { [$0.block * Layout.blockBytes, layout.spareOffset(slot: $0.slot)] }
    }
}

extension Examination.DiskReport {
    init(disk: String) { self.disk = disk }

    fileprivate mutating func fill(_ superblock: Superblock, _ pages: FoundPages) {
        let record = superblock.record
        mirror = record.mirror.description
        name = record.name
        plex = superblock.plex.description
        index = record.index(of: superblock.plex).map { Int($0.value) }
        role = record.index(of: superblock.plex).map { "\(record[$0].role)" }
        sequence = superblock.sequence
        generation = record.generation.description
        epoch = record.epoch
        clean = record.isClean
        pinned = record.pinned.map { Int($0.value) }
        size = record.dataBytes
        regionSize = record.regionBytes
        updated = isoTime(record.updatedTime)
        host = superblock.writer.host
        parentMirror = record.parent?.mirror.description
        members = record.configured.members.map {
            let member = record[$0]
            return Examination.MemberReport(
                index: Int($0.value), plex: member.uuid.description, role: "\(member.role)",
                missedRegions: member.missedWriteMap.map { pages.missedRegions($0) }, readErrors: member.readErrors,
                writeErrors: member.writeErrors,
                badRanges: record.badRanges(of: $0).map { [$0.offset, $0.length] })
        }
        bitmap = Examination.BitmapReport(
            regions: superblock.layout.regionCount,
            dirty: pages.regions(sheet: 0, nil, isClean: record.isClean).population, damagedPages: pages.damagedPages,
            sequence: pages.sequence)
        history = record.history.map {
            Examination.PastReport(
                generation: $0.generation.description, epoch: $0.epoch, ended: isoTime($0.endTime),
                reason: "\($0.reason)")
        }
        areas = superblock.layout.areas.map {
            Examination.AreaReport(kind: "\($0.kind)", offset: $0.offset, length: $0.length)
        }
    }
}
