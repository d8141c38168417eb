internal import Control
internal import Dispatch
internal import Foundation
internal import Glibc
internal import Logging
internal import Synchronization

/// The program that `serve --on-event` runs for each event, one after the other, in their order.
///
/// It is told by environment variables, see `plexus serve --help`. It runs beside the server: a slow one delays later
/// calls of itself, nothing else, and what it can't keep up with is dropped, which the log says.
final class EventProgram: Sendable {
    private static let mostWaiting = 256

    let path: String
    private let logger: Logger
    private let queue = DispatchQueue(label: "events")
    private let waiting = Atomic<Int>(0)

    /// - Throws: `DiskError` if it can't be run.
    init(path: String, logger: Logger) throws(DiskError) {
        var information = stat()
        guard unsafe stat(path, &information) == 0 else { throw DiskError("\(path): \(errorText(errno))") }
        guard information.st_mode & S_IFMT == S_IFREG, unsafe access(path, X_OK) == 0 else {
            throw DiskError("\(path): is no program that this user may run")
        }
        self.path = path
        self.logger = logger
    }

    func tell(_ event: EventReport) {
        guard waiting.load(ordering: .relaxed) < Self.mostWaiting else {
            logger.warning("\(path) is too slow: it is not told of \(event.code) (\(event.sequence))")
            return
        }
        waiting.add(1, ordering: .relaxed)
        queue.async { [self] in
            run(event)
            waiting.subtract(1, ordering: .relaxed)
        }
    }

    /// Waits until it was told of everything, but not for ever.
    func finish(withinSeconds seconds: Double) {
        let done = DispatchSemaphore(value: 0)
        queue.async { done.signal() }
        _ = done.wait(timeout: .now() + seconds)
    }

    static func environment(_ event: EventReport) -> [String: String] {
        [
            "PLEXUS_EVENT": event.code, "PLEXUS_MIRROR": event.mirror, "PLEXUS_TIME": event.time,
            "PLEXUS_PLEX": event.plex.map { String($0) } ?? "", "PLEXUS_OFFSET": String(event.offset),
            "PLEXUS_LENGTH": String(event.length), "PLEXUS_ERRNO": String(event.errno),
            "PLEXUS_GENERATION": event.generation, "PLEXUS_EPOCH": String(event.epoch),
            "PLEXUS_SEQUENCE": String(event.sequence), "PLEXUS_TEXT": event.text,
        ]
    }

    private func run(_ event: EventReport) {
        let given = ProcessInfo.processInfo.environment.merging(Self.environment(event)) { $1 }
        let number = spawn(given.map { "\($0.key)=\($0.value)" })
        if number != 0 { logger.warning("\(path): can't be run: \(errorText(number))") }
    }

    /// - Returns: an error number, or 0 when it has run.
    private func spawn(_ environment: [String]) -> Int32 {
        var actions = unsafe posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        unsafe posix_spawn_file_actions_init(&actions)
        unsafe posix_spawnattr_init(&attributes)
        defer {
            unsafe posix_spawn_file_actions_destroy(&actions)
            unsafe posix_spawnattr_destroy(&attributes)
        }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        // The server's own answers go to its output: what the program prints belongs to the log.
        unsafe posix_spawn_file_actions_adddup2(&actions, 2, 1)
        var none = sigset_t()
        unsafe sigemptyset(&none)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var pid: pid_t = 0
        let result = unsafe withCStrings([path]) { arguments in
            unsafe withCStrings(environment) { variables in
                unsafe posix_spawn(&pid, path, &actions, &attributes, arguments, variables)
            }
        }
        guard result == 0 else { return result }
        var status: Int32 = 0
        while unsafe waitpid(pid, &status, 0) < 0, errno == EINTR {}
        if status != 0 { logger.warning("\(path): ended with status \(status >> 8), signal \(status & 0x7F)") }
        return 0
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
