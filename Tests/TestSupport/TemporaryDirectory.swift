internal import Foundation
internal import Glibc

/// A directory that lives as long as `body` runs, and goes however `body` ends.
///
/// - Parameter body: gets the path, which is short enough for Unix sockets.
package func withTemporaryDirectory<Result>(_ body: (String) throws -> Result) throws -> Result {
    var template = Array("/tmp/plexus-test-XXXXXX".utf8CString)
    guard unsafe mkdtemp(&template) != nil else { throw Missing("a temporary directory, errno \(errno)") }
    let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    defer { try? FileManager.default.removeItem(atPath: path) }
    // A listening socket that another test makes at this moment narrows the umask of the whole process.
    guard unsafe chmod(path, 0o700) == 0 else { throw Missing("access to \(path), errno \(errno)") }
    return try body(path)
}

/// A sparse file of so many bytes.
package func makeFile(_ path: String, bytes: Int) throws {
    let file = unsafe open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard file >= 0 else { throw Missing("\(path), errno \(errno)") }
    defer { close(file) }
    guard ftruncate(file, off_t(bytes)) == 0 else { throw Missing("\(bytes) bytes in \(path), errno \(errno)") }
}

/// Of a file: as `ls -ls` shows it.
package struct FileFacts: Sendable, Equatable {
    package var bytes: Int
    package var allocatedBytes: Int
    /// The nine permission bits.
    package var mode: UInt32
    package var isSocket: Bool

    /// - Returns: nil if nothing lies at the path.
    package init?(_ path: String) {
        var information = stat()
        guard unsafe lstat(path, &information) == 0 else { return nil }
        bytes = Int(information.st_size)
        allocatedBytes = Int(information.st_blocks) * 512
        mode = information.st_mode & 0o777
        isSocket = information.st_mode & S_IFMT == S_IFSOCK
    }
}

/// Asks `condition` again and again until it gives a value. The time limit turns a hang into a failure and
/// says nothing about speed.
package func waitUntil<Value>(
    _ what: @autoclosure () -> String, seconds: Int = 60, _ condition: () throws -> Value?
) throws -> Value {
    let clock = ContinuousClock()
    let end = clock.now.advanced(by: .seconds(seconds))
    while true {
        if let value = try condition() { return value }
        guard clock.now < end else { throw Missing("waited \(seconds) s in vain for \(what())") }
        usleep(5_000)
    }
}
