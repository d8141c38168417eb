import ArgumentParser
import Control
import Foundation
import MirrorServer
import Rehearsal

struct Drill: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Rehearse the loss of every disk but one: would each do alone?",
        discussion: """
            Looks at every plex as a plain disk without Plexus: is it complete, are partition table, file systems and boot \
            loader good, and with --boot, does it boot? Disks are only read; checkers and booting systems write to a view. \
            The mirror may be in use, but must not be written meanwhile.

            --boot starts each disk alone under QEMU with UEFI firmware, and waits for a text on the serial port, to which \
            the installed system must write (console=ttyS0 for its kernel).

            Exit code: 0 every plex would do, 1 one would not, 2 some check could not be done or the mirror was written.
            """)

    @Argument(help: "The mirror.")
    var name: String

    @Flag(help: "Boot each plex, alone.")
    var boot = false

    @Option(help: "What a system that has booted writes to its serial port.")
    var expect = "login:"

    @Option(help: "Seconds that a boot may take.")
    var timeout: Double = 300

    @Option(help: "How the disk is attached for a boot: virtio, nvme, sata.")
    var bus: Boot.Bus = .virtio

    @Option(help: "Memory of the computer that boots (default: 1G).")
    var memory: ByteSize?

    private var memoryBytes: UInt64 { memory?.bytes ?? 1 << 30 }

    @Flag(help: "Print JSON, version 1.")
    var json = false

    @OptionGroup var control: ControlOptions

    func validate() throws {
        guard !expect.isEmpty else { throw ValidationError("--expect needs a text") }
        guard timeout > 0, timeout < 1e6 else { throw ValidationError("--timeout is a number of seconds") }
        guard memoryBytes >= 64 << 20, memoryBytes < 1 << 40 else { throw ValidationError("--memory is 64M or more") }
    }

    func run() throws {
        try rehearsing {
            let before = try fetchMirror()
            let drill = Rehearsal.Drill(
                MirrorToDrill(before.mirror),
                boot: boot
                    ? Boot(expected: expect, limitSeconds: timeout, bus: bus, memoryMiB: Int(memoryBytes >> 20)) : nil,
                workspace: try Workspace()
            ) { if isatty(2) == 1 { writeError("plexus: drill: \($0)\n") } }
            let plexes = try drill.run()
            let report = DrillReport(
                mirror: name, plexes: plexes, disturbance: try disturbance(since: before.stillness))
            if json { print(try plexus.json(report)) } else { print(DrillScreen(report).text) }
            if report.exitCode != 0 { throw ExitCode(report.exitCode) }
        }
    }

    private func fetchMirror() throws -> (mirror: StatusReport.Mirror, stillness: Stillness) {
        let report = try fetchStatus(control, name)
        guard let mirror = report.mirrors.first else { throw Failure("there is no mirror \(name)") }
        guard mirror.isServed else {
            throw Failure("mirror \(name) is \(mirror.state): \(mirror.reason ?? "see plexus status")")
        }
        return (mirror, Stillness(mirror, server: report.server.pid))
    }

    /// A write that has begun and not ended is in no count yet: it gets some seconds to end.
    private func disturbance(since earlier: Stillness) throws -> (reason: String, action: String)? {
        for attempt in 0...30 {
            let now = try fetchMirror()
            if let disturbance = now.stillness.disturbance(since: earlier) { return disturbance }
            if !Stillness.hasRequests(now.mirror) { return nil }
            if attempt < 30 { try Patience.wait(milliseconds: 100) }
        }
        return ("requests were under way all the time", "wait until they have ended, see plexus top, and run again")
    }
}

extension Boot.Bus: ExpressibleByArgument {}

/// As `reporting`, with signals that end the body in order. 2 is "could not be found out".
func rehearsing(_ body: () throws -> Void) throws {
    Patience.begin()
    try reporting(exitCode: 2) {
        do {
            try body()
        } catch let error as Interrupted {
            throw ExitCode(128 + error.signal)
        } catch let error as Unreadable {
            throw Failure(error.description)
        }
    }
}

/// The report for people: a paragraph for each plex, a line for each check.
struct DrillScreen {
    let report: DrillReport
    private let isColoured = isatty(1) == 1

    init(_ report: DrillReport) { self.report = report }

    var text: String {
        var lines = ["drill of mirror \(report.mirror): \(coloured(report.outcome))"]
        if let reason = report.reason { lines.append("  reason: \(reason)") }
        if let action = report.action { lines.append("  action: \(action)") }
        let width = report.plexes.flatMap(\.checks).map(\.name.count).max() ?? 0
        for plex in report.plexes {
            lines.append("plex \(plex.index), \(plex.disk ?? "no disk"): \(coloured(plex.outcome))")
            for check in plex.checks {
                let space = String(repeating: " ", count: width - check.name.count)
                let mark = check.outcome.rawValue
                let indent = String(repeating: " ", count: 12 - mark.count)
                lines.append("  \(coloured(check.outcome))\(indent)  \(check.name)\(space)  \(check.text)")
                if let action = check.action {
                    lines.append("\(String(repeating: " ", count: width + 18))action: \(action)")
                }
            }
        }
        return lines.joined(separator: "\n")
    }

    private func coloured(_ outcome: DrillReport.Outcome) -> String {
        guard isColoured else { return outcome.rawValue }
        let code =
            switch outcome {
            case .pass: "32"
            case .fail: "31"
            case .inconclusive, .skipped: "33"
            case .info: "0"
            }
        return "\u{1B}[\(code)m\(outcome.rawValue)\u{1B}[0m"
    }
}
