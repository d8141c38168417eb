internal import ArgumentParser
internal import MirrorCore
internal import Simulator

Simulate.main()

struct Simulate: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Runs the mirror engine on simulated disks, one deterministic run per seed.",
        discussion: "Ends with status 1 if a rule is broken or a mutant survives.")

    @Option(help: "Replay this one seed.")
    var seed: UInt64?

    @Option(help: "How many seeds to run.")
    var seeds: UInt64 = 1000

    @Option(help: "The first of them.")
    var first: UInt64 = 1

    @Option(help: "Stop after so many minutes.")
    var minutes: Double?

    @Option(help: "Build a known bug in: a name, or 'all' for the kill table.")
    var mutant: String?

    @Flag(help: "Print what happened (with --seed).")
    var trace = false

    @Flag(help: "Make the failing run smaller and print it (with --seed).")
    var shrink = false

    @Flag(help: "Without batches and replacements (with --seed): what seeds below 1100001 meant when they were found.")
    var classic = false

    @Flag(help: "Without spare pools (with --seed): what seeds below 2000001 meant when they were found.")
    var unspared = false

    @Flag(help: "Wait for every disk endlessly (with --seed): what seeds below 2500001 meant when they were found.")
    var patient = false

    @Flag(help: "With scrubs, which change what a seed means; with --exhaustive: scripts about them.")
    var scrubs = false

    @Flag(help: "With --exhaustive: scripts about a disk that does not take a block.")
    var sparing = false

    @Flag(help: "Every script of a few steps, every crash, every state it may leave.")
    var exhaustive = false

    @Flag(help: "Fail each I/O call of some scenarios in turn, in every way.")
    var inject = false

    @Option(help: "With --inject: only this scenario.")
    var scenario: String?

    @Option(help: "With --exhaustive and --inject: go on until so many rules were broken.")
    var findings = 1

    @Option(help: "With --exhaustive: how many plexes.")
    var plexes = 2

    @Option(help: "With --exhaustive: the longest script, in steps.")
    var operations = 2

    @Option(help: "With --exhaustive: only part K of N of the longest scripts, as K/N; the shorter ones are part 1's.")
    var part: String?

    mutating func run() throws {
        TrapReport.install()
        if mutant == "all" { return try printKillTable(Mutant.allCases.filter { $0 != .none }) }
        var chosen = Mutant.none
        if let mutant {
            guard let named = Mutant.allCases.first(where: { "\($0)" == mutant }) else {
                throw ValidationError(
                    "unknown mutant \(mutant); one of \(Mutant.allCases.map { "\($0)" }.joined(separator: ", "))")
            }
            chosen = named
        }
        if inject {
            let names = Injection.scenarioNames.filter { scenario == nil || scenario == $0 }
            if names.isEmpty {
                throw ValidationError("the scenarios are: \(Injection.scenarioNames.joined(separator: "; "))")
            }
            try InjectionRun(names: names, mutant: chosen, isTraced: trace, maximumFindings: findings).run()
        } else if exhaustive {
            var bounds = Exploration.Bounds()
            bounds.plexes = plexes
            bounds.steps = operations
            bounds.theme = sparing ? .sparing : scrubs ? .scrubs : .plain
            if let part {
                let numbers = part.split(separator: "/").map { Int($0) ?? 0 }
                guard numbers.count == 2, numbers[1] > 0, (1...numbers[1]).contains(numbers[0]) else {
                    throw ValidationError("--part \(part): K/N, 1 <= K <= N")
                }
                (bounds.part, bounds.parts) = (numbers[0] - 1, numbers[1])
            }
            try ExhaustiveRun(bounds: bounds, mutant: chosen, isTraced: trace, maximumFindings: findings).run()
        } else if let seed {
            try replay(seed, chosen)
        } else if chosen != .none {
            try printKillTable([chosen])
        } else {
            try runMany()
        }
    }

    private func replay(_ seed: UInt64, _ mutant: Mutant) throws {
        var options = Options(seed: seed, mutant: mutant)
        options.isTraced = trace
        options.hasAdditions = !classic
        options.hasSpares = !classic && !unspared
        options.hasScrubs = scrubs
        options.hasLate = !classic && !patient
        TrapReport.name("seed \(seed)")
        let outcome = shrink ? Simulator.shrink(options) { print($0) } : Simulation.run(options)
        for line in outcome.trace { print(line) }
        print(
            "seed \(seed): \(outcome.steps) events, \(outcome.requests) requests, hash \(String(outcome.hash, radix: 16))"
        )
        guard let violation = outcome.violation else { return }
        print("seed \(seed): step \(violation.step): \(violation.rule): \(violation.text)")
        throw ExitCode(1)
    }

    private func runMany() throws {
        let clock = ContinuousClock()
        let start = clock.now
        var tally = Tally()
        for seed in first..<first + seeds {
            if let minutes, clock.now - start > .seconds(minutes * 60) { break }
            TrapReport.name("seed \(seed)")
            var options = Options(seed: seed)
            options.hasScrubs = scrubs
            let outcome = Simulation.run(options)
            tally.add(outcome)
            guard let violation = outcome.violation else { continue }
            print("seed \(seed): step \(violation.step): \(violation.rule): \(violation.text)")
        }
        tally.report(elapsed: clock.now - start)
        if tally.failures > 0 { throw ExitCode(1) }
    }

    private func printKillTable(_ mutants: [Mutant]) throws {
        var survivors = 0
        for mutant in mutants {
            let kill = Kill.hunt(mutant, first: first, limit: Int(seeds)) {
                TrapReport.name("seed \($0) with mutant \(mutant)")
            }
            let name = "\(mutant)".padded(to: 26)
            let source = mutant.source.padded(to: 32)
            if let count = kill.seeds, let violation = kill.violation {
                print("\(name) \(source) \("\(count)".padded(to: 6)) \(violation.rule): \(violation.text)")
            } else {
                survivors += 1
                print("\(name) \(source) SURVIVED \(seeds) seeds")
            }
        }
        if survivors > 0 { throw ExitCode(1) }
    }
}

extension String {
    func padded(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
}
