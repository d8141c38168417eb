internal import Bytes

extension Session {
    /// Decides about the request that begins with `bytes`, of which only the header is looked at. Consumes nothing:
    /// the caller drops the 28 bytes of the header, and the payload if there is one.
    ///
    /// Hot path: neither allocates nor counts references.
    package func parse(_ bytes: RawSpan) -> ParsedRequest {
        precondition(phase == .transmission)
        if bytes.byteCount >= 4 && bytes.loadBigEndian(at: 0, as: UInt32.self) != Magic.request {
            return .badMagic
        }
        guard bytes.byteCount >= ParsedRequest.headerBytes else { return .incomplete }
        return rules.judge(RequestHeader(bytes))
    }
}

/// A request as it is on the wire, nothing checked:
///
///     offset  bytes
///     0       4      magic 0x25609513
///     4       2      command flags
///     6       2      command
///     8       8      cookie
///     16      8      offset
///     24      4      length
///     28             payload of WRITE, `length` bytes
struct RequestHeader: BitwiseCopyable {
    /// `NBD_CMD_DISC`.
    static let disconnectCode: UInt16 = 2

    var flags: CommandFlags
    var commandCode: UInt16
    var cookie: UInt64
    var offset: UInt64
    var length: UInt32

    init(_ bytes: RawSpan) {
        flags = CommandFlags(rawValue: bytes.loadBigEndian(at: 4, as: UInt16.self))
        commandCode = bytes.loadBigEndian(at: 6, as: UInt16.self)
        cookie = bytes.loadBigEndian(at: 8, as: UInt64.self)
        offset = bytes.loadBigEndian(at: 16, as: UInt64.self)
        length = bytes.loadBigEndian(at: 24, as: UInt32.self)
    }

    /// Bytes that follow the header, whatever comes of the request.
    var payloadBytes: UInt32 { commandCode == Command.write.rawValue ? length : 0 }
}

/// What requests are held to, as agreed in the handshake. A copy without strings, so that no request touches a
/// reference count.
struct RequestRules: BitwiseCopyable {
    /// Payloads up to here must not be taken for an attack, even above the advertised maximum.
    static let toleratedPayloadBytes: UInt32 = 32 * 1024 * 1024

    private var sizeBytes: UInt64 = 0
    private var isReadOnly = true
    private var canFastZero = false
    private var structuredReplies = false
    private var hasAllocationContext = false
    private var maximumPayloadBytes: UInt32 = 0

    /// Before an export is chosen: nothing is allowed.
    init() {}

    init(
        export: ExportDescription, structuredReplies: Bool, hasAllocationContext: Bool, maximumPayloadBytes: UInt32
    ) {
        sizeBytes = export.sizeBytes
        isReadOnly = export.isReadOnly
        canFastZero = export.canFastZero && !export.isReadOnly
        self.structuredReplies = structuredReplies
        self.hasAllocationContext = hasAllocationContext
        self.maximumPayloadBytes = maximumPayloadBytes
    }

    func judge(_ header: RequestHeader) -> ParsedRequest {
        guard header.commandCode != RequestHeader.disconnectCode else { return .disconnect }
        guard let command = Command(rawValue: header.commandCode) else {
            return refuse(header, .einval, .unknownCommand)
        }
        guard header.payloadBytes <= max(maximumPayloadBytes, Self.toleratedPayloadBytes) else {
            return .oversizedWrite
        }
        if isReadOnly && changesData(command) { return refuse(header, .eperm, .readOnly) }
        guard header.flags.isSubset(of: flagsThatBelong(to: command)) else {
            return refuse(header, .einval, .badFlags)
        }
        guard header.flags.isSubset(of: flagsOffered) else { return refuse(header, .einval, .notNegotiated) }
        return judgeRange(header, of: command)
    }

    private func judgeRange(_ header: RequestHeader, of command: Command) -> ParsedRequest {
        switch command {
        case .flush:
            // The client owes us zeroes here. Those who send something else mean the same.
            var wholeExport = header
            wholeExport.offset = 0
            wholeExport.length = 0
            return accept(wholeExport, command)
        case .blockStatus:
            guard structuredReplies && hasAllocationContext else { return refuse(header, .einval, .notNegotiated) }
            guard header.length > 0 else { return refuse(header, .einval, .lengthZero) }
            guard isInside(header) else { return refuse(header, .einval, .beyondEnd) }
        case .read:
            guard isInside(header) else { return refuse(header, .einval, .beyondEnd) }
            guard header.length <= maximumPayloadBytes else { return refuse(header, .eoverflow, .tooLong) }
        case .write:
            guard isInside(header) else { return refuse(header, .enospc, .beyondEnd) }
            guard header.length <= maximumPayloadBytes else { return refuse(header, .eoverflow, .tooLong) }
        case .writeZeroes:
            guard isInside(header) else { return refuse(header, .enospc, .beyondEnd) }
        case .trim, .cache:
            guard isInside(header) else { return refuse(header, .einval, .beyondEnd) }
        }
        return accept(header, command)
    }

    /// Written so that no sum can overflow: offset + length may exceed 2^64.
    private func isInside(_ header: RequestHeader) -> Bool {
        header.offset <= sizeBytes && UInt64(header.length) <= sizeBytes - header.offset
    }

    private func changesData(_ command: Command) -> Bool {
        switch command {
        case .write, .trim, .writeZeroes: true
        case .read, .flush, .cache, .blockStatus: false
        }
    }

    /// FUA belongs to every command, even those that write nothing.
    private func flagsThatBelong(to command: Command) -> CommandFlags {
        switch command {
        case .read: [.fua, .df]
        case .writeZeroes: [.fua, .noHole, .fastZero]
        case .blockStatus: [.fua, .reqOne]
        case .write, .flush, .trim, .cache: .fua
        }
    }

    private var flagsOffered: CommandFlags {
        var flags: CommandFlags = [.fua, .noHole, .reqOne]
        if structuredReplies { flags.insert(.df) }
        if canFastZero { flags.insert(.fastZero) }
        return flags
    }

    private func accept(_ header: RequestHeader, _ command: Command) -> ParsedRequest {
        .request(
            ClientRequest(
                command: command, cookie: header.cookie, offset: header.offset, length: header.length,
                flags: header.flags, payloadBytes: header.payloadBytes))
    }

    private func refuse(_ header: RequestHeader, _ error: NBDError, _ reason: RefusalReason) -> ParsedRequest {
        .refused(
            RefusedRequest(
                cookie: header.cookie, commandCode: header.commandCode,
                isRead: header.commandCode == Command.read.rawValue, error: error, reason: reason,
                payloadBytes: header.payloadBytes))
    }
}
