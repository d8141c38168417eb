internal import CLinux
internal import Glibc

/// The kernel's nbd driver, by its netlink interface. Source: `linux/nbd-netlink.h`, drivers/block/nbd.c.
@safe final class Driver {
    private let requests: NetlinkSocket
    private let events: NetlinkSocket
    private let family: UInt16

    static let advice = """
        the kernel has no nbd driver. Load it: modprobe nbd (Debian and Ubuntu have it in the kernel's own package; slim \
        kernels of clouds and containers may lack it, then install linux-image-amd64 or ask whoever runs the host). \
        Without it: nbdfuse DIR/disk nbd+unix:///NAME?socket=PATH gives the mirror as a file
        """

    /// - Throws: `AttachmentError` with what to do when there is no driver, or no right to use it.
    init() throws(AttachmentError) {
        requests = try NetlinkSocket()
        events = try NetlinkSocket()
        var found = try requests.resolve("nbd")
        if found == nil {
            Self.loadModule()
            found = try requests.resolve("nbd")
        }
        guard let found else { throw AttachmentError(Self.advice) }
        family = found.id
        guard let group = found.groups["nbd_mc_group"] else {
            throw AttachmentError("this kernel does not tell of dead connections: Linux 4.12 or newer is needed")
        }
        try events.join(group)
    }

    /// Becomes readable with `deadLinks`.
    var eventFile: Int32 { events.file }

    struct Parameters {
        var sizeBytes: UInt64
        var blockBytes: UInt64
        /// Transmission flags of the export.
        var serverFlags: UInt64
        var timeouts: Timeouts
        /// The kernel shows it in /sys/block/nbdN/backend, and asks for it in later requests.
        var backend: String
    }

    /// - Parameter device: nil: any that is free.
    /// - Returns: the number of the device.
    func connect(
        device: UInt32?, _ parameters: Parameters, _ sockets: [Int32]
    ) throws(AttachmentError) -> UInt32 {
        var attributes = NetlinkAttributes()
        if let device { attributes.add(NBD_ATTR_INDEX, device) }
        attributes.add(NBD_ATTR_SIZE_BYTES, parameters.sizeBytes)
        attributes.add(NBD_ATTR_BLOCK_SIZE_BYTES, parameters.blockBytes)
        attributes.add(NBD_ATTR_SERVER_FLAGS, parameters.serverFlags)
        attributes.add(NBD_ATTR_CLIENT_FLAGS, UInt64(0))
        attributes.add(parameters.timeouts)
        attributes.add(NBD_ATTR_BACKEND_IDENTIFIER, parameters.backend)
        attributes.add(sockets: sockets)
        let answer = try requests.ask(family, UInt8(NBD_CMD_CONNECT), attributes)
        let name = device.map { "/dev/nbd\($0)" } ?? "a device"
        switch answer.errorNumber {
        case 0: break
        case EBUSY:
            throw AttachmentError("\(name) is in use: see plexus detach, nbd-client -d, or leave the device out")
        default: throw refusal("\(name) can't be attached", answer.errorNumber)
        }
        guard let number = answer.attributes?.uint32(NBD_ATTR_INDEX) ?? device else {
            throw AttachmentError("the kernel does not say which device it attached")
        }
        return number
    }

    enum Change {
        /// A socket was taken if there was a dead one; the kernel does not say.
        case done
        /// It was detached meanwhile.
        case gone
    }

    /// Gives an attached device what is not nil: timeouts, or a socket in place of a dead one.
    ///
    /// - Parameter backend: what the kernel shows as such; without, it refuses.
    func reconfigure(
        device: UInt32, backend: String?, _ timeouts: Timeouts?, socket: Int32?
    ) throws(AttachmentError) -> Change {
        var attributes = NetlinkAttributes()
        attributes.add(NBD_ATTR_INDEX, device)
        if let backend { attributes.add(NBD_ATTR_BACKEND_IDENTIFIER, backend) }
        if let timeouts { attributes.add(timeouts) }
        if let socket { attributes.add(sockets: [socket]) }
        let answer = try requests.ask(family, UInt8(NBD_CMD_RECONFIGURE), attributes)
        switch answer.errorNumber {
        case 0: return .done
        case EINVAL, ENOENT, ENODEV: return .gone
        default: throw refusal("/dev/nbd\(device) can't be changed", answer.errorNumber)
        }
    }

    func disconnect(device: UInt32) throws(AttachmentError) {
        var attributes = NetlinkAttributes()
        attributes.add(NBD_ATTR_INDEX, device)
        let answer = try requests.ask(family, UInt8(NBD_CMD_DISCONNECT), attributes)
        if answer.errorNumber != 0 { throw refusal("/dev/nbd\(device) can't be detached", answer.errorNumber) }
    }

    /// Numbers of the devices that lost a connection since the last call.
    ///
    /// - Returns: nil: messages were lost, any may be among them.
    func deadLinks() -> [UInt32]? {
        var dead: [UInt32] = []
        while true {
            guard let messages = events.receive(waits: false) else { return errno == ENOBUFS ? nil : dead }
            for message in messages where message.type == family && message.command == UInt8(NBD_CMD_LINK_DEAD) {
                if let device = message.attributes.uint32(NBD_ATTR_INDEX) { dead.append(device) }
            }
        }
    }

    private func refusal(_ what: String, _ number: Int32) -> AttachmentError {
        number == EPERM || number == EACCES
            ? AttachmentError("\(what): only root (CAP_SYS_ADMIN) may do that")
            : AttachmentError("\(what): \(errorText(number)); the kernel's log may say why: dmesg")
    }

    /// Best effort: what matters is whether the driver is there afterwards.
    private static func loadModule() {
        var pid: pid_t = 0
        for path in ["/sbin/modprobe", "/usr/sbin/modprobe"] where unsafe access(path, X_OK) == 0 {
            var words = unsafe [strdup(path), strdup("-q"), strdup("nbd"), nil]
            let result = unsafe posix_spawn(&pid, path, nil, nil, &words, environ)
            unsafe words.forEach { unsafe free($0) }
            guard result == 0 else { continue }
            while waitpid(pid, nil, 0) < 0, errno == EINTR {}
            return
        }
    }
}

/// How long the kernel waits; seconds.
public struct Timeouts: Sendable {
    /// For the answer to a request, before it tries another connection.
    public var request: UInt64
    /// For a new connection when all are dead, before requests fail.
    public var deadConnection: UInt64

    public init(request: UInt64, deadConnection: UInt64) {
        self.request = request
        self.deadConnection = deadConnection
    }
}

extension NetlinkAttributes {
    fileprivate mutating func add(_ timeouts: Timeouts) {
        add(NBD_ATTR_TIMEOUT, timeouts.request)
        add(NBD_ATTR_DEAD_CONN_TIMEOUT, timeouts.deadConnection)
    }

    fileprivate mutating func add(sockets: [Int32]) {
        var list = NetlinkAttributes()
        for socket in sockets {
            var item = NetlinkAttributes()
            item.add(NBD_SOCK_FD, UInt32(bitPattern: socket))
            list.add(NBD_SOCK_ITEM, item)
        }
        add(NBD_ATTR_SOCKETS, list)
    }
}
