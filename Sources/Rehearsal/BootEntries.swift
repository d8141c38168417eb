internal import Foundation

/// What to type so that firmware knows each disk of a mirror by name.
///
/// The partitions of all plexes have the same GUIDs, for they are copies. An entry that names a partition by its GUID alone, as
/// efibootmgr makes them, means whichever disk the firmware finds first: `--edd 3` has the whole path of the disk written.
package struct BootEntries: Codable, Sendable {
    package struct Entry: Codable, Sendable {
        package var index: Int
        package var disk: String?
        package var partition: Int?
        package var loader: String?
        /// Null: there is nothing to be typed, and `reason` says why.
        package var command: String?
        package var reason: String?

        package func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(index, forKey: .index)
            try container.encode(disk, forKey: .disk)
            try container.encode(partition, forKey: .partition)
            try container.encode(loader, forKey: .loader)
            try container.encode(command, forKey: .command)
            try container.encode(reason, forKey: .reason)
        }
    }

    package var version = 1
    package var mirror: String
    package var entries: [Entry]

    package init(_ mirror: MirrorToDrill, in workspace: Workspace) throws(Interrupted) {
        self.mirror = mirror.name
        entries = []
        for plex in mirror.plexes { entries.append(try Self.entry(plex, mirror, workspace)) }
    }

    private static func entry(
        _ plex: PlexToDrill, _ mirror: MirrorToDrill, _ workspace: Workspace
    ) throws(Interrupted) -> Entry {
        var entry = Entry(index: plex.index, disk: plex.disk)
        guard plex.isInSync, let path = plex.disk else {
            entry.reason = plex.copy.text
            return entry
        }
        let disk: DiskFile
        let table: PartitionTable?
        do throws(Unreadable) {
            disk = try DiskFile(path)
            table = try DiskLayout(disk, disk.bytes(mirror.bytes)).table
        } catch {
            entry.reason = error.description
            return entry
        }
        guard let partition = table?.systemPartition else {
            entry.reason = "it has no EFI system partition"
            return entry
        }
        entry.partition = partition.number
        guard let link = workspace.link(to: path) else {
            entry.reason = "no link can be made in \(workspace.path)"
            return entry
        }
        switch try SystemPartition.find(link, offset: partition.offset, in: workspace) {
        case .lacking(let text): entry.reason = text
        case .unreadable(let text): entry.reason = "partition \(partition.number) can't be read: \(text)"
        case .found(let system):
            guard let loader = system.entryLoader else {
                entry.reason = "partition \(partition.number) has no boot loader for this kind of computer"
                return entry
            }
            entry.loader = loader
            if !disk.isBlockDevice {
                entry.reason = "\(path) is a file: firmware boots devices"
            } else if disk.isPartition {
                entry.reason = "\(path) is a partition, and no firmware looks for partitions in it"
            } else {
                entry.command = command(path, partition.number, "\(mirror.name) plex \(plex.index)", loader)
            }
        }
        return entry
    }

    static func command(_ disk: String, _ partition: Int, _ label: String, _ loader: String) -> String {
        "efibootmgr --create --edd 3 --disk \(quoted(disk)) --part \(partition) --label \(quoted(label)) --loader \(quoted(loader))"
    }

    /// For a shell: names come from a disk, and a quote in one must not end the word.
    static func quoted(_ text: String) -> String {
        let plain = text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "/._-+:".contains($0)) }
        return plain && !text.isEmpty ? text : "'" + text.replacingOccurrences(of: "'", with: "'\\''") + "'"
    }
}
