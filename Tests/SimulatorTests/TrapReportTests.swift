internal import Testing

@testable import Simulator

@Suite("TrapReport")
struct TrapReportTests {
    @Test func trapNamesTheRun() async throws {
        let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            TrapReport.install()
            TrapReport.name("seed 41")
            TrapReport.name("seed 42")
            preconditionFailure("as the engine does")
        }
        let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
        #expect(text.contains("trapped in seed 42\n"))
        #expect(!text.contains("seed 41"))
    }

    @Test func endlessRecursionNamesTheRun() async throws {
        let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            TrapReport.install()
            TrapReport.name("seed 43")
            exhaustStack(1)
        }
        let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
        #expect(text.contains("trapped in seed 43\n"))
    }
}

/// Deeper than any stack; not a tail call.
@inline(never)
private func exhaustStack(_ depth: Int) {
    let ballast = [depth, depth + 1]
    if depth < .max { exhaustStack(depth + 1) }
    #expect(ballast[0] == depth)
}
