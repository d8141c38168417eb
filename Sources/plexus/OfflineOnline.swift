import ArgumentParser
import Control

struct Offline: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Take a plex out for maintenance; its disk is closed.")

    @Argument(help: "The mirror.")
    var name: String

    @Argument(help: "Number, disk path or UUID, see plexus status.")
    var plex: String

    @OptionGroup var control: ControlOptions

    func run() throws {
        try reporting { try control.change(ControlRequest(.offline, mirror: name, plex: plexArgument(plex))) }
    }
}

struct Online: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Bring a plex back that was taken offline or has failed; it is copied anew.")

    @Argument(help: "The mirror.")
    var name: String

    @Argument(help: "Number, disk path or UUID, see plexus status.")
    var plex: String

    @OptionGroup var control: ControlOptions

    func run() throws {
        try reporting { try control.change(ControlRequest(.online, mirror: name, plex: plexArgument(plex))) }
    }
}
