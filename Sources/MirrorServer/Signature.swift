internal import CLibBlkid
internal import Glibc
internal import MirrorFormat

/// What foreign data a disk carries, as libblkid sees it.
enum Signature {
    /// Names the file system, partition table, RAID, LVM or ZFS member found; nil for a blank disk.
    static func find(on disk: Disk) throws(DiskError) -> String? {
        if let mark = try disk.spareMark() { return "a spare of mirror \(mark.name)" }
        return try foreign(on: disk)
    }

    /// The same, but for our own.
    static func foreign(on disk: Disk) throws(DiskError) -> String? {
        guard let probe = unsafe blkid_new_probe() else { throw DiskError("\(disk.path): libblkid has no memory") }
        defer { unsafe blkid_free_probe(probe) }
        // libblkid reads in pieces of its own; O_DIRECT would refuse them.
        let file = unsafe Glibc.open(disk.dataPath, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw DiskError("\(disk.dataPath): \(errorText(errno))") }
        defer { close(file) }
        // What can't be looked at may hold anything: it must not count as blank.
        guard disk.bytes > 0 else { return nil }
        guard unsafe blkid_probe_set_device(probe, file, 0, 0) == 0 else { throw unknown(disk, errno) }
        unsafe blkid_probe_enable_superblocks(probe, 1)
        unsafe blkid_probe_enable_partitions(probe, 1)
        let result = unsafe blkid_do_safeprobe(probe)
        if result == -2 { return "several signatures that contradict each other" }
        if result == 1 { return nil }
        guard result == 0 else { throw unknown(disk, errno) }
        if let type = unsafe value("TYPE", probe) {
            return "\(type)\(unsafe value("LABEL", probe).map { " (label \($0))" } ?? "")"
        }
        if let table = unsafe value("PTTYPE", probe) { return "a \(table) partition table" }
        return nil
    }

    private static func unknown(_ disk: Disk, _ number: Int32) -> DiskError {
        DiskError("\(disk.dataPath): can't be searched for file systems and the like: \(errorText(number))")
    }

    private static func value(_ name: String, _ probe: blkid_probe) -> String? {
        var data: UnsafePointer<CChar>?
        guard unsafe blkid_probe_lookup_value(probe, name, &data, nil) == 0, let data = unsafe data else {
            return nil
        }
        return unsafe String(cString: data)
    }
}
