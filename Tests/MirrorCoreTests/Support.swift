import MirrorFormat

@testable import MirrorCore

struct Missing: Error {}

/// Small disks: 16 MiB, 4 MiB of data, four windows of the resync.
enum Disk {
    static let bytes: UInt64 = 16 << 20
    static let dataBytes: UInt64 = 4 << 20
    /// Of 1 MiB.
    static let allRegions = [0, 1, 2, 3]

    static func layout(
        dataBytes: UInt64 = dataBytes, regionBytes: UInt64 = 1 << 20, spares: Int = 0,
        bitsPerPage: Int = BitmapPage.bitCount
    ) throws -> Layout {
        try Layout(
            tinyDisk: bytes, dataBytes: dataBytes, regionBytes: regionBytes, spareBytes: UInt64(spares) * 4096,
            bitsPerPage: UInt64(bitsPerPage))
    }
}

func era(_ number: UInt64) -> Generation { Generation(UUID128(high: 0x6E6E, low: number)) }

func plexUUID(_ number: Int) -> PlexUUID { PlexUUID(UUID128(high: 0x9C9C, low: UInt64(number))) }

/// A mirror just created: generation 1, epoch 1, clean, one member per role. Four regions, or as many as wished.
func freshRecord(_ roles: [Role] = [.inSync, .inSync], regionBytes: UInt64 = 1 << 20) -> Record {
    Record(
        mirror: MirrorUUID(UUID128(high: 0x3333, low: 0x3333)), name: "m", dataBytes: Disk.dataBytes,
        regionBytes: regionBytes, generation: era(1),
        members: roles.enumerated().map { Member(uuid: plexUUID($0.offset), role: $0.element) }, time: 1)
}

extension Record {
    func changed(_ change: (inout Record) -> Void) -> Record {
        var copy = self
        change(&copy)
        return copy
    }

    /// The next era, one epoch on.
    func next(_ number: UInt64, because reason: GenerationReason = .expelled, roles: [Int: Role] = [:]) -> Record {
        changed { record in
            record.begin(era(number), because: reason, inSync: record.inSync, time: number)
            record.epoch += 1
            for (index, role) in roles { record[PlexIndex(index)].role = role }
        }
    }
}

/// The superblock of plex `index`, on the disk of that number: all that a verdict depends on.
func found(
    _ index: Int, _ record: Record, disk: Int? = nil, spares: Int = 0, bitsPerPage: Int = BitmapPage.bitCount
) throws -> FoundPlex {
    let layout = try Disk.layout(regionBytes: record.regionBytes, spares: spares, bitsPerPage: bitsPerPage)
    return FoundPlex(
        disk: disk ?? index,
        superblock: Superblock(record: record, plex: plexUUID(index), sequence: 1, layout: layout, writer: .none))
}

/// The same with the pages of the bitmap, as `create` left them.
///
/// - Parameter change: what befell the disk since.
func foundWithPages(
    _ index: Int, _ record: Record, spares: Int = 0, bitsPerPage: Int = BitmapPage.bitCount,
    _ change: (inout DiskImage) -> Void = { _ in }
) throws -> FoundPlex {
    var image = DiskImage(
        try found(index, record, spares: spares, bitsPerPage: bitsPerPage).superblock, bitsPerPage: bitsPerPage)
    change(&image)
    guard let found = image.found(disk: index) else { throw Missing() }
    return found
}

/// A disk that was never part of any mirror.
func newDisk(_ uuid: PlexUUID = plexUUID(9), sequence: UInt64 = 4) throws -> Attachment {
    Attachment(uuid: uuid, layout: try Disk.layout(), sequence: sequence, basis: .everything("it is new"))
}

func set(_ plexes: Int...) -> PlexSet { PlexSet(mask: plexes.reduce(0) { $0 | 1 << UInt8($1) }) }

func permutations<Element>(of elements: [Element]) -> [[Element]] {
    guard let first = elements.first else { return [[]] }
    return permutations(of: Array(elements.dropFirst())).flatMap { rest in
        (0...rest.count).map { Array(rest[..<$0]) + [first] + Array(rest[$0...]) }
    }
}

extension MirrorCore.Verdict {
    var assembly: Assembly? {
        if case .assembled(let assembly) = self { return assembly }
        return nil
    }

    var refusal: Refusal? {
        if case .refused(let refusal) = self { return refusal }
        return nil
    }
}
