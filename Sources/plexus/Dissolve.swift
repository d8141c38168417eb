import ArgumentParser
import Control

struct Dissolve: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "End a mirror of one plex: its disk becomes a plain disk again, with the same data.",
        discussion: """
            The mirror is stopped first, as by plexus stop: clients are disconnected. Then its metadata are removed; a file ends
            where its data end. Take the other plexes out before, with plexus break.
            """)

    @Argument(help: "The mirror.")
    var name: String

    @OptionGroup var control: ControlOptions

    func run() throws {
        try reporting { try control.change(ControlRequest(.dissolve, mirror: name)) }
    }
}
