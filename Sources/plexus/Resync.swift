import ArgumentParser
import Control

struct Resync: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Pause, resume or slow down the copying of a mirror, have it verified, or let it wait for others.",
        discussion: "Holds until the server is started again, which goes on with what is left to be copied.")

    @Argument(help: "The mirror.")
    var name: String

    @Flag(help: "Begin no more copying.")
    var pause = false

    @Flag(help: "Go on.")
    var resume = false

    @Option(help: "Bytes per second at most, such as 20M; none: no limit.")
    var limit: RateLimit?

    @Flag(
        inversion: .prefixedNo,
        help: "Read back and compare all that is copied from now on; a disk that gives something else back is failed.")
    var verify: Bool?

    @Option(help: "high, normal or low: while one mirror of the server copies, those below it wait.")
    var priority: Priority?

    @OptionGroup var control: ControlOptions

    enum Priority: String, ExpressibleByArgument, CaseIterable {
        case high, normal, low
    }

    func validate() throws {
        guard [pause, resume, limit != nil, verify != nil, priority != nil].filter({ $0 }).count == 1 else {
            throw ValidationError("one of --pause, --resume, --limit, --verify, --no-verify and --priority")
        }
    }

    func run() throws {
        try reporting {
            var request = ControlRequest(.resync, mirror: name)
            request.order = order
            request.limit = limit?.bytesPerSecond
            request.priority = priority?.rawValue
            try control.change(request)
        }
    }
}

extension Resync {
    private var order: String {
        if pause { return "pause" }
        if resume { return "resume" }
        if let verify { return verify ? "verify" : "believe" }
        return priority == nil ? "limit" : "priority"
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
