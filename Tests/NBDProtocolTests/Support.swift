import Bytes
import Testing

@testable import NBDProtocol

/// One client and its session, without a connection between them.
final class Conversation {
    private var session: Session
    private let limits: SessionLimits
    var catalog = ExportCatalog(exports: [.disk, .readOnlyDisk], defaultName: "disk")
    var shuttingDown = false
    /// What the caller of `handshake` would have to buffer.
    private(set) var pending: [UInt8] = []
    private(set) var output: [UInt8] = []

    /// - Parameter clientFlags: sent at once, unless nil.
    init(limits: SessionLimits = .standard, clientFlags: UInt32? = 3) {
        self.limits = limits
        session = Session(limits: limits)
        if let clientFlags { send(bigEndian(clientFlags)) }
    }

    var phase: Session.Phase { session.phase }
    var export: ExportDescription? { session.export }
    var structuredReplies: Bool { session.structuredReplies }
    var allocationContextID: UInt32? { session.allocationContextID }

    func begin() { session.begin(output: &output) }

    func send(_ bytes: [UInt8]) {
        pending += bytes
        let consumed = unsafe session.handshake(
            pending.span.bytes, catalog: catalog, shuttingDown: shuttingDown, output: &output)
        pending.removeFirst(consumed)
        if session.phase == .handshake { #expect(pending.count < limits.maximumOptionBytes + 16) }
    }

    func parse(_ bytes: [UInt8]) -> ParsedRequest { unsafe session.parse(bytes.span.bytes) }

    /// Sends one option and takes the replies to it.
    func ask(_ option: UInt32, _ data: [UInt8] = []) -> [Answer] {
        send(optionBytes(option, data))
        return takeAnswers()
    }

    func takeOutput() -> [UInt8] {
        defer { output = [] }
        return output
    }

    /// Everything in the output must be whole option replies.
    func takeAnswers() -> [Answer] {
        var rest = takeOutput()[...]
        var answers: [Answer] = []
        while rest.count >= 20 {
            #expect(Array(rest.prefix(8)) == [0x00, 0x03, 0xE8, 0x89, 0x04, 0x55, 0x65, 0xA9])
            let option = number(rest.dropFirst(8).prefix(4))
            let type = number(rest.dropFirst(12).prefix(4))
            let length = number(rest.dropFirst(16).prefix(4))
            #expect(rest.count >= 20 + length)
            answers.append(Answer(option: option, type: type, payload: Array(rest.dropFirst(20).prefix(length))))
            rest = rest.dropFirst(20 + length)
        }
        #expect(rest.isEmpty)
        return answers
    }

    /// In transmission with `name`.
    static func inTransmission(
        _ name: String, structured: Bool, context: Bool = false, limits: SessionLimits = .standard,
        catalog: ExportCatalog? = nil
    ) -> Conversation {
        let conversation = Conversation(limits: limits)
        if let catalog { conversation.catalog = catalog }
        if structured { conversation.send(optionBytes(8)) }
        if context { conversation.send(optionBytes(10, metaData(name, ["base:allocation"]))) }
        conversation.send(optionBytes(7, goData(name)))
        #expect(conversation.phase == .transmission)
        #expect((conversation.allocationContextID != nil) == context)
        return conversation
    }
}

struct Answer: Equatable {
    var option: Int
    var type: Int
    var payload: [UInt8]

    static let unsupported = 0x8000_0001
    static let policy = 0x8000_0002
    static let invalid = 0x8000_0003
    static let unknown = 0x8000_0006
    static let shutdown = 0x8000_0007
    static let tooBig = 0x8000_0009

    /// An error with words in it.
    var isExplained: Bool { type > 0x8000_0000 && !payload.isEmpty && payload.count <= 4096 }
}

extension [Answer] {
    var types: [Int] { map(\.type) }
    var areExplained: Bool { allSatisfy(\.isExplained) }
}

extension ExportDescription {
    static let disk = ExportDescription(
        name: "disk", summary: "a mirror", sizeBytes: 1 << 20, isReadOnly: false, canFastZero: true, isRotational: true)
    static let readOnlyDisk = ExportDescription(
        name: "frozen", summary: "", sizeBytes: 1 << 20, isReadOnly: true, canFastZero: true, isRotational: false)
}

func bigEndian<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.appendBigEndian(value)
    return bytes
}

func number(_ bytes: ArraySlice<UInt8>) -> Int { bytes.reduce(0) { $0 << 8 | Int($1) } }

func optionBytes(_ option: UInt32, _ data: [UInt8] = [], claiming length: UInt32? = nil) -> [UInt8] {
    Array("IHAVEOPT".utf8) + bigEndian(option) + bigEndian(length ?? UInt32(data.count)) + data
}

func goData(_ name: String, _ types: [UInt16] = []) -> [UInt8] {
    bigEndian(UInt32(name.utf8.count)) + Array(name.utf8) + bigEndian(UInt16(types.count)) + types.flatMap(bigEndian)
}

func metaData(_ name: String, _ queries: [String]) -> [UInt8] {
    bigEndian(UInt32(name.utf8.count)) + Array(name.utf8) + bigEndian(UInt32(queries.count))
        + queries.flatMap { bigEndian(UInt32($0.utf8.count)) + Array($0.utf8) }
}

func requestBytes(
    _ code: UInt16, flags: UInt16 = 0, cookie: UInt64 = 7, offset: UInt64 = 0, length: UInt32 = 512
) -> [UInt8] {
    bigEndian(UInt32(0x2560_9513)) + bigEndian(flags) + bigEndian(code) + bigEndian(cookie) + bigEndian(offset)
        + bigEndian(length)
}
