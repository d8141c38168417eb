import ArgumentParser
import Control

struct Resync: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Pause, resume or slow down the copying of a mirror.",
        discussion: "Holds until the server is started again, which goes on with what is left to be copied.")

    @Argument(help: "The mirror.")
    var name: String

    @Flag(help: "Begin no more copying.")
    var pause = false

    @Flag(help: "Go on.")
    var resume = false

    @Option(help: "Bytes per second at most, such as 20M; none: no limit.")
    var limit: RateLimit?

    @OptionGroup var control: ControlOptions

    func validate() throws {
        guard [pause, resume, limit != nil].filter({ $0 }).count == 1 else {
            throw ValidationError("one of --pause, --resume and --limit")
        }
    }

    func run() throws {
        try reporting {
            var request = ControlRequest(.resync, mirror: name)
            request.order = pause ? "pause" : resume ? "resume" : "limit"
            request.limit = limit?.bytesPerSecond
            try control.change(request)
        }
    }
}

struct RateLimit: ExpressibleByArgument {
    /// Nil: none.
    var bytesPerSecond: UInt64?

    init?(argument: String) {
        if argument == "none" { return }
        guard let size = ByteSize(argument: argument), size.bytes > 0 else { return nil }
        bytesPerSecond = size.bytes
    }
}
