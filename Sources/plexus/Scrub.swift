import ArgumentParser
import Control

struct Scrub: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Compare the plexes of a mirror byte for byte, tell where they differ, repair.",
        discussion: """
            Runs in the background and goes on after a restart; plexus status shows how far it got. What differs is
            remembered on every plex: see --report. Of two plexes that differ nobody can tell which is right, so that
            nothing is repaired before you choose one with --prefer; of three or more a strict majority is believed.

            With --repair the blocks that are known to differ are repaired first, then everything is scrubbed and what
            is found is repaired as well. A block that clients have written over since is left as it is.
            """)

    @Argument(help: "The mirror.")
    var name: String

    @Flag(help: "Read what is a hole on all plexes, too.")
    var all = false

    @Flag(help: "Give blocks that differ the version of the majority, or of --prefer.")
    var `repair` = false

    @Option(help: "With --repair: the plex whose version is right, by index, disk path or UUID.")
    var prefer: String?

    @Flag(help: "End the scrub that is running.")
    var stop = false

    @Option(
        help: "Bytes per second of each plex at most, such as 20M; none: no limit. Until the server is started again.")
    var limit: RateLimit?

    @Flag(help: "Show what scrubs found.")
    var report = false

    @Flag(help: "With --report: print JSON, version 1.")
    var json = false

    @OptionGroup var control: ControlOptions

    func validate() throws {
        guard [stop, limit != nil, report, all || `repair` || prefer != nil].filter({ $0 }).count < 2 else {
            throw ValidationError("one of --stop, --limit and --report, or none of them")
        }
        guard prefer == nil || `repair` else { throw ValidationError("--prefer goes with --repair") }
        guard !json || report else { throw ValidationError("--json goes with --report") }
    }

    func run() throws {
        try reporting {
            var request = ControlRequest(.scrub, mirror: name, plex: prefer.map(plexArgument))
            request.order = order
            request.limit = limit?.bytesPerSecond
            request.all = all
            request.repair = `repair`
            guard report else { return try control.change(request) }
            guard let found = try control.perform(request).scrub else {
                throw Failure("the server's answer has no report")
            }
            print(json ? try plexus.json(found) : Self.text(found))
        }
    }

    private var order: String {
        if stop { return "stop" }
        if report { return "report" }
        return limit == nil ? "start" : "limit"
    }

    private static func text(_ report: ScrubReport) -> String {
        var lines = [
            "mirror \(report.mirror): \(report.mismatches) blocks differ; last scrub finished: \(report.lastFinished ?? "never")\(report.running ? ", one is running" : "")"
        ]
        if report.unrecorded > 0 {
            lines.append("  \(report.unrecorded) of them are not listed: there is no room for them")
        }
        for entry in report.entries {
            lines.append("  \(entry.line)")
        }
        return lines.joined(separator: "\n")
    }
}

extension ScrubReport.Entry {
    var line: String {
        let versions = versions.map { "plex \($0.plex) \($0.crc32c)\($0.odd ? " (odd)" : "")" }
        let end =
            switch state {
            case "repaired": ", repaired \(closed ?? "") from plex \(source ?? 0)"
            case "gone": ", gone \(closed ?? "")"
            default: ""
            }
        return
            "\(offset)+\(length)  \(verdict)  \(versions.joined(separator: ", "))  seen \(firstSeen), last \(lastSeen)\(end)"
    }
}
