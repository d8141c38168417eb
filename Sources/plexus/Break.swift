import ArgumentParser
import Control

struct Break: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Take a plex out of a running mirror, as a usable copy or for good.",
        discussion: """
            With --keep the plex is flushed and becomes a disk of its own that mounts natively; plexus join takes it
            back. With --nokeep it is forgotten, even while its disk is missing, and its metadata is wiped if it is
            there. The last good plex is never taken.

            Blocks of a copy that lie in its spare pool are put back into their own places first. Where its disk does not
            take them, the copy reads right only when Plexus serves it, and these blocks are listed.
            """)

    enum Fate: String, EnumerableFlag {
        case keep, nokeep
    }

    @Argument(help: "The mirror.")
    var name: String

    @Argument(help: "Number, disk path or UUID, see plexus status.")
    var plex: String

    @Flag(help: "As a usable copy (the default), or for good.")
    var fate: Fate = .keep

    @Flag(help: "Refuse if some block of the copy can't be put back from its spare pool into its own place.")
    var materialise = false

    @OptionGroup var control: ControlOptions

    func validate() throws {
        guard !materialise || fate == .keep else { throw ValidationError("--materialise is for a copy that is kept") }
    }

    func run() throws {
        try reporting {
            var request = ControlRequest(.break, mirror: name, plex: plexArgument(plex))
            request.keep = fate == .keep
            request.materialise = materialise
            try control.change(request)
        }
    }
}
