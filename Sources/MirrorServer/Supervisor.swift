internal import Control
internal import Foundation
internal import Glibc

/// What systemd, or a program that speaks its protocol, is told of us, if it started us. Source: sd_notify(3).
///
/// Nothing here waits: a supervisor that does not read its socket holds up no client. What could not be sent is sent at the
/// next tick, in order.
struct Supervisor {
    private let socketPath: String?
    /// Nanoseconds; nil: it does not watch us.
    let watchdogNanoseconds: UInt64?
    private var file: Int32 = -1
    /// Oldest first; what follows one another here is a handful in the life of a server.
    private var unsent: [String] = []
    /// The last one that was queued.
    private var status = ""
    private var lastPetAt: UInt64 = 0

    /// Bytes of a status; `systemctl status` shows one line.
    static let statusBytes = 1024
    /// Then the oldest is given up.
    static let unsentMessages = 16

    var isPresent: Bool { socketPath != nil }

    /// - Parameter environment: of this process.
    init(environment: [String: String]) {
        socketPath = environment["NOTIFY_SOCKET"].flatMap { $0.isEmpty ? nil : $0 }
        // WATCHDOG_PID says who is meant: the variables are inherited by whatever a service begins.
        let isMeant = environment["WATCHDOG_PID"].map { Int32($0) == getpid() } ?? true
        let microseconds = environment["WATCHDOG_USEC"].flatMap { UInt64($0) } ?? 0
        let isWatching = socketPath != nil && isMeant && microseconds > 0 && microseconds < UInt64.max / 1000
        watchdogNanoseconds = isWatching ? microseconds * 1000 : nil
    }

    /// - Parameter state: lines of NAME=VALUE.
    mutating func tell(_ state: String) {
        guard isPresent else { return }
        if unsent.count == Self.unsentMessages { unsent.removeFirst() }
        unsent.append(state)
        sendUnsent()
    }

    /// One line for `systemctl status`; what was told before is not told again.
    ///
    /// - Parameter state: what is told along with it, whether or not the line is new.
    mutating func tell(status text: String, with state: String? = nil) {
        let line = Self.line(text)
        guard line != status || state != nil else { return }
        status = line
        tell((state.map { "\($0)\n" } ?? "") + "STATUS=\(line)")
    }

    /// To be called at each tick.
    ///
    /// - Parameters:
    ///   - now: monotonic nanoseconds.
    ///   - isAlive: all loops run.
    mutating func tick(now: UInt64, isAlive: Bool) {
        guard isPresent else { return }
        sendUnsent()
        // A third of the time: one that is lost, or late, does no harm.
        guard let watchdogNanoseconds, isAlive, now - lastPetAt >= watchdogNanoseconds / 3 else { return }
        lastPetAt = now
        _ = send("WATCHDOG=1")
    }

    /// Without what would be another line, and thereby another variable: paths may contain line breaks.
    static func line(_ text: String) -> String {
        var line = ""
        for scalar in text.unicodeScalars {
            let isControl = scalar.value < 32 || scalar.value == 127
            guard line.utf8.count + 4 <= statusBytes else { return line + "…" }
            line.unicodeScalars.append(isControl ? " " : scalar)
        }
        return line
    }

    private mutating func sendUnsent() {
        while let first = unsent.first, send(first) { unsent.removeFirst() }
    }

    /// - Returns: false: it would have to wait.
    private mutating func send(_ state: String) -> Bool {
        guard let socketPath else { return true }
        if file < 0 { file = Self.open() }
        return Self.send(state, to: socketPath, from: file)
    }

    private static func open() -> Int32 {
        socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    }

    private static func send(_ state: String, to socketPath: String, from file: Int32) -> Bool {
        // A leading @ stands for the abstract name space.
        let path = socketPath.hasPrefix("@") ? "\0" + socketPath.dropFirst() : socketPath
        guard file >= 0, var address = UnixAddress(path: path) else { return true }
        let bytes = Array(state.utf8)
        let length = socklen_t(MemoryLayout<sa_family_t>.size + path.utf8.count)
        let sent = unsafe address.withPointer { pointer, _ in
            unsafe sendto(file, bytes, bytes.count, Int32(MSG_NOSIGNAL), pointer, length)
        }
        return sent >= 0 || (errno != EAGAIN && errno != EINTR)
    }

    /// For a process that has one thing to tell.
    static func tellOnce(_ state: String) {
        var supervisor = Supervisor(environment: ProcessInfo.processInfo.environment)
        supervisor.tell(state)
        if supervisor.file >= 0 { close(supervisor.file) }
    }
}

/// Tells systemd about us, if it started us. For verbs that have no loop; a server has a `Supervisor`.
///
/// - Parameter state: lines of NAME=VALUE, see sd_notify(3), for example `READY=1`.
public func notifySupervisor(_ state: String) { Supervisor.tellOnce(state) }
