internal import Simulator

/// The figures of many runs.
struct Tally {
    private var seeds = 0
    private(set) var failures = 0
    private var requests = 0
    private var events = 0
    private var simulatedSeconds = 0.0
    private var histogram = Histogram()

    mutating func add(_ outcome: Outcome) {
        seeds += 1
        failures += outcome.violation == nil ? 0 : 1
        requests += outcome.requests
        events += outcome.steps
        simulatedSeconds += Double(outcome.simulatedNanoseconds) / 1e9
        histogram.add(outcome.histogram)
    }

    func report(elapsed: Duration) {
        let seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) / 1e18
        print("seeds \(seeds), failed \(failures), requests \(requests), events \(events)")
        print(
            "real \(Int(seconds * 10) / 10) s, simulated \(Int(simulatedSeconds / 3600)) h, ratio \(Int(simulatedSeconds / max(seconds, 0.001))), seeds per minute \(Int(Double(seeds) / max(seconds, 0.001) * 60))"
        )
        for fault in Fault.allCases { print("  \(fault.name.padded(to: 20)) \(histogram[fault])") }
    }
}
