internal import ArgumentParser
internal import Fuzzing
internal import Glibc

/// Runs the inputs of one target in this process.
struct Worker {
    private let target: Target

    init(_ target: Target) { self.target = target }

    /// What no target comes near; whoever asks for more is stopped, and that is a trap to the parent.
    private static let maximumBytes: UInt = 4 << 30

    func run(first: UInt64, inputs: UInt64, seconds: Double?, progress: Progress) throws {
        var limit = rlimit(rlim_cur: Self.maximumBytes, rlim_max: Self.maximumBytes)
        unsafe setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
        let clock = ContinuousClock()
        let start = clock.now
        var campaign = Campaign(target)
        var seed = first
        while campaign.inputs < inputs {
            progress.seed = seed
            do throws(Finding) {
                try campaign.run(seed: seed)
            } catch {
                tell(error)
                throw ExitCode(1)
            }
            seed &+= 1
            // Reading the clock costs as much as a cheap input.
            if let seconds, campaign.inputs % 32 == 0, clock.now - start > .seconds(seconds) { break }
        }
        report(campaign, elapsed: clock.now - start)
    }

    private func report(_ campaign: Campaign, elapsed: Duration) {
        let seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) / 1e18
        let rate = Int(Double(campaign.inputs) / max(seconds, 0.001))
        var usage = rusage()
        unsafe getrusage(RUSAGE_SELF.rawValue, &usage)
        let name = target.name + String(repeating: " ", count: max(0, 14 - target.name.count))
        say(
            "\(name) \(campaign.inputs) inputs, \(rate)/s, peak \(usage.ru_maxrss >> 10) MiB: \(campaign.shares)")
    }

    private func tell(_ finding: Finding) {
        say("\(target.name): \(finding.text)")
        if !finding.bytes.isEmpty { say(hexDump(finding.bytes)) }
    }

    func replay(seed: UInt64) throws {
        try replay(Input(seed: seed, salt: target.name) { say("\($0):\n\(hexDump($1))") })
    }

    func replay(file: String) throws {
        try replay(Input(bytes: try readFile(file)) { say("\($0):\n\(hexDump($1))") })
    }

    private func replay(_ input: Input) throws {
        var input = input
        do throws(Finding) {
            say("\(target.name): \(try target.run(&input))")
        } catch {
            tell(error)
            throw ExitCode(1)
        }
    }

    /// What the seeds make up, for a fuzzer that is guided to start from. Inputs that fail are left out.
    func writeCorpus(directory: String, seeds: Range<UInt64>) throws {
        for seed in seeds {
            var input = Input(seed: seed, salt: target.name, isRecorded: true)
            guard (try? target.run(&input)) != nil else { continue }
            try writeFile("\(directory)/\(target.name)-\(seed)", input.taken)
        }
    }
}

private func readFile(_ path: String) throws -> [UInt8] {
    guard let file = unsafe fopen(path, "r") else { throw ValidationError("\(path): can't be read") }
    defer { unsafe fclose(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = unsafe fread(&chunk, 1, chunk.count, file)
        guard count > 0 else { return bytes }
        bytes += chunk[..<count]
    }
}

private func writeFile(_ path: String, _ bytes: [UInt8]) throws {
    guard let file = unsafe fopen(path, "w") else { throw ValidationError("\(path): can't be written") }
    defer { unsafe fclose(file) }
    guard unsafe fwrite(bytes, 1, bytes.count, file) == bytes.count else {
        throw ValidationError("\(path): can't be written")
    }
}
