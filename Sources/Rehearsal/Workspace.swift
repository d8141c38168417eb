internal import Foundation
internal import Glibc

/// A directory for everything temporary; it goes when the last reference goes, however the drill ends.
package final class Workspace {
    package let path: String
    private var count = 0

    /// In $TMPDIR, or /var/tmp, which is a disk where /tmp often is memory.
    package init() throws(Unreadable) {
        let wanted = ProcessInfo.processInfo.environment["TMPDIR"].map { [$0] } ?? ["/var/tmp", "/tmp"]
        for parent in wanted {
            var template = Array("\(parent)/plexus-drill-XXXXXX".utf8CString)
            if unsafe mkdtemp(&template) != nil {
                path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
                return
            }
        }
        throw Unreadable(
            description:
                "no temporary directory can be made in \(wanted.joined(separator: " or ")): \(errorText(errno)); set TMPDIR"
        )
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// Of a file or directory that is not there yet.
    func newPath(_ name: String) -> String {
        count += 1
        return "\(path)/\(name)-\(count)"
    }

    /// Another name of a disk. Tools take some characters of paths for options: `,`, `=`, `@@`, a `-` in front.
    func link(to disk: String) -> String? {
        let path = newPath("disk")
        return unsafe symlink(disk, path) == 0 ? path : nil
    }

    func makeDirectory(_ name: String) -> String? {
        let path = newPath(name)
        return unsafe mkdir(path, 0o700) == 0 ? path : nil
    }
}
