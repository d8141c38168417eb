internal import Foundation
internal import Glibc

/// A program of the system that runs beside us, its output in a file of the workspace.
final class Program {
    /// A tool that says more than this has found more than anybody reads.
    private static let mostOutputBytes = 16 << 20
    private static let shownOutputBytes = 64 << 10

    enum End: Equatable {
        case exit(Int32)
        case signal(Int32)
        /// It was ended by us.
        case tooLong, tooMuchOutput
        /// It could not be started.
        case notStarted(String)
    }

    private let output: String
    private var pid: pid_t = 0
    private var ended: End?

    /// - Returns: nil if it is not installed. Where PATH has `/usr/bin` but not `/usr/sbin`, as that of plain users on Debian,
    ///   the second is looked into as well: that is where the checkers of file systems lie.
    static func find(_ name: String) -> String? {
        let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").filter {
            $0.hasPrefix("/")
        }
        let siblings = folders.filter { $0.hasSuffix("/bin") }.map { $0.dropLast(3) + "sbin" }
        return (folders + siblings).map { "\($0)/\(name)" }.first { path in
            var information = stat()
            guard unsafe stat(path, &information) == 0, information.st_mode & S_IFMT == S_IFREG else { return false }
            return unsafe access(path, X_OK) == 0
        }
    }

    /// Starts it. It ends with us, even if we are killed (setpriv is in util-linux).
    init(_ path: String, _ arguments: [String], in workspace: Workspace) {
        output = workspace.newPath("output")
        var words = [path] + arguments
        if let setpriv = Self.find("setpriv") { words = [setpriv, "--pdeathsig", "TERM", "--"] + words }
        let number = spawn(words, workspace)
        if number != 0 { ended = .notStarted(errorText(number)) }
    }

    deinit { end() }

    private func spawn(_ words: [String], _ workspace: Workspace) -> Int32 {
        var environment = ProcessInfo.processInfo.environment
        // Answers in English, temporary files where they are removed, and no settings of the user's.
        environment.merge(["LC_ALL": "C", "TMPDIR": workspace.path, "MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1"])
        { $1 }
        var actions = unsafe posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        unsafe posix_spawn_file_actions_init(&actions)
        unsafe posix_spawnattr_init(&attributes)
        defer {
            unsafe posix_spawn_file_actions_destroy(&actions)
            unsafe posix_spawnattr_destroy(&attributes)
        }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        unsafe posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        unsafe posix_spawn_file_actions_adddup2(&actions, 1, 2)
        var none = sigset_t()
        unsafe sigemptyset(&none)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        // A group of its own: what is typed at the terminal reaches us, and we end it in order.
        unsafe posix_spawnattr_setpgroup(&attributes, 0)
        unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP))
        let program = words[0]
        return unsafe withCStrings(words) { arguments in
            unsafe withCStrings(environment.map { "\($0.key)=\($0.value)" }) { variables in
                unsafe posix_spawn(&pid, program, &actions, &attributes, arguments, variables)
            }
        }
    }

    /// - Returns: nil while it runs.
    func poll() -> End? {
        if let ended { return ended }
        var status: Int32 = 0
        guard unsafe waitpid(pid, &status, WNOHANG) == pid else { return nil }
        // The macros of <sys/wait.h>: the low seven bits are the signal, the next byte is the exit code.
        ended = status & 0x7F == 0 ? .exit(status >> 8 & 0xFF) : .signal(status & 0x7F)
        return ended
    }

    func wait(limitSeconds: Double) throws(Interrupted) -> End {
        let limit = Patience.nowSeconds + limitSeconds
        while true {
            if let end = poll() { return end }
            let isTooMuch = outputBytes > Self.mostOutputBytes
            if isTooMuch || Patience.nowSeconds > limit {
                end()
                return isTooMuch ? .tooMuchOutput : .tooLong
            }
            try Patience.wait(milliseconds: 200)
        }
    }

    /// Politely first, for then it cleans up after itself.
    func end() {
        guard poll() == nil else { return }
        kill(pid, SIGTERM)
        for _ in 0..<1000 {
            if poll() != nil { return }
            Patience.sleep(milliseconds: 10)
        }
        kill(-pid, SIGKILL)
        while poll() == nil { Patience.sleep(milliseconds: 10) }
    }

    /// What it said, as lines without what a terminal would obey; of very much the end.
    var lines: [String] {
        guard let file = FileHandle(forReadingAtPath: output) else { return [] }
        let length = (try? file.seekToEnd()) ?? 0
        try? file.seek(toOffset: length - min(length, UInt64(Self.shownOutputBytes)))
        let data = (try? file.readToEnd()) ?? Data()
        return String(decoding: data, as: UTF8.self).split(whereSeparator: \.isNewline).map { printable($0) }.filter {
            !$0.allSatisfy(\.isWhitespace)
        }
    }

    private var outputBytes: Int {
        var information = stat()
        return unsafe stat(output, &information) == 0 ? Int(information.st_size) : 0
    }

    private func withCStrings<Result>(
        _ texts: [String], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Result
    ) -> Result {
        var pointers = unsafe texts.map { unsafe strdup($0) } + [nil]
        defer { unsafe pointers.forEach { unsafe free($0) } }
        return unsafe pointers.withUnsafeMutableBufferPointer { buffer in
            guard let start = buffer.baseAddress else { preconditionFailure("a list that ends with nil is not empty") }
            return unsafe body(start)
        }
    }
}
