internal import Bytes

/// The options, one function each. Every option is answered completely before the next one is looked at.
extension Session {
    /// Answers one option whose data is complete.
    mutating func answer(
        _ code: UInt32, data: RawSpan, catalog: ExportCatalog, shuttingDown: Bool, output: inout [UInt8]
    ) {
        let option = OptionCode(rawValue: code)
        // Replaces the former set also when it fails, and it may fail before it is looked at.
        if option == .setMetaContext { contextExportName = nil }
        do throws(OptionFault) {
            switch option {
            case .exportName:
                takeExportName(data, catalog: catalog, shuttingDown: shuttingDown, output: &output)
            case .abort:
                acknowledgeAbort(output: &output)
            case .list, .startTLS, .info, .go, .structuredReply, .listMetaContext, .setMetaContext, .extendedHeaders,
                nil:
                guard !shuttingDown else { throw .shuttingDown }
                try negotiate(option, data: OptionReader(data), catalog: catalog, output: &output)
            }
        } catch {
            output.appendReply(error, to: code)
        }
    }

    /// Decides about an option whose data will not be looked at.
    ///
    /// - Returns: what to answer once the data is out of the way; nil if the session is over.
    mutating func refuseUnread(_ code: UInt32, shuttingDown: Bool, output: inout [UInt8]) -> OptionFault? {
        let option = OptionCode(rawValue: code)
        if option == .setMetaContext { contextExportName = nil }
        switch option {
        case .exportName:
            phase = .closing
            return nil
        case .abort:
            acknowledgeAbort(output: &output)
            return nil
        case .list, .startTLS, .structuredReply, .extendedHeaders:
            return shuttingDown ? .shuttingDown : .dataNotAllowed
        case .info, .go, .listMetaContext, .setMetaContext:
            return shuttingDown ? .shuttingDown : .optionTooLong
        case nil:
            return shuttingDown ? .shuttingDown : .unsupported
        }
    }

    /// The options that may be answered with an error.
    private mutating func negotiate(
        _ option: OptionCode?, data: OptionReader, catalog: ExportCatalog, output: inout [UInt8]
    ) throws(OptionFault) {
        switch option {
        case .list:
            try list(data, catalog: catalog, output: &output)
        case .info:
            _ = try describe(.info, data: data, catalog: catalog, output: &output)
        case .go:
            let (export, name) = try describe(.go, data: data, catalog: catalog, output: &output)
            enterTransmission(export, name: name)
        case .structuredReply:
            guard data.remainingBytes == 0 else { throw .dataNotAllowed }
            structuredReplies = true
            output.appendReply(.ack, to: OptionCode.structuredReply.rawValue)
        case .listMetaContext:
            try listMetaContext(data, catalog: catalog, output: &output)
        case .setMetaContext:
            try setMetaContext(data, catalog: catalog, output: &output)
        case .startTLS, .extendedHeaders:
            guard data.remainingBytes == 0 else { throw .dataNotAllowed }
            throw .unsupported
        case .exportName, .abort, nil:
            throw .unsupported
        }
    }

    /// Any data is ignored. The client need not wait for the ACK.
    private mutating func acknowledgeAbort(output: inout [UInt8]) {
        output.appendReply(.ack, to: OptionCode.abort.rawValue)
        phase = .closing
    }

    private func list(
        _ data: OptionReader, catalog: ExportCatalog, output: inout [UInt8]
    ) throws(OptionFault) {
        guard data.remainingBytes == 0 else { throw .dataNotAllowed }
        for export in catalog.exports {
            output.appendServerReply(export, to: OptionCode.list.rawValue)
        }
        output.appendReply(.ack, to: OptionCode.list.rawValue)
    }

    /// EXPORT_NAME knows no error reply: whatever is wrong ends the session. Data: the name. Answer:
    ///
    ///     offset  bytes
    ///     0       8      size of the export
    ///     8       2      transmission flags
    ///     10      124    zeroes, unless the client does without
    private mutating func takeExportName(
        _ data: RawSpan, catalog: ExportCatalog, shuttingDown: Bool, output: inout [UInt8]
    ) {
        var reader = OptionReader(data)
        guard !shuttingDown,
            let name = try? reader.nextText(bytes: data.byteCount, maximumBytes: limits.maximumNameBytes),
            let export = catalog.find(name)
        else {
            phase = .closing
            return
        }
        output.appendBigEndian(export.sizeBytes)
        output.appendBigEndian(
            TransmissionFlags.offered(by: export, structuredReplies: structuredReplies).rawValue)
        if !omitsZeroes { output.append(contentsOf: repeatElement(0, count: 124)) }
        enterTransmission(export, name: name)
    }

    /// The answer to INFO and GO, which differ only in what follows. Data:
    ///
    ///     offset  bytes
    ///     0       4      bytes of the name, n
    ///     4       n      name; empty for the default export
    ///     4+n     2      number of information requests, k
    ///     6+n     2*k    information types; unknown ones are ignored
    private func describe(
        _ option: OptionCode, data: OptionReader, catalog: ExportCatalog, output: inout [UInt8]
    ) throws(OptionFault) -> (export: ExportDescription, name: String) {
        var data = data
        let name = try data.nextText(maximumBytes: limits.maximumNameBytes)
        let count = Int(try data.nextInteger(as: UInt16.self))
        var wanted: Set<InformationType> = [.export]
        for _ in 0..<count {
            if let type = InformationType(rawValue: try data.nextInteger(as: UInt16.self)) { wanted.insert(type) }
        }
        try data.expectEnd()
        guard let export = catalog.find(name) else { throw .unknownExport }
        if export.summary.isEmpty { wanted.remove(.description) }

        let flags = TransmissionFlags.offered(by: export, structuredReplies: structuredReplies)
        // In the order of their numbers, each at most once, however often it was asked for.
        for type in [InformationType.export, .name, .description, .blockSize] where wanted.contains(type) {
            output.appendInfoReply(type, about: export, flags: flags, limits: limits, to: option.rawValue)
        }
        output.appendReply(.ack, to: option.rawValue)
        return (export, name)
    }

    mutating func enterTransmission(_ export: ExportDescription, name: String) {
        self.export = export
        if let contextExportName, contextExportName.utf8.elementsEqual(name.utf8) {
            allocationContextID = Self.allocationID
        }
        rules = RequestRules(
            export: export, structuredReplies: structuredReplies,
            hasAllocationContext: allocationContextID != nil, maximumPayloadBytes: limits.maximumPayloadBytes)
        phase = .transmission
    }
}
