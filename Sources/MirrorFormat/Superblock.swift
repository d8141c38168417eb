internal import Bytes

/// One plex's own copy of the mirror's record, and where everything lies on its disk.
///
/// 4,096 bytes, all integers little-endian, unused bytes zero. Four copies per disk, 16 KiB apart, in the
/// last 64 KiB. Update number n writes copies 0 and 2 (n even) or 1 and 3 (n odd): a torn write can only
/// destroy the older state.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 8 | magic `PLEXUSSB` |
/// | 8 | 2, 2 | format major (1), minor (1) |
/// | 12 | 4 | CRC-32C of the mirror UUID, the copy's byte offset on the disk, and these 4,096 bytes with this field zero |
/// | 16 | 8, 8, 8 | feature words: compatible, read-only compatible, incompatible |
/// | 40 | 1 | copy index |
/// | 41 | 1, 1, 1 | number of areas, members (always 8), past generations |
/// | 44 | 1 | flags: bit 0 clean, bit 1 a source is pinned, bit 2 has a parent |
/// | 45 | 1 | pinned plex |
/// | 46 | 2 | length of the name in bytes |
/// | 48 | 8 | sequence of this plex's superblock updates |
/// | 56 | 16 | mirror UUID (high word, low word) |
/// | 72 | 16 | plex UUID |
/// | 88 | 64 | name, UTF-8 |
/// | 152 | 8, 8, 8 | data size, disk size, region size in bytes |
/// | 176 | 8 | epoch |
/// | 184 | 16 | generation |
/// | 200 | 8, 8 | created, updated: nanoseconds since 1970 |
/// | 216 | 16 | boot id of the writer |
/// | 232 | 64 | host name of the writer, zero padded |
/// | 296 | 16, 16, 8 | parent: mirror, generation, epoch |
/// | 336 | 8 | `Record.unconfirmed` |
/// | 344 | 2 | how many bad ranges |
/// | 384 | 12 x 24 | areas: 4 kind, 4 zero, 8 offset, 8 length |
/// | 704 | 8 x 88 | members, see `Superblock+Codec` |
/// | 1472 | 16 x 48 | past generations, newest first |
/// | 2240 | 8 x 32 | missed-write maps of the members |
/// | 2496 | 96 x 16 | bad ranges |
package struct Superblock: Sendable, Equatable {
    package static let byteCount = 4096
    package static let magic: UInt64 = 0x4253_5355_5845_4C50  // "PLEXUSSB", read little-endian
    package static let formatMajor: UInt16 = 1
    package static let formatMinor: UInt16 = 1
    package static let maximumNameBytes = 63
    /// Incompatible feature 0: the intent bitmap and the missed-write maps are kept. Software that does not know
    /// it would write without setting bits. A superblock without it was written by such software: after an
    /// unclean stop everything counts as dirty, and nobody knows what an absent plex missed.
    package static let writeTracking: UInt64 = 1
    /// Some plexes do not hold everything: `Record.badRanges`.
    package static let badRangeList: UInt64 = 2
    /// Of some plexes blocks lie in the spare pool: `RemapTable`.
    package static let remapping: UInt64 = 4
    package static let knownIncompatible: UInt64 = writeTracking | badRangeList | remapping
    /// Above this no count that grows one by one can be genuine: a million a second take 146,000 years. Whoever counts
    /// on from what a disk says must not run into the end of the integers.
    package static let maximumCount: UInt64 = 1 << 62
    package static let knownReadOnlyCompatible: UInt64 = 0

    package var record: Record
    package var plex: PlexUUID
    package var sequence: UInt64
    package var layout: Layout
    package var writer: Writer
    /// A feature is set that this version does not know and that forbids writing.
    package var mustStayReadOnly = false
    /// See `writeTracking`.
    package var tracksWrites = true

    /// Who wrote it: for the reader's eyes, no decision depends on it.
    package struct Writer: Sendable, Equatable {
        package var bootID: UUID128
        package var host: String
        package init(bootID: UUID128, host: String) {
            self.bootID = bootID
            self.host = host
        }
        package static let none = Writer(bootID: .zero, host: "")
    }

    package init(record: Record, plex: PlexUUID, sequence: UInt64, layout: Layout, writer: Writer) {
        self.record = record
        self.plex = plex
        self.sequence = sequence
        self.layout = layout
        self.writer = writer
    }

    /// Its disk has a remap table that counts.
    package var isRemapped: Bool { record.index(of: plex).map { record[$0].isRemapped } ?? false }

    /// The two copies that update number `sequence` writes.
    package static func copies(ofSequence sequence: UInt64) -> (Int, Int) { sequence % 2 == 0 ? (0, 2) : (1, 3) }
}

