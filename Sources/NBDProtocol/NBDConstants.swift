/// Numbers of the NBD protocol. Source: NetworkBlockDevice/nbd, `doc/proto.md`, "Values". All integers on the
/// wire are big-endian.
enum Magic {
    /// `NBDMAGIC`, the first eight bytes of a connection.
    static let greeting: UInt64 = 0x4E42_444D_4147_4943
    /// `IHAVEOPT`, in the greeting and in front of every option.
    static let option: UInt64 = 0x4948_4156_454F_5054
    static let optionReply: UInt64 = 0x0003_E889_0455_65A9
    static let request: UInt32 = 0x2560_9513
    static let simpleReply: UInt32 = 0x6744_6698
    static let structuredReply: UInt32 = 0x668E_33EF
}

/// Flags of the greeting (16 bits) and the client's answer to it (32 bits): the two agree bit for bit.
enum HandshakeFlags {
    static let fixedNewstyle: UInt16 = 1 << 0
    static let noZeroes: UInt16 = 1 << 1
}

enum OptionCode: UInt32 {
    case exportName = 1
    case abort = 2
    case list = 3
    case startTLS = 5
    case info = 6
    case go = 7
    case structuredReply = 8
    case listMetaContext = 9
    case setMetaContext = 10
    case extendedHeaders = 11
}

/// Types of option replies; the errors have bit 31 set and may carry a message.
enum OptionReplyType: UInt32 {
    case ack = 1
    case server = 2
    case info = 3
    case metaContext = 4
    case errorUnsupported = 0x8000_0001
    case errorPolicy = 0x8000_0002
    case errorInvalid = 0x8000_0003
    case errorUnknown = 0x8000_0006
    case errorShutdown = 0x8000_0007
    case errorTooBig = 0x8000_0009
}

enum InformationType: UInt16 {
    case export = 0
    case name = 1
    case description = 2
    case blockSize = 3
}

/// What the export can do, sent at the end of the handshake.
struct TransmissionFlags: OptionSet {
    var rawValue: UInt16

    static let hasFlags = TransmissionFlags(rawValue: 1 << 0)
    static let readOnly = TransmissionFlags(rawValue: 1 << 1)
    static let sendFlush = TransmissionFlags(rawValue: 1 << 2)
    static let sendFUA = TransmissionFlags(rawValue: 1 << 3)
    static let rotational = TransmissionFlags(rawValue: 1 << 4)
    static let sendTrim = TransmissionFlags(rawValue: 1 << 5)
    static let sendWriteZeroes = TransmissionFlags(rawValue: 1 << 6)
    static let sendDF = TransmissionFlags(rawValue: 1 << 7)
    static let canMultiConn = TransmissionFlags(rawValue: 1 << 8)
    static let sendCache = TransmissionFlags(rawValue: 1 << 10)
    static let sendFastZero = TransmissionFlags(rawValue: 1 << 11)

    /// The flags depend on what was negotiated: DF has no meaning without structured replies, and a read-only
    /// export offers no command that it would then refuse.
    static func offered(by export: ExportDescription, structuredReplies: Bool) -> TransmissionFlags {
        var flags: TransmissionFlags = [.hasFlags, .sendFlush, .sendFUA, .canMultiConn, .sendCache]
        if structuredReplies { flags.insert(.sendDF) }
        if export.isRotational { flags.insert(.rotational) }
        if export.isReadOnly {
            flags.insert(.readOnly)
        } else {
            flags.formUnion([.sendTrim, .sendWriteZeroes])
            if export.canFastZero { flags.insert(.sendFastZero) }
        }
        return flags
    }
}

/// Types of structured reply chunks.
enum ChunkType: UInt16 {
    case none = 0
    case offsetData = 1
    case offsetHole = 2
    case blockStatus = 5
    case error = 0x8001
}
