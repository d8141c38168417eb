/// LIST_META_CONTEXT and SET_META_CONTEXT. The only context is `base:allocation`. Data of both:
///
///     offset  bytes
///     0       4      bytes of the export name, n
///     4       n      export name; empty for the default export
///     4+n     4      number of queries
///     8+n            queries: length (4), text
extension Session {
    /// Any number but 0, which LIST_META_CONTEXT sends because its ids mean nothing.
    static var allocationID: UInt32 { 1 }

    func listMetaContext(
        _ data: OptionReader, catalog: ExportCatalog, output: inout [UInt8]
    ) throws(OptionFault) {
        let (_, queries) = try readQueries(data, catalog: catalog)
        let isWanted =
            queries.isEmpty
            || queries.contains {
                $0.utf8.elementsEqual("base:".utf8) || Self.isAllocation($0)
            }
        if isWanted {
            output.appendMetaContextReply(
                id: 0, name: BlockStatus.contextName, to: OptionCode.listMetaContext.rawValue)
        }
        output.appendReply(.ack, to: OptionCode.listMetaContext.rawValue)
    }

    /// The caller has forgotten the former set already, for this replaces it also when it fails. Whatever is not
    /// exactly `base:allocation` selects nothing and is no error; selecting twice selects once.
    mutating func setMetaContext(
        _ data: OptionReader, catalog: ExportCatalog, output: inout [UInt8]
    ) throws(OptionFault) {
        let (name, queries) = try readQueries(data, catalog: catalog)
        if queries.contains(where: Self.isAllocation) {
            contextExportName = name
            output.appendMetaContextReply(
                id: Self.allocationID, name: BlockStatus.contextName, to: OptionCode.setMetaContext.rawValue)
        }
        output.appendReply(.ack, to: OptionCode.setMetaContext.rawValue)
    }

    private static func isAllocation(_ query: String) -> Bool {
        query.utf8.elementsEqual(BlockStatus.contextName.description.utf8)
    }

    private func readQueries(
        _ data: OptionReader, catalog: ExportCatalog
    ) throws(OptionFault) -> (exportName: String, queries: [String]) {
        var data = data
        let name = try data.nextText(maximumBytes: limits.maximumNameBytes)
        let count = try data.nextInteger(as: UInt32.self)
        // Each query takes four bytes at least, so a count that lies is found out before the loop.
        guard count <= data.remainingBytes / 4 else { throw .truncated }
        guard count <= limits.maximumQueries else { throw .tooManyQueries }
        var queries: [String] = []
        for _ in 0..<count {
            queries.append(try data.nextText(maximumBytes: limits.maximumNameBytes))
        }
        try data.expectEnd()
        guard structuredReplies else { throw .notStructured }
        guard catalog.find(name) != nil else { throw .unknownExport }
        return (name, queries)
    }
}
