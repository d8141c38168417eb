/// Which logical blocks a disk has that was written by somebody who knew.
///
/// A partition table counts in blocks, and a file system does not mount on a disk whose blocks are larger than its own: what
/// was made on a disk with blocks of 512 bytes is lost to view on one with 4,096.
public enum BlockSize {
    /// So much of the disk's beginning is looked at.
    static let headBytes = 8192

    /// - Parameter head: the first `headBytes` of the disk, or less.
    /// - Returns: 512 or 4096 bytes; 4096 unless something asks for less.
    static func fitting(_ head: [UInt8]) -> UInt64 {
        if has(head, "EFI PART", at: 4096) { return 4096 }
        if has(head, "EFI PART", at: 512) || hasPartitionTable(head) { return 512 }
        if has(head, "XFSB", at: 0), head.count > 103 {
            return UInt64(head[102]) << 8 | UInt64(head[103]) < 4096 ? 512 : 4096
        }
        // s_magic, and s_log_block_size of which 2 stands for 4,096 bytes.
        if head.count > 1024 + 0x3A, head[1024 + 0x38] == 0x53, head[1024 + 0x39] == 0xEF {
            return head[1024 + 0x18] < 2 ? 512 : 4096
        }
        // The sector size of a FAT, exFAT or NTFS volume stands where their boot sector says.
        if has(head, "NTFS    ", at: 3) || has(head, "FAT", at: 54) || has(head, "FAT32", at: 82), head.count > 12 {
            return UInt64(head[11]) | UInt64(head[12]) << 8 < 4096 ? 512 : 4096
        }
        return 4096
    }

    private static func has(_ head: [UInt8], _ text: String, at offset: Int) -> Bool {
        let end = offset + text.utf8.count
        return head.count >= end && head[offset..<end].elementsEqual(text.utf8)
    }

    /// Of a PC: four entries of which each is active or not, and one has a type. A boot sector of a file system has
    /// code or text there.
    private static func hasPartitionTable(_ head: [UInt8]) -> Bool {
        guard head.count >= 512, head[510] == 0x55, head[511] == 0xAA else { return false }
        let entries = stride(from: 446, to: 510, by: 16)
        return entries.allSatisfy { head[$0] & 0x7F == 0 } && entries.contains { head[$0 + 4] != 0 }
    }
}
