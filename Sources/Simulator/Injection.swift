package import MirrorCore

/// Fails each I/O call of a scenario in turn: the first, the second, the third, until one run meets no failure
/// any more; each with every outcome that an operation of its kind can have (`Outcome`), and each run ended
/// by a stop, by SIGKILL, and by a power cut. While it runs the invariants are checked; then faults cease, and the
/// mirror must become healthy and hold what its clients were promised (`Simulation.recover`).
package final class Injection {
    /// How a run ends.
    enum End: CaseIterable { case stop, kill, powerLoss }

    package struct Row: Sendable {
        package var scenario: String
        /// I/O calls of the run without failures.
        package var calls = 0
        /// Runs with one failed call.
        package var single = 0
        /// Runs in which all plexes fail alike from one call on.
        package var common = 0
        package var findings: [Finding] = []
    }

    package struct Finding: Sendable {
        /// What was done to which call.
        package var injection: String
        package var violation: Violation
        package var trace: [String]
    }

    private let options: Options
    private let limits: Limits
    private let maximumFindings: Int
    /// Told each run before it begins.
    private let progress: (String) -> Void

    package init(
        mutant: Mutant = .none, isTraced: Bool = false, maximumFindings: Int = 1,
        progress: @escaping (String) -> Void = { _ in }
    ) {
        var options = Options(seed: 0, mutant: mutant)
        options.isTraced = isTraced
        self.options = options
        self.maximumFindings = maximumFindings
        self.progress = progress
        limits = Limits.steered
    }

    package static var scenarioNames: [String] { Scenario.all.map(\.name) }

    /// - Parameters:
    ///   - name: of the scenario.
    ///   - calls: those that are to fail; nil: all.
    ///   - every: of all runs only every so many-th.
    package func run(_ name: String, calls: ClosedRange<Int>? = nil, every: Int = 1) -> Row {
        guard let scenario = Scenario.all.first(where: { $0.name == name }) else {
            preconditionFailure("there is no scenario \(name)")
        }
        var row = Row(scenario: name)
        let kinds = rehearse(scenario)
        row.calls = kinds.count
        var number = 0
        for call in calls ?? 1...kinds.count {
            for strike in Strike.all(at: call, of: kinds[call - 1]) {
                for end in End.allCases where row.findings.count < maximumFindings {
                    number += 1
                    if number % every == 0 { run(scenario, strike, end, &row) }
                }
            }
        }
        return row
    }

    /// One outcome at one call, or at all calls for some time from there on.
    private struct Strike {
        var call: Int
        var outcome: Outcome
        var milliseconds: UInt64?

        static func all(at call: Int, of kind: DiskOperation.Kind) -> [Strike] {
            let single = Outcome.all(of: kind).map { Strike(call: call, outcome: $0, milliseconds: nil) }
            return single
                + Outcome.common.flatMap { outcome in
                    Outcome.commonMilliseconds.map { Strike(call: call, outcome: outcome, milliseconds: $0) }
                }
        }

        var text: String {
            "call \(call) \(outcome.name)" + (milliseconds.map { ", like all calls for \($0) ms" } ?? "")
        }

        func trouble() -> (Int, DiskOperation, UInt64) -> Pilot.Trouble? {
            guard let milliseconds else {
                return { number, operation, _ in number == call ? outcome.trouble(operation) : nil }
            }
            var end: UInt64?
            return { number, operation, now in
                guard number >= call else { return nil }
                let last = end ?? now + milliseconds * 1_000_000
                end = last
                return now <= last ? outcome.trouble(operation) : nil
            }
        }
    }

    /// The kinds of all calls of a run in which nothing fails.
    private func rehearse(_ scenario: Scenario) -> [DiskOperation.Kind] {
        var kinds: [DiskOperation.Kind] = []
        let simulation = stage(scenario, isBlockDevice: false)
        simulation.pilot?.trouble = { _, operation, _ in
            kinds.append(operation.kind)
            return nil
        }
        play(scenario, on: simulation)
        guard simulation.violation == nil else {
            preconditionFailure("\(scenario.name) breaks a rule by itself: \(String(describing: simulation.violation))")
        }
        return kinds
    }

    private func stage(_ scenario: Scenario, isBlockDevice: Bool) -> Simulation {
        let world = World.fresh(plexes: scenario.plexes, blocks: 8)
        let simulation = Simulation(
            options, world: world, pilot: Pilot(isBlockDevice: isBlockDevice), limits: limits)
        scenario.prelude(simulation)
        return simulation
    }

    private func play(_ scenario: Scenario, on simulation: Simulation) {
        simulation.pilot?.isCounting = true
        scenario.body(simulation)
        simulation.pilot?.isCounting = false
    }

    private func run(_ scenario: Scenario, _ strike: Strike, _ end: End, _ row: inout Row) {
        if strike.milliseconds == nil { row.single += 1 } else { row.common += 1 }
        let text = "\(scenario.name): \(strike.text), then \(end)"
        progress(text)
        let simulation = stage(scenario, isBlockDevice: strike.outcome.isBlockDevice)
        simulation.pilot?.trouble = strike.trouble()
        play(scenario, on: simulation)
        if simulation.violation == nil { simulation.finish(end) }
        if simulation.violation == nil { simulation.recover() }
        if let violation = simulation.violation {
            row.findings.append(Finding(injection: text, violation: violation, trace: simulation.trace))
        }
    }
}

extension Simulation {
    /// Ends the scenario; a stop that does not come to its end is followed by a kill.
    func finish(_ end: Injection.End) {
        switch end {
        case .stop:
            settle()
            guard violation == nil, let server, ending == nil else { break }
            if !server.isStopping { orderStop() }
            turn(until: { $0.ending != nil })
        case .kill, .powerLoss: break
        }
        guard violation == nil, server != nil else { return }
        if case .stopped(true) = ending { return endLife() }
        let left = disks.indices.map { disk -> SimulatedDisk in
            let outcomes = remains(of: disk, powerFails: end == .powerLoss, limit: 1)
            return end == .powerLoss ? outcomes[0] : outcomes[outcomes.count - 1]
        }
        crash(leaving: left, powerFails: end == .powerLoss)
    }
}
