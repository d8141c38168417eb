internal import Benchmark
internal import Workloads

/// Time per piece of work, in batches of 1,000; `scripts/instructions` counts what time can't show on a busy machine.
let benchmarks: @Sendable () -> Void = {
    for workload in Workload.all {
        Benchmark(
            workload.name,
            configuration: .init(
                metrics: [.wallClock, .instructions], timeUnits: .nanoseconds, warmupIterations: 3,
                scalingFactor: .kilo, maxDuration: .milliseconds(500), maxIterations: 500)
        ) { benchmark, work in
            blackHole(work(benchmark.scaledIterations.count))
        } setup: {
            try workload.prepare()
        }
    }
}
