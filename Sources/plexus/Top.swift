import ArgumentParser
import Control
import Foundation

struct Top: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show what clients and disks do, live.",
        discussion: """
            Per mirror and per plex: requests and bytes per second, and how long they took: half of them no longer than
            p50, 99 in a hundred no longer than p99. Queue: requests that are being carried out at the moment.
            Exit code: 0, or 4 if the server does not answer.
            """)

    @Argument(help: "Only this mirror.")
    var name: String?

    @Option(help: "Seconds between two looks.")
    var interval: Double = 1

    @Option(help: "End after so many looks; otherwise when interrupted.")
    var count: Int?

    @Flag(help: "Print one line of JSON, version 1, for each look.")
    var json = false

    @OptionGroup var control: ControlOptions

    func validate() throws {
        guard interval >= 0.1, interval <= 3600 else { throw ValidationError("--interval: from 0.1 to 3600 seconds") }
        guard count ?? 1 >= 1 else { throw ValidationError("--count: at least 1") }
    }

    func run() throws {
        try reporting(exitCode: 4) {
            var before = try Look(control, name)
            var left = count
            while left != 0 {
                usleep(UInt32(interval * 1_000_000))
                let now = try Look(control, name)
                let report = TopReport(from: before, to: now)
                if json {
                    print(try plexus.json(report, pretty: false))
                } else {
                    if isatty(1) == 1 { print("\u{1B}[H\u{1B}[2J", terminator: "") }
                    for mirror in report.mirrors { print(TopScreen(mirror, seconds: report.seconds).text) }
                }
                flushOutput()
                before = now
                left = left.map { $0 - 1 }
            }
        }
    }
}

/// A status, and when it was taken.
private struct Look {
    let status: StatusReport
    let time: ContinuousClock.Instant

    init(_ control: ControlOptions, _ name: String?) throws {
        status = try fetchStatus(control, name)
        time = ContinuousClock.now
    }
}

/// As `status --json`, but latencies, requests and bytes are those of the last `seconds`.
private struct TopReport: Encodable {
    var version = 1
    var seconds: Double
    var mirrors: [StatusReport.Mirror]

    init(from before: Look, to now: Look) {
        seconds = (now.time - before.time) / .seconds(1)
        let isSame = before.status.server.pid == now.status.server.pid
        mirrors = now.status.mirrors.map { mirror in
            let earlier = isSame ? before.status.mirrors.first { $0.uuid == mirror.uuid } : nil
            var mirror = mirror
            mirror.latency = mirror.latency?.since(earlier?.latency)
            for index in mirror.plexes.indices {
                let plex = mirror.plexes[index]
                let same = earlier?.plexes.first { $0.index == plex.index && $0.uuid == plex.uuid }
                mirror.plexes[index].latency = plex.latency?.since(same?.latency)
            }
            return mirror
        }
    }
}

/// One mirror for people: a table of what it did, and one per plex.
private struct TopScreen {
    let mirror: StatusReport.Mirror
    let seconds: Double

    init(_ mirror: StatusReport.Mirror, seconds: Double) {
        self.mirror = mirror
        self.seconds = seconds
    }

    var text: String {
        var lines = [
            "mirror \(mirror.name): \(mirror.state), \(mirror.clients) client(s), queue \(mirror.queueDepth ?? 0)",
            row("", ["per s", "MB/s", "p50", "p99", "p99.9", "max"]),
        ]
        if let latency = mirror.latency { lines += rows(latency) }
        for plex in mirror.plexes {
            lines.append(
                "  plex \(plex.index) \(plex.disk ?? "-"): \(plex.state)\(plex.atRisk ? ", at-risk" : ""), queue \(plex.queueDepth ?? 0)"
            )
            if let latency = plex.latency { lines += rows(latency) }
        }
        return lines.joined(separator: "\n")
    }

    private func rows(_ latency: StatusReport.Latency) -> [String] {
        var rows = [row("read", latency.read), row("write", latency.write)]
        // The others are rare.
        if latency.zero.requests > 0 { rows.append(row("zero", latency.zero)) }
        if latency.flush.requests > 0 { rows.append(row("flush", latency.flush)) }
        if let metadata = latency.metadata, metadata.requests > 0 { rows.append(row("metadata", metadata)) }
        return rows
    }

    private func row(_ kind: String, _ report: LatencyReport) -> String {
        let times = [
            report.p50Microseconds, report.p99Microseconds, report.p999Microseconds, report.maxMicroseconds,
        ]
        let rate = String(format: "%.0f", Double(report.requests) / seconds)
        let megabytes = String(format: "%.1f", Double(report.bytes) / seconds / 1e6)
        return row(kind, [rate, megabytes] + times.map(duration))
    }

    private func row(_ kind: String, _ cells: [String]) -> String {
        let padded = cells.map { String(repeating: " ", count: max(0, 10 - $0.count)) + $0 }
        return "    " + kind + String(repeating: " ", count: 9 - kind.count) + padded.joined()
    }

    private func duration(_ microseconds: Double?) -> String {
        guard let microseconds else { return "-" }
        if microseconds < 1000 { return String(format: "%.0f us", microseconds) }
        if microseconds < 1_000_000 { return String(format: "%.1f ms", microseconds / 1000) }
        return String(format: "%.1f s", microseconds / 1_000_000)
    }
}
