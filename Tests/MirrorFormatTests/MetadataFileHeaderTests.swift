import TestSupport
import Testing

@testable import MirrorFormat

@Suite struct MetadataFileHeaderTests {
    private static let header = MetadataFileHeader(
        dataBytes: 64 << 20, diskBytes: 64 << 20 + 512, identity: "wwid 0xé", path: "/dev/disk/by-id/x",
        time: 0x1122_3344)
    /// The CRC was computed by another program, from the table in the source.
    private static let rows: [(Int, String)] = [
        (0, "504c455855534d46010011007107b1c1"),
        (16, "00000004000000000002000400000000"),
        (32, "09000000000000004433221100000000"),
        (64, "77776964203078c3a900000000000000"),
        (512, "2f6465762f6469736b2f62792d69642f"),
        (528, "78000000000000000000000000000000"),
    ]

    private func encode(_ header: MetadataFileHeader = header) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: MetadataFileHeader.byteCount)
        do {
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            header.encode(into: &raw)
        }
        return bytes
    }

    private func decode(_ bytes: [UInt8]) -> MetadataFileHeader? {
        unsafe MetadataFileHeader(decoding: bytes.span.bytes)
    }

    @Test func goldenHeaderEncodesToTheDocumentedBytes() {
        let rows = encode().nonZeroRows
        for (got, wanted) in zip(rows, Self.rows) {
            #expect(got.0 == wanted.0 && got.1 == wanted.1, "row \(got.0): \(got.1), documented \(wanted.1)")
        }
        #expect(rows.count == Self.rows.count, "\(rows)")
        #expect(decode(encode()) == Self.header)
    }

    @Test func longestPathFitsAndAnIdentityMayBeMissing() {
        var header = Self.header
        header.path = "/" + String(repeating: "p", count: MetadataFileHeader.maximumPathBytes - 1)
        header.identity = ""
        #expect(decode(encode(header)) == header)
    }

    @Test func identityTooLongIsCut() {
        var header = Self.header
        header.identity = String(repeating: "i", count: 1000)
        let identity = decode(encode(header))?.identity
        #expect(identity == String(repeating: "i", count: MetadataFileHeader.maximumIdentityBytes))
    }

    @Test func anyChangedByteMakesItNoHeader() {
        let whole = encode()
        for position in 0..<MetadataFileHeader.byteCount {
            var bytes = whole
            bytes[position] ^= 1
            #expect(decode(bytes) == nil, "byte \(position)")
        }
    }

    @Test(
        arguments: [(0, 1 << 20), (4096, 1 << 20), (1 << 20 + 1, 2 << 20), (2 << 20, 1 << 20), (1 << 20, 1 << 63)]
            as [(UInt64, UInt64)])
    func sizesThatCanNotBeAreRefused(dataBytes: UInt64, diskBytes: UInt64) {
        var header = Self.header
        header.dataBytes = dataBytes
        header.diskBytes = diskBytes
        #expect(decode(encode(header)) == nil)
    }

    @Test func whatIsNoHeaderIsRefused() {
        #expect(decode([]) == nil && decode([UInt8](repeating: 0, count: 4096)) == nil)
        #expect(decode(Array(encode().dropLast())) == nil)
    }
}
