internal import Bytes
internal import CLinux
internal import Glibc
internal import MirrorCore
internal import MirrorFormat
internal import URing

/// Something is wrong with a disk, in words for its owner: which disk, what, what to do.
package struct DiskError: Error, CustomStringConvertible {
    package var description: String
    /// Somebody else works with the disk: going on without it would split the mirror.
    package var isInUse = false
    package init(_ description: String, isInUse: Bool = false) {
        self.description = description
        self.isInUse = isInUse
    }
}

/// What every operation on a disk needs of it.
struct DiskChannel: BitwiseCopyable {
    let file: Int32
    let isBlockDevice: Bool
    /// Whether RWF_DSYNC is known to be honoured; elsewhere a durable write is followed by fdatasync.
    let honoursDataSync: Bool
    /// On a file system whose server can fall silent, and that then blocks whoever begins an operation.
    let mayHang: Bool
    /// In main memory: a transfer is a copy, done sooner than it is handed to a thread of the kernel.
    let isMemory: Bool
    /// Where on the disk the file's first byte lies; offsets are those of the disk.
    var base: UInt64 = 0
    /// From here on another channel takes over, see `Disk.MetadataFile`.
    var end = UInt64.max
    var canPunch = true
    var canZeroRange = true

    /// Whether zeroing costs no more than a few metadata updates.
    var zeroesFast: Bool { canPunch && !isBlockDevice && honoursDataSync }
}

/// An open, locked file or block device that carries a plex.
struct Disk {
    /// What it is called by: of one with a metadata file the path of that.
    var path: String
    /// Of its data.
    var channel: DiskChannel
    /// With its metadata.
    var bytes: UInt64
    let isDirect: Bool
    /// Names the file itself, whatever path led to it.
    var identity: Identity
    /// Keeps the kernel, and servers that see the device under another node, away from a block device; -1: none.
    let claim: Int32
    /// Nil: data and metadata lie on the same disk.
    var metadata: MetadataFile?

    var file: Int32 { channel.file }
    var isBlockDevice: Bool { channel.isBlockDevice }

    struct Identity: Hashable {
        var device: UInt64
        var inode: UInt64

        init(_ information: stat) {
            let isBlockDevice = information.st_mode & S_IFMT == S_IFBLK
            device = isBlockDevice ? UInt64(information.st_rdev) : UInt64(information.st_dev)
            inode = isBlockDevice ? 0 : UInt64(information.st_ino)
        }
    }

    /// Of whatever lies at the path; nil if nothing does.
    static func identity(of path: String) -> Identity? {
        var information = stat()
        guard unsafe stat(path, &information) == 0 else { return nil }
        return Identity(information)
    }

    enum Access {
        case readOnly, readWrite
    }

    /// Opens and locks, with the disk that it names where it is a metadata file.
    ///
    /// - Parameter access: reading takes no lock, so that `examine` never disturbs a server.
    /// - Throws: `DiskError`, naming the disk and the reason.
    static func open(
        _ path: String, _ access: Access, patienceSeconds: Int = 0
    ) throws(DiskError) -> Disk {
        let disk = try openAlone(path, access, patienceSeconds: patienceSeconds)
        do throws(DiskError) {
            guard let header = try disk.metadataHeader() else { return disk }
            return try disk.joined(to: header, access, patienceSeconds: patienceSeconds)
        } catch {
            disk.shut()
            throw error
        }
    }

    static func openAlone(
        _ path: String, _ access: Access, patienceSeconds: Int = 0
    ) throws(DiskError) -> Disk {
        var information = stat()
        if unsafe stat(path, &information) == 0, information.st_mode & S_IFMT == S_IFIFO {
            // Opening it would wait for a writer.
            throw DiskError("\(path): is neither a file nor a block device")
        }
        let base = access == .readOnly ? O_RDONLY : O_RDWR
        var isDirect = true
        var file = unsafe Glibc.open(path, base | directFlag | O_CLOEXEC)
        if file < 0 {
            if errno != EINVAL { throw cannotOpen(path) }
            isDirect = false
            file = unsafe Glibc.open(path, base | O_CLOEXEC)
        } else if !takesDirect(file) {
            close(file)
            isDirect = false
            file = unsafe Glibc.open(path, base | O_CLOEXEC)
        }
        guard file >= 0 else { throw cannotOpen(path) }
        do throws(DiskError) {
            return try inspect(path, file: file, isDirect: isDirect, access, patienceSeconds: patienceSeconds)
        } catch {
            close(file)
            throw error
        }
    }

