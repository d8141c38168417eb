internal import NBDProtocol

/// A client that reads replies as `doc/proto.md` has them, written without a look at the encoder.
struct ReplyReader {
    let bytes: [UInt8]
    /// What follows from another buffer.
    let payloadBytes: Int

    private func number(_ offset: Int, _ count: Int) -> UInt64 { Self.number(bytes, offset, count) }

    private static func number(_ bytes: [UInt8], _ offset: Int, _ count: Int) -> UInt64 {
        bytes[offset..<offset + count].reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// - Parameter request: the read that data is sent for.
    func check(cookie: UInt64, isStructured: Bool, request: ClientRequest?, extents: Int) throws(Finding) {
        guard isStructured else {
            try require(bytes.count == 16 && number(0, 4) == 0x6744_6698, "no simple reply", bytes)
            try require(number(8, 8) == cookie, "a reply to somebody else", bytes)
            let error = UInt32(number(4, 4))
            try require(
                error == 0 || NBDError(rawValue: error) != nil, "error \(error) is none of the protocol's", bytes)
            try require(extents == 0 && (payloadBytes == 0 || error == 0), "a payload that nobody expects", bytes)
            return
        }
        try require(bytes.count >= 20 && number(0, 4) == 0x668E_33EF, "no chunk of a structured reply", bytes)
        try require(number(8, 8) == cookie, "a reply to somebody else", bytes)
        try require(number(4, 2) == 1, "one chunk, and not the last", bytes)
        try require(Int(number(16, 4)) == bytes.count - 20 + payloadBytes, "a length that is not so", bytes)
        switch number(6, 2) {
        case 0: try require(bytes.count == 20 && payloadBytes == 0, "NONE with a payload", bytes)
        case 1: try require(payloadBytes > 0 && number(20, 8) == request?.offset, "data that is not for here", bytes)
        case 5:
            try require(extents > 0 && bytes.count == 24 + 8 * extents, "extents are missing", bytes)
            let lengths = (0..<extents).map { number(24 + 8 * $0, 4) }
            try require(!lengths.contains(0), "an extent of no length", bytes)
        case 0x8001:
            let error = UInt32(number(20, 4))
            try require(NBDError(rawValue: error) != nil, "error \(error) is none of the protocol's", bytes)
            try require(Int(number(24, 2)) == bytes.count - 26 && payloadBytes == 0, "a text of another length", bytes)
            try require(String(validating: bytes[26...], as: UTF8.self) != nil, "a text that is none", bytes)
        default: throw Finding("a chunk of unknown type", bytes)
        }
    }

    /// The greeting, whole option replies, and at most one answer to EXPORT_NAME at the end.
    static func check(handshake bytes: [UInt8], phase: Session.Phase) throws(Finding) {
        try require(bytes.starts(with: Array("NBDMAGICIHAVEOPT".utf8) + [0, 3]), "no greeting", bytes)
        var offset = 18
        while bytes.count - offset >= 20, number(bytes, offset, 8) == 0x0003_E889_0455_65A9 {
            let type = number(bytes, offset + 12, 4)
            let length = Int(number(bytes, offset + 16, 4))
            try require(type <= 4 || (type >= 0x8000_0001 && type <= 0x8000_0009), "a reply of unknown type", bytes)
            try require(length <= 3 * 4096 && offset + 20 + length <= bytes.count, "a reply cut short", bytes)
            offset += 20 + length
        }
        let rest = bytes.count - offset
        let isAnswer = rest == 10 || rest == 134
        try require(rest == 0 || (phase == .transmission && isAnswer), "\(rest) bytes that are no reply", bytes)
    }
}
