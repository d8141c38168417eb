internal import Bytes

/// A block of 4 KiB in which plexes in sync were found to differ.
package struct Mismatch: Sendable, Hashable {
    /// In bytes.
    package var offset: UInt64
    /// Those that were compared.
    package var plexes: PlexSet
    /// Outvoted by a strict majority of three or more; empty: nobody can tell which is right.
    package var odd: PlexSet
    /// CRC-32C of what each plex of `plexes` held; eight, by plex index.
    package var checksums: [UInt32]
    /// Nanoseconds since 1970.
    package var firstSeen: UInt64
    package var lastSeen: UInt64
    /// When it was repaired, or found to be gone; 0: it is open.
    package var closed: UInt64 = 0
    /// Whose version all have since it was repaired; nil: it was not, somebody has written over it.
    package var source: PlexIndex?

    package init(offset: UInt64, plexes: PlexSet, odd: PlexSet, checksums: [UInt32], time: UInt64) {
        self.offset = offset
        self.plexes = plexes
        self.odd = odd
        self.checksums = checksums
        firstSeen = time
        lastSeen = time
    }

    package var isOpen: Bool { closed == 0 }
}

/// How far the scrub got, and what the last one came to.
package struct ScrubState: Sendable, Hashable, BitwiseCopyable {
    package var isRunning = false
    /// What is a hole on all plexes is read, too.
    package var readsHoles = false
    package var repairs = false
    /// Whose version counts in a repair; nil: that of the majority.
    package var preferred: PlexIndex?
    /// All before this byte is done.
    package var position: UInt64 = 0
    /// Nanoseconds since 1970; 0: never.
    package var started: UInt64 = 0
    package var lastFinished: UInt64 = 0
    /// Blocks found different by this scrub, or by the last; those that could not be read on a plex; those repaired.
    package var found: UInt64 = 0
    package var unreadable: UInt64 = 0
    package var repaired: UInt64 = 0
    /// Of `found`: for which the ledger had no room.
    package var unrecorded: UInt64 = 0

    package init() {}
}

