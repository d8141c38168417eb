internal import Bytes

/// The first block of a metadata file: the private area of a disk that has no room for one.
///
/// The disk and the file together are laid out like one disk: the data's bytes lie on the disk, what comes behind them
/// lies in the file, behind this block. All offsets of superblocks and pages, and the size of the disk that they name, are
/// those of the whole.
///
/// | offset | bytes | |
/// |---|---|---|
/// | 0 | 8 | magic `PLEXUSMF` |
/// | 8 | 2 | format, 1 |
/// | 10 | 2 | bytes of the path |
/// | 12 | 4 | CRC-32C of the block, these four bytes as zeroes, seeded with UUID 0 |
/// | 16 | 8 | bytes of the data: where the file's part begins |
/// | 24 | 8 | size of the disk with the data |
/// | 32 | 2 | bytes of the disk's identity |
/// | 40 | 8 | when it was made, nanoseconds since 1970 |
/// | 64 | 448 | identity of the disk, UTF-8, padded with zeroes |
/// | 512 | 3584 | path of the disk, UTF-8, padded with zeroes |
package struct MetadataFileHeader: Sendable, Hashable {
    package static let byteCount = 4096
    package static let magic: UInt64 = 0x464D_5355_5845_4C50  // "PLEXUSMF", read little-endian
    package static let maximumPathBytes = 3584
    package static let maximumIdentityBytes = 448
    private static let format: UInt16 = 1

    package var dataBytes: UInt64
    package var diskBytes: UInt64
    /// What tells the disk from another one; empty: nothing does.
    package var identity: String
    package var path: String
    package var time: UInt64

    package init(dataBytes: UInt64, diskBytes: UInt64, identity: String, path: String, time: UInt64) {
        self.dataBytes = dataBytes
        self.diskBytes = diskBytes
        self.identity = identity
        self.path = path
        self.time = time
    }

    package func encode(into bytes: inout MutableRawSpan) {
        precondition(bytes.byteCount >= Self.byteCount && path.utf8.count <= Self.maximumPathBytes)
        bytes.clear()
        bytes.storeLittleEndian(Self.magic, at: 0)
        bytes.storeLittleEndian(Self.format, at: 8)
        bytes.storeLittleEndian(dataBytes, at: 16)
        bytes.storeLittleEndian(diskBytes, at: 24)
        bytes.storeLittleEndian(time, at: 40)
        let identityBytes = bytes.store(identity, at: 64, capacity: Self.maximumIdentityBytes)
        bytes.storeLittleEndian(UInt16(identityBytes), at: 32)
        let pathBytes = bytes.store(path, at: 512, capacity: Self.maximumPathBytes)
        bytes.storeLittleEndian(UInt16(pathBytes), at: 10)
        let sum = checksum(of: bytes.bytes.extracting(0..<Self.byteCount), field: 12, mirror: MirrorUUID(.zero))
        bytes.storeLittleEndian(sum, at: 12)
    }

    /// Nil for anything that is not a whole header; survives any bytes.
    package init?(decoding bytes: RawSpan) {
        guard bytes.byteCount >= Self.byteCount, bytes.loadLittleEndian(at: 0, as: UInt64.self) == Self.magic,
            bytes.loadLittleEndian(at: 8, as: UInt16.self) == Self.format
        else { return nil }
        let sum = checksum(of: bytes.extracting(0..<Self.byteCount), field: 12, mirror: MirrorUUID(.zero))
        let pathBytes = Int(bytes.loadLittleEndian(at: 10, as: UInt16.self))
        let identityBytes = Int(bytes.loadLittleEndian(at: 32, as: UInt16.self))
        guard sum == bytes.loadLittleEndian(at: 12, as: UInt32.self), pathBytes > 0,
            pathBytes <= Self.maximumPathBytes, identityBytes <= Self.maximumIdentityBytes,
            let path = try? bytes.loadText(at: 512, count: pathBytes),
            let identity = try? bytes.loadText(at: 64, count: identityBytes)
        else { return nil }
        let dataBytes: UInt64 = bytes.loadLittleEndian(at: 16)
        let diskBytes: UInt64 = bytes.loadLittleEndian(at: 24)
        guard dataBytes >= Layout.minimumDataBytes, dataBytes % Layout.blockBytes == 0, dataBytes <= diskBytes,
            diskBytes <= 1 << 62
        else { return nil }
        self.init(
            dataBytes: dataBytes, diskBytes: diskBytes, identity: identity, path: path,
            time: bytes.loadLittleEndian(at: 40))
    }
}
