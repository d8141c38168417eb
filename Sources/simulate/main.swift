internal import ArgumentParser
internal import MirrorCore
internal import Simulator

struct Simulate: ParsableCommand {
    @Option(name: .long) var seed: UInt64?
    @Option(name: .long) var first: UInt64 = 1
    @Option(name: .long) var seeds: UInt64 = 1000
    @Flag(name: .long) var trace = false

    mutating func run() throws {
        if let seed {
            var options = Options(seed: seed)
            options.isTraced = trace
            let outcome = Simulation.run(options)
            for line in outcome.trace { print(line) }
            print(outcome.seed, outcome.steps, outcome.requests, outcome.violation as Any)
            return
        }
        for seed in first..<first + seeds {
            if trace { print("seed", seed) }
            let outcome = Simulation.run(Options(seed: seed))
            if let violation = outcome.violation { print("seed \(seed):", violation) }
        }
    }
}
Simulate.main()
