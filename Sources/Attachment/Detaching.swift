internal import Glibc

/// `plexus detach`.
public enum Detaching {
    private static let patienceSeconds = 30

    /// Writes out what the kernel still holds and detaches the device.
    ///
    /// - Parameters:
    ///   - target: name of a mirror, or path of a device.
    ///   - isForced: without writing anything out, and though programs have it open.
    /// - Returns: what was done.
    /// - Throws: `AttachmentError`; the device is attached as before if something stands on it.
    public static func detach(_ target: String, isForced: Bool) throws(AttachmentError) -> String {
        let driver = try Driver()
        try Record.makeFolder()
        guard let device = BlockDevice(path: target) ?? Record.find(target) else {
            throw AttachmentError("\(target) is not attached on this machine")
        }
        guard device.isAttached else { throw AttachmentError("\(device.path) is not attached") }
        let record = Record.read(device)
        var uses = device.uses
        if !isForced { uses += device.openers }
        guard uses.isEmpty else {
            throw AttachmentError("\(uses.joined(separator: "; ")): end that first")
        }
        if !isForced, let record, let server = ServerAddress(record.server) {
            do throws(AttachmentError) {
                _ = try ServerConnection(server, export: record.mirror, withinSeconds: 10)
            } catch {
                throw AttachmentError(
                    "\(error.description): what is not written yet can't be written; start the server, or lose that: plexus detach \(target) --force"
                )
            }
        }
        // Who has it so, nobody else can mount it; and it can't be had while it is mounted, wherever that is.
        let file = unsafe open(device.path, O_RDWR | O_EXCL | O_CLOEXEC)
        guard file >= 0 || errno == EROFS || isForced && errno != EBUSY else {
            throw AttachmentError(
                errno == EBUSY
                    ? "\(device.path) is in use: mounted, perhaps in a container; unmount it first"
                    : "\(device.path): \(errorText(errno))")
        }
        if file >= 0, !isForced, fsync(file) != 0 {
            let number = errno
            close(file)
            throw AttachmentError(
                "\(device.path): not everything could be written: \(errorText(number)); still attached")
        }
        do throws(AttachmentError) {
            try driver.disconnect(device: device.number)
        } catch {
            if file >= 0 { close(file) }
            throw error
        }
        if file >= 0 { close(file) }
        try waitUntilGone(device)
        if let record { StableName.remove(record.mirror, of: device) }
        return "\(record?.mirror ?? target) is detached from \(device.path)"
    }

    /// The one who watches over it notices within a second, and must be gone before it can be attached again.
    private static func waitUntilGone(_ device: BlockDevice) throws(AttachmentError) {
        let deadline = time(nil) + patienceSeconds
        while device.isAttached || Record.isWatched(device) {
            guard time(nil) < deadline else {
                throw AttachmentError("\(device.path) is being detached, but a program still has it open")
            }
            usleep(50_000)
        }
    }
}
