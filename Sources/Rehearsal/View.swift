internal import Foundation
internal import Glibc

/// A stretch of a disk as a file of its own that takes writes: these go to a temporary file, never to the disk.
///
/// nbdkit opens the disk for reading only, its filter `cow` keeps what is written, its filter `offset` cuts out the stretch,
/// and nbdfuse shows that as a file. It needs no root.
final class View {
    private static let startSeconds = 30.0

    let path: String
    private let folder: String
    private let program: Program
    private let workspace: Workspace

    /// Why there is none.
    struct Lacking: Error {
        var description: String
    }

    /// - Parameter link: to the disk, in the workspace.
    static func open(
        _ link: String, offset: UInt64, count: UInt64, in workspace: Workspace
    ) throws(Interrupted) -> Result<View, Lacking> {
        guard let nbdkit = Program.find("nbdkit"), let nbdfuse = Program.find("nbdfuse") else {
            return .failure(Lacking(description: "install nbdkit and nbdfuse (libnbd-bin)"))
        }
        guard unsafe access("/dev/fuse", R_OK | W_OK) == 0 else {
            return .failure(
                Lacking(
                    description: "/dev/fuse is needed and not there for this user (in a container: --device /dev/fuse)")
            )
        }
        guard getuid() == 0 || Program.find("fusermount3") != nil else {
            return .failure(Lacking(description: "install fusermount3 (fuse3)"))
        }
        guard let folder = workspace.makeDirectory("view") else {
            return .failure(Lacking(description: "no directory can be made in \(workspace.path)"))
        }
        let words = [
            folder, "--command", nbdkit, "-s", "--filter=cow", "--filter=offset", "file", "file=\(link)",
            "offset=\(offset)", "range=\(count)",
        ]
        let view = View(folder, Program(nbdfuse, words, in: workspace), workspace)
        let limit = Patience.nowSeconds + startSeconds
        while !view.isReady(count) {
            if view.program.poll() != nil || Patience.nowSeconds > limit {
                let said = view.program.lines.last.map { ": \($0)" } ?? ""
                return .failure(Lacking(description: "nbdfuse gives no view of the disk\(said)"))
            }
            try Patience.wait(milliseconds: 20)
        }
        return .success(view)
    }

    private init(_ folder: String, _ program: Program, _ workspace: Workspace) {
        self.folder = folder
        self.workspace = workspace
        self.program = program
        path = "\(folder)/nbd"
    }

    deinit {
        program.end()
        guard isMounted else { return }
        // It was killed before it could do that itself.
        if unsafe umount2(folder, Int32(MNT_DETACH)) != 0, let fusermount = Program.find("fusermount3") {
            let unmount = Program(fusermount, ["-uz", folder], in: workspace)
            for _ in 0..<500 where unmount.poll() == nil { Patience.sleep(milliseconds: 10) }
        }
    }

    private func isReady(_ count: UInt64) -> Bool {
        var information = stat()
        return unsafe stat(path, &information) == 0 && UInt64(information.st_size) == count
    }

    /// By the kernel's table, for a look at a mount without a server blocks or fails.
    private var isMounted: Bool {
        let table = (try? String(contentsOfFile: "/proc/self/mounts", encoding: .utf8)) ?? ""
        return table.split(separator: "\n").contains { $0.split(separator: " ").dropFirst().first == Substring(folder) }
    }
}
