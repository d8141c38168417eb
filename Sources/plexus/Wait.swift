import ArgumentParser
import Control
import Foundation

struct Wait: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Wait until a mirror is in a state.",
        discussion: "Exit code: 0 it is, 1 the time is up, 2 the mirror failed, 4 could not tell.")

    enum Goal: String, ExpressibleByArgument, CaseIterable {
        /// Every configured plex is in sync.
        case healthy
        /// Every plex that takes part is in sync.
        case inSync = "in-sync"
        /// No resync and no scrub is running.
        case idle
    }

    @Argument(help: "The mirror.")
    var name: String

    @Option(
        name: .customLong("for"),
        help: "What to wait for: healthy, in-sync (all plexes that take part), idle (no resync, no scrub).")
    var goal: Goal = .healthy

    @Option(help: "Give up after so many seconds.")
    var timeout: Double?

    @OptionGroup var control: ControlOptions

    func run() throws {
        try reporting(exitCode: 4) {
            let end = timeout.map { Date().addingTimeInterval($0) }
            while true {
                let report = try fetchStatus(control, name)
                guard let mirror = report.mirrors.first else { throw Failure("there is no mirror \(name)") }
                if isReached(mirror) { return }
                if !mirror.isServed {
                    printError("mirror \(name) is \(mirror.state): \(mirror.reason ?? "")")
                    throw ExitCode(2)
                }
                if let end, Date() >= end {
                    printError("mirror \(name) is still \(mirror.state): \(mirror.reason ?? "")")
                    throw ExitCode(1)
                }
                usleep(100_000)
            }
        }
    }

    private func isReached(_ mirror: StatusReport.Mirror) -> Bool {
        switch goal {
        case .healthy: mirror.state == "healthy"
        case .inSync: !(mirror.resync?.running ?? false) && !mirror.plexes.contains { $0.state == "rebuilding" }
        case .idle: !(mirror.resync?.running ?? false) && !(mirror.scrub?.running ?? false)
        }
    }
}
