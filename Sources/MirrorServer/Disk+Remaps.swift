internal import MirrorFormat

/// The remap table of a disk, for start-up and commands.
extension Disk {
    /// Nil: its superblock says that it has none.
    func remaps(of superblock: Superblock) -> RemapTable? {
        guard superblock.isRemapped else { return nil }
        let layout = superblock.layout
        var table = RemapTable(layout)
        for page in 0..<table.pageCount {
            let copies = (0...1).map { patientRead(layout.remapPageOffset(copy: $0, page: page)) }
            let (first, second) = (copies[0], copies[1])
            table.take(
                page: page, unsafe first.span.bytes, unsafe second.span.bytes, plex: superblock.plex,
                blocks: layout.dataBytes / Layout.blockBytes)
        }
        return table
    }

    /// No bytes: it can't be read, thrice. Without the table nobody knows what lies where.
    private func patientRead(_ offset: UInt64) -> [UInt8] {
        for _ in 0..<3 {
            if let bytes = try? read(at: offset, count: RemapTable.pageBytes) { return bytes }
        }
        return []
    }
}
