internal import Bytes

/// Why an option is answered with an error.
struct OptionFault: Error {
    var type: OptionReplyType
    var text: StaticString

    static let truncated = OptionFault(type: .errorInvalid, text: "the option data is shorter than its lengths claim")
    static let trailing = OptionFault(type: .errorInvalid, text: "the option data is longer than its lengths claim")
    static let dataNotAllowed = OptionFault(type: .errorInvalid, text: "this option takes no data")
    static let optionTooLong = OptionFault(type: .errorTooBig, text: "the option data exceeds the limit of the server")
    static let textTooLong = OptionFault(type: .errorInvalid, text: "a string exceeds the limit of 4096 bytes")
    static let textNotUTF8 = OptionFault(type: .errorInvalid, text: "a string is not UTF-8 or contains NUL")
    static let tooManyQueries = OptionFault(type: .errorTooBig, text: "too many queries")
    static let notStructured = OptionFault(type: .errorInvalid, text: "negotiate structured replies first")
    static let unknownExport = OptionFault(type: .errorUnknown, text: "no export of this name")
    static let unsupported = OptionFault(type: .errorUnsupported, text: "this option is not supported")
    static let shuttingDown = OptionFault(type: .errorShutdown, text: "the server is shutting down")
    static let tooManyOptions = OptionFault(type: .errorPolicy, text: "too much haggling, closing the connection")
}

/// Reads the data of one option from front to back and never beyond it, whatever its lengths claim.
struct OptionReader {
    private let bytes: [UInt8]
    private var offset = 0

    /// - Parameter data: of one option, complete; at most `maximumOptionBytes`, which is copied.
    init(_ data: RawSpan) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(data.byteCount)
        for index in 0..<data.byteCount { bytes.append(data.loadBigEndian(at: index, as: UInt8.self)) }
        self.bytes = bytes
    }

    var remainingBytes: Int { bytes.count - offset }

    /// Most significant byte first.
    mutating func nextInteger<Value: FixedWidthInteger>(as type: Value.Type) throws(OptionFault) -> Value {
        let end = offset + MemoryLayout<Value>.size
        guard end <= bytes.count else { throw .truncated }
        defer { offset = end }
        return bytes[offset..<end].reduce(0) { $0 << 8 | Value($1) }
    }

    /// A length (32 bits) and as many bytes of text.
    mutating func nextText(maximumBytes: Int) throws(OptionFault) -> String {
        let length = try nextInteger(as: UInt32.self)
        guard length <= remainingBytes else { throw .truncated }
        return try nextText(bytes: Int(length), maximumBytes: maximumBytes)
    }

    /// - Parameter length: at most `remainingBytes`.
    mutating func nextText(bytes length: Int, maximumBytes: Int) throws(OptionFault) -> String {
        guard length <= maximumBytes else { throw .textTooLong }
        let text = bytes[offset..<offset + length]
        offset += length
        guard !text.contains(0), let text = String(validating: text, as: UTF8.self) else { throw .textNotUTF8 }
        return text
    }

    func expectEnd() throws(OptionFault) {
        guard remainingBytes == 0 else { throw .trailing }
    }
}
