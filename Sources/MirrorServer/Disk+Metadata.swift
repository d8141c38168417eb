internal import Glibc
internal import MirrorFormat

extension Disk {
    /// Makes a plain disk of a plex: no superblock remains, and a file ends where its data end. A metadata file is removed.
    ///
    /// The older pair of superblock copies goes first: if power fails in between, what is left is the newest state, and the
    /// disk is the mirror that it was.
    ///
    /// - Throws: `DiskError`; the disk may then still carry the mirror.
    func wipeMetadata(behind dataBytes: UInt64) throws(DiskError) {
        let superblock = try superblock()
        // The next update would overwrite the older pair.
        for sequence in [superblock.sequence + 1, superblock.sequence] {
            let pair = Superblock.copies(ofSequence: sequence)
            for copy in [pair.0, pair.1] {
                try clear(Layout.superblockOffset(copy: copy, diskBytes: bytes), Layout.blockBytes)
            }
            try flush()
        }
        if metadata != nil {
            // Nothing lies on the disk but its data.
            _ = removeMetadataFile()
            return
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

    /// Makes a file that is sparse but for its tail. What went wrong leaves none.
    ///
    /// - Parameter advice: behind what is said of a length that can't be had.
    static func create(
        _ path: String, bytes: UInt64, allocatedFrom tail: UInt64, advice: String = ""
    ) throws(DiskError) {
        let file = unsafe Glibc.open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw DiskError("\(path): can't be created: \(errorText(errno))") }
        defer { close(file) }
        do throws(DiskError) {
            try setLength(of: file, path, bytes: bytes, allocatedFrom: tail, advice: advice)
        } catch {
            unsafe unlink(path)
            throw error
        }
    }

    /// Full length, and the tail allocated: metadata must never meet ENOSPC.
    static func setLength(
        of file: Int32, _ path: String, bytes: UInt64, allocatedFrom tail: UInt64, advice: String = ""
    ) throws(DiskError) {
        guard ftruncate(file, off_t(bytes)) == 0 else {
            throw DiskError("\(path): can't be made \(bytes) bytes long: \(errorText(errno))\(advice)")
        }
        let number = posix_fallocate(file, off_t(tail), off_t(bytes - tail))
        guard number == 0 else {
            throw DiskError("\(path): can't get space for its metadata: \(errorText(number))")
        }
    }

    /// Writes zeroes; durable only after `flush`.
    func clear(_ offset: UInt64, _ length: UInt64) throws(DiskError) {
        var position = offset
        while position < offset + length {
            let count = min(1 << 20, offset + length - position)
            try write([UInt8](repeating: 0, count: Int(count)), at: position)
            position += count
        }
    }
}
