/// CRC-32, reflected, polynomial 0x04C11DB7, initial value and final xor 0xFFFFFFFF: the one of zlib and of GPT, where
/// Plexus' own structures have CRC-32C.
///
/// Source: RFC 1952, section 8; UEFI 2.10, section 5.3.2, and `CalculateCrc32` in section 7.5.
enum CRC32 {
    private static let table: [UInt32] = (0..<256).map { index in
        (0..<8).reduce(UInt32(index)) { crc, _ in crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
    }

    static func checksum(of bytes: some Sequence<UInt8>) -> UInt32 {
        ~bytes.reduce(UInt32.max) { crc, byte in crc >> 8 ^ table[Int((crc ^ UInt32(byte)) & 0xFF)] }
    }
}
