internal import CLibNBD
internal import Glibc

/// Where a server listens.
public enum ServerAddress: Sendable, Equatable, CustomStringConvertible {
    case unix(String)
    case tcp(host: String, port: String)

    /// - Parameter text: a path, or HOST:PORT, [V6]:PORT.
    public init?(_ text: String) {
        if text.hasPrefix("/") {
            self = .unix(text)
            return
        }
        guard let colon = text.lastIndex(of: ":") else { return nil }
        let port = String(text[text.index(after: colon)...])
        var host = String(text[..<colon])
        guard let number = UInt16(port), number > 0 else { return nil }
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        guard !host.isEmpty else { return nil }
        self = .tcp(host: host, port: port)
    }

    public var description: String {
        switch self {
        case .unix(let path): path
        case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        }
    }
}

/// A connection that has shaken hands, by libnbd; its socket can be given to the kernel.
@safe final class ServerConnection {
    /// For the kernel's driver knows nothing else: no structured replies, no extended headers.
    private let handle: OpaquePointer
    let sizeBytes: UInt64
    /// What the server says that it is: the same text means the same mirror.
    let identity: String

    /// - Parameter seconds: until it must answer.
    init(_ address: ServerAddress, export: String, withinSeconds seconds: Int) throws(AttachmentError) {
        guard let handle = unsafe nbd_create() else { throw Self.failure(address) }
        let size: Int64
        do throws(AttachmentError) {
            try unsafe Self.connect(handle, address, export, seconds)
            size = unsafe nbd_get_size(handle)
            guard size >= 0 else { throw Self.failure(address) }
        } catch {
            unsafe nbd_close(handle)
            throw error
        }
        if let text = unsafe nbd_get_export_description(handle) {
            identity = unsafe String(cString: text)
            unsafe free(text)
        } else {
            identity = ""
        }
        sizeBytes = UInt64(size)
        unsafe self.handle = handle
    }

    deinit { unsafe nbd_close(handle) }

    private static func connect(
        _ handle: OpaquePointer, _ address: ServerAddress, _ export: String, _ seconds: Int
    ) throws(AttachmentError) {
        var started: Int32 = 0
        unsafe nbd_set_request_structured_replies(handle, false)
        unsafe nbd_set_full_info(handle, true)
        started |= unsafe nbd_set_export_name(handle, export)
        switch address {
        case .unix(let path): started |= unsafe nbd_aio_connect_unix(handle, path)
        case .tcp(let host, let port): started |= unsafe nbd_aio_connect_tcp(handle, host, port)
        }
        guard started == 0 else { throw failure(address) }
        let deadline = time(nil) + seconds
        while unsafe nbd_aio_is_ready(handle) != 1 {
            guard unsafe nbd_aio_is_dead(handle) != 1, unsafe nbd_aio_is_closed(handle) != 1 else {
                throw failure(address)
            }
            guard time(nil) < deadline else {
                throw AttachmentError("\(address): the server takes longer than \(seconds) seconds to answer")
            }
            guard unsafe nbd_poll(handle, 200) >= 0 else { throw failure(address) }
        }
    }

    private static func failure(_ address: ServerAddress) -> AttachmentError {
        let text = unsafe nbd_get_error().map { unsafe String(cString: $0) } ?? "no connection"
        return AttachmentError("\(address): \(text)")
    }

    /// NBD_FLAG_..., as the kernel wants them. Source: doc/proto.md, "Transmission flags".
    var transmissionFlags: UInt64 {
        var flags: UInt64 = 1
        if unsafe nbd_is_read_only(handle) == 1 { flags |= 1 << 1 }
        if unsafe nbd_can_flush(handle) == 1 { flags |= 1 << 2 }
        if unsafe nbd_can_fua(handle) == 1 { flags |= 1 << 3 }
        if unsafe nbd_is_rotational(handle) == 1 { flags |= 1 << 4 }
        if unsafe nbd_can_trim(handle) == 1 { flags |= 1 << 5 }
        if unsafe nbd_can_zero(handle) == 1 { flags |= 1 << 6 }
        if unsafe nbd_can_multi_conn(handle) == 1 { flags |= 1 << 8 }
        return flags
    }

    var allowsSeveral: Bool { unsafe nbd_can_multi_conn(handle) == 1 }

    func read(at offset: UInt64, count: Int) throws(AttachmentError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        guard unsafe nbd_pread(handle, &bytes, count, offset, 0) == 0 else {
            throw AttachmentError("the server can't read: \(unsafe String(cString: nbd_get_error()))")
        }
        return bytes
    }

    /// The socket, which outlives this connection: closing it does not tell the server to leave.
    ///
    /// - Precondition: no request is under way, and none follows.
    func socket() throws(AttachmentError) -> Int32 {
        let copy = fcntl(unsafe nbd_aio_get_fd(handle), F_DUPFD_CLOEXEC, 3)
        guard copy >= 0 else { throw AttachmentError("no socket: \(errorText(errno))") }
        _ = fcntl(copy, F_SETFL, 0)
        var one: Int32 = 1
        var (idle, interval, count): (Int32, Int32, Int32) = (10, 5, 3)
        // Of a Unix socket nobody wants to know, and nobody asks.
        unsafe setsockopt(copy, SOL_SOCKET, SO_KEEPALIVE, &one, 4)
        unsafe setsockopt(copy, Int32(IPPROTO_TCP), TCP_KEEPIDLE, &idle, 4)
        unsafe setsockopt(copy, Int32(IPPROTO_TCP), TCP_KEEPINTVL, &interval, 4)
        unsafe setsockopt(copy, Int32(IPPROTO_TCP), TCP_KEEPCNT, &count, 4)
        // What was sent and is not taken by then is taken back: before the kernel sends it again over another
        // connection, and newer writes after it, which it would undo if it arrived so late.
        var milliseconds: Int32 = 10_000
        let userTimeout: Int32 = 18  // TCP_USER_TIMEOUT, <linux/tcp.h>
        unsafe setsockopt(copy, Int32(IPPROTO_TCP), userTimeout, &milliseconds, 4)
        return copy
    }
}
