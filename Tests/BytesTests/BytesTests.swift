import TestSupport
import Testing

@testable import Bytes

@Suite struct IntegerAccess {
    @Test func littleAndBigEndianRoundTripAtEveryOffset() {
        var bytes = [UInt8](repeating: 0, count: 24)
        for offset in 0...16 {
            do {
                var span = bytes.mutableSpan
                var raw = unsafe span.mutableBytes
                raw.storeLittleEndian(UInt64(0x0102_0304_0506_0708), at: offset)
            }
            #expect(bytes[offset] == 8 && bytes[offset + 7] == 1)
            let raw = unsafe bytes.span.bytes
            let (little, big) = (
                raw.loadLittleEndian(at: offset, as: UInt64.self), raw.loadBigEndian(at: offset, as: UInt64.self)
            )
            #expect(little == 0x0102_0304_0506_0708)
            #expect(big == 0x0807_0605_0403_0201)
        }
    }

    @Test func appendBigEndianWritesMostSignificantByteFirst() {
        var bytes: [UInt8] = []
        bytes.appendBigEndian(UInt32(0x6744_6698))
        bytes.appendBigEndian(UInt16(7))
        #expect(bytes == [0x67, 0x44, 0x66, 0x98, 0, 7])
    }

    @Test func loadBeyondTheEndStopsTheProgram() async {
        await #expect(processExitsWith: .failure) {
            let bytes: [UInt8] = [1, 2, 3]
            _ = unsafe bytes.span.bytes.loadLittleEndian(at: 0, as: UInt32.self)
        }
    }
}

@Suite struct CRC32CVectors {
    private func checksum(_ bytes: [UInt8]) -> UInt32 { unsafe CRC32C.checksum(of: bytes.span.bytes) }

    /// RFC 3720, appendix B.4.
    @Test func matchesThePublishedVectors() {
        #expect(checksum([UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
        #expect(checksum([UInt8](repeating: 0xFF, count: 32)) == 0x62A8_AB43)
        #expect(checksum([UInt8](0..<32)) == 0x46DD_794E)
        #expect(checksum([UInt8]((0..<32).reversed())) == 0x113F_DB5C)
        #expect(checksum(Array("123456789".utf8)) == 0xE306_9283)
    }

    /// What the processor computes and what the table gives, at every length and from every address.
    @Test func processorAndTableAgree() {
        var random = XorShift(seed: 0xC3C)
        let bytes = (0..<4200).map { _ in UInt8.random(in: 0...255, using: &random) }
        for length in Array(0..<70) + [255, 256, 257, 4095, 4096, 4099] {
            for start in 0..<9 {
                let part = bytes.span.extracting(start..<start + length)
                var (whole, table, halves) = (CRC32C(), CRC32C(), CRC32C())
                unsafe whole.update(part.bytes)
                unsafe table.updateByTable(part.bytes)
                unsafe halves.update(part.extracting(0..<length / 2).bytes)
                unsafe halves.updateByTable(part.extracting(length / 2..<length).bytes)
                #expect(whole.value == table.value && halves.value == table.value, "\(length) bytes from \(start)")
            }
        }
    }

    @Test func integersFeedLikeTheirBytes() {
        var first = CRC32C()
        first.update(littleEndian: 0x0102_0304_0506_0708)
        #expect(first.value == checksum([8, 7, 6, 5, 4, 3, 2, 1]))
    }
}
