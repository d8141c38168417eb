internal import MirrorFormat

/// One disk of a mirror's story: its superblock copies, and what its data is worth.
struct StoryDisk {
    /// One of the four copies. Encoded only when it matters: most are overwritten before anyone reads them.
    enum Copy {
        case blank
        case whole(Superblock, serial: Int)
        /// What a write that was cut off left behind.
        case scrap(DiskImage.Block)
    }

    var plex: PlexUUID
    let layout: Layout
    var copies = Array(repeating: Copy.blank, count: Layout.superblockCopies)
    /// Of the last superblock update.
    var sequence: UInt64 = 0
    /// Acknowledged data is missing here.
    var lacks = false

    init(plex: PlexUUID, layout: Layout) {
        self.plex = plex
        self.layout = layout
    }

    /// What a server that starts now would find.
    var newest: (superblock: Superblock, serial: Int)? {
        var newest: (superblock: Superblock, serial: Int)?
        for case .whole(let superblock, let serial) in copies {
            if let other = newest, other.superblock.plex != superblock.plex { return nil }
            if superblock.sequence >= newest?.superblock.sequence ?? 0 { newest = (superblock, serial) }
        }
        return newest
    }

    /// - Parameter sectors: which of the eight reached the disk.
    mutating func write(_ superblock: Superblock, serial: Int, copy: Int, sectors: UInt8 = .max) {
        guard sectors != .max else {
            copies[copy] = .whole(superblock, serial: serial)
            return
        }
        let before = block(copy)
        let after = DiskImage.Block(DiskImage.Origin(superblock, copy: copy, serial: serial))
        var torn = before
        torn.tear(after, sectors: sectors)
        // Old and new may differ only where the new one landed, or only where it did not.
        if torn.bytes == after.bytes {
            copies[copy] = .whole(superblock, serial: serial)
        } else if torn.bytes != before.bytes {
            copies[copy] = .scrap(torn)
        }
    }

    private func block(_ copy: Int) -> DiskImage.Block {
        switch copies[copy] {
        case .blank: .blank
        case .whole(let superblock, let serial):
            DiskImage.Block(DiskImage.Origin(superblock, copy: copy, serial: serial))
        case .scrap(let block): block
        }
    }

    var image: DiskImage {
        var image = DiskImage(diskBytes: layout.diskBytes)
        for copy in copies.indices { image.blocks[copy] = block(copy) }
        return image
    }
}
