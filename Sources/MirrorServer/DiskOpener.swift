internal import CLinux
internal import Foundation
internal import Glibc
internal import MirrorCore
internal import MirrorFormat
internal import Synchronization
internal import URing

/// Opens disks, and looks for some, on threads of its own. A disk may hang as long as it likes, and whoever opens it hangs
/// with it: the loop of a reactor must not.
final class DiskOpener: Sendable {
    enum News: Sendable {
        case opened(Result<OpenedDisk, DiskError>)
        /// Of the plexes that were looked for, those that were found.
        case seen([SeenPlex])
        case marked(Result<HotSpare, DiskError>)
        case dismissed(Result<Void, DiskError>)
        case reloaded(Result<Reload, DiskError>)
    }

    /// Becomes readable when there is news; eventfd(2).
    let file: Int32
    private let news = Mutex<[(ticket: UInt64, News)]>([])

    init() throws(SystemError) {
        file = eventfd(0, Int32(O_NONBLOCK | O_CLOEXEC))
        guard file >= 0 else { throw SystemError("eventfd", number: errno) }
    }

    deinit { close(file) }

    /// - Parameter ticket: comes back with what the work ends with.
    func begin(_ ticket: UInt64, _ work: @escaping @Sendable () -> News) {
        let thread = Thread { [self] in
            let result = work()
            news.withLock { $0.append((ticket, result)) }
            var one: UInt64 = 1
            _ = unsafe write(file, &one, 8)
        }
        thread.name = "plexus-disk"
        thread.stackSize = 1 << 20
        thread.start()
    }

    /// After `file` was readable.
    func take() -> [(ticket: UInt64, News)] {
        var count: UInt64 = 0
        _ = unsafe read(file, &count, 8)
        return news.withLock { held in
            defer { held.removeAll() }
            return held
        }
    }
}

/// A disk that is open for writing, and all that has to be known of it before it becomes a plex.
struct OpenedDisk: Sendable {
    /// What is wanted of it.
    struct Wish: Sendable {
        var path: String
        /// That it is to become a plex of.
        var mirror: MirrorUUID
        /// What it holds may be overwritten.
        var force = false
        /// Of the file that is to be made where there is none; nil: it must be there.
        var newFile: NewFile?
        /// A disk without room for metadata: they go into a new file at `path`, this long with the data.
        var data: Data?
        /// What is said where there is no disk.
        var advice = "check the path"

        struct NewFile {
            var bytes: UInt64
            var allocatedFrom: UInt64
        }

        struct Data {
            var path: String
            var bytes: UInt64
            var wholeBytes: UInt64
        }
    }

    var disk: Disk
    var scan: SuperblockScan
    var copies = SuperblockCopies()
    /// Of a disk with a superblock: its bitmap, as far as it is the mirror's.
    var pages: FoundPages?
    /// Nil: it has no remap table.
    var remaps: RemapTable?
    /// Why a copy that was broken off may have been written to since; nil: it was not.
    var objection: String?
    /// Foreign data, of a disk without a superblock; not looked for if they may be overwritten.
    var signature: String?
    /// It is a new file.
    var isMade = false
    /// That it was until now.
    var spare: HotSpare?

    /// - Throws: `DiskError`; a file that was made for it is gone again.
    static func open(_ wish: Wish) throws(DiskError) -> OpenedDisk {
        if let data = wish.data { return try openWithoutRoom(wish, data) }
        let isThere = unsafe access(wish.path, F_OK) == 0
        if !isThere {
            guard let new = wish.newFile else { throw DiskError("\(wish.path): does not exist; \(wish.advice)") }
            try Disk.create(wish.path, bytes: new.bytes, allocatedFrom: new.allocatedFrom)
        }
        do throws(DiskError) {
            var opened = try look(wish)
            opened.isMade = !isThere
            return opened
        } catch {
            // Somebody else may have found the file and opened it.
            if !isThere, !error.isInUse { unsafe unlink(wish.path) }
            throw error
        }
    }

    private static func openWithoutRoom(_ wish: Wish, _ data: Wish.Data) throws(DiskError) -> OpenedDisk {
        try Disk.checkMetadataFile(wish.path)
        let plain = try Disk.open(data.path, .readWrite)
        let disk: Disk
        do throws(DiskError) {
            guard plain.metadata == nil, case .none = try plain.scan(), try plain.spareMark() == nil else {
                throw DiskError("\(data.path): carries Plexus metadata already; name it without --metadata")
            }
            guard plain.bytes >= data.bytes else {
                throw DiskError(
                    "\(data.path): is too small: it has \(plain.bytes) bytes, the data of the mirror are \(data.bytes)")
            }
            disk = try plain.withNewMetadataFile(wish.path, dataBytes: data.bytes, wholeBytes: data.wholeBytes)
        } catch {
            plain.shut()
            throw error
        }
        do throws(DiskError) {
            var opened = try look(at: disk, wish)
            opened.isMade = true
            return opened
        } catch {
            unsafe unlink(wish.path)
            throw error
        }
    }

    private static func look(_ wish: Wish) throws(DiskError) -> OpenedDisk {
        try look(at: try Disk.open(wish.path, .readWrite), wish)
    }

    private static func look(at disk: Disk, _ wish: Wish) throws(DiskError) -> OpenedDisk {
        do throws(DiskError) {
            var opened = OpenedDisk(disk: disk, scan: try disk.scan())
            switch opened.scan {
            case .found(let superblock):
                let own = superblock.record
                opened.copies = try disk.superblockCopies()
                opened.pages = disk.pages(
                    of: superblock, mirror: own.mirror == wish.mirror ? nil : own.parent?.mirror)
                opened.remaps = disk.remaps(of: superblock)
                opened.objection =
                    own.mirror == wish.mirror ? nil : disk.objection(toUntouchedSince: own.updatedTime)
            case .damaged, .futureFormat, .unknownFeature, .forked: break
            case .none: if !wish.force { opened.signature = try Signature.find(on: disk) }
            }
            return opened
        } catch {
            disk.shut()
            throw error
        }
    }

    /// It is not wanted after all.
    func giveBack() {
        disk.shut()
        if isMade { unsafe unlink(disk.path) }
    }
}
