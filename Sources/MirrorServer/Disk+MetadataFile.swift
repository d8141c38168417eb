internal import Foundation
internal import Glibc
internal import MirrorFormat

/// Disks that are full of data: what else would lie at their end lies in a file elsewhere, and that file names the disk.
///
/// The two are one disk here, with the size of both, called by the path of the file.
extension Disk {
    struct MetadataFile {
        var channel: DiskChannel
        /// Of the disk with the data.
        var dataPath: String

        static let headerBytes = UInt64(MetadataFileHeader.byteCount)

        /// Of which disk a file carries the metadata; nil: it is none of those.
        static func dataPath(of path: String) -> String? {
            guard let disk = try? Disk.openAlone(path, .readOnly) else { return nil }
            defer { disk.shut() }
            return try? disk.metadataHeader()?.path
        }
    }

    /// Of its data.
    var dataPath: String { metadata?.dataPath ?? path }

    /// Nil: it is no metadata file.
    ///
    /// What lies at the beginning of an ordinary plex is a client's, whatever it looks like. The superblocks of a metadata
    /// file are bound to other positions and look damaged here; a plex has whole ones of its own.
    func metadataHeader() throws(DiskError) -> MetadataFileHeader? {
        guard !isBlockDevice, metadata == nil, bytes > MetadataFile.headerBytes + Layout.superblockAreaBytes,
            case .damaged = try scan()
        else { return nil }
        let block = try read(at: 0, count: MetadataFileHeader.byteCount)
        return MetadataFileHeader(decoding: unsafe block.span.bytes)
    }

    /// - Throws: `DiskError`, if the disk that the file belongs to can't be opened or is another one now.
    func joined(
        to header: MetadataFileHeader, _ access: Access, patienceSeconds: Int
    ) throws(DiskError) -> Disk {
        let data: Disk
        do throws(DiskError) {
            data = try Disk.openAlone(header.path, access, patienceSeconds: patienceSeconds)
        } catch {
            throw DiskError(
                "\(path): holds the metadata of a disk that can't be used: \(error); if the disk is called otherwise now, make a link to it there",
                isInUse: error.isInUse)
        }
        let identity = data.permanentIdentity
        let isOther = !header.identity.isEmpty && identity != header.identity
        guard data.bytes == header.diskBytes, !isOther else {
            data.shut()
            throw DiskError(
                "\(path): holds the metadata of another disk than is at \(header.path) now: that was \(Self.text(header.diskBytes, header.identity)), this is \(Self.text(data.bytes, identity)). If this one holds the data nevertheless, it can be adopted anew: plexus create NAME --from \(header.path) --metadata NEWFILE"
            )
        }
        return data.with(self, dataBytes: header.dataBytes)
    }

    private static func text(_ bytes: UInt64, _ identity: String) -> String {
        "\(identity.isEmpty ? "without a number" : identity), \(bytes) bytes"
    }

    /// With `file` for its metadata.
    func with(_ file: Disk, dataBytes: UInt64) -> Disk {
        var joined = self
        joined.path = file.path
        joined.identity = file.identity
        joined.bytes = dataBytes + file.bytes - MetadataFile.headerBytes
        joined.channel.end = dataBytes
        var metadata = MetadataFile(channel: file.channel, dataPath: path)
        metadata.channel.base = dataBytes - MetadataFile.headerBytes
        joined.metadata = metadata
        return joined
    }

    /// What stays the same of a disk when it gets another name: of a device its number or its serial number, of a file its
    /// inode. Empty: there is nothing of that kind.
    var permanentIdentity: String {
        var information = stat()
        guard unsafe fstat(file, &information) == 0 else { return "" }
        guard isBlockDevice else { return "inode \(information.st_ino)" }
        let major = information.st_rdev >> 8 & 0xFFF
        let minor = information.st_rdev & 0xFF | information.st_rdev >> 12 & 0xFFF00
        return Self.deviceIdentity(URL(fileURLWithPath: "/sys/dev/block/\(major):\(minor)").resolvingSymlinksInPath())
    }

