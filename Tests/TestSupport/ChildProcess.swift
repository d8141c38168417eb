package import Glibc

/// A program that a test started. It is ended by its own process id, whatever becomes of the test.
package final class ChildProcess {
    package let pid: pid_t
    /// As waitpid(2) reports it; nil while it runs.
    private var waitStatus: Int32?

    /// How a process ended.
    package enum End: Sendable, Equatable {
        case exit(Int32)
        case signal(Int32)
    }

    /// - Parameter output, errors: files that are created or appended to.
    /// - Throws: `Missing` if the program can't be started.
    package init(_ program: String, _ arguments: [String], output: String, errors: String) throws {
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        let append = O_WRONLY | O_CREAT | O_APPEND
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        unsafe posix_spawn_file_actions_addopen(&actions, 1, output, append, 0o600)
        unsafe posix_spawn_file_actions_addopen(&actions, 2, errors, append, 0o600)
        // Sockets and locked files of tests that run at the same time must not live on in it.
        for file: Int32 in 3..<256 { unsafe posix_spawn_file_actions_addclose(&actions, file) }
        var words: [UnsafeMutablePointer<CChar>?] = unsafe ([program] + arguments).map { unsafe strdup($0) } + [nil]
        defer { unsafe words.forEach { unsafe free($0) } }
        var child: pid_t = 0
        let number = unsafe posix_spawn(&child, program, &actions, nil, &words, environ)
        guard number == 0 else { throw Missing("\(program): \(unsafe String(cString: strerror(number)))") }
        pid = child
    }

    deinit { end() }

    package var isRunning: Bool { poll() == nil }

    /// - Returns: nil while it runs.
    package func poll() -> End? {
        if waitStatus == nil {
            var status: Int32 = 0
            if unsafe waitpid(pid, &status, WNOHANG) == pid { waitStatus = status }
        }
        // The macros of <sys/wait.h>: the low seven bits are the signal, the next byte is the exit code.
        return waitStatus.map { $0 & 0x7F == 0 ? .exit($0 >> 8 & 0xFF) : .signal($0 & 0x7F) }
    }

    /// - Throws: `Missing` if it runs on; it is ended by the caller then, like all the others.
    package func wait() throws -> End {
        try waitUntil("the end of process \(pid)") { poll() }
    }

    package func send(_ signal: Int32) {
        // Once it was waited for, the number may belong to somebody else.
        if poll() == nil { kill(pid, signal) }
    }

    /// Politely first, for then it can clean up after itself.
    package func end() {
        send(SIGTERM)
        if (try? waitUntil("the end of process \(pid)", seconds: 20) { poll() }) != nil { return }
        send(SIGKILL)
        _ = try? wait()
    }
}