/// What a scrub found and how far it got, on every plex: nine pages of 4,096 bytes in the gaps between the four superblock
/// copies, all integers little-endian, unused bytes zero. Each page stands alone: of those with its index on the plexes
/// in sync the one with the highest sequence counts. A page with another checksum or mirror counts as empty.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 8 | magic `PLEXUSSL` |
/// | 8 | 4 | CRC-32C of the mirror UUID and these 4,096 bytes with this field zero |
/// | 12 | 2 | page, 0 through 8 |
/// | 14 | 2 | format, 1 |
/// | 16 | 8 | sequence of this page, from 1 |
/// | 64 | 4,032 | page 0: the state; others: 56 entries of 72 bytes |
///
/// The state, offsets within the page:
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 64 | 1 | flags: 1 running, 2 reads holes, 4 repairs |
/// | 65 | 1 | preferred plex, 255: none |
/// | 72 | 8 | position in bytes |
/// | 80 | 8, 8 | started, last finished: nanoseconds since 1970, 0: never |
/// | 96 | 8, 8, 8, 8 | blocks found different, unreadable, repaired, found without room here |
///
/// An entry; one whose set of plexes is empty is free:
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 8 | offset of the block |
/// | 8 | 8, 8, 8 | first seen, last seen, closed (0: open) |
/// | 32 | 1, 1 | sets of the plexes that were compared and of those outvoted, one bit each |
/// | 34 | 1 | plex whose version all have since, 255: none |
/// | 40 | 8 x 4 | CRC-32C of what each plex held |
package struct ScrubLedger: Sendable, Equatable {
    package static let magic: UInt64 = 0x4C53_5355_5845_4C50  // "PLEXUSSL", read little-endian
    package static let pageCount = 9
    package static let pageBytes = 4096
    package static let entryBytes = 72
    package static let entriesPerPage = 56
    package static let capacity = (pageCount - 1) * entriesPerPage
    private static let format: UInt16 = 1
    private static let headerBytes = 64
    private static let pagesPerGap = 3

    package private(set) var state = ScrubState()
    /// By place; nil: free.
    package private(set) var entries: [Mismatch?] = Array(repeating: nil, count: capacity)
    /// By page; 0: never written.
    package private(set) var sequences = [UInt64](repeating: 0, count: pageCount)

    package init() {}

    /// Byte offset of a page on the disk.
    package static func pageOffset(_ page: Int, diskBytes: UInt64) -> UInt64 {
        Layout.superblockOffset(copy: page / pagesPerGap, diskBytes: diskBytes)
            + UInt64(1 + page % pagesPerGap) * Layout.blockBytes
    }

    package mutating func change(_ change: (inout ScrubState) -> Void) {
        let before = state
        change(&state)
        if state != before { sequences[0] += 1 }
    }

    package subscript(place: Int) -> Mismatch? {
        get { entries[place] }
        set {
            guard entries[place] != newValue else { return }
            entries[place] = newValue
            sequences[1 + place / Self.entriesPerPage] += 1
        }
    }

    // MARK: codec

    package func encode(page: Int, mirror: MirrorUUID, into bytes: inout MutableRawSpan) {
        precondition(bytes.byteCount >= Self.pageBytes)
        bytes.clear()
        bytes.storeLittleEndian(Self.magic, at: 0)
        bytes.storeLittleEndian(UInt16(page), at: 12)
        bytes.storeLittleEndian(Self.format, at: 14)
        bytes.storeLittleEndian(sequences[page], at: 16)
        if page == 0 {
            state.encode(into: &bytes, at: Self.headerBytes)
        } else {
            let first = (page - 1) * Self.entriesPerPage
            for place in 0..<Self.entriesPerPage {
                entries[first + place]?.encode(into: &bytes, at: Self.headerBytes + place * Self.entryBytes)
            }
        }
        let sum = checksum(of: bytes.bytes.extracting(0..<Self.pageBytes), field: 8, mirror: mirror)
        bytes.storeLittleEndian(sum, at: 8)
    }

    /// Takes a page over if it is one of this mirror, and newer than what was taken before. Survives any bytes.
    ///
    /// - Returns: whether it is one of this mirror.
    @discardableResult
    package mutating func take(page: Int, bytes: RawSpan, mirror: MirrorUUID) -> Bool {
        guard bytes.byteCount >= Self.pageBytes, bytes.loadLittleEndian(at: 0, as: UInt64.self) == Self.magic,
            bytes.loadLittleEndian(at: 12, as: UInt16.self) == UInt16(page),
            bytes.loadLittleEndian(at: 14, as: UInt16.self) == Self.format,
            checksum(of: bytes.extracting(0..<Self.pageBytes), field: 8, mirror: mirror)
                == bytes.loadLittleEndian(at: 8, as: UInt32.self)
        else { return false }
        let sequence = bytes.loadLittleEndian(at: 16, as: UInt64.self)
        guard sequence > 0, sequence <= Superblock.maximumCount else { return false }
        guard sequence > sequences[page] else { return true }
        sequences[page] = sequence
        if page == 0 {
            state = ScrubState(decoding: bytes, at: Self.headerBytes)
            return true
        }
        let first = (page - 1) * Self.entriesPerPage
        for place in 0..<Self.entriesPerPage {
            entries[first + place] = Mismatch(decoding: bytes, at: Self.headerBytes + place * Self.entryBytes)
        }
        return true
    }

    /// Of several plexes: page by page what is newest.
    package mutating func merge(_ other: ScrubLedger) {
        for page in 0..<Self.pageCount where other.sequences[page] > sequences[page] {
            sequences[page] = other.sequences[page]
            if page == 0 {
                state = other.state
            } else {
                let places = (page - 1) * Self.entriesPerPage..<page * Self.entriesPerPage
                entries.replaceSubrange(places, with: other.entries[places])
            }
        }
    }

    /// What can't be of a mirror of this size is dropped.
    package mutating func confine(to dataBytes: UInt64) {
        state.position = min(state.position, dataBytes) & ~(Layout.blockBytes - 1)
        for place in entries.indices {
            guard let entry = entries[place] else { continue }
            if entry.offset % Layout.blockBytes != 0 || entry.offset >= dataBytes { entries[place] = nil }
        }
    }
}

