internal import Control
internal import Foundation
internal import Glibc

/// A listening socket.
struct Listener {
    let file: Int32
    let isTCP: Bool
    /// To be removed at the end; nil for TCP and for sockets that were handed to us.
    let path: String?
    /// How clients are told to find it: `socket=PATH` or `HOST:PORT`.
    let address: String
    /// As in `ServerOptions.listenOrigins`; nil: it was handed to us.
    var origin: String?

    /// - Parameter origin: a Unix path, or `tcp:` and what `--listen` says.
    static func listen(_ origin: String) throws(DiskError) -> [Listener] {
        var listeners =
            origin.hasPrefix("tcp:") ? try tcp(String(origin.dropFirst("tcp:".count))) : [try unix(origin)]
        for index in listeners.indices { listeners[index].origin = origin }
        return listeners
    }

    func shut() {
        close(file)
        if let path { unsafe unlink(path) }
    }

    /// The next client, non-blocking; nil when none waits.
    func accept() -> Int32? {
        while true {
            let client = Glibc.accept(file, nil, nil)
            if client >= 0 {
                _ = fcntl(client, F_SETFL, O_NONBLOCK)
                _ = fcntl(client, F_SETFD, FD_CLOEXEC)
                return client
            }
            if errno != EINTR, errno != ECONNABORTED { return nil }
        }
    }

    /// A Unix socket that only its owner may use (0600). A dead socket file is replaced, a live one is not.
    static func unix(_ path: String) throws(DiskError) -> Listener {
        guard var address = UnixAddress(path: path) else {
            throw DiskError("\(path): a socket's path has at most 107 bytes")
        }
        try makeParent(path)
        try removeDead(path, &address)
        let file = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard file >= 0 else { throw DiskError("no socket: \(errorText(errno))") }
        // Between bind and chmod anyone could connect: the mode has to be right from the start.
        let mask = umask(0o177)
        let bound = unsafe address.withPointer { unsafe bind(file, $0, $1) }
        let number = errno
        umask(mask)
        guard bound == 0, Glibc.listen(file, 1024) == 0 else {
            close(file)
            throw DiskError(
                "\(path): can't listen: \(errorText(bound == 0 ? errno : number)); another path: --socket, --control")
        }
        return Listener(file: file, isTCP: false, path: path, address: path)
    }

    /// The default directory is ours to make; any other is the user's.
    private static func makeParent(_ path: String) throws(DiskError) {
        let parent = ServerOptions.runtimeDirectory
        guard path.hasPrefix(parent + "/"), unsafe access(parent, F_OK) != 0 else { return }
        guard unsafe mkdir(parent, 0o700) == 0 || errno == EEXIST else {
            throw DiskError(
                "\(parent): can't be created for the socket: \(errorText(errno)); another path: --socket, --control")
        }
    }

    private static func removeDead(_ path: String, _ address: inout UnixAddress) throws(DiskError) {
        var information = stat()
        guard unsafe lstat(path, &information) == 0 else { return }
        guard information.st_mode & S_IFMT == S_IFSOCK else {
            throw DiskError("\(path): exists and is no socket; choose another path")
        }
        // A killed server's socket lives on until the kernel has ended its last operation.
        var attempts = 60
        while isAlive(&address), attempts > 0 {
            attempts -= 1
            usleep(50_000)
        }
        if isAlive(&address) {
            throw DiskError("\(path): is in use by another server; stop it (plexus stop) or choose another path")
        }
        unsafe unlink(path)
    }

    private static func isAlive(_ address: inout UnixAddress) -> Bool {
        let probe = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        defer { close(probe) }
        let result = unsafe address.withPointer { unsafe connect(probe, $0, $1) }
        return result == 0 || errno != ECONNREFUSED
    }

