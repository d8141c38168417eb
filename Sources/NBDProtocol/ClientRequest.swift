/// The commands this server knows, with their numbers on the wire. DISC (2) is not among them, for it is no
/// request: nothing answers it.
package enum Command: UInt16, Sendable, BitwiseCopyable, CaseIterable {
    case read = 0
    case write = 1
    case flush = 3
    case trim = 4
    case cache = 5
    case writeZeroes = 6
    case blockStatus = 7
}

package struct CommandFlags: OptionSet, Sendable, BitwiseCopyable {
    package var rawValue: UInt16

    package init(rawValue: UInt16) { self.rawValue = rawValue }

    /// On every command: no reply before the data is on non-volatile storage.
    package static let fua = CommandFlags(rawValue: 1 << 0)
    /// WRITE_ZEROES: the range must stay fully provisioned.
    package static let noHole = CommandFlags(rawValue: 1 << 1)
    /// READ: at most one content chunk.
    package static let df = CommandFlags(rawValue: 1 << 2)
    /// BLOCK_STATUS: exactly one extent.
    package static let reqOne = CommandFlags(rawValue: 1 << 3)
    /// WRITE_ZEROES: be faster than a write, or answer ENOTSUP with nothing changed.
    package static let fastZero = CommandFlags(rawValue: 1 << 4)
}

/// A request the engine may carry out: its range lies inside the export and its flags belong to the command.
package struct ClientRequest: Sendable, BitwiseCopyable, Equatable {
    package var command: Command
    /// Opaque; goes back in the reply.
    package var cookie: UInt64
    /// Zero for FLUSH, whatever the client sent.
    package var offset: UInt64
    /// In bytes. Zero for FLUSH; may be zero for every other command but BLOCK_STATUS, to be answered with success.
    package var length: UInt32
    package var flags: CommandFlags
    /// Follows the 28 bytes of the header. Equal to `length` for WRITE, else zero.
    package var payloadBytes: UInt32

    package init(
        command: Command, cookie: UInt64, offset: UInt64, length: UInt32, flags: CommandFlags, payloadBytes: UInt32
    ) {
        self.command = command
        self.cookie = cookie
        self.offset = offset
        self.length = length
        self.flags = flags
        self.payloadBytes = payloadBytes
    }
}

/// A request to be answered with an error at once; the connection stays usable.
package struct RefusedRequest: Sendable, BitwiseCopyable, Equatable {
    package var cookie: UInt64
    /// As on the wire, for it may be no `Command`.
    package var commandCode: UInt16
    package var isRead: Bool
    package var error: NBDError
    package var reason: RefusalReason
    /// Follows the header, to be consumed and thrown away.
    package var payloadBytes: UInt32
}

/// What the first bytes of the transmission stream are. Header: `ParsedRequest.headerBytes`.
package enum ParsedRequest: Sendable, BitwiseCopyable, Equatable {
    /// Bytes of a request without its payload.
    package static let headerBytes = 28

    case incomplete
    /// The stream is out of step: close.
    case badMagic
    /// A WRITE too long to be worth consuming: close, write nothing.
    case oversizedWrite
    case request(ClientRequest)
    case refused(RefusedRequest)
    /// DISC: finish what is under way, close, answer nothing.
    case disconnect
}
