internal import Bytes

/// What makes a disk a hot spare of a mirror: it stands where the copies of a superblock would, for the spare is no plex
/// and holds nothing. The first superblock of a plex goes over it.
///
/// | offset | bytes | |
/// |---|---|---|
/// | 0 | 8 | magic `PLEXUSSP` |
/// | 8 | 2 | format, 1 |
/// | 10 | 1 | bytes of the name |
/// | 12 | 4 | CRC-32C of the block, these four bytes as zeroes, seeded with the mirror's UUID |
/// | 16 | 16 | UUID of the mirror |
/// | 32 | 8 | size of the disk in bytes |
/// | 40 | 8 | when it became a spare, nanoseconds since 1970 |
/// | 48 | 64 | name of the mirror, UTF-8, padded with zeroes |
/// | 112 | | zeroes up to 4096 |
package struct SpareMark: Sendable, Hashable {
    package static let byteCount = 4096
    package static let magic: UInt64 = 0x5053_5355_5845_4C50  // "PLEXUSSP", read little-endian
    private static let format: UInt16 = 1

    package var mirror: MirrorUUID
    package var name: String
    package var diskBytes: UInt64
    package var time: UInt64

    package init(mirror: MirrorUUID, name: String, diskBytes: UInt64, time: UInt64) {
        self.mirror = mirror
        self.name = name
        self.diskBytes = diskBytes
        self.time = time
    }

    package func encode(into bytes: inout MutableRawSpan) {
        precondition(bytes.byteCount >= Self.byteCount && name.utf8.count <= Superblock.maximumNameBytes)
        bytes.clear()
        bytes.storeLittleEndian(Self.magic, at: 0)
        bytes.storeLittleEndian(Self.format, at: 8)
        bytes.store(mirror.bits, at: 16)
        bytes.storeLittleEndian(diskBytes, at: 32)
        bytes.storeLittleEndian(time, at: 40)
        let nameBytes = bytes.store(name, at: 48, capacity: Superblock.maximumNameBytes)
        bytes.storeLittleEndian(UInt8(nameBytes), at: 10)
        let sum = checksum(of: bytes.bytes.extracting(0..<Self.byteCount), field: 12, mirror: mirror)
        bytes.storeLittleEndian(sum, at: 12)
    }

    /// Nil for anything that is not a whole mark; survives any bytes.
    package init?(decoding bytes: RawSpan) {
        guard bytes.byteCount >= Self.byteCount, bytes.loadLittleEndian(at: 0, as: UInt64.self) == Self.magic,
            bytes.loadLittleEndian(at: 8, as: UInt16.self) == Self.format
        else { return nil }
        let mirror = MirrorUUID(bytes.loadUUID(at: 16))
        let nameBytes = Int(bytes.loadLittleEndian(at: 10, as: UInt8.self))
        let sum = checksum(of: bytes.extracting(0..<Self.byteCount), field: 12, mirror: mirror)
        guard sum == bytes.loadLittleEndian(at: 12, as: UInt32.self),
            nameBytes > 0, nameBytes <= Superblock.maximumNameBytes,
            let name = try? bytes.loadText(at: 48, count: nameBytes), !name.isEmpty
        else { return nil }
        self.init(
            mirror: mirror, name: name, diskBytes: bytes.loadLittleEndian(at: 32),
            time: bytes.loadLittleEndian(at: 40))
    }
}
