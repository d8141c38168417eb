internal import Foundation
internal import Glibc

/// /dev/nbdN, by what the kernel shows of it under /sys and /proc.
public struct BlockDevice: Sendable, Equatable {
    public let number: UInt32

    init(number: UInt32) { self.number = number }

    /// - Parameter path: /dev/nbdN, or a link to it.
    public init?(path: String) {
        let real = URL(fileURLWithPath: path).resolvingSymlinksInPath().path
        guard real.hasPrefix("/dev/nbd"), let number = UInt32(real.dropFirst("/dev/nbd".count)) else { return nil }
        self.number = number
    }

    public var path: String { "/dev/\(name)" }
    var name: String { "nbd\(number)" }
    private var folder: String { "/sys/block/\(name)" }

    /// Those that something is attached to.
    static var allAttached: [BlockDevice] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/sys/block")) ?? []
        return names.filter { $0.hasPrefix("nbd") }.compactMap { UInt32($0.dropFirst(3)) }.sorted()
            .map { BlockDevice(number: $0) }.filter(\.isAttached)
    }

    /// The process that attached it, which may have ended since; nil while it is not attached.
    var attacher: String? { contents("pid") }
    var isAttached: Bool { attacher != nil }
    /// What the one who attached it called it; may be empty.
    var backend: String? { contents("backend") }
    var owner: String? { backend.flatMap { $0.isEmpty ? nil : $0 } }
    var sizeBytes: UInt64 { (contents("size").flatMap { UInt64($0) } ?? 0) * 512 }

    private func contents(_ file: String) -> String? { Self.text("\(folder)/\(file)") }

    private static func text(_ path: String) -> String? {
        (try? String(contentsOfFile: path, encoding: .utf8))?.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// Makes the kernel look for partitions, and udev for names.
    func announce() {
        let file = unsafe open(path, O_RDONLY | O_CLOEXEC)
        if file >= 0 { close(file) }
        let event = unsafe open("\(folder)/uevent", O_WRONLY | O_CLOEXEC)
        guard event >= 0 else { return }
        _ = unsafe write(event, "change", 6)
        close(event)
    }

    // MARK: who uses it

    /// Its own name and those of its partitions.
    private var parts: [String] {
        let entries = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return [name] + entries.filter { $0.hasPrefix("\(name)p") }.sorted()
    }

    /// What stands on it for the kernel: mounts, swap, other block devices. Each as a phrase: "/dev/nbd0p1 is mounted on /srv".
    var uses: [String] {
        let mounts = (Self.text("/proc/self/mountinfo") ?? "").split(separator: "\n").map { $0.split(separator: " ") }
        let swaps = (Self.text("/proc/swaps") ?? "").split(separator: "\n").map { $0.split(separator: " ") }
        var found: [String] = []
        for part in parts {
            let place = part == name ? folder : "\(folder)/\(part)"
            if let numbers = Self.text("\(place)/dev") {
                for mount in mounts where mount.count > 4 && mount[2] == numbers {
                    found.append("/dev/\(part) is mounted on \(mount[4])")
                }
            }
            if swaps.contains(where: { $0.first == "/dev/\(part)" }) { found.append("/dev/\(part) is swap space") }
            for holder in (try? FileManager.default.contentsOfDirectory(atPath: "\(place)/holders")) ?? [] {
                found.append("/dev/\(part) carries /dev/\(holder)")
            }
        }
        return found
    }

    /// Programs that have it open; all that this user may see.
    var openers: [String] {
        let paths = Set(parts.map { "/dev/\($0)" })
        var found: [String] = []
        for process in (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? [] {
            guard let pid = Int32(process), pid != getpid() else { continue }
            let files = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd")) ?? []
            let opened = files.lazy.compactMap {
                try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/fd/\($0)")
            }
            guard let path = opened.first(where: { paths.contains($0) }) else { continue }
            found.append("\(path) is open in \(Self.text("/proc/\(pid)/comm") ?? "process") (\(pid))")
        }
        return found
    }
}