/// Why 4 KiB of a disk are no superblock that can be used.
package enum SuperblockError: Error, Equatable {
    case noMagic
    case futureFormat(major: UInt16)
    case checksum
    /// A bit that this version does not know, by number.
    case unknownIncompatibleFeature(bit: Int)
    /// The checksum is right but the contents contradict themselves.
    case inconsistent(String)
}

/// Some of the copies of a disk's superblock, by number.
package struct CopySet: Hashable, Sendable, BitwiseCopyable {
    private var mask: UInt8 = 0

    package static let none = CopySet()
    package static let all = CopySet(mask: 1 << UInt8(Layout.superblockCopies) - 1)

    package var isEmpty: Bool { mask == 0 }
    package func contains(_ copy: Int) -> Bool { mask >> UInt8(copy) & 1 != 0 }
    package mutating func insert(_ copy: Int) { mask |= 1 << UInt8(copy) }
}

/// What lies in the four copies of a disk's superblock.
package struct SuperblockCopies: Hashable, Sendable, BitwiseCopyable {
    /// Hold something, but no superblock of this format: torn in an update, or damaged.
    package var torn: CopySet
    /// Hold the newest state.
    package var newest: CopySet

    package init(torn: CopySet = .none, newest: CopySet = .none) {
        self.torn = torn
        self.newest = newest
    }

    /// Whether an update of this number would overwrite all that holds the newest state.
    package func areAllOverwritten(by sequence: UInt64) -> Bool {
        let (first, second) = Superblock.copies(ofSequence: sequence)
        return !newest.isEmpty
            && !(0..<Layout.superblockCopies).contains { newest.contains($0) && $0 != first && $0 != second }
    }
}

/// What the four copies of a disk say together.
package enum SuperblockScan: Sendable, Equatable {
    case none
    case found(Superblock)
    case damaged(copies: Int)
    case futureFormat(major: UInt16)
    case unknownFeature(bit: Int)
    /// Two different contents carry the same sequence number, or the copies name different plexes: two writers were
    /// at work, or a copy strayed here from another disk. What is newest proves nothing then.
    case forked(sequence: UInt64)

    /// - Parameters:
    ///   - area: the last 64 KiB of the disk.
    ///   - diskBytes: its size.
    package static func scan(area: RawSpan, diskBytes: UInt64) -> SuperblockScan {
        var best: Superblock?
        var damaged = 0
        var future: UInt16?
        var futureCopies = 0
        var unknown: Int?
        var fork: UInt64?
        var hasStranger = false
        // A file can be shorter than the area and still hold our magic.
        guard diskBytes >= Layout.superblockAreaBytes else { return .none }
        eachCopy(in: area) { copy, bytes in
            do throws(SuperblockError) {
                let found = try Superblock(decoding: bytes, copy: copy, diskBytes: diskBytes)
                if let current = best {
                    // The checksum binds a copy to its mirror and its place, and another plex has the same.
                    if found.plex != current.plex { hasStranger = true }
                    if found.sequence == current.sequence, found != current { fork = found.sequence }
                    if found.sequence > current.sequence { best = found }
                } else {
                    best = found
                }
            } catch {
                switch error {
                case .noMagic: break
                case .futureFormat(let major):
                    future = major
                    futureCopies += 1
                case .unknownIncompatibleFeature(let bit): unknown = bit
                case .checksum, .inconsistent: damaged += 1
                }
            }
        }
        // Every update writes two copies: one alone beside good ones is a damaged number, not a newer format.
        if let future, futureCopies > 1 || best == nil { return .futureFormat(major: future) }
        if let unknown { return .unknownFeature(bit: unknown) }
        if let best {
            return hasStranger || fork == best.sequence ? .forked(sequence: best.sequence) : .found(best)
        }
        return damaged > 0 ? .damaged(copies: damaged) : .none
    }

    /// - Parameters:
    ///   - area: the last 64 KiB of the disk.
    ///   - diskBytes: its size.
    package static func copies(area: RawSpan, diskBytes: UInt64) -> SuperblockCopies {
        var copies = SuperblockCopies()
        var newest: UInt64 = 0
        eachCopy(in: area) { copy, bytes in
            if let found = try? Superblock(decoding: bytes, copy: copy, diskBytes: diskBytes) {
                if found.sequence > newest { copies.newest = .none }
                newest = max(newest, found.sequence)
                if found.sequence == newest { copies.newest.insert(copy) }
            } else if !bytes.isZero {
                copies.torn.insert(copy)
            }
        }
        return copies
    }

    /// Those that the area is long enough to hold.
    private static func eachCopy(in area: RawSpan, _ body: (Int, RawSpan) -> Void) {
        for copy in 0..<Layout.superblockCopies {
            let start = copy * Int(Layout.superblockSpacingBytes)
            guard area.byteCount >= start + Superblock.byteCount else { continue }
            body(copy, area.extracting(start..<start + Superblock.byteCount))
        }
    }
}
