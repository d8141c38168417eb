import ArgumentParser
import Control

struct Replace: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Put a new disk in the place of a plex, which serves until the new one is in sync.",
        discussion: """
            Also of a plex that fails, is missing or was taken out. When the new plex is in sync the old one is forgotten and
            its metadata wiped, as by plexus break --nokeep; at no moment are there fewer good copies than before. To give
            it up: plexus break NAME NEWPLEX --nokeep.
            """)

    @Argument(help: "The mirror.")
    var name: String

    @Argument(help: "Number, disk or UUID.")
    var plex: String

    @OptionGroup var disk: NewDisk
    @OptionGroup var control: ControlOptions

    func run() throws {
        try reporting { try control.change(disk.request(.replace, mirror: name, plex: plexArgument(plex))) }
    }
}
