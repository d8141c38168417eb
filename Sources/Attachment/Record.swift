internal import Foundation
internal import Glibc

/// What is known of an attached device, in /run: gone after a restart of the machine, as the device is.
///
/// The process that reconnects the device holds a lock on the file, so that there is one at most.
struct Record: Codable, Equatable {
    var mirror: String
    /// Of its server; see `ServerConnection.identity`.
    var identity: String
    /// Path or HOST:PORT.
    var server: String
    /// What the kernel wants to hear in requests, if it was told so when the device was attached.
    var backend: String?
    /// As many as there may be.
    var connections: Int
    /// As `BlockDevice.attacher`: what is attached there later is something else.
    var attacher: String

    static let folder = "/run/plexus-attached"

    static func backend(of mirror: String) -> String { "plexus/\(mirror)" }

    private static func path(_ device: BlockDevice) -> String { "\(folder)/\(device.name).json" }

    static func makeFolder() throws(AttachmentError) {
        guard unsafe mkdir(folder, 0o755) == 0 || errno == EEXIST else {
            throw AttachmentError("\(folder): \(errorText(errno)); only root may attach and detach")
        }
    }

    /// Nil: nothing is known of the device as it is attached now.
    static func read(_ device: BlockDevice) -> Record? {
        guard let data = FileManager.default.contents(atPath: path(device)),
            let record = try? JSONDecoder().decode(Record.self, from: data), record.attacher == device.attacher
        else { return nil }
        return record
    }

    /// The device that the mirror of that name is attached as.
    static func find(_ mirror: String) -> BlockDevice? {
        BlockDevice.allAttached.first { device in
            device.owner.map { $0 == backend(of: mirror) } ?? (read(device)?.mirror == mirror)
        }
    }

    /// The lock is held by who watches over the device. The file is never removed: two could hold a lock then, each on a
    /// file of that name.
    static func lock(_ device: BlockDevice) throws(AttachmentError) -> Lock {
        // Who watched over what was attached there before notices within a second.
        let deadline = time(nil) + 5
        while time(nil) < deadline {
            if let lock = try Lock.take(path(device), waits: false) { return lock }
            usleep(50_000)
        }
        throw AttachmentError("\(device.path) is watched over by another process")
    }

    func write(_ device: BlockDevice, _ lock: Lock) throws(AttachmentError) {
        let bytes = (try? JSONEncoder().encode(self)).map { Array($0) } ?? []
        guard ftruncate(lock.file, 0) == 0, unsafe pwrite(lock.file, bytes, bytes.count, 0) == bytes.count else {
            throw AttachmentError("\(Self.path(device)): \(errorText(errno))")
        }
    }

    static func isWatched(_ device: BlockDevice) -> Bool {
        guard unsafe access(path(device), F_OK) == 0 else { return false }
        return (try? Lock.take(path(device), waits: false)) == nil
    }
}

/// A file that is locked until this goes.
final class Lock {
    let file: Int32
    private init(file: Int32) { self.file = file }
    deinit { close(file) }

    /// - Returns: nil: another process has it.
    static func take(_ path: String, waits: Bool) throws(AttachmentError) -> Lock? {
        let file = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o644)
        guard file >= 0 else { throw AttachmentError("\(path): \(errorText(errno))") }
        let lock = Lock(file: file)
        while flock(file, waits ? LOCK_EX : LOCK_EX | LOCK_NB) != 0 {
            if errno == EINTR { continue }
            if errno == EWOULDBLOCK { return nil }
            throw AttachmentError("\(path): \(errorText(errno))")
        }
        return lock
    }
}

/// /dev/plexus/NAME, a link to the device that the mirror is attached as.
enum StableName {
    private static let folder = "/dev/plexus"

    static func path(_ mirror: String) -> String { "\(folder)/\(mirror)" }

    /// - Returns: whether it is there now.
    static func set(_ mirror: String, to device: BlockDevice) -> Bool {
        unsafe mkdir(folder, 0o755)
        unsafe unlink(path(mirror))
        return unsafe symlink("../\(device.name)", path(mirror)) == 0
    }

    static func remove(_ mirror: String, of device: BlockDevice) {
        guard let target = try? FileManager.default.destinationOfSymbolicLink(atPath: path(mirror)),
            target == "../\(device.name)"
        else { return }
        unsafe unlink(path(mirror))
    }
}
