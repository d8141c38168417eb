internal import MirrorCore
internal import Testing

@testable import Simulator

/// A few calls of each scenario; `scripts/simulate --inject` fails them all.
@Suite("Injection")
struct InjectionTests {
    @Test(arguments: Injection.scenarioNames)
    func failedCallBreaksNoRule(scenario: String) {
        let row = Injection().run(scenario, every: 4001)
        #expect(row.calls > 10 && row.single + row.common > 0)
        #expect(row.findings.isEmpty, "\(row.findings)")
    }

    /// After a flush that failed on one plex, and was believed, the clients' data is gone.
    @Test func brokenEngineIsFoundOut() {
        let row = Injection(mutant: .hideFlushError).run("normal", calls: 25...25)
        #expect(row.findings.first?.violation.rule == "R7")
    }
}
