/// What a client may learn about an export before it asks for data.
package struct ExportDescription: Sendable, Equatable {
    /// Longest name or summary in UTF-8 bytes (`doc/proto.md`, "Strings").
    package static let maximumTextBytes = 4096

    package let name: String
    /// For people; sent in LIST and INFO. May be empty.
    package let summary: String
    package var sizeBytes: UInt64
    package var isReadOnly: Bool
    package var canFastZero: Bool
    package var isRotational: Bool

    /// - Precondition: `accepts(name:)` and `accepts(summary:)`, which whoever reads the configuration has to ask.
    package init(
        name: String, summary: String, sizeBytes: UInt64, isReadOnly: Bool, canFastZero: Bool, isRotational: Bool
    ) {
        precondition(Self.accepts(name: name) && Self.accepts(summary: summary))
        self.name = name
        self.summary = summary
        self.sizeBytes = sizeBytes
        self.isReadOnly = isReadOnly
        self.canFastZero = canFastZero
        self.isRotational = isRotational
    }

    /// An empty name is no name of an export: on the wire it asks for the default.
    package static func accepts(name: String) -> Bool {
        !name.isEmpty && accepts(summary: name)
    }

    package static func accepts(summary: String) -> Bool {
        summary.utf8.count <= maximumTextBytes && !summary.utf8.contains(0)
    }
}

/// The exports offered at this moment; may be another at the next option of the same client.
package struct ExportCatalog: Sendable {
    package var exports: [ExportDescription]
    /// What the empty name means; with nil the empty name is unknown.
    package var defaultName: String?

    package init(exports: [ExportDescription], defaultName: String?) {
        self.exports = exports
        self.defaultName = defaultName
    }

    /// Names are compared byte by byte. `==` of strings would let "e" + combining accent open the export whose
    /// name is written with the accented letter.
    package func find(_ name: String) -> ExportDescription? {
        guard let wanted = name.isEmpty ? defaultName : name else { return nil }
        return exports.first { $0.name.utf8.elementsEqual(wanted.utf8) }
    }
}