    /// - Parameter directory: of the device in sysfs(5).
    private static func deviceIdentity(_ directory: URL) -> String {
        func line(_ name: String) -> String? {
            guard let text = try? String(contentsOf: directory.appendingPathComponent(name), encoding: .utf8) else {
                return nil
            }
            let trimmed = text.trimmingCharacters(in: .whitespacesAndNewlines)
            return trimmed.isEmpty ? nil : String(trimmed.prefix(60))
        }
        if let number = line("partition") {
            let whole = deviceIdentity(directory.deletingLastPathComponent())
            return whole.isEmpty ? "" : "partition \(number) of \(whole)"
        }
        for (name, word) in [
            ("dm/uuid", "device-mapper"), ("md/uuid", "md"), ("wwid", "wwid"), ("device/wwid", "wwid"),
            ("serial", "serial number"), ("device/serial", "serial number"), ("loop/backing_file", "loop over"),
        ] {
            if let value = line(name) { return "\(word) \(value)" }
        }
        return ""
    }

    /// Of a disk that is no plex any more, if its superblocks are wiped.
    func removeUnusedMetadataFile() {
        guard metadata != nil, case .none? = try? scan() else { return }
        _ = removeMetadataFile()
    }

    /// - Returns: false: it is not where it was, or can't be removed.
    func removeMetadataFile() -> Bool {
        guard Self.identity(of: path) == identity else { return false }
        return unsafe unlink(path) == 0
    }

    /// The name of a new file.
    private static func makeDurable(_ file: String) throws(DiskError) {
        let parent = String(file[..<(file.lastIndex(of: "/") ?? file.startIndex)])
        let directory = unsafe Glibc.open(parent.isEmpty ? "/" : parent, O_RDONLY | O_CLOEXEC)
        guard directory >= 0 else { throw DiskError("\(parent): can't be opened: \(errorText(errno))") }
        defer { close(directory) }
        guard fsync(directory) == 0 else { throw DiskError("\(parent): can't be flushed: \(errorText(errno))") }
    }

    /// Data before the border between disk and file, everything else behind it.
    func fits(_ layout: Layout) -> Bool {
        metadata == nil
            || layout.dataBytes <= channel.end && layout.areas.allSatisfy { $0.length == 0 || $0.offset >= channel.end }
    }

    /// It must be a new one: what an existing file holds may be the metadata of something else.
    static func checkMetadataFile(_ file: String) throws(DiskError) {
        guard unsafe access(file, F_OK) != 0 else {
            throw DiskError("\(file): exists already; the metadata go into a new file")
        }
        guard !file.hasPrefix("/dev/") || file.hasPrefix("/dev/shm/") else {
            throw DiskError("\(file): no file is made among devices")
        }
    }

    /// Makes the metadata file of this disk and opens it. What went wrong leaves none.
    ///
    /// - Parameters:
    ///   - dataBytes: what the mirror uses of this disk.
    ///   - wholeBytes: data and metadata together.
    func withNewMetadataFile(
        _ file: String, dataBytes: UInt64, wholeBytes: UInt64
    ) throws(DiskError) -> Disk {
        guard path.utf8.count <= MetadataFileHeader.maximumPathBytes else {
            throw DiskError("\(path): this path is too long to be remembered")
        }
        try Disk.create(file, bytes: MetadataFile.headerBytes + wholeBytes - dataBytes, allocatedFrom: 0)
        do throws(DiskError) {
            let opened = try Disk.openAlone(file, .readWrite)
            do throws(DiskError) {
                try Self.makeDurable(file)
                let header = MetadataFileHeader(
                    dataBytes: dataBytes, diskBytes: bytes, identity: permanentIdentity, path: path,
                    time: wallClock())
                var block = [UInt8](repeating: 0, count: MetadataFileHeader.byteCount)
                do {
                    var span = block.mutableSpan
                    var bytes = unsafe span.mutableBytes
                    header.encode(into: &bytes)
                }
                try opened.write(block, at: 0)
                try opened.flush()
                return with(opened, dataBytes: dataBytes)
            } catch {
                opened.shut()
                throw error
            }
        } catch {
            unsafe unlink(file)
            throw error
        }
    }
}
