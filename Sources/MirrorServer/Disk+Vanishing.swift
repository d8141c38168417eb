internal import Glibc

extension Disk {
    /// Deleted, cut off, or pulled. Of a file system that may hang nothing is asked.
    var hasVanished: Bool {
        if channel.hasVanished(shorterThan: min(bytes, channel.end)) { return true }
        guard let metadata else { return false }
        return metadata.channel.hasVanished(shorterThan: bytes - metadata.channel.base)
    }
}

extension DiskChannel {
    /// A block device that was taken out of the machine while it was open. Its open file answers a read with nothing, a
    /// write with ENOSPC and a flush with EIO; what tells is that it has no size any more.
    var isPulled: Bool { isBlockDevice && lseek(file, 0, SEEK_END) == 0 }

    fileprivate func hasVanished(shorterThan bytes: UInt64) -> Bool {
        guard !mayHang else { return false }
        if isBlockDevice { return lseek(file, 0, SEEK_END) < off_t(bytes) }
        var information = stat()
        guard unsafe fstat(file, &information) == 0 else { return false }
        return information.st_nlink == 0 || UInt64(information.st_size) < bytes
    }
}
