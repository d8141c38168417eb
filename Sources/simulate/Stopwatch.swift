internal import Glibc

/// How long something took: on the wall, and on the processor, which others may be using too.
struct Stopwatch {
    private let clock = ContinuousClock()
    private let start: ContinuousClock.Instant
    private let processorStart = Glibc.clock()

    init() { start = clock.now }

    var elapsed: Duration { clock.now - start }

    var text: String {
        let processor = Double(Glibc.clock() - processorStart) / 1e6
        return "real \(elapsed.components.seconds) s, processor \(Int(processor.rounded())) s"
    }
}

/// What was printed is seen at once, also through a pipe.
func show(_ line: String) {
    print(line)
    fflush(nil)
}
