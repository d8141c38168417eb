import ArgumentParser
import Control
import Foundation

struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show the mirrors of a running server.",
        discussion:
            "Exit code: 0 all healthy, 1 degraded or rebuilding, 2 failed, split or suspended, 4 could not tell.")

    @Argument(help: "Only this mirror.")
    var name: String?

    @Flag(name: .short, help: "One line when all is well.")
    var x = false

    @Flag(help: "Print JSON, version 1.")
    var json = false

    @Flag(help: "Show it again every second, until interrupted.")
    var watch = false

    @OptionGroup var control: ControlOptions

    func run() throws {
        try reporting(exitCode: 4) {
            repeat {
                let report = try fetchStatus(control, name)
                if watch, isatty(1) == 1 { print("\u{1B}[H\u{1B}[2J", terminator: "") }
                if json { print(try plexus.json(report, pretty: !watch)) } else { show(report) }
                flushOutput()
                if !watch {
                    if report.exitCode != 0 { throw ExitCode(report.exitCode) }
                    return
                }
                sleep(1)
            } while true
        }
    }

    private func show(_ report: StatusReport) {
        if x, report.exitCode == 0, report.mirrors.allSatisfy({ $0.scrub?.mismatches ?? 0 == 0 }) {
            print(
                report.mirrors.count == 1
                    ? "mirror \(report.mirrors[0].name) is healthy" : "all \(report.mirrors.count) mirrors are healthy")
            return
        }
        for mirror in report.mirrors where !x || mirror.state != "healthy" || mirror.scrub?.mismatches ?? 0 > 0 {
            print(StatusScreen(mirror).text)
        }
    }
}

func fetchStatus(_ control: ControlOptions, _ name: String?) throws -> StatusReport {
    let response = try control.perform(ControlRequest(.status, mirror: name))
    guard let report = response.status else { throw Failure("the server's answer has no status") }
    return report
}

/// One mirror for people: state, reason, action, a table of plexes, progress.
struct StatusScreen {
    let mirror: StatusReport.Mirror
    private let isColoured = isatty(1) == 1

    init(_ mirror: StatusReport.Mirror) { self.mirror = mirror }

    var text: String {
        var lines = [
            "mirror \(mirror.name): \(coloured(mirror.state)), \(ByteSize.text(mirror.size)), \(mirror.clients) client(s)\(mirror.readOnly ? ", read-only" : "")"
        ]
        if let reason = mirror.reason { lines.append("  reason: \(reason)") }
        if let action = mirror.action { lines.append("  action: \(action)") }
        if let resync = mirror.resync {
            lines.append(
                resync.running
                    ? "  resync: \(progress(resync))"
                    : "  last resync: \(ByteSize.text(resync.done)) copied (\(resync.reason))")
        }
        if let scrub = mirror.scrub { lines += self.lines(of: scrub) }
        let width = max(4, mirror.plexes.map { ($0.disk ?? "-").count }.max() ?? 4)
        lines.append("  plex  \(pad("disk", width))  state       i/o       errors r/w")
        for plex in mirror.plexes {
            let marks = [
                plex.state, plex.atRisk ? "at-risk" : nil, plex.slow ? "slow" : nil,
                plex.writeMostly ? "write-mostly" : nil,
            ]
            let state = marks.compactMap { $0 }.joined(separator: ", ")
            lines.append(
                "  \(pad(String(plex.index), 4))  \(pad(plex.disk ?? "-", width))  \(pad(state, 10))  \(pad(plex.io ?? "-", 8))  \(plex.readErrors)/\(plex.writeErrors)"
            )
            if let data = plex.dataDisk { lines.append("        metadata of \(data)") }
            if plex.remapped > 0 {
                lines.append("        \(plex.remapped) blocks lie in the spare pool, \(plex.sparesFree) more have room")
            }
            if plex.unanswered > 0 {
                lines.append(
                    "        \(plex.unanswered) operations that nobody waits for are still in the hands of its disk")
            }
            if let reason = plex.reason { lines.append("        \(reason)") }
        }
        for spare in mirror.hotSpares { lines.append("  spare  \(spare.disk)  \(spare.state)") }
        return lines.joined(separator: "\n")
    }

    private func pad(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }

    private func progress(_ resync: StatusReport.Resync) -> String {
        let eta = resync.etaSeconds.map { ", \($0) s left" } ?? ""
        let target = resync.plex.map { " to plex \($0)" } ?? ""
        let limit = resync.limit.map { ", at most \(ByteSize.text($0))/s" } ?? ""
        let pace = resync.paused ? ", paused" : ", \(ByteSize.text(resync.bytesPerSecond))/s\(eta)\(limit)"
        return "\(bar(resync.done, of: resync.total))\(target)\(pace); \(resync.reason)"
    }

    private func bar(_ done: UInt64, of total: UInt64) -> String {
        let part = total == 0 ? 1 : Double(done) / Double(total)
        let filled = Int(part * 20)
        let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: 20 - filled)
        return "[\(bar)] \(Int(part * 100)) %"
    }

    private func lines(of scrub: StatusReport.Scrub) -> [String] {
        var lines: [String] = []
        if scrub.running {
            let eta = scrub.etaSeconds.map { ", \($0) s left" } ?? ""
            let limit = scrub.limit.map { ", at most \(ByteSize.text($0))/s" } ?? ""
            let pace =
                scrub.waiting.map { ", waits: \($0)" } ?? ", \(ByteSize.text(scrub.bytesPerSecond))/s\(eta)\(limit)"
            lines.append("  scrub: \(bar(scrub.done, of: scrub.total))\(pace)")
        }
        if scrub.mismatches > 0 { lines.append("  scrub: \(scrub.mismatches) blocks differ between plexes") }
        return lines
    }

    private func coloured(_ state: String) -> String {
        guard isColoured else { return state }
        let code =
            switch state {
            case "healthy": "32"
            case "degraded", "rebuilding": "33"
            default: "31"
            }
        return "\u{1B}[\(code)m\(state)\u{1B}[0m"
    }
}
