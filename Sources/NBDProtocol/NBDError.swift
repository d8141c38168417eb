/// The only error numbers a server may send. Source: `doc/proto.md`, "Error values".
package enum NBDError: UInt32, Sendable, BitwiseCopyable, CaseIterable {
    case eperm = 1
    case eio = 5
    case enomem = 12
    case einval = 22
    case enospc = 28
    case eoverflow = 75
    /// Only in answer to a WRITE_ZEROES with FAST_ZERO.
    case enotsup = 95
    case eshutdown = 108
}

/// Why a request failed, in words for the client's log. Every error this server sends carries one, those of
/// `Session.parse` and those the engine finds later; without structured replies only the number is sent.
package enum RefusalReason: UInt8, Sendable, BitwiseCopyable, CaseIterable {
    case ioError
    case noSpace
    case noMemory
    case readOnly
    case beyondEnd
    case unknownCommand
    case badFlags
    case notNegotiated
    case tooLong
    case lengthZero
    case notFast
    case shuttingDown

    /// ASCII, at most `ReplyEncoder.maximumTextBytes`.
    package var text: StaticString {
        switch self {
        case .ioError: "input/output error on the disks behind the export"
        case .noSpace: "no space left on the disks behind the export"
        case .noMemory: "the server is short of memory"
        case .readOnly: "the export is read-only"
        case .beyondEnd: "the range lies beyond the end of the export"
        case .unknownCommand: "unknown command"
        case .badFlags: "unknown command flag, or one that does not belong to this command"
        case .notNegotiated: "this was not negotiated in the handshake"
        case .tooLong: "the length exceeds the maximum payload"
        case .lengthZero: "the length is zero"
        case .notFast: "writing zeroes here would not be faster than an ordinary write"
        case .shuttingDown: "the server is shutting down"
        }
    }
}
