internal import Bytes

/// The server's side of one NBD connection, without the connection: bytes in, decisions out.
///
///     begin -> handshake (until `phase` changes) -> parse (for each request)
///
/// Legal scenarios of the handshake:
///
///     clientFlags -> option -> option ... -> GO or EXPORT_NAME   transmission
///                                         -> ABORT               closing, after an ACK
///                                         -> violation           closing
///     option -> skipping -> option        option data beyond `maximumOptionBytes`: thrown away, then answered
///
/// Source: `doc/proto.md`, "Protocol phases". Fixed newstyle only; no TLS, no extended headers.
package struct Session: ~Copyable {
    package enum Phase: Sendable {
        case handshake
        case transmission
        /// Send what is in the output, then close.
        case closing
    }

    /// What the next bytes of the handshake are.
    enum Step {
        case clientFlags
        case option
        /// `remainingBytes` of data of `option` to be thrown away, and what to answer then.
        case skipping(remainingBytes: Int, option: UInt32, fault: OptionFault)
    }

    let limits: SessionLimits
    package internal(set) var phase = Phase.handshake
    /// What was chosen by GO or EXPORT_NAME; nil before. Fixed from then on, whatever happens to the catalog.
    package internal(set) var export: ExportDescription?
    package internal(set) var structuredReplies = false
    /// Id of `base:allocation` if it was selected for the export in use.
    package internal(set) var allocationContextID: UInt32?

    var step = Step.clientFlags
    /// The client does without the 124 zeroes after EXPORT_NAME.
    var omitsZeroes = false
    /// The name as the client gave it when it last selected `base:allocation`; nil if it is not selected.
    var contextExportName: String?
    var rules = RequestRules()
    private var optionCount = 0
    private var replyBytes = 0

    package init(limits: SessionLimits) {
        precondition(limits.maximumPayloadBytes >= limits.preferredBlockBytes)
        self.limits = limits
    }

    /// A session that another server has shaken hands for.
    package init(
        resuming export: ExportDescription, structuredReplies: Bool, hasAllocationContext: Bool, limits: SessionLimits
    ) {
        self.init(limits: limits)
        self.structuredReplies = structuredReplies
        if hasAllocationContext { contextExportName = export.name }
        enterTransmission(export, name: export.name)
    }

    /// Appends the greeting, to be sent at once after accept:
    ///
    ///     offset  bytes
    ///     0       8      `NBDMAGIC`
    ///     8       8      `IHAVEOPT`
    ///     16      2      handshake flags: FIXED_NEWSTYLE, NO_ZEROES
    package mutating func begin(output: inout [UInt8]) {
        precondition(phase == .handshake)
        output.appendBigEndian(Magic.greeting)
        output.appendBigEndian(Magic.option)
        output.appendBigEndian(HandshakeFlags.fixedNewstyle | HandshakeFlags.noZeroes)
    }

    /// Consumes as much of the handshake as `bytes` holds and appends the replies to `output`.
    ///
    /// Never needs more than `maximumOptionBytes` + 16 bytes at a time: longer option data is consumed in
    /// whatever pieces it comes. Stops when `phase` leaves `.handshake`; in `.transmission` the bytes that are
    /// left belong to `parse`.
    ///
    /// - Parameters:
    ///   - catalog: the exports of this moment.
    ///   - shuttingDown: every option but ABORT is answered with ERR_SHUTDOWN.
    /// - Returns: the number of bytes consumed. The rest has to be given again, with more behind it.
    package mutating func handshake(
        _ bytes: RawSpan, catalog: ExportCatalog, shuttingDown: Bool, output: inout [UInt8]
    ) -> Int {
        var consumed = 0
        while phase == .handshake {
            let outputBefore = output.count
            let rest = bytes.extracting(droppingFirst: consumed)
            let progress =
                switch step {
                case .clientFlags: takeClientFlags(rest)
                case .option: takeOption(rest, catalog: catalog, shuttingDown: shuttingDown, output: &output)
                case .skipping(let remainingBytes, let option, let fault):
                    skip(rest, remainingBytes: remainingBytes, option: option, fault: fault, output: &output)
                }
            consumed += progress
            replyBytes += output.count - outputBefore
            if progress == 0 { break }
        }
        return consumed
    }

    /// 32 bits; only FIXED_NEWSTYLE and NO_ZEROES are known. A client without FIXED_NEWSTYLE may only use
    /// EXPORT_NAME, but nothing is gained by holding it to that.
    private mutating func takeClientFlags(_ bytes: RawSpan) -> Int {
        guard bytes.byteCount >= 4 else { return 0 }
        let flags = bytes.loadBigEndian(at: 0, as: UInt32.self)
        let known = UInt32(HandshakeFlags.fixedNewstyle | HandshakeFlags.noZeroes)
        guard flags & ~known == 0 else {
            phase = .closing
            return 4
        }
        omitsZeroes = flags & UInt32(HandshakeFlags.noZeroes) != 0
        step = .option
        return 4
    }

    /// Takes one option with its data, or the header alone of one whose data will be skipped:
    ///
    ///     offset  bytes
    ///     0       8      `IHAVEOPT`
    ///     8       4      option
    ///     12      4      bytes of data
    ///     16             data
    private mutating func takeOption(
        _ bytes: RawSpan, catalog: ExportCatalog, shuttingDown: Bool, output: inout [UInt8]
    ) -> Int {
        if bytes.byteCount >= 8 && bytes.loadBigEndian(at: 0, as: UInt64.self) != Magic.option {
            // Out of step, or no NBD client at all: nothing it could be told would be understood.
            phase = .closing
        }
        guard phase == .handshake && bytes.byteCount >= 16 else { return 0 }
        let option = bytes.loadBigEndian(at: 8, as: UInt32.self)
        let dataBytes = Int(bytes.loadBigEndian(at: 12, as: UInt32.self))
        guard optionCount < limits.maximumOptions && replyBytes < limits.maximumReplyBytes else {
            output.appendReply(.tooManyOptions, to: option)
            phase = .closing
            return 16
        }
        guard dataBytes <= limits.maximumOptionBytes else {
            optionCount += 1
            startSkipping(option, dataBytes: dataBytes, shuttingDown: shuttingDown, output: &output)
            return 16
        }
        guard bytes.byteCount - 16 >= dataBytes else { return 0 }
        optionCount += 1
        let data = bytes.extracting(16..<16 + dataBytes)
        answer(option, data: data, catalog: catalog, shuttingDown: shuttingDown, output: &output)
        return 16 + dataBytes
    }

    /// Decides about an option whose data is too long to be looked at. Nothing is set aside for it: the length is
    /// only a claim.
    private mutating func startSkipping(
        _ option: UInt32, dataBytes: Int, shuttingDown: Bool, output: inout [UInt8]
    ) {
        guard let fault = refuseUnread(option, shuttingDown: shuttingDown, output: &output) else { return }
        if dataBytes > limits.maximumSkippedBytes {
            output.appendReply(fault, to: option)
            phase = .closing
        } else {
            step = .skipping(remainingBytes: dataBytes, option: option, fault: fault)
        }
    }

    /// - Returns: the number of bytes thrown away.
    private mutating func skip(
        _ bytes: RawSpan, remainingBytes: Int, option: UInt32, fault: OptionFault, output: inout [UInt8]
    ) -> Int {
        let skipped = min(bytes.byteCount, remainingBytes)
        if skipped < remainingBytes {
            step = .skipping(remainingBytes: remainingBytes - skipped, option: option, fault: fault)
        } else {
            output.appendReply(fault, to: option)
            step = .option
        }
        return skipped
    }
}
