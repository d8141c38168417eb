internal import Glibc
internal import MirrorFormat

extension Disk {
    /// Makes a plain disk of a plex: no superblock remains, and a file ends where its data end.
    ///
    /// The older pair of superblock copies goes first: if power fails in between, what is left is the newest state, and the
    /// disk is the mirror that it was.
    ///
    /// - Throws: `DiskError`; the disk may then still carry the mirror.
    func wipeMetadata(behind dataBytes: UInt64) throws(DiskError) {
        let superblock = try superblock()
        let newest = Superblock.copies(ofSequence: superblock.sequence)
        let older = (0..<Layout.superblockCopies).filter { $0 != newest.0 && $0 != newest.1 }
        for pair in [older, [newest.0, newest.1]] {
            for copy in pair { try clear(Layout.superblockOffset(copy: copy, diskBytes: bytes), Layout.blockBytes) }
            try flush()
        }
        guard isBlockDevice else {
            guard ftruncate(file, off_t(dataBytes)) == 0, fsync(file) == 0 else {
                throw DiskError("\(path): can't be made \(dataBytes) bytes long: \(errorText(errno))")
            }
            return
        }
        for area in superblock.layout.areas where area.kind != .sparePool { try clear(area.offset, area.length) }
        try flush()
    }

    private func clear(_ offset: UInt64, _ length: UInt64) throws(DiskError) {
        var position = offset
        while position < offset + length {
            let count = min(1 << 20, offset + length - position)
            try write([UInt8](repeating: 0, count: Int(count)), at: position)
            position += count
        }
    }
}
