internal import Foundation
internal import Glibc
internal import MirrorCore
internal import MirrorFormat

/// A disk that carries a plex that was looked for. It is closed again.
struct SeenPlex: Sendable {
    var path: String
    var superblock: Superblock
    var pages: FoundPages?
}

/// Looks for the disks of plexes that are out: where they were, and, if asked to be thorough, among their neighbours, for
/// a device comes back under the next free name, and a file may have been moved.
///
/// Reads only. To be run on a thread that may hang.
struct PlexSearch: Sendable {
    /// Of a directory, and block devices.
    private static let mostNeighbours = 256

    var mirror: MirrorUUID
    var plexes: Set<PlexUUID>
    /// Of these the ones that the server had open: they may be found anywhere. A disk that it was not given when it was
    /// started may have been left out on purpose, and has to be named.
    var roaming: Set<PlexUUID>
    /// Where to look first.
    var paths: [String]
    /// Disks that the server has open.
    var inUse: Set<Disk.Identity>
    var isThorough: Bool

    /// - Returns: of each disk once; two with the same plex if there is a clone.
    func run() -> [SeenPlex] {
        var looked = inUse
        var seen: [SeenPlex] = []
        for (wanted, places) in [(plexes, paths), (roaming, isThorough && !roaming.isEmpty ? neighbours() : [])] {
            for path in places {
                guard Self.mayBeDisk(path), let identity = Disk.identity(of: path), looked.insert(identity).inserted,
                    let plex = look(path, for: wanted)
                else { continue }
                seen.append(plex)
            }
        }
        return seen
    }

    private static func mayBeDisk(_ path: String) -> Bool {
        var information = stat()
        guard unsafe stat(path, &information) == 0 else { return false }
        let kind = information.st_mode & S_IFMT
        return kind == S_IFBLK || (kind == S_IFREG && UInt64(information.st_size) > Layout.superblockAreaBytes)
    }

    private func neighbours() -> [String] {
        var found: [String] = []
        let directories = Set(paths.map { URL(fileURLWithPath: $0).deletingLastPathComponent().path })
        for directory in directories.sorted() {
            if directory.hasPrefix("/dev"), directory != "/dev/shm" {
                let devices = (try? FileManager.default.contentsOfDirectory(atPath: "/sys/class/block")) ?? []
                found += devices.sorted().prefix(Self.mostNeighbours).map {
                    "/dev/" + $0.replacingOccurrences(of: "!", with: "/")
                }
            } else {
                let files = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
                found += files.sorted().prefix(Self.mostNeighbours).map { "\(directory)/\($0)" }
            }
        }
        return found
    }

    private func look(_ path: String, for wanted: Set<PlexUUID>) -> SeenPlex? {
        guard let disk = try? Disk.open(path, .readOnly) else { return nil }
        defer { disk.shut() }
        guard let superblock = try? disk.superblock(), superblock.record.mirror == mirror,
            wanted.contains(superblock.plex)
        else { return nil }
        return SeenPlex(path: path, superblock: superblock, pages: disk.pages(of: superblock))
    }
}
