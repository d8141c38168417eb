internal import Bytes

/// CRC-32C of a structure on disk, its own four bytes as zeroes. Seeded with the mirror, and where it has one with the
/// position, so that what was moved, or belongs to another mirror, is not taken for ours.
///
/// - Parameters:
///   - bytes: of the structure, nothing behind it.
///   - field: offset of the checksum.
func checksum(of bytes: RawSpan, field: Int, mirror: MirrorUUID, position: UInt64? = nil) -> UInt32 {
    var crc = CRC32C()
    crc.update(littleEndian: mirror.bits.high)
    crc.update(littleEndian: mirror.bits.low)
    if let position { crc.update(littleEndian: position) }
    crc.update(bytes.extracting(0..<field))
    crc.update(zeroes: 4)
    crc.update(bytes.extracting(field + 4..<bytes.byteCount))
    return crc.value
}
