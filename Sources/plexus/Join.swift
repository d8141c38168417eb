import ArgumentParser
import Control

struct Join: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Take a broken-off, stale, failed or returned plex back, or a blank disk in.",
        discussion: "Everything is copied to it while clients go on. See plexus wait for its end.")

    @Argument(help: "The mirror.")
    var name: String

    @Argument(help: "File or block device.")
    var disk: String

    @Flag(help: "Overwrite a disk that holds other data, or that went on without this mirror.")
    var force = false

    @OptionGroup var control: ControlOptions

    func run() throws {
        try reporting {
            var request = ControlRequest(.join, mirror: name, disk: absolute(disk))
            request.force = force
            try control.change(request)
        }
    }
}