    /// Some file systems accept O_DIRECT when a file is opened and refuse each transfer afterwards.
    private static func takesDirect(_ file: Int32) -> Bool {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { unsafe memory.deallocate() }
        return unsafe pread(file, memory, 4096, 0) >= 0 || errno != EINVAL
    }

    private static func cannotOpen(_ path: String) -> DiskError {
        let number = errno
        let advice =
            switch number {
            case ENOENT: "check the path"
            case EACCES, EPERM, EROFS: "it must be readable and writable for this user"
            case EBUSY: "it is mounted or used by another program"
            case EISDIR: "a plex needs a file or a block device, this is a directory"
            default: "see errno(3)"
            }
        return DiskError("\(path): can't be opened: \(errorText(number)); \(advice)")
    }

    private static func inspect(
        _ path: String, file: Int32, isDirect: Bool, _ access: Access, patienceSeconds: Int
    ) throws(DiskError) -> Disk {
        var information = stat()
        guard unsafe fstat(file, &information) == 0 else { throw DiskError("\(path): \(errorText(errno))") }
        let kind = information.st_mode & S_IFMT
        guard kind == S_IFREG || kind == S_IFBLK else {
            throw DiskError("\(path): is neither a file nor a block device")
        }
        let isBlockDevice = kind == S_IFBLK
        let size = lseek(file, 0, SEEK_END)
        guard size >= 0 else { throw DiskError("\(path): its size can't be found: \(errorText(errno))") }
        var claim: Int32 = -1
        if access == .readWrite {
            try lock(path, file: file, patienceSeconds: patienceSeconds)
            if isBlockDevice { claim = try claimDevice(path) }
        }
        var system = statfs()
        let type = unsafe fstatfs(file, &system) == 0 ? UInt64(system.f_type) : 0
        let isKnown = Self.localFileSystems.contains(type)
        let channel = DiskChannel(
            file: file, isBlockDevice: isBlockDevice, honoursDataSync: isBlockDevice || isKnown,
            mayHang: !isBlockDevice && Self.remoteFileSystems.contains(type),
            isMemory: !isBlockDevice && type == Self.tmpfs)
        return Disk(
            path: path, channel: channel, bytes: UInt64(size), isDirect: isDirect, identity: Identity(information),
            claim: claim)
    }

    /// ext2/3/4, xfs, btrfs, tmpfs, f2fs: their write path honours RWF_DSYNC. Others, FUSE and network file
    /// systems above all, are not trusted with it.
    private static let localFileSystems: Set<UInt64> = [0xEF53, 0x5846_5342, 0x9123_683E, tmpfs, 0xF2F5_2010]
    private static let tmpfs: UInt64 = 0x0102_1994

    /// FUSE, NFS, SMB, SMB2, 9P, Ceph.
    private static let remoteFileSystems: Set<UInt64> = [
        0x6573_5546, 0x6969, 0xFF53_4D42, 0xFE53_4D42, 0x0102_1997, 0x00C3_6400,
    ]

    /// An open-file-description lock on the whole disk: it goes when the process goes, however it goes.
    ///
    /// After a kill it stays until the last operation that the kernel still has in flight is done, and so
    /// keeps a successor from working on a disk on which an old write may yet land; hence the patience.
    private static func lock(
        _ path: String, file: Int32, patienceSeconds: Int
    ) throws(DiskError) {
        var lock = flock()
        lock.l_type = Int16(F_WRLCK)
        lock.l_whence = Int16(SEEK_SET)
        let setLock: Int32 = 37  // F_OFD_SETLK, <fcntl.h>
        var attempts = patienceSeconds * 20
        while unsafe fcntl(file, setLock, &lock) != 0 {
            if errno == EAGAIN || errno == EACCES, attempts > 0 {
                attempts -= 1
                usleep(50_000)
                continue
            }
            if errno == EAGAIN || errno == EACCES {
                throw DiskError(
                    "\(path): is in use by another server; stop that one first (plexus stop)", isInUse: true)
            }
            throw DiskError("\(path): can't be locked: \(errorText(errno))")
        }
    }

