import ArgumentParser
import Control

struct Add: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Add a disk as a new plex, eight at most.",
        discussion: """
            The whole contents are copied to it while clients go on; holes and zeroes stay holes. See plexus wait for its
            end. A disk that was a plex of the mirror is taken back with plexus join.
            """)

    @Argument(help: "The mirror.")
    var name: String

    @OptionGroup var disk: NewDisk
    @OptionGroup var control: ControlOptions

    func run() throws {
        try reporting { try control.change(disk.request(.add, mirror: name)) }
    }
}

/// A disk that is not yet of the mirror.
struct NewDisk: ParsableArguments {
    @Argument(
        help:
            "File or block device, at least as large as the mirror's data and metadata, or as its data with --metadata."
    )
    var disk: String

    @Option(help: "A new file for Plexus' own data, for a disk that is no larger than the mirror.")
    var metadata: String?

    @Flag(help: "Make a sparse file, if there is none.")
    var create = false

    @Flag(help: "Overwrite a disk that holds other data.")
    var force = false

    func request(_ verb: ControlRequest.Verb, mirror: String, plex: String? = nil) -> ControlRequest {
        var request = ControlRequest(verb, mirror: mirror, plex: plex, disk: absolute(disk))
        request.metadata = metadata.map(absolute)
        request.create = create
        request.force = force
        return request
    }

    func validate() throws {
        guard create, metadata != nil else { return }
        throw ValidationError("a file that is made has room for its metadata: give one of --create and --metadata")
    }
}
