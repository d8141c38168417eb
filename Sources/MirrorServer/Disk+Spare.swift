internal import MirrorFormat

/// Hot spares, as they lie on disks.
extension Disk {
    /// Whose spare this disk is; nil: nobody's, or a superblock went over the mark. Any of the copies will do.
    func spareMark() throws(DiskError) -> SpareMark? {
        guard Layout.usableBytes(ofDisk: bytes) >= Layout.superblockAreaBytes else { return nil }
        for copy in 0..<Layout.superblockCopies {
            let block = try read(
                at: Layout.superblockOffset(copy: copy, diskBytes: bytes), count: SpareMark.byteCount)
            if let mark = SpareMark(decoding: unsafe block.span.bytes), mark.diskBytes == bytes { return mark }
        }
        return nil
    }

    /// Durably. Whatever was known of the disk's former life as a plex is gone.
    func write(_ mark: SpareMark) throws(DiskError) {
        var block = [UInt8](repeating: 0, count: SpareMark.byteCount)
        do {
            var span = block.mutableSpan
            var bytes = unsafe span.mutableBytes
            mark.encode(into: &bytes)
        }
        for copy in 0..<Layout.superblockCopies {
            try write(block, at: Layout.superblockOffset(copy: copy, diskBytes: bytes))
        }
        try flush()
    }

    func wipeSpareMark() throws(DiskError) {
        for copy in 0..<Layout.superblockCopies {
            try clear(Layout.superblockOffset(copy: copy, diskBytes: bytes), Layout.blockBytes)
        }
        try flush()
    }
}