    /// O_EXCL on a block device fails while it, or a partition of it, is mounted or claimed; and while we hold
    /// it nobody can mount it. The lock alone belongs to one device node: a container may have another.
    private static func claimDevice(_ path: String) throws(DiskError) -> Int32 {
        var attempts = 10
        while true {
            let claim = unsafe Glibc.open(path, O_RDONLY | O_EXCL | O_CLOEXEC)
            if claim >= 0 { return claim }
            if errno == EBUSY, attempts > 0 {
                // Perhaps only a look by udev, or a server that is just leaving.
                attempts -= 1
                usleep(50_000)
                continue
            }
            let text =
                errno == EBUSY
                ? "is in use by the kernel (mounted, or part of another array); free it first"
                : "can't be claimed: \(errorText(errno))"
            throw DiskError("\(path): \(text)", isInUse: true)
        }
    }

    func shut() {
        close(file)
        if claim >= 0 { close(claim) }
        if let metadata { close(metadata.channel.file) }
    }

    /// What partition tables on it count in; of a file what they nearly always do.
    var logicalSectorBytes: UInt64 {
        var bytes: Int32 = 0
        // BLKSSZGET of <linux/fs.h>
        guard isBlockDevice, unsafe ioctl(file, 0x1268, &bytes) == 0, bytes >= 512 else { return 512 }
        return UInt64(bytes)
    }

    // MARK: synchronous access, for start-up and commands

    /// Reads whole 4 KiB blocks.
    ///
    /// - Throws: `DiskError` on any error and on the end of the disk.
    func read(at offset: UInt64, count: Int) throws(DiskError) -> [UInt8] {
        let (file, start) = try place(offset, count)
        return try unsafe withAlignedMemory(count: count) { memory throws(DiskError) in
            var done = 0
            while done < count {
                let result = unsafe pread(file, memory + done, count - done, start + off_t(done))
                if result < 0, errno == EINTR { continue }
                guard result > 0 else {
                    let reason = result == 0 ? "the disk ends here" : errorText(errno)
                    throw DiskError("\(path): can't be read at \(offset + UInt64(done)): \(reason)")
                }
                done += result
            }
            return unsafe [UInt8](UnsafeRawBufferPointer(start: memory, count: count))
        }
    }

    /// Writes whole 4 KiB blocks; durable only after `flush`.
    func write(_ bytes: [UInt8], at offset: UInt64) throws(DiskError) {
        let (file, start) = try place(offset, bytes.count)
        try unsafe withAlignedMemory(count: bytes.count) { memory throws(DiskError) in
            unsafe bytes.withUnsafeBytes { source in
                if let start = source.baseAddress { unsafe memory.copyMemory(from: start, byteCount: bytes.count) }
            }
            var done = 0
            while done < bytes.count {
                let result = unsafe pwrite(file, memory + done, bytes.count - done, start + off_t(done))
                if result < 0, errno == EINTR { continue }
                guard result > 0 else {
                    throw DiskError("\(path): can't be written at \(offset + UInt64(done)): \(errorText(errno))")
                }
                done += result
            }
        }
    }

    func flush() throws(DiskError) {
        for file in [file, metadata?.channel.file ?? file] where fdatasync(file) != 0 {
            throw DiskError("\(path): can't be flushed: \(errorText(errno))")
        }
    }

    /// In which file a stretch of the disk lies, and where in it.
    private func place(_ offset: UInt64, _ count: Int) throws(DiskError) -> (file: Int32, start: off_t) {
        guard let metadata, offset + UInt64(count) > channel.end else { return (file, off_t(offset)) }
        guard offset >= channel.end else { throw DiskError("\(path): nothing reaches from data into metadata") }
        return (metadata.channel.file, off_t(offset - metadata.channel.base))
    }

