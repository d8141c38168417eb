internal import MirrorFormat

/// Hot spares, as they lie on disks.
extension Disk {
    /// Whose spare this disk is; nil: nobody's. All copies must say so: where one is missing a superblock went over it,
    /// somebody has used the disk for something else, or it is bad.
    func spareMark() throws(DiskError) -> SpareMark? {
        guard Layout.usableBytes(ofDisk: bytes) >= Layout.superblockAreaBytes else { return nil }
        var found: SpareMark?
        for copy in 0..<Layout.superblockCopies {
            let block = try read(
                at: Layout.superblockOffset(copy: copy, diskBytes: bytes), count: SpareMark.byteCount)
            guard let mark = SpareMark(decoding: unsafe block.span.bytes), mark.diskBytes == bytes,
                found == nil || found == mark
            else { return nil }
            found = mark
        }
        return found
    }

    /// Durably. What lay on the disk is gone as far as anybody could know it again: a spare that holds something is no
    /// spare, for it has been used since.
    func makeSpare(_ mark: SpareMark) throws(DiskError) {
        try write(mark)
        guard try Signature.foreign(on: self) != nil else { return }
        try clear(0, min(1 << 20, bytes / 2 / Layout.blockBytes * Layout.blockBytes))
        try flush()
        if let signature = try Signature.foreign(on: self) {
            try wipeSpareMark()
            throw DiskError("\(path): holds \(signature), and that can't be removed; clear it first (wipefs)")
        }
    }

    private func write(_ mark: SpareMark) throws(DiskError) {
        var block = [UInt8](repeating: 0, count: SpareMark.byteCount)
        do {
            var span = block.mutableSpan
            var bytes = unsafe span.mutableBytes
            mark.encode(into: &bytes)
        }
        try writeCopies(block)
    }

    func wipeSpareMark() throws(DiskError) { try writeCopies([UInt8](repeating: 0, count: SpareMark.byteCount)) }

    private func writeCopies(_ block: [UInt8]) throws(DiskError) {
        for copy in 0..<Layout.superblockCopies {
            try write(block, at: Layout.superblockOffset(copy: copy, diskBytes: bytes))
        }
        try flush()
    }
}
