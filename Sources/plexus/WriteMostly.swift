import ArgumentParser
import Control

struct WriteMostly: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Read a plex only where no other can be.",
        discussion: """
            For a disk that is slower than the others, or far away: it gets every write, and is as good a copy as any. It
            stays so until it is told otherwise, over restarts.
            """)

    @OptionGroup var chosen: ChosenPlex

    @Flag(help: "Read it like the others again.")
    var off = false

    func run() throws {
        try reporting { try chosen.change(.writeMostly) { $0.writeMostly = !off } }
    }
}
