internal import Bytes
internal import MirrorFormat

/// How far the file systems and partitions on a disk reach, so that no metadata is laid over their end.
///
/// Sources: UEFI 2.10, section 5.3 (GPT) and 5.2.1 (MBR); Linux `Documentation/filesystems/ext4/super.rst`; "XFS Algorithms &
/// Data Structures", superblocks; btrfs on-disk format, superblock; LVM2 `lib/format_text/layout.h`; `mkswap(8)`.
struct Contents {
    var name: String
    /// Of the first byte behind them.
    var endBytes: UInt64

    /// What libblkid calls those that are looked for here.
    private static let known = [
        "ext2", "ext3", "ext4", "xfs", "btrfs", "LVM2_member", "swap", "a gpt partition", "a dos partition",
    ]

    /// The one that reaches farthest; nil: nothing that is known here.
    static func find(on disk: Disk) throws(DiskError) -> Contents? {
        // Some of the boot sectors of other file systems look like partition tables.
        if let signature = try Signature.find(on: disk), !known.contains(where: { signature.hasPrefix($0) }) {
            return nil
        }
        let head = try disk.read(at: 0, count: Int(min(Layout.usableBytes(ofDisk: disk.bytes), 132 << 10)))
        return find(in: unsafe head.span.bytes, sectorBytes: disk.logicalSectorBytes)
    }

    /// - Parameters:
    ///   - head: the first bytes of a disk, 132 KiB or all there are.
    ///   - sectorBytes: the unit that an MBR counts in.
    static func find(in head: RawSpan, sectorBytes: UInt64 = 512) -> Contents? {
        let found = [gpt(head), mbr(head, sectorBytes), ext(head), xfs(head), btrfs(head), lvm(head), swap(head)]
            .compactMap { $0 }
        return found.max { $0.endBytes < $1.endBytes }
    }

    private static func gpt(_ head: RawSpan) -> Contents? {
        // "EFI PART" in the second logical sector, which has 512 or 4,096 bytes.
        for sector in [512, 4096] where has(head, sector + 92) {
            guard head.loadLittleEndian(at: sector, as: UInt64.self) == 0x5452_4150_2049_4645 else { continue }
            let backup: UInt64 = head.loadLittleEndian(at: sector + 32)
            let lastUsable: UInt64 = head.loadLittleEndian(at: sector + 48)
            return Contents("a GPT partition table", blocks: max(backup, lastUsable), of: UInt64(sector), plus: 1)
        }
        return nil
    }

    private static func mbr(_ head: RawSpan, _ sectorBytes: UInt64) -> Contents? {
        guard has(head, 512), head.loadLittleEndian(at: 510, as: UInt16.self) == 0xAA55 else { return nil }
        var end: UInt64 = 0
        for entry in 0..<4 {
            let base = 446 + entry * 16
            // Where it is neither active nor inactive this is no table, but the code or the texts of a boot sector.
            guard head.loadLittleEndian(at: base, as: UInt8.self) & 0x7F == 0 else { return nil }
            let type: UInt8 = head.loadLittleEndian(at: base + 4)
            // 0xEE stands for a GPT, and says less than that does.
            guard type != 0, type != 0xEE else { continue }
            let first: UInt32 = head.loadLittleEndian(at: base + 8)
            let count: UInt32 = head.loadLittleEndian(at: base + 12)
            end = max(end, UInt64(first) + UInt64(count))
        }
        // A boot sector alone, as FAT has one too, names no partition.
        return end == 0 ? nil : Contents("an MBR partition table", blocks: end, of: sectorBytes)
    }

    private static func ext(_ head: RawSpan) -> Contents? {
        let base = 1024
        guard has(head, base + 0x154), head.loadLittleEndian(at: base + 0x38, as: UInt16.self) == 0xEF53 else {
            return nil
        }
        let shift: UInt32 = head.loadLittleEndian(at: base + 0x18)
        guard shift <= 6 else { return nil }
        let incompatible: UInt32 = head.loadLittleEndian(at: base + 0x60)
        var blocks = UInt64(head.loadLittleEndian(at: base + 4, as: UInt32.self))
        // 64BIT
        if incompatible & 0x80 != 0 { blocks |= UInt64(head.loadLittleEndian(at: base + 0x150, as: UInt32.self)) << 32 }
        return Contents("an ext2, ext3 or ext4 file system", blocks: blocks, of: 1024 << UInt64(shift))
    }

    private static func xfs(_ head: RawSpan) -> Contents? {
        guard has(head, 16), head.loadBigEndian(at: 0, as: UInt32.self) == 0x5846_5342 else { return nil }  // "XFSB"
        let size: UInt32 = head.loadBigEndian(at: 4)
        return Contents("an XFS file system", blocks: head.loadBigEndian(at: 8), of: UInt64(size))
    }

    private static func btrfs(_ head: RawSpan) -> Contents? {
        let base = 64 << 10
        guard has(head, base + 0xD9), head.loadLittleEndian(at: base + 0x40, as: UInt64.self) == 0x4D5F_5366_5248_425F
        else { return nil }  // "_BHRfS_M"
        // Of this device, which may be one of several.
        return Contents("a btrfs file system", blocks: head.loadLittleEndian(at: base + 0xD1), of: 1)
    }

    private static func lvm(_ head: RawSpan) -> Contents? {
        for sector in 0..<4 where has(head, sector * 512 + 512) {
            let base = sector * 512
            // "LABELONE"
            guard head.loadLittleEndian(at: base, as: UInt64.self) == 0x454E_4F4C_4542_414C else { continue }
            let header = Int(head.loadLittleEndian(at: base + 20, as: UInt32.self))
            guard header >= 32, header <= 512 - 40 else { return nil }
            return Contents("an LVM physical volume", blocks: head.loadLittleEndian(at: base + header + 32), of: 1)
        }
        return nil
    }

    private static func swap(_ head: RawSpan) -> Contents? {
        // "SWAPSPAC" and "E2" at the end of the first page.
        guard has(head, 4096), head.loadLittleEndian(at: 4086, as: UInt64.self) == 0x4341_5053_5041_5753,
            head.loadLittleEndian(at: 4094, as: UInt16.self) == 0x3245
        else { return nil }
        let last: UInt32 = head.loadLittleEndian(at: 1028)
        return Contents("swap space", blocks: UInt64(last), of: 4096, plus: 1)
    }

    private static func has(_ head: RawSpan, _ count: Int) -> Bool { head.byteCount >= count }

    /// Nil for what no disk can be: a wrong guess must not pass for an end.
    private init?(_ name: String, blocks: UInt64, of bytes: UInt64, plus more: UInt64 = 0) {
        let (count, isTooMany) = blocks.addingReportingOverflow(more)
        let (end, isTooMuch) = count.multipliedReportingOverflow(by: bytes)
        guard !isTooMany, !isTooMuch, end > 0, end < 1 << 62 else { return nil }
        self.name = name
        endBytes = end
    }
}
