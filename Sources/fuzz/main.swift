internal import ArgumentParser
internal import Fuzzing
internal import Glibc

Fuzz.main()

struct Fuzz: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Feeds hostile bytes to everything that reads bytes from outside.",
        discussion: """
            One seed is one input. Each target runs in a process of its own, so that a trap or a hang is told with its \
            seed. Ends with status 1 if a promise is broken. Targets: \
            \(Target.all.map(\.name).joined(separator: ", ")).
            """)

    @Option(name: [.customLong("target"), .short], help: "Only this target; may be given several times.")
    var targets: [String] = []

    @Option(help: "How many inputs for each target.")
    var inputs: UInt64 = 100_000

    @Option(help: "Stop each target after so many seconds, however many inputs that were.")
    var seconds: Double?

    @Option(help: "The first seed.")
    var seed: UInt64 = 1

    @Option(help: "Replay this one seed, and print what is decoded.")
    var replay: UInt64?

    @Option(help: "Replay the input in this file, as --guided and --corpus write them.")
    var file: String?

    @Option(help: "Write the inputs as files into this directory instead of running them.")
    var corpus: String?

    @Flag(help: "Print the names of all targets.")
    var list = false

    @Flag(help: "Be guided by coverage; what follows -- goes to libFuzzer. Needs the build that scripts/fuzz makes.")
    var guided = false

    @Argument(help: .hidden)
    var rest: [String] = []

    /// The file that tells the parent where this process is.
    @Option(help: .hidden)
    var progress: String?

    mutating func validate() throws {
        let unknown = targets.filter { name in !Target.all.contains { $0.name == name } }
        guard unknown.isEmpty else {
            throw ValidationError(
                "unknown target \(unknown[0]); one of \(Target.all.map(\.name).joined(separator: ", "))")
        }
        let needsOne = replay != nil || file != nil || corpus != nil || guided || progress != nil
        guard !needsOne || targets.count == 1 else { throw ValidationError("name one target with --target") }
    }

    mutating func run() throws {
        let chosen = Target.all.filter { targets.isEmpty || targets.contains($0.name) }
        if list {
            say(Target.all.map(\.name).joined(separator: " "))
        } else if let replay {
            try Worker(chosen[0]).replay(seed: replay)
        } else if let file {
            try Worker(chosen[0]).replay(file: file)
        } else if let corpus {
            try Worker(chosen[0]).writeCorpus(directory: corpus, seeds: seed..<seed &+ inputs)
        } else if guided {
            runGuided(chosen[0], rest)
            throw ValidationError("this build is not guided; use scripts/fuzz --guided")
        } else if let progress {
            try Worker(chosen[0]).run(first: seed, inputs: inputs, seconds: seconds, progress: Progress(path: progress))
        } else {
            try supervise(chosen)
        }
    }

    private func supervise(_ chosen: [Target]) throws {
        var failures = 0
        for target in chosen {
            var arguments = ["--seed", "\(seed)", "--inputs", "\(inputs)"]
            if let seconds { arguments += ["--seconds", "\(seconds)"] }
            failures += try Supervisor(target: target.name).run(arguments) ? 0 : 1
        }
        if failures > 0 { throw ExitCode(1) }
    }
}

/// Prints at once: a pipe would hold the line back until a trap throws it away.
func say(_ text: String) {
    print(text)
    fflush(nil)
}
