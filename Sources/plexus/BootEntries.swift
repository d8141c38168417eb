import ArgumentParser
import Control
import Rehearsal

struct BootEntries: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bootentries",
        abstract: "Print what to type so that the firmware can boot from each disk of a mirror.",
        discussion: """
            Prints a line with efibootmgr for each plex on a block device with an EFI system partition, and does nothing. Typed \
            as printed, as root and in a system that was booted by UEFI, the plex with the lowest number comes first in the \
            firmware's order. Entries name the whole path of a disk, for the partitions of all plexes have the same GUIDs.

            Exit code: 0 there is a line for every plex, 1 not for every one, 2 could not tell.
            """)

    @Argument(help: "The mirror.")
    var name: String

    @Flag(help: "Print JSON, version 1.")
    var json = false

    @OptionGroup var control: ControlOptions

    func run() throws {
        try rehearsing {
            let report = try fetchStatus(control, name)
            guard let mirror = report.mirrors.first else { throw Failure("there is no mirror \(name)") }
            let found = try Rehearsal.BootEntries(MirrorToDrill(mirror), in: Workspace())
            if json {
                print(try plexus.json(found))
            } else {
                // Each new entry goes before those that are there.
                for command in found.entries.reversed().compactMap(\.command) { print(command) }
            }
            let without = found.entries.filter { $0.command == nil }
            for entry in without {
                let disk = entry.disk.map { " (\($0))" } ?? ""
                printError("no entry for plex \(entry.index)\(disk): \(entry.reason ?? "")")
            }
            if !without.isEmpty { throw ExitCode(1) }
        }
    }
}
