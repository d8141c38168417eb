import ArgumentParser
import Control

struct Clear: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Let the counters of a plex begin anew.",
        discussion: """
            Read and write errors, corrected and spared blocks are counted from zero again, and a plex that was at risk
            for their number is not any more. What can't be read or written, and what lies in the spare pool, stays as it is.
            """)

    @OptionGroup var chosen: ChosenPlex

    func run() throws {
        try reporting { try chosen.change(.clear) }
    }
}

struct Reactivate: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Try a plex again whose disk is good again.",
        discussion: """
            One that failed, or is offline, comes back as with plexus online, and gets what it missed. Of one that is in sync
            the blocks in the spare pool are put back into their own places, which frees the pool; what its disk does not
            take back stays where it is. Bad blocks and bad spare blocks are tried again.
            """)

    @OptionGroup var chosen: ChosenPlex

    func run() throws {
        try reporting { try chosen.change(.reactivate) }
    }
}
