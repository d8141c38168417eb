internal import Glibc

/// Bytes that can't be read; the text says which and why.
package struct Unreadable: Error, CustomStringConvertible, Equatable {
    package var description: String
}

/// What a mirror has on one disk: the disk's first bytes, as many as the mirror has. They are read and nothing else, and
/// nothing that they say is believed.
package struct DiskBytes {
    /// Of the mirror. The disk itself is longer, by Plexus' own areas.
    package let count: UInt64
    private let source: (_ offset: UInt64, _ count: Int) throws(Unreadable) -> [UInt8]

    /// - Parameter source: is asked for nothing that lies outside.
    package init(count: UInt64, source: @escaping (_ offset: UInt64, _ count: Int) throws(Unreadable) -> [UInt8]) {
        self.count = count
        self.source = source
    }

    /// - Returns: exactly so many bytes.
    /// - Throws: also for what reaches outside.
    func read(at offset: UInt64, count wanted: Int) throws(Unreadable) -> [UInt8] {
        guard wanted >= 0, offset <= count, UInt64(wanted) <= count - offset else {
            throw Unreadable(description: "\(wanted) bytes at \(offset) lie outside of the mirror's \(count)")
        }
        let bytes = try source(offset, wanted)
        guard bytes.count == wanted else {
            throw Unreadable(description: "the disk ends in the \(wanted) bytes at \(offset)")
        }
        return bytes
    }
}

/// A plex's disk, open for reading. No lock is taken, for a server holds one.
package final class DiskFile {
    package let path: String
    let file: Int32
    let isBlockDevice: Bool
    /// Of a block device, what its partition tables have to count in; of a file nil.
    let logicalBlockBytes: UInt64?
    /// A block device that is part of another: no firmware looks for a partition table in it.
    let isPartition: Bool

    package init(_ path: String) throws(Unreadable) {
        // O_NONBLOCK, because a pipe would wait for a writer.
        let file = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard file >= 0 else {
            throw Unreadable(
                description:
                    "\(path) can't be opened: \(errorText(errno)); check the path, and that this user may read it")
        }
        var information = stat()
        let kind = unsafe fstat(file, &information) == 0 ? information.st_mode & S_IFMT : 0
        guard kind == S_IFREG || kind == S_IFBLK else {
            close(file)
            throw Unreadable(description: "\(path) is neither a file nor a block device")
        }
        self.path = path
        self.file = file
        isBlockDevice = kind == S_IFBLK
        var bytes: Int32 = 0
        // BLKSSZGET of <linux/fs.h>
        let isKnown = unsafe ioctl(file, 0x1268, &bytes) == 0
        logicalBlockBytes = isBlockDevice && isKnown && bytes >= 512 ? UInt64(bytes) : nil
        isPartition = isBlockDevice && Self.isPartition(information.st_rdev)
        // What was read earlier may be in memory and no longer on the disk: a drill wants the disk's own answer.
        posix_fadvise(file, 0, 0, 4)  // POSIX_FADV_DONTNEED
    }

    deinit { close(file) }

    package func bytes(_ count: UInt64) -> DiskBytes {
        DiskBytes(count: count) { [self] offset, wanted throws(Unreadable) in
            var bytes = [UInt8](repeating: 0, count: wanted)
            var done = 0
            while done < wanted {
                let result = unsafe bytes.withUnsafeMutableBytes { memory in
                    unsafe pread(
                        file, memory.baseAddress.map { unsafe $0 + done }, wanted - done, off_t(offset) + off_t(done))
                }
                if result < 0, errno == EINTR { continue }
                guard result > 0 else {
                    let reason = result == 0 ? "the disk ends here" : errorText(errno)
                    throw Unreadable(description: "\(path) can't be read at \(offset + UInt64(done)): \(reason)")
                }
                done += result
            }
            return bytes
        }
    }

    private static func isPartition(_ device: dev_t) -> Bool {
        // The layout of dev_t, as in <sys/sysmacros.h>.
        let major = device >> 8 & 0xFFF | device >> 32 & ~0xFFF
        let minor = device & 0xFF | device >> 12 & ~0xFF
        return unsafe access("/sys/dev/block/\(major):\(minor)/partition", F_OK) == 0
    }
}

func errorText(_ number: Int32) -> String { unsafe String(cString: strerror(number)) }

/// Text from a disk, a console or a tool for a terminal: one line, nothing that the terminal would obey.
func printable(_ text: some StringProtocol) -> String {
    var result = ""
    var isEscape = false
    for scalar in text.unicodeScalars.prefix(400) {
        if isEscape {
            // A control sequence ends with a letter.
            isEscape = !scalar.properties.isAlphabetic
        } else if scalar == "\u{1B}" {
            isEscape = true
        } else if scalar.value >= 0x20, scalar.value < 0x7F || scalar.value >= 0xA0 {
            result.unicodeScalars.append(scalar)
        }
    }
    return result
}
