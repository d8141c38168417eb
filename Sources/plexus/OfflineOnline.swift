import ArgumentParser
import Control

struct Offline: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Take a plex out for maintenance; its disk is closed.")

    @OptionGroup var chosen: ChosenPlex

    func run() throws {
        try reporting { try chosen.change(.offline) }
    }
}

struct Online: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Bring a plex back that was taken offline or has failed; it is copied anew.")

    @OptionGroup var chosen: ChosenPlex

    func run() throws {
        try reporting { try chosen.change(.online) }
    }
}
