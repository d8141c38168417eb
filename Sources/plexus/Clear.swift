import ArgumentParser
import Control

struct Clear: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Let the counters of a plex begin anew.",
        discussion: """
            Read and write errors, corrected and spared blocks are counted from zero again, and a plex that was at risk
            for their number is not any more. What can't be read or written, and what lies in the spare pool, stays as it is.
            """)

    @Argument(help: "The mirror.")
    var name: String

    @Argument(help: "Number, disk path or UUID, see plexus status.")
    var plex: String

    @OptionGroup var control: ControlOptions

    func run() throws {
        try reporting { try control.change(ControlRequest(.clear, mirror: name, plex: plexArgument(plex))) }
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

    @Argument(help: "The mirror.")
    var name: String

    @Argument(help: "Number, disk path or UUID, see plexus status.")
    var plex: String

    @OptionGroup var control: ControlOptions

    func run() throws {
        try reporting { try control.change(ControlRequest(.reactivate, mirror: name, plex: plexArgument(plex))) }
    }
}