    /// - Parameter text: HOST:PORT, [V6]:PORT, or PORT for the loopback address.
    static func tcp(_ text: String) throws(DiskError) -> [Listener] {
        let (host, port) = split(text)
        var hints = unsafe addrinfo()
        unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        unsafe hints.ai_flags = AI_PASSIVE
        var found: UnsafeMutablePointer<addrinfo>?
        let result = unsafe getaddrinfo(host, port, &hints, &found)
        guard result == 0 else { throw DiskError("--listen \(text): \(unsafe String(cString: gai_strerror(result)))") }
        defer { unsafe freeaddrinfo(found) }
        var listeners: [Listener] = []
        var entry = unsafe found
        var unavailable: DiskError?
        while let current = unsafe entry {
            do throws(DiskError) {
                listeners.append(try unsafe Listener.listen(current, text, address: "\(shown(host)):\(port)"))
            } catch {
                // localhost has an IPv6 address also where the kernel has no IPv6.
                guard errno == EADDRNOTAVAIL || errno == EAFNOSUPPORT else {
                    for listener in listeners { listener.shut() }
                    throw error
                }
                unavailable = error
            }
            unsafe entry = current.pointee.ai_next
        }
        if listeners.isEmpty, let unavailable { throw unavailable }
        return listeners
    }

    private static func shown(_ host: String) -> String { host.contains(":") ? "[\(host)]" : host }

    private static func split(_ text: String) -> (host: String, port: String) {
        if text.hasPrefix("["), let end = text.firstIndex(of: "]") {
            let host = String(text[text.index(after: text.startIndex)..<end])
            let rest = text[text.index(after: end)...].drop { $0 == ":" }
            return (host, rest.isEmpty ? "10809" : String(rest))
        }
        guard let colon = text.lastIndex(of: ":") else {
            return text.allSatisfy(\.isNumber) ? ("127.0.0.1", text) : (text, "10809")
        }
        let host = String(text[..<colon])
        return (host.isEmpty ? "127.0.0.1" : host, String(text[text.index(after: colon)...]))
    }

    private static func listen(
        _ entry: UnsafeMutablePointer<addrinfo>, _ text: String, address: String
    ) throws(DiskError) -> Listener {
        let file = unsafe socket(
            entry.pointee.ai_family, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard file >= 0 else { throw DiskError("--listen \(text): \(errorText(errno))") }
        var one: Int32 = 1
        unsafe setsockopt(file, SOL_SOCKET, SO_REUSEADDR, &one, 4)
        if unsafe entry.pointee.ai_family == AF_INET6 {
            unsafe setsockopt(file, Int32(IPPROTO_IPV6), IPV6_V6ONLY, &one, 4)
        }
        guard unsafe bind(file, entry.pointee.ai_addr, entry.pointee.ai_addrlen) == 0, Glibc.listen(file, 1024) == 0
        else {
            let number = errno
            close(file)
            errno = number
            throw DiskError("--listen \(text): can't listen: \(errorText(number))")
        }
        return Listener(file: file, isTCP: true, path: nil, address: address)
    }

    /// Sockets that systemd, or a program that speaks its protocol, hands over: descriptors from 3 on.
    /// Source: sd_listen_fds(3).
    static func activated() -> [Listener] {
        let environment = ProcessInfo.processInfo.environment
        guard let process = environment["LISTEN_PID"].flatMap(Int32.init), process == getpid(),
            let count = environment["LISTEN_FDS"].flatMap(Int32.init), count > 0, count < 1024
        else { return [] }
        unsafe unsetenv("LISTEN_PID")
        unsafe unsetenv("LISTEN_FDS")
        return (3..<3 + count).map { file in
            _ = fcntl(file, F_SETFD, FD_CLOEXEC)
            _ = fcntl(file, F_SETFL, O_NONBLOCK)
            var family: Int32 = 0
            var length = socklen_t(4)
            let domain: Int32 = 39  // SO_DOMAIN, <asm-generic/socket.h>
            unsafe getsockopt(file, SOL_SOCKET, domain, &family, &length)
            return Listener(
                file: file, isTCP: family == AF_INET || family == AF_INET6, path: nil,
                address: family == AF_UNIX ? unixPath(file) ?? "fd \(file)" : "fd \(file)")
        }
    }

    /// Where a socket that was handed over is found; nil if it has no name in the file system.
    private static func unixPath(_ file: Int32) -> String? {
        var address = sockaddr_un()
        var length = socklen_t(MemoryLayout<sockaddr_un>.size)
        let result = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe getsockname(file, $0, &length)
            }
        }
        guard result == 0 else { return nil }
        let path = unsafe withUnsafeBytes(of: &address.sun_path) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        return path.hasPrefix("/") ? path : nil
    }
}
