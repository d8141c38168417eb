internal import CFilePassing
package import Control
internal import Foundation
internal import Glibc
internal import NBDProtocol

/// What one server process leaves to the next, so that no client notices: the sockets it listens at, and those of its clients.
///
/// The mirrors themselves go by way of their disks: the old process answers what it holds, flushes, marks everything clean and
/// closes them; the new one opens them. In between the sockets wait in the kernel.
///
///     new: takeover ----------> old: reads no more, answers what it has, stops
///                    <--------- report, open files
///     new: opens, serves
///          "done"  -----------> old: leaves
///          (or its end) ------> old: opens the disks again, and serves on
package final class Handover {
    /// A client of the old process; the file is open.
    struct Client: Sendable {
        var file: Int32
        var report: TakeoverReport.Client
    }

    /// Its sockets are in `files`.
    package let report: TakeoverReport
    /// In the order of the report. Whoever takes them closes them.
    private(set) var files: [Int32]
    /// To the other process.
    private var peer: Int32
    /// This process left it, and had to go on.
    private(set) var isOwn = false
    /// The settings of the other process hold.
    package var isKept = false
    /// Not wanted any more, when the other process has gone.
    private var unwanted: [Listener] = []

    private init(report: TakeoverReport, files: [Int32], peer: Int32) {
        self.report = report
        self.files = files
        self.peer = peer
    }

    var control: Listener? {
        report.control.map { Self.listener($0, files[0]) }
    }

    var listeners: [Listener] {
        let first = report.control == nil ? 0 : 1
        return report.listeners.enumerated().map { Self.listener($0.element, files[first + $0.offset]) }
    }

    var clients: [Client] {
        let first = (report.control == nil ? 0 : 1) + report.listeners.count
        return report.clients.enumerated().map { Client(file: files[first + $0.offset], report: $0.element) }
    }

    private static func listener(_ socket: TakeoverReport.Socket, _ file: Int32) -> Listener {
        Listener(file: file, isTCP: socket.isTCP, path: socket.path, address: socket.address, origin: socket.origin)
    }

    // MARK: the new process

    /// Asks the server at a control socket for all that it has. It stops serving, and goes on if this ends without `isServing`.
    ///
    /// - Throws: `DiskError` if there is none, or if it can't.
    package static func request(from path: String) throws(DiskError) -> Handover {
        let peer = try connect(path)
        // Or sockets are lost on the way.
        Server.raiseFileLimit()
        do throws(DiskError) {
            let line = (try? ControlRequest(.takeover).line()) ?? []
            try send(line + [UInt8(ascii: "\n")], to: peer)
            return try receive(from: peer)
        } catch {
            close(peer)
            throw error
        }
    }

    private static func connect(_ path: String) throws(DiskError) -> Int32 {
        guard var address = UnixAddress(path: path) else { throw DiskError("\(path): is no path of a socket") }
        let peer = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard peer >= 0 else { throw DiskError("no socket: \(errorText(errno))") }
        guard unsafe address.withPointer({ unsafe Glibc.connect(peer, $0, $1) }) == 0 else {
            let number = errno
            close(peer)
            throw DiskError("--takeover: no server answers at \(path): \(errorText(number)); start without --takeover")
        }
        return peer
    }

    private static func receive(from peer: Int32) throws(DiskError) -> Handover {
        var bytes: [UInt8] = []
        var files: [Int32] = []
        var report: TakeoverReport?
        while true {
            if report == nil, let end = bytes.firstIndex(of: UInt8(ascii: "\n")) {
                guard let response = try? ControlResponse(line: Array(bytes[..<end])) else {
                    throw DiskError("--takeover: the server's answer can't be understood")
                }
                if let error = response.error { throw DiskError("--takeover: \(error)") }
                report = response.takeover
            }
            if let report, files.count >= report.fileCount {
                guard files.count == report.fileCount else { break }
                // Unless a service manager has started this one: then it is told what the other was told.
                for (name, value) in report.environment { unsafe setenv(name, value, 0) }
                unsafe unsetenv("WATCHDOG_PID")
                return Handover(report: report, files: files, peer: peer)
            }
            var chunk = [UInt8](repeating: 0, count: 65_536)
            var some = [Int32](repeating: -1, count: Int(PLEXUS_FILES_AT_ONCE))
            var count: Int32 = 0
            let received = unsafe plexus_receive_files(peer, &chunk, UInt(chunk.count), &some, &count)
            if received < 0, errno == EINTR { continue }
            files += some.prefix(Int(count))
            guard received > 0, count >= 0 else { break }
            // Those that come with sockets stand for nothing.
            if report == nil { bytes += chunk.prefix(received) }
        }
        for file in files { close(file) }
        throw DiskError("--takeover: the server ended before it had left everything; start without --takeover")
    }

    /// The old process may leave.
    func isServing() {
        guard peer >= 0 else { return }
        try? Self.send(Array("done\n".utf8), to: peer)
        close(peer)
        peer = -1
        for listener in unwanted { listener.shut() }
    }

    func willShut(_ listener: Listener) { unwanted.append(listener) }

    // MARK: the old process

    /// - Parameter peer: the connection of the new one, which this takes over.
    init(
        arguments: [String], control: Listener?, listeners: [Listener], clients: [Client], disks: [String],
        environment: [String: String], peer: Int32
    ) {
        let socket = { (listener: Listener) in
            TakeoverReport.Socket(
                isTCP: listener.isTCP, path: listener.path, address: listener.address, origin: listener.origin)
        }
        report = TakeoverReport(
            arguments: arguments, directory: FileManager.default.currentDirectoryPath,
            disks: disks, control: control.map(socket), listeners: listeners.map(socket),
            clients: clients.map(\.report),
            environment: environment.filter { ["NOTIFY_SOCKET", "WATCHDOG_USEC"].contains($0.key) })
        files = (control.map { [$0.file] } ?? []) + listeners.map(\.file) + clients.map(\.file)
        self.peer = peer
        isOwn = true
    }

    /// Leaves everything to the new process and waits until it serves, however long that takes.
    ///
    /// - Parameter eachSecond: called while it waits.
    /// - Returns: the process that serves now; nil if it ended before, and this one has to go on.
    func leave(_ eachSecond: () -> Void) -> Int32? {
        guard peer >= 0 else { return nil }
        _ = fcntl(peer, F_SETFL, 0)
        var response = ControlResponse()
        response.takeover = report
        do throws(DiskError) {
            let line = (try? response.line()) ?? []
            try Self.send(line + [UInt8(ascii: "\n")], to: peer)
            var rest = files[...]
            while !rest.isEmpty {
                let some = Array(rest.prefix(Int(PLEXUS_FILES_AT_ONCE)))
                guard unsafe plexus_send_files(peer, some, Int32(some.count)) == 1 else {
                    throw DiskError(errorText(errno))
                }
                rest = rest.dropFirst(some.count)
            }
        } catch {
            endPeer()
            return nil
        }
        defer { endPeer() }
        var answer = [UInt8](repeating: 0, count: 16)
        while true {
            var state = pollfd(fd: peer, events: Int16(POLLIN), revents: 0)
            if unsafe poll(&state, 1, 1000) <= 0 {
                eachSecond()
                passOnStop()
                continue
            }
            let count = unsafe recv(peer, &answer, answer.count, 0)
            if count < 0, errno == EINTR { continue }
            return count > 0 && answer.starts(with: Array("done\n".utf8)) ? peerProcess() : nil
        }
    }

    /// Who stops this process now means the one that is about to serve.
    private func passOnStop() {
        var pending = sigset_t()
        unsafe sigpending(&pending)
        guard unsafe sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1 else { return }
        let process = peerProcess()
        if process > 0 { kill(process, SIGTERM) }
    }

    private func endPeer() {
        close(peer)
        peer = -1
    }

    private func peerProcess() -> Int32 {
        // struct ucred: pid, uid, gid; SO_PEERCRED of <asm-generic/socket.h>
        var credentials: (Int32, UInt32, UInt32) = (0, 0, 0)
        var length = socklen_t(12)
        unsafe getsockopt(peer, SOL_SOCKET, 17, &credentials, &length)
        return credentials.0
    }

    private static func send(_ bytes: [UInt8], to peer: Int32) throws(DiskError) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes {
                unsafe Glibc.send(peer, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw DiskError("the other server went away: \(errorText(errno))") }
            rest = rest.dropFirst(count)
        }
    }
}

extension TakeoverReport {
    /// Those that were open, and others that are named and are none of these under another name.
    func disks(and named: [String]) -> [String] {
        let present = Set(disks.compactMap(Self.identity))
        return disks
            + named.filter { path in Self.identity(path).map { !present.contains($0) } ?? !disks.contains(path) }
    }

    /// Device and inode of a file, number of a device; nil: there is none.
    private static func identity(_ path: String) -> [UInt64]? {
        var information = stat()
        guard unsafe stat(path, &information) == 0 else { return nil }
        return information.st_mode & S_IFMT == S_IFBLK
            ? [UInt64(information.st_rdev)] : [UInt64(information.st_dev), UInt64(information.st_ino)]
    }
}
