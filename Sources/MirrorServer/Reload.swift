internal import BasicContainers
internal import Control
internal import Glibc
internal import MirrorCore
internal import MirrorFormat
internal import URing

/// What a new reading of the configuration came to, as far as it can be found out beside the loop: sockets that listen,
/// disks that are open. Made on a thread, then handed over.
final class Reload: @unchecked Sendable {
    /// What is there already.
    struct Present: Sendable {
        var options: ServerOptions
        /// Of listeners.
        var origins: Set<String>
        /// Some sockets were handed over.
        var hasOthers: Bool
        var mirrors: Set<MirrorUUID>
    }

    let options: ServerOptions
    private(set) var listeners: [Listener] = []
    /// Mirrors that were not served.
    var opening = Opening()
    /// Of mirrors that are.
    private(set) var spares: [HotSpare] = []

    /// - Throws: `DiskError`; nothing is left open.
    init(_ read: () throws -> ServerOptions, _ present: Present) throws(DiskError) {
        do {
            options = try read()
        } catch {
            throw error as? DiskError ?? DiskError("\(error)")
        }
        do throws(DiskError) {
            for origin in options.listenOrigins(hasOthers: present.hasOthers) where !present.origins.contains(origin) {
                listeners += try Listener.listen(origin)
            }
            try openDisks(present)
        } catch {
            giveBack()
            throw error
        }
    }

    /// It is not taken over.
    func giveBack() {
        for listener in listeners { listener.shut() }
        for spare in spares { spare.disk.shut() }
        for index in opening.served.indices { opening.served[index].shutDisks() }
    }

    private func openDisks(_ present: Present) throws(DiskError) {
        let new = options.disks.filter { !present.options.disks.contains($0) }
        var ofOthers: [String] = []
        for path in new {
            switch try Self.mirror(of: path) {
            case .plex(let mirror) where present.mirrors.contains(mirror): break  // Is looked for, see `PlexSearch`.
            case .spare(let mirror) where present.mirrors.contains(mirror):
                let disk = try Disk.open(path, .readWrite)
                guard let mark = try? disk.spareMark(), mark.mirror == mirror else {
                    disk.shut()
                    continue
                }
                spares.append(HotSpare(disk: disk, mark: mark))
            case .plex, .spare, .none: ofOthers.append(path)
            }
        }
        guard !ofOthers.isEmpty else { return }
        opening = try Opening.open(ofOthers, present.options.opening)
    }

    private enum Kind {
        case plex(MirrorUUID), spare(MirrorUUID), none
    }

    private static func mirror(of path: String) throws(DiskError) -> Kind {
        let disk = try Disk.open(path, .readOnly)
        defer { disk.shut() }
        if case .found(let superblock) = try disk.scan() { return .plex(superblock.record.mirror) }
        return try disk.spareMark().map { .spare($0.mirror) } ?? .none
    }
}

extension ServerOptions {
    /// Of the sockets that the server opens itself: a Unix path, or `tcp:` and what `--listen` says.
    ///
    /// - Parameter hasOthers: some were handed over, so that there is no default.
    func listenOrigins(hasOthers: Bool) -> [String] {
        var origins = listen.map { "tcp:\($0)" }
        if let socket {
            origins.append(socket)
        } else if origins.isEmpty, !hasOthers {
            origins.append(Self.defaultSocket)
        }
        return origins
    }

    /// Settings that differ and that only a new start takes over.
    func settingsForANewStart(differingFrom other: ServerOptions) -> [String] {
        var names: [String] = []
        if control != other.control { names.append("control") }
        if threads != other.threads { names.append("threads") }
        if lockMemory ?? false != other.lockMemory ?? false { names.append("lock-memory") }
        if defaultMirror != other.defaultMirror { names.append("default") }
        if allowDegraded != other.allowDegraded { names.append("degraded") }
        if isReadOnly != other.isReadOnly { names.append("read-only") }
        return names
    }
}
