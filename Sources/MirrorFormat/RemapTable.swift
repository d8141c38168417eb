internal import Bytes

/// Where one plex keeps blocks that it can't keep in their own places: data block by spare slot.
///
/// The table is an array with one entry of 8 bytes for each slot of the spare pool, cut into pages of 4,096 bytes. Each
/// page lies on the disk twice, in the areas A and B, and an update writes both, A first: a torn write leaves the other.
/// Of two good copies the one with the higher sequence holds. All integers are little-endian, unused bytes zero.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 8 | magic `PLEXUSRM` |
/// | 8 | 4 | CRC-32C of the plex UUID and these 4,096 bytes with this field zero |
/// | 16 | 8 | page |
/// | 24 | 8 | sequence: number of the page write that made these contents, counted over all pages of the table |
/// | 64 | 504 x 8 | entries: bits 0 through 55 the block of data, bits 56 through 63 the state: 0 free, 1 in use, 2 dead |
///
/// The table counts only if the plex's own superblock says so (`Member.isRemapped`): otherwise what lies there is void.
package struct RemapTable: Sendable, Equatable {
    package static let pageBytes = 4096
    package static let headerBytes = 64
    package static let slotsPerPage = (pageBytes - headerBytes) / 8
    package static let magic: UInt64 = 0x4D52_5355_5845_4C50  // "PLEXUSRM", read little-endian

    /// A block of data, and the slot that has it in its place.
    package struct Remap: Sendable, Hashable, BitwiseCopyable {
        package var block: UInt64
        package var slot: Int

        package init(block: UInt64, slot: Int) {
            self.block = block
            self.slot = slot
        }
    }

    /// What there is room for: slots of the pool that have an entry.
    package let slotCount: Int
    /// By block, ascending.
    package private(set) var remaps: [Remap] = []
    /// Slots that took no data, ascending.
    package private(set) var dead: [Int] = []
    /// Of the newest page.
    package private(set) var sequence: UInt64 = 0
    /// Neither copy of some page can be read: nobody knows what is where.
    package private(set) var isDamaged = false
    /// Pages of which only one copy says what the table does, or none: to be written anew.
    package private(set) var unsettled: [Unsettled] = []

    package struct Unsettled: Sendable, Equatable, BitwiseCopyable {
        package var page: Int
        /// The copy that was believed, 0 or 1, which must not be the first to be overwritten; nil: both were.
        package var good: Int?

        package init(page: Int, good: Int? = nil) {
            self.page = page
            self.good = good
        }
    }

    package init(slotCount: Int) { self.slotCount = slotCount }

    /// - Parameter layout: of the plex's disk.
    package init(_ layout: Layout) { self.init(slotCount: layout.spareSlots) }

    package var isEmpty: Bool { remaps.isEmpty }
    package var pageCount: Int { (slotCount + Self.slotsPerPage - 1) / Self.slotsPerPage }
    package var freeSlots: Int { slotCount - remaps.count - dead.count }

    package static func page(ofSlot slot: Int) -> Int { slot / slotsPerPage }

    /// The first remapped block at or behind this one.
    package func first(from block: UInt64) -> Remap? {
        var low = 0
        var high = remaps.count
        while low < high {
            let middle = low + (high - low) / 2
            if remaps[middle].block < block { low = middle + 1 } else { high = middle }
        }
        return low < remaps.count ? remaps[low] : nil
    }

    package subscript(block: UInt64) -> Int? {
        guard let remap = first(from: block), remap.block == block else { return nil }
        return remap.slot
    }

    /// The lowest slot that is neither in use nor dead.
    ///
    /// - Parameter bound: only above this one.
    package func freeSlot(above bound: Int?) -> Int? {
        let used = Set(remaps.lazy.map(\.slot)).union(dead)
        var slot = bound.map { $0 + 1 } ?? 0
        while slot < slotCount {
            if !used.contains(slot) { return slot }
            slot += 1
        }
        return nil
    }

    // MARK: changes

    /// From now on the slot has the block. One that had it before took it no more, and is dead.
    package mutating func put(_ block: UInt64, into slot: Int) {
        if let old = self[block] {
            remaps.removeAll { $0.block == block }
            kill(old)
        }
        let position = remaps.firstIndex { $0.block > block } ?? remaps.count
        remaps.insert(Remap(block: block, slot: slot), at: position)
    }

    /// The block is in its own place again, and its slot free.
    package mutating func withdraw(_ block: UInt64) { remaps.removeAll { $0.block == block } }

    package mutating func kill(_ slot: Int) {
        guard !dead.contains(slot) else { return }
        dead.insert(slot, at: dead.firstIndex { $0 > slot } ?? dead.count)
    }

    /// They are tried once more.
    package mutating func reviveDead() { dead = [] }

    package mutating func countPageWrite() { sequence += 1 }

    // MARK: on disk

    /// Writes one page with the present sequence into the first 4,096 bytes of `bytes`.
    package func encode(page: Int, plex: PlexUUID, into bytes: inout MutableRawSpan) {
        precondition(bytes.byteCount >= Self.pageBytes && page < pageCount)
        for offset in stride(from: 0, to: Self.pageBytes, by: 8) { bytes.storeLittleEndian(UInt64(0), at: offset) }
        bytes.storeLittleEndian(Self.magic, at: 0)
        bytes.storeLittleEndian(UInt64(page), at: 16)
        bytes.storeLittleEndian(sequence, at: 24)
        for remap in remaps where Self.page(ofSlot: remap.slot) == page {
            bytes.storeLittleEndian(remap.block | Self.inUse << 56, at: Self.place(remap.slot))
        }
        for slot in dead where Self.page(ofSlot: slot) == page {
            bytes.storeLittleEndian(Self.isDead << 56, at: Self.place(slot))
        }
        let sum = checksum(
            of: bytes.bytes.extracting(0..<Self.pageBytes), field: 8, mirror: MirrorUUID(plex.bits))
        bytes.storeLittleEndian(sum, at: 8)
    }

    private static let inUse: UInt64 = 1
    private static let isDead: UInt64 = 2

    private static func place(_ slot: Int) -> Int { headerBytes + slot % slotsPerPage * 8 }

    /// Takes what lies in both places of a page; no bytes: it can't be read. To be called once for each page, in order.
    ///
    /// Survives any bytes: a copy that is not this very page counts as unreadable, and so does one whose entries
    /// contradict themselves.
    ///
    /// - Parameter blocks: of data, that the mirror has.
    package mutating func take(page: Int, _ copyA: RawSpan, _ copyB: RawSpan, plex: PlexUUID, blocks: UInt64) {
        let copies = [decode(copyA, page, plex, blocks), decode(copyB, page, plex, blocks)]
        var good = copies[0] == nil ? 1 : 0
        if let first = copies[0], let second = copies[1], second.sequence > first.sequence { good = 1 }
        guard let newest = copies[good] else {
            isDamaged = true
            return
        }
        if copies[0] != copies[1] { unsettle(page, good: good) }
        adopt(newest)
    }

    /// All pages have been written as the table is.
    package mutating func settle() { unsettled = [] }

    private mutating func unsettle(_ page: Int, good: Int? = nil) {
        if unsettled.contains(where: { $0.page == page }) { return }
        unsettled.append(Unsettled(page: page, good: good))
    }

    private struct Page: Equatable {
        var sequence: UInt64
        var remaps: [Remap] = []
        var dead: [Int] = []
    }

    private mutating func adopt(_ page: Page) {
        sequence = max(sequence, page.sequence)
        for slot in page.dead { kill(slot) }
        for remap in page.remaps {
            // It moved to a higher slot, and power failed before the lower one was said to be dead.
            if let other = self[remap.block] { unsettle(Self.page(ofSlot: min(other, remap.slot))) }
            if let other = self[remap.block], other > remap.slot {
                kill(remap.slot)
            } else {
                put(remap.block, into: remap.slot)
            }
        }
    }

    private func decode(_ bytes: RawSpan, _ page: Int, _ plex: PlexUUID, _ blocks: UInt64) -> Page? {
        guard bytes.byteCount >= Self.pageBytes, bytes.loadLittleEndian(at: 0, as: UInt64.self) == Self.magic,
            bytes.loadLittleEndian(at: 16, as: UInt64.self) == UInt64(page),
            checksum(of: bytes.extracting(0..<Self.pageBytes), field: 8, mirror: MirrorUUID(plex.bits))
                == bytes.loadLittleEndian(at: 8, as: UInt32.self)
        else { return nil }
        var result = Page(sequence: bytes.loadLittleEndian(at: 24))
        guard result.sequence <= Superblock.maximumCount else { return nil }
        let firstSlot = page * Self.slotsPerPage
        for slot in firstSlot..<min(firstSlot + Self.slotsPerPage, slotCount) {
            let entry: UInt64 = bytes.loadLittleEndian(at: Self.place(slot))
            let block = entry & (1 << 56 - 1)
            switch entry >> 56 {
            case 0: if block != 0 { return nil }
            case Self.inUse:
                guard block < blocks, !result.remaps.contains(where: { $0.block == block }) else { return nil }
                result.remaps.append(Remap(block: block, slot: slot))
            case Self.isDead: result.dead.append(slot)
            default: return nil
            }
        }
        return result
    }
}

extension Layout {
    /// Slots of 4 KiB of the spare pool that the remap table has entries for.
    package var spareSlots: Int {
        guard let pool = area(.sparePool), let first = area(.remapTableA), let second = area(.remapTableB) else {
            return 0
        }
        let pages = min(first.length, second.length) / Self.blockBytes
        return Int(min(pool.length / Self.blockBytes, pages * UInt64(RemapTable.slotsPerPage)))
    }

    /// Byte offset on the disk of a slot of the spare pool.
    package func spareOffset(slot: Int) -> UInt64 {
        guard let pool = area(.sparePool), slot < spareSlots else { preconditionFailure("no such spare slot") }
        return pool.offset + UInt64(slot) * Self.blockBytes
    }

    /// Byte offset on the disk of a page of the remap table.
    ///
    /// - Parameter copy: 0: in area A, 1: in area B.
    package func remapPageOffset(copy: Int, page: Int) -> UInt64 {
        guard let area = area(copy == 0 ? .remapTableA : .remapTableB), UInt64(page) * Self.blockBytes < area.length
        else { preconditionFailure("no such page of the remap table") }
        return area.offset + UInt64(page) * Self.blockBytes
    }
}