extension ScrubState {
    fileprivate func encode(into bytes: inout MutableRawSpan, at base: Int) {
        let flags: UInt8 = (isRunning ? 1 : 0) | (readsHoles ? 2 : 0) | (repairs ? 4 : 0)
        bytes.storeLittleEndian(flags, at: base)
        bytes.storeLittleEndian(preferred?.value ?? 255, at: base + 1)
        bytes.storeLittleEndian(position, at: base + 8)
        bytes.storeLittleEndian(started, at: base + 16)
        bytes.storeLittleEndian(lastFinished, at: base + 24)
        bytes.storeLittleEndian(found, at: base + 32)
        bytes.storeLittleEndian(unreadable, at: base + 40)
        bytes.storeLittleEndian(repaired, at: base + 48)
        bytes.storeLittleEndian(unrecorded, at: base + 56)
    }

    /// Of a page that was found good; whoever counts on must not run into the end of the integers.
    fileprivate init(decoding bytes: RawSpan, at base: Int) {
        let flags = bytes.loadLittleEndian(at: base, as: UInt8.self)
        isRunning = flags & 1 != 0
        readsHoles = flags & 2 != 0
        repairs = flags & 4 != 0
        let plex = bytes.loadLittleEndian(at: base + 1, as: UInt8.self)
        preferred = plex < PlexSet.capacity ? PlexIndex(Int(plex)) : nil
        position = bytes.loadLittleEndian(at: base + 8)
        started = bytes.loadLittleEndian(at: base + 16)
        lastFinished = bytes.loadLittleEndian(at: base + 24)
        found = min(bytes.loadLittleEndian(at: base + 32), Superblock.maximumCount)
        unreadable = min(bytes.loadLittleEndian(at: base + 40), Superblock.maximumCount)
        repaired = min(bytes.loadLittleEndian(at: base + 48), Superblock.maximumCount)
        unrecorded = min(bytes.loadLittleEndian(at: base + 56), Superblock.maximumCount)
    }
}

extension Mismatch {
    fileprivate func encode(into bytes: inout MutableRawSpan, at base: Int) {
        bytes.storeLittleEndian(offset, at: base)
        bytes.storeLittleEndian(firstSeen, at: base + 8)
        bytes.storeLittleEndian(lastSeen, at: base + 16)
        bytes.storeLittleEndian(closed, at: base + 24)
        bytes.storeLittleEndian(plexes.mask, at: base + 32)
        bytes.storeLittleEndian(odd.mask, at: base + 33)
        bytes.storeLittleEndian(source?.value ?? 255, at: base + 34)
        for plex in checksums.indices { bytes.storeLittleEndian(checksums[plex], at: base + 40 + plex * 4) }
    }

    /// Nil: the place is free.
    fileprivate init?(decoding bytes: RawSpan, at base: Int) {
        let plexes = PlexSet(mask: bytes.loadLittleEndian(at: base + 32))
        guard !plexes.isEmpty else { return nil }
        self.init(
            offset: bytes.loadLittleEndian(at: base), plexes: plexes,
            odd: PlexSet(mask: bytes.loadLittleEndian(at: base + 33)).intersection(plexes),
            checksums: (0..<PlexSet.capacity).map { bytes.loadLittleEndian(at: base + 40 + $0 * 4) },
            time: bytes.loadLittleEndian(at: base + 8))
        lastSeen = bytes.loadLittleEndian(at: base + 16)
        closed = bytes.loadLittleEndian(at: base + 24)
        let source = bytes.loadLittleEndian(at: base + 34, as: UInt8.self)
        self.source = source < PlexSet.capacity ? PlexIndex(Int(source)) : nil
    }
}