    private func withAlignedMemory<Result>(
        count: Int, _ body: (UnsafeMutableRawPointer) throws(DiskError) -> Result
    ) throws(DiskError) -> Result {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: max(count, 1), alignment: 4096)
        defer { unsafe memory.deallocate() }
        return try unsafe body(memory)
    }
}

/// O_DIRECT of <fcntl.h>, which the C library shows only to GNU sources.
#if arch(arm64)
    private let directFlag: Int32 = 0o200000
#else
    private let directFlag: Int32 = 0o40000
#endif

extension Disk {
    /// Two paths may lead to one disk (links, device aliases); a mirror on it would be none.
    static func checkDistinct(_ paths: [String]) throws(DiskError) {
        var seen: [Identity: String] = [:]
        for path in paths {
            guard let identity = identity(of: path) else { continue }
            if let data = MetadataFile.dataPath(of: path), let other = Self.identity(of: data) {
                if seen[other] != nil || paths.contains(where: { $0 != path && Self.identity(of: $0) == other }) {
                    throw DiskError("\(data): is the disk whose metadata lie in \(path); name \(path) alone")
                }
                seen[other] = path
            }
            if let other = seen[identity] {
                throw DiskError(
                    other == path
                        ? "\(path): is named twice; name each disk once"
                        : "\(path): is the same disk as \(other); name each disk once")
            }
            seen[identity] = path
        }
    }
}

func errorText(_ number: Int32) -> String { unsafe String(cString: strerror(number)) }

/// What a disk says of itself: superblocks and the end of the event log.
extension Disk {
    func scan() throws(DiskError) -> SuperblockScan {
        let area = try superblockArea()
        return SuperblockScan.scan(area: unsafe area.span.bytes, diskBytes: bytes)
    }

    func superblockCopies() throws(DiskError) -> SuperblockCopies {
        let area = try superblockArea()
        return SuperblockScan.copies(area: unsafe area.span.bytes, diskBytes: bytes)
    }

    /// Empty if the disk is too small to hold any.
    private func superblockArea() throws(DiskError) -> [UInt8] {
        let usable = Layout.usableBytes(ofDisk: bytes)
        guard usable >= Layout.superblockAreaBytes else { return [] }
        return try read(at: usable - Layout.superblockAreaBytes, count: Int(Layout.superblockAreaBytes))
    }

    /// The superblock, or the reason why there is none that can be used.
    func superblock() throws(DiskError) -> Superblock {
        switch try scan() {
        case .found(let superblock):
            guard fits(superblock.layout) else {
                throw DiskError("\(path): its metadata do not fit the disk that they belong to (\(dataPath))")
            }
            return superblock
        case .none:
            throw DiskError(
                "\(path): carries no Plexus metadata; create a mirror on it (plexus create), or check the path")
        case .damaged(let copies):
            throw DiskError(
                "\(path): its Plexus metadata is damaged (\(copies) superblock copies found, none whole); start without this disk and join it again"
            )
        case .futureFormat(let major):
            throw DiskError(
                "\(path): its metadata has format \(major), this program knows format \(Superblock.formatMajor); use a newer Plexus"
            )
        case .unknownFeature(let bit):
            throw DiskError("\(path): uses feature \(bit) that this program does not know; use a newer Plexus")
        case .forked(let sequence):
            throw DiskError(
                "\(path): its superblocks contradict one another (number \(sequence)): two servers wrote to it, or one of them is another disk's; start without it and join it again"
            )
        }
    }

    /// All readable records of the event log, oldest first.
    func events(of superblock: Superblock) throws(DiskError) -> [EventRecord] {
        guard let area = superblock.layout.area(.eventLog) else { return [] }
        let bytes = try read(at: area.offset, count: Int(area.length))
        var events: [EventRecord] = []
        for start in stride(from: 0, to: bytes.count, by: EventRecord.byteCount) {
            let slice = Array(bytes[start..<start + EventRecord.byteCount])
            if let event = EventRecord(decoding: unsafe slice.span.bytes, mirror: superblock.record.mirror) {
                events.append(event)
            }
        }
        return events.sorted { $0.sequence < $1.sequence }
    }
}
