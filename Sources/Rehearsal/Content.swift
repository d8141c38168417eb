internal import Bytes
internal import CLibBlkid

/// What lies in a partition, or on a disk without any, as libblkid names it.
struct Content: Equatable {
    /// `ext4`, `xfs`, `vfat`, `swap`, `LVM2_member`, ...
    var type: String
    var label: String?

    static let contradictory = "several kinds at once"

    /// - Returns: nil if nothing is known there.
    static func find(on disk: DiskFile, offset: UInt64, count: UInt64) -> Content? {
        guard count >= FileSystemCheck.headBytes, let probe = unsafe blkid_new_probe() else { return nil }
        defer { unsafe blkid_free_probe(probe) }
        guard unsafe blkid_probe_set_device(probe, disk.file, blkid_loff_t(offset), blkid_loff_t(count)) == 0 else {
            return nil
        }
        unsafe blkid_probe_enable_superblocks(probe, 1)
        unsafe blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL)
        let result = unsafe blkid_do_safeprobe(probe)
        if result == -2 { return Content(type: contradictory) }
        guard result == 0, let type = unsafe value("TYPE", probe) else { return nil }
        return Content(type: printable(type), label: unsafe value("LABEL", probe).map { printable($0) })
    }

    private static func value(_ name: String, _ probe: blkid_probe) -> String? {
        var data: UnsafePointer<CChar>?
        guard unsafe blkid_probe_lookup_value(probe, name, &data, nil) == 0, let data = unsafe data else { return nil }
        return unsafe String(cString: data)
    }

    var text: String { label.map { "\(type) (label \($0))" } ?? type }
}
