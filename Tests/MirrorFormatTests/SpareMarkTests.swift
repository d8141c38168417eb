import TestSupport
import Testing

@testable import MirrorFormat

@Suite struct SpareMarkTests {
    private static let mark = SpareMark(mirror: Golden.mirror, name: "data", diskBytes: 1 << 30, time: 0x1122_3344)
    /// The CRC was computed by another program, from the table in the source.
    private static let rows: [(Int, String)] = [
        (0, "504c455855535350010004005987bb19"),
        (16, "7766554433221100ffeeddccbbaa9988"),
        (32, "00000040000000004433221100000000"),
        (48, "64617461000000000000000000000000"),
    ]

    private func encode(_ mark: SpareMark = mark) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: SpareMark.byteCount)
        do {
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            mark.encode(into: &raw)
        }
        return bytes
    }

    private func decode(_ bytes: [UInt8]) -> SpareMark? { unsafe SpareMark(decoding: bytes.span.bytes) }

    @Test func goldenMarkEncodesToTheDocumentedBytes() {
        let rows = encode().nonZeroRows
        for (got, wanted) in zip(rows, Self.rows) {
            #expect(got.0 == wanted.0 && got.1 == wanted.1, "row \(got.0): \(got.1), documented \(wanted.1)")
        }
        #expect(rows.count == Self.rows.count, "\(rows)")
        #expect(decode(encode()) == Self.mark)
    }

    @Test func longestNameFits() {
        var mark = Self.mark
        mark.name = String(repeating: "n", count: Superblock.maximumNameBytes)
        #expect(decode(encode(mark)) == mark)
    }

    @Test func anyChangedByteMakesItNoMark() {
        let whole = encode()
        for position in 0..<SpareMark.byteCount {
            var bytes = whole
            bytes[position] ^= 1
            #expect(decode(bytes) == nil, "byte \(position)")
        }
    }

    @Test func whatIsNoMarkIsRefused() {
        #expect(decode([]) == nil && decode([UInt8](repeating: 0, count: 4096)) == nil)
        #expect(decode(Array(encode().dropLast())) == nil)
    }
}
