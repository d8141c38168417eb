import Foundation
import Logging

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
        FileHandle.standardError.write(Data("\(time) \(event.level) \(event.message)\(pairs)\n".utf8))
    }
}
