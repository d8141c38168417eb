import Foundation
import Glibc
import Logging
import Synchronization

/// One line per message on stderr: `time level text key=value`, as the journal likes it.
struct LineLogHandler: LogHandler {
    var logLevel: Logger.Level = .info
    var metadata: Logger.Metadata = [:]

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let all = metadata.merging(event.metadata ?? [:]) { $1 }
        let pairs = all.sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }.joined()
        let time = Date().ISO8601Format()
        writeError("\(time) \(event.level) \(event.message)\(pairs)\n")
    }
}

/// Writes to stderr what it takes at once. The server must neither stop, as `FileHandle` does, nor wait when
/// nobody reads its log any more, or when the disk under the log is full.
func writeError(_ text: String) {
    let bytes = Array(text.utf8)
    // What there is room for must not be taken by another thread in between.
    writing.withLock { _ in
        var state = pollfd(fd: 2, events: Int16(POLLOUT), revents: 0)
        guard unsafe poll(&state, 1, 0) > 0, state.revents & Int16(POLLOUT) != 0 else { return }
        _ = unsafe write(2, bytes, bytes.count)
    }
}

private let writing = Mutex(())
