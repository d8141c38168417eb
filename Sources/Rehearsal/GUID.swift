internal import Bytes

/// As GPT stores it: the first three groups with their least significant byte first (RFC 9562 has them the other way).
struct GUID: Hashable, CustomStringConvertible {
    private var bytes: [UInt8]

    /// - Parameter offset: 16 bytes from there on must lie inside.
    init(_ span: RawSpan, at offset: Int) {
        bytes = (0..<16).map { span.loadLittleEndian(at: offset + $0) }
    }

    var isZero: Bool { bytes.allSatisfy { $0 == 0 } }

    var description: String {
        let order = [3, 2, 1, 0, -1, 5, 4, -1, 7, 6, -1, 8, 9, -1, 10, 11, 12, 13, 14, 15]
        let digits = Array("0123456789ABCDEF")
        return order.map { $0 < 0 ? "-" : "\(digits[Int(bytes[$0] >> 4)])\(digits[Int(bytes[$0] & 15)])" }.joined()
    }
}
