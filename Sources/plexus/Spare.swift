import ArgumentParser
import Control

struct Spare: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Name a disk that takes the place of a plex by itself.",
        discussion: """
            When a plex has been failed or missing for some time (serve --spare-delay) the spare is copied to, and the plex
            is forgotten when that is done. A plex that was taken out or broken off is not replaced. The disk says of itself
            whose spare it is: name it to plexus serve beside the mirror's disks. With --remove it is a blank disk again.
            """)

    @Argument(help: "The mirror.")
    var name: String

    @OptionGroup var disk: NewDisk

    @Flag(help: "It is a spare no more.")
    var remove = false

    @OptionGroup var control: ControlOptions

    func run() throws {
        try reporting {
            var request = disk.request(.spare, mirror: name)
            request.remove = remove
            try control.change(request)
        }
    }
}
