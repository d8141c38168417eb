internal import CProcessor

/// CRC-32C (Castagnoli), reflected, polynomial 0x1EDC6F41, initial value and final xor 0xFFFFFFFF.
///
/// Source: RFC 3720, section 12.1 and appendix B.4 (test vectors). By the processor's own instruction (SSE 4.2, ARMv8)
/// where it has one, else by a table eight bytes wide (Intel, "slicing-by-8").
package struct CRC32C: Sendable {
    private var state: UInt32 = 0xFFFF_FFFF

    package init() {}

    /// The checksum of everything fed so far.
    package var value: UInt32 { ~state }

    package static func checksum(of bytes: RawSpan) -> UInt32 {
        var checksum = CRC32C()
        checksum.update(bytes)
        return checksum.value
    }

    package mutating func update(_ bytes: RawSpan) {
        guard Self.isBuiltIn else { return updateByTable(bytes) }
        let before = state
        state = unsafe bytes.withUnsafeBytes { memory in
            unsafe memory.baseAddress.map { unsafe processor_crc32c(before, $0, memory.count) } ?? before
        }
    }

    private static let isBuiltIn = processor_has_crc32c() != 0

    /// What `update` does on a processor without the instruction.
    package mutating func updateByTable(_ bytes: RawSpan) {
        let table = Self.table
        var crc = state
        var offset = 0
        while bytes.byteCount - offset >= 8 {
            let low = bytes.loadLittleEndian(at: offset, as: UInt32.self) ^ crc
            let high = bytes.loadLittleEndian(at: offset + 4, as: UInt32.self)
            let first = table[1792 + Int(low & 0xFF)] ^ table[1536 + Int((low >> 8) & 0xFF)]
            let second = table[1280 + Int((low >> 16) & 0xFF)] ^ table[1024 + Int(low >> 24)]
            let third = table[768 + Int(high & 0xFF)] ^ table[512 + Int((high >> 8) & 0xFF)]
            let fourth = table[256 + Int((high >> 16) & 0xFF)] ^ table[Int(high >> 24)]
            crc = first ^ second ^ third ^ fourth
            offset += 8
        }
        while offset < bytes.byteCount {
            crc = (crc >> 8) ^ table[Int((crc ^ UInt32(bytes.loadLittleEndian(at: offset, as: UInt8.self))) & 0xFF)]
            offset += 1
        }
        state = crc
    }

    /// Feeds an integer, least significant byte first.
    package mutating func update(littleEndian value: UInt64) {
        var crc = state
        for shift in stride(from: UInt64(0), to: 64, by: 8) {
            crc = (crc >> 8) ^ Self.table[Int((crc ^ UInt32((value >> shift) & 0xFF)) & 0xFF)]
        }
        state = crc
    }

    /// Feeds `count` zero bytes.
    package mutating func update(zeroes count: Int) {
        for _ in 0..<count { state = (state >> 8) ^ Self.table[Int(state & 0xFF)] }
    }

    /// Eight tables of 256 entries: table k advances a byte by k further zero bytes.
    private static let table: [UInt32] = {
        var table = [UInt32](repeating: 0, count: 2048)
        for index in 0..<256 {
            var crc = UInt32(index)
            for _ in 0..<8 { crc = crc & 1 == 1 ? (crc >> 1) ^ 0x82F6_3B78 : crc >> 1 }
            table[index] = crc
        }
        for index in 256..<2048 {
            let previous = table[index - 256]
            table[index] = (previous >> 8) ^ table[Int(previous & 0xFF)]
        }
        return table
    }()
}
