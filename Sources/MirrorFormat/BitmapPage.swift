internal import Bytes

/// One page of the intent bitmap or of a missed-write map: 4,096 bytes, all integers little-endian, unused
/// bytes zero.
///
/// A *sheet* is one whole bitmap: sheet 0 the intent bitmap, sheets 1 through 7 the missed-write maps 0
/// through 6. Page p of a sheet holds the bits of regions p x 32,256 and following, least significant bit of
/// the first byte first.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 8 | magic `PLEXUSBM` |
/// | 8 | 4 | CRC-32C of the mirror UUID and these 4,096 bytes with this field zero |
/// | 12 | 1 | sheet |
/// | 16 | 8 | page within the sheet |
/// | 24 | 8 | sequence: number of the page write that made these contents, counted over all pages of the mirror |
/// | 32 | 8 | last clear: number of a page that is on every disk in sync (maps: on the disk that is counted for) |
/// | 40 | 16 | generation of the record that was on disk then |
/// | 56 | 8 | sheet 0: zero; maps: the id of the absence that is counted (`MissedWriteMap.id`), 0: none |
/// | 64 | 4,032 | bits |
///
/// A page whose checksum is wrong counts as all ones.
package struct BitmapPage: Sendable, Equatable {
    package static let byteCount = 4096
    package static let headerBytes = 64
    package static let wordCount = (byteCount - headerBytes) / 8
    package static let bitCount = wordCount * 64
    package static let magic: UInt64 = 0x4D42_5355_5845_4C50  // "PLEXUSBM", read little-endian

    package var sheet: UInt8
    package var index: UInt64
    package var sequence: UInt64
    package var lastClear: UInt64
    package var generation: Generation
    package var absence: UInt64

    package init(
        sheet: UInt8, index: UInt64, sequence: UInt64, lastClear: UInt64, generation: Generation, absence: UInt64
    ) {
        self.sheet = sheet
        self.index = index
        self.sequence = sequence
        self.lastClear = lastClear
        self.generation = generation
        self.absence = absence
    }

    /// - Parameter words: at most `wordCount`; the rest of the page is zero.
    package func encode(mirror: MirrorUUID, words: Span<UInt64>, into bytes: inout MutableRawSpan) {
        precondition(bytes.byteCount >= Self.byteCount && words.count <= Self.wordCount)
        for offset in stride(from: 0, to: Self.headerBytes, by: 8) { bytes.storeLittleEndian(UInt64(0), at: offset) }
        bytes.storeLittleEndian(Self.magic, at: 0)
        bytes.storeLittleEndian(sheet, at: 12)
        bytes.storeLittleEndian(index, at: 16)
        bytes.storeLittleEndian(sequence, at: 24)
        bytes.storeLittleEndian(lastClear, at: 32)
        bytes.store(generation.bits, at: 40)
        bytes.storeLittleEndian(absence, at: 56)
        bytes.storeLittleEndian(words, at: Self.headerBytes)
        for word in words.count..<Self.wordCount {
            bytes.storeLittleEndian(UInt64(0), at: Self.headerBytes + word * 8)
        }
        let sum = checksum(of: bytes.bytes.extracting(0..<Self.byteCount), field: 8, mirror: mirror)
        bytes.storeLittleEndian(sum, at: 8)
    }

    /// Nil for anything that is not this very page of this mirror; survives any 4,096 bytes.
    package init?(decoding bytes: RawSpan, mirror: MirrorUUID, sheet: UInt8, index: UInt64) {
        guard bytes.byteCount >= Self.byteCount, bytes.loadLittleEndian(at: 0, as: UInt64.self) == Self.magic,
            bytes.loadLittleEndian(at: 12, as: UInt8.self) == sheet,
            bytes.loadLittleEndian(at: 16, as: UInt64.self) == index,
            checksum(of: bytes.extracting(0..<Self.byteCount), field: 8, mirror: mirror)
                == bytes.loadLittleEndian(at: 8, as: UInt32.self)
        else { return nil }
        self.init(
            sheet: sheet, index: index, sequence: bytes.loadLittleEndian(at: 24),
            lastClear: bytes.loadLittleEndian(at: 32), generation: Generation(bytes.loadUUID(at: 40)),
            absence: bytes.loadLittleEndian(at: 56))
        // Whoever counts on from them must not run into the end of the integers.
        guard sequence <= Superblock.maximumCount, lastClear <= Superblock.maximumCount else { return nil }
    }

    /// 64 bits of a page that was found good.
    package static func word(_ index: Int, of bytes: RawSpan) -> UInt64 {
        bytes.loadLittleEndian(at: headerBytes + index * 8)
    }
}
