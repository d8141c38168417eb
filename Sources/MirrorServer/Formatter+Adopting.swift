internal import Glibc
internal import MirrorFormat

/// `create --from`: a disk whose data stay where they are, at offset 0, byte for byte.
///
/// A file is made longer, and all that was in it becomes the mirror: nothing in it has to move, not even a partition table
/// that keeps a copy of itself at the end. A device can't be made longer: what is on it must end before the metadata begin, or
/// they go into a file elsewhere, see `Disk.MetadataFile`.
extension MirrorFormatter {
    /// How large the mirror is to be.
    func sizeOfKept(_ open: [String: Disk]) throws(DiskError) -> UInt64 {
        guard let disk = open[disks[0]] else {
            throw DiskError("\(disks[0]): does not exist; --from wants a disk with data")
        }
        let size = try disk.isBlockDevice ? sizeOnDevice(disk, capacity: capacity(disk)) : sizeInFile(disk)
        for path in disks.dropFirst() {
            guard let other = open[path] else { continue }
            let capacity =
                Layout.capacity(ofDisk: other.bytes, regionBytes: regionBytes, spareBytes: spareBytes) ?? 0
            guard capacity >= size else {
                throw DiskError(
                    "\(path): is too small: it can carry \(capacity) bytes beside the metadata, the data of \(disk.path) are \(size)"
                )
            }
        }
        return size
    }

    private func sizeInFile(_ disk: Disk) throws(DiskError) -> UInt64 {
        let whole = (disk.bytes + Layout.blockBytes - 1) & ~(Layout.blockBytes - 1)
        guard whole >= Layout.minimumDataBytes else {
            throw DiskError("\(disk.path): has \(disk.bytes) bytes; a mirror has at least 1 MiB")
        }
        guard let sizeBytes else { return whole }
        try checkSize(sizeBytes, disk.path, capacity: .max)
        guard sizeBytes >= disk.bytes else {
            throw DiskError("--size \(sizeBytes): \(disk.path) has \(disk.bytes) bytes, and all of them are kept")
        }
        return sizeBytes
    }

    /// What the mirror may use of a device.
    private func capacity(_ disk: Disk) throws(DiskError) -> UInt64 {
        let capacity =
            metadataFile == nil
            ? Layout.capacity(ofDisk: disk.bytes, regionBytes: regionBytes, spareBytes: spareBytes)
            : Layout.usableBytes(ofDisk: disk.bytes)
        guard let capacity, capacity >= Layout.minimumDataBytes else {
            throw DiskError("\(disk.path): is too small for data and metadata")
        }
        return capacity
    }

    private func sizeOnDevice(_ disk: Disk, capacity: UInt64) throws(DiskError) -> UInt64 {
        let contents = try Contents.find(on: disk)
        if let contents, contents.endBytes > capacity {
            let text = "\(disk.path): holds \(contents.name) that reaches to byte \(contents.endBytes); "
            throw DiskError(
                text
                    + (metadataFile == nil
                        ? "the metadata begin at \(capacity): \(contents.endBytes - capacity) bytes are missing. Put them into a file on another disk with --metadata FILE, shrink what is on it, or copy it to a larger disk first"
                        : "the disk ends at \(capacity), in blocks of 4096 bytes; shrink what is on it by \(contents.endBytes - capacity) bytes")
            )
        }
        guard let sizeBytes else {
            guard contents != nil || metadataFile != nil else {
                let what = try Signature.find(on: disk).map { "holds \($0), and" } ?? "holds what is not known here:"
                throw DiskError(
                    "\(disk.path): \(what) nothing on it says how far its data reach; say so with --size, at most \(capacity)"
                )
            }
            return capacity
        }
        try checkSize(sizeBytes, disk.path, capacity: capacity)
        if let contents, contents.endBytes > sizeBytes { throw tooSmall(disk, sizeBytes, contents.endBytes) }
        return sizeBytes
    }

    private func tooSmall(_ disk: Disk, _ size: UInt64, _ needed: UInt64) -> DiskError {
        DiskError("--size \(size): the data on \(disk.path) reach to byte \(needed), \(needed - size) bytes more")
    }

    /// Makes the kept file longer; the metadata go behind its data.
    func makeRoom(_ plan: Plan, _ open: inout [String: Disk]) throws(DiskError) {
        guard var disk = open[plan.path] else { return }
        if let metadataFile = plan.metadataFile {
            // Up to the next whole block.
            if disk.bytes < plan.dataBytes, !disk.isBlockDevice {
                guard ftruncate(disk.file, off_t(plan.dataBytes)) == 0 else {
                    throw DiskError("\(plan.path): can't be made \(plan.dataBytes) bytes long: \(errorText(errno))")
                }
                disk.bytes = plan.dataBytes
            }
            open[plan.path] = try disk.withNewMetadataFile(
                metadataFile, dataBytes: plan.dataBytes, wholeBytes: plan.diskBytes)
            return
        }
        guard disk.bytes < plan.diskBytes else { return }
        let tail = plan.areas.map(\.offset).min() ?? plan.dataBytes
        try Disk.setLength(of: disk.file, plan.path, bytes: plan.diskBytes, allocatedFrom: tail)
        // Its size is read when it is opened, and its lock must not be let go in between.
        open[plan.path]?.bytes = plan.diskBytes
    }

    /// It was not adopted after all.
    static func giveBackRoom(_ disk: Disk, _ plan: Plan) {
        if disk.metadata != nil { unsafe unlink(disk.path) }
        guard let old = plan.keptBytes, !disk.isBlockDevice else { return }
        _ = ftruncate(disk.file, off_t(old))
    }
}
