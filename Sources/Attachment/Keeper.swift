internal import CLinux
internal import Glibc
internal import Logging

/// Watches over an attached device: a connection that died is replaced as soon as the server answers again, and until then
/// whoever reads and writes waits.
///
/// The kernel tells of each dead connection (NBD_CMD_LINK_DEAD), and takes a new socket for it (NBD_CMD_RECONFIGURE).
@safe public final class Keeper {
    public let device: BlockDevice
    /// What was done, for the user.
    public let text: String
    private let record: Record
    private let server: ServerAddress
    private let sizeBytes: UInt64
    private let driver: Driver
    private let lock: Lock
    private let logger: Logger
    private let attacher: String?
    /// It may have lost connections before anybody listened.
    private let mayBeHurt: Bool
    private var signals: Int32 = -1

    private static let handshakeSeconds = 5
    private static let lookMilliseconds: Int32 = 1000
    private static let retryMilliseconds: Int32 = 100
    private static let longestRetryMilliseconds: Int32 = 2000

    init(
        device: BlockDevice, record: Record, server: ServerAddress, sizeBytes: UInt64, driver: Driver, lock: Lock,
        mayBeHurt: Bool, text: String, logger: Logger
    ) {
        self.device = device
        self.record = record
        self.server = server
        self.sizeBytes = sizeBytes
        self.driver = driver
        self.lock = lock
        self.mayBeHurt = mayBeHurt
        self.text = text
        self.logger = logger
        attacher = device.attacher
    }

    public enum End: Sendable {
        case detached
        /// The device stays attached, and nobody watches over it.
        case stopped
    }

    /// Returns when the device was detached, or this process was told to stop (SIGTERM, SIGINT).
    public func run() throws(AttachmentError) -> End {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        unsafe sigaddset(&set, SIGTERM)
        unsafe sigaddset(&set, SIGINT)
        unsafe sigprocmask(SIG_BLOCK, &set, nil)
        signals = unsafe signalfd(-1, &set, Int32(SFD_CLOEXEC))
        guard signals >= 0 else { throw AttachmentError("signals: \(errorText(errno))") }
        defer { close(signals) }
        var isHurt = mayBeHurt
        while isOurs {
            if isHurt, try heal() == .stopped { return .stopped }
            isHurt = false
            if wait(Self.lookMilliseconds, hearsKernel: true) { return .stopped }
            isHurt = driver.deadLinks().map { $0.contains(device.number) } ?? true
        }
        // What was attached there since is none of ours.
        if !device.isAttached { StableName.remove(record.mirror, of: device) }
        return .detached
    }

    private var isOurs: Bool { attacher != nil && device.attacher == attacher }

    /// - Returns: whether this process is to stop.
    private func wait(_ milliseconds: Int32, hearsKernel: Bool) -> Bool {
        var files = [
            pollfd(fd: signals, events: Int16(POLLIN), revents: 0),
            pollfd(fd: hearsKernel ? driver.eventFile : -1, events: Int16(POLLIN), revents: 0),
        ]
        return unsafe poll(&files, 2, milliseconds) > 0 && files[0].revents != 0
    }

    /// Replaces dead connections. Which are dead the kernel does not say, and a socket that it has no use for it
    /// leaves alone: it is offered as many as there may be connections.
    private func heal() throws(AttachmentError) -> End? {
        let began = time(nil)
        var offered = 0
        var complaint = ""
        var pause = Self.retryMilliseconds
        while isOurs, offered < record.connections {
            do throws(AttachmentError) {
                let connection = try ServerConnection(
                    server, export: record.mirror, withinSeconds: Self.handshakeSeconds)
                try verify(connection)
                let socket = try connection.socket()
                defer { close(socket) }
                switch try driver.reconfigure(
                    device: device.number, backend: record.backend, nil, socket: socket)
                {
                case .done:
                    offered += 1
                    continue
                case .gone: break
                }
            } catch {
                if error.description != complaint {
                    complaint = error.description
                    logger.warning(
                        "mirror=\(record.mirror) device=\(device.path): no connection, reads and writes may wait: \(complaint)"
                    )
                }
            }
            if wait(pause, hearsKernel: false) { return .stopped }
            pause = min(pause * 2, Self.longestRetryMilliseconds)
        }
        if isOurs {
            logger.info("mirror=\(record.mirror) device=\(device.path): reconnected after \(time(nil) - began) s")
        }
        return nil
    }

    /// A server may have been started on other disks. Their mirror must not get what is meant for ours.
    private func verify(_ connection: ServerConnection) throws(AttachmentError) {
        guard connection.identity == record.identity, connection.sizeBytes == sizeBytes else {
            throw AttachmentError(
                "\(server) serves another mirror as \(record.mirror): \(connection.identity), \(connection.sizeBytes) bytes; this device is \(record.identity), \(sizeBytes) bytes"
            )
        }
    }
}
