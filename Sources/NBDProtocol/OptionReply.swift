internal import Bytes

/// Replies to options. Layout:
///
///     offset  bytes
///     0       8      magic 0x0003e889045565a9
///     8       4      the option answered
///     12      4      type
///     16      4      bytes of payload
///     20             payload
extension [UInt8] {
    mutating func appendReply(_ type: OptionReplyType, to option: UInt32, payload: [UInt8] = []) {
        appendBigEndian(Magic.optionReply)
        appendBigEndian(option)
        appendBigEndian(type.rawValue)
        appendBigEndian(UInt32(payload.count))
        append(contentsOf: payload)
    }

    mutating func appendReply(_ fault: OptionFault, to option: UInt32) {
        appendReply(fault.type, to: option, payload: [UInt8](text: fault.text))
    }

    /// Payload of SERVER: length of the name (4), name, and the summary to the end.
    mutating func appendServerReply(_ export: ExportDescription, to option: UInt32) {
        var payload: [UInt8] = []
        payload.appendBigEndian(UInt32(export.name.utf8.count))
        payload.append(contentsOf: export.name.utf8)
        payload.append(contentsOf: export.summary.utf8)
        appendReply(.server, to: option, payload: payload)
    }

    /// Payload of META_CONTEXT: id (4), name.
    mutating func appendMetaContextReply(id: UInt32, name: StaticString, to option: UInt32) {
        var payload: [UInt8] = []
        payload.appendBigEndian(id)
        payload.append(contentsOf: [UInt8](text: name))
        appendReply(.metaContext, to: option, payload: payload)
    }

    /// Payload of INFO: type (2), and
    ///
    ///     EXPORT       size (8), transmission flags (2)
    ///     NAME         the name
    ///     DESCRIPTION  the summary
    ///     BLOCK_SIZE   minimum (4), preferred (4), maximum payload (4)
    mutating func appendInfoReply(
        _ information: InformationType, about export: ExportDescription, flags: TransmissionFlags,
        limits: SessionLimits, to option: UInt32
    ) {
        var payload: [UInt8] = []
        payload.appendBigEndian(information.rawValue)
        switch information {
        case .export:
            payload.appendBigEndian(export.sizeBytes)
            payload.appendBigEndian(flags.rawValue)
        case .name: payload.append(contentsOf: export.name.utf8)
        case .description: payload.append(contentsOf: export.summary.utf8)
        case .blockSize:
            payload.appendBigEndian(limits.minimumBlockBytes)
            payload.appendBigEndian(limits.preferredBlockBytes)
            payload.appendBigEndian(limits.maximumPayloadBytes)
        }
        appendReply(.info, to: option, payload: payload)
    }
}
