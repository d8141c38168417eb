internal import MirrorFormat

/// The remap table of a disk, for start-up and commands.
extension Disk {
    /// Nil: its superblock says that it has none.
    func remaps(of superblock: Superblock) -> RemapTable? {
        guard superblock.isRemapped else { return nil }
        let layout = superblock.layout
        var table = RemapTable(layout)
        for page in 0..<table.pageCount {
            let copies = (0...1).map {
                (try? read(at: layout.remapPageOffset(copy: $0, page: page), count: RemapTable.pageBytes)) ?? []
            }
            let (first, second) = (copies[0], copies[1])
            table.take(
                page: page, unsafe first.span.bytes, unsafe second.span.bytes, plex: superblock.plex,
                blocks: layout.dataBytes / Layout.blockBytes)
        }
        return table
    }
}
