import ArgumentParser
import Control

struct Resolve: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "After a split brain: choose the side whose data are kept.",
        discussion: """
            Without --force it only says what the other side wrote alone and would lose. With it the mirror is served
            from the side of the plex named, and the others get copied what either side changed.
            """)

    @Argument(help: "The mirror.")
    var name: String

    @Option(help: "A plex of the side to keep: number, disk path or UUID.")
    var keep: String

    @Flag(help: "Do it.")
    var force = false

    @OptionGroup var control: ControlOptions

    func run() throws {
        try reporting {
            var request = ControlRequest(.resolve, mirror: name, plex: plexArgument(keep))
            request.force = force
            try control.change(request)
        }
    }
}
