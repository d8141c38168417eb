internal import ArgumentParser
internal import MirrorCore
internal import Simulator

/// `simulate --inject`: a table with one row per scenario.
struct InjectionRun {
    var names: [String]
    var mutant: Mutant
    var isTraced: Bool
    var maximumFindings: Int

    func run() throws {
        let stopwatch = Stopwatch()
        var injections = 0
        var violations = 0
        show(row("scenario", "calls", "one fails", "all fail", "violations"))
        for name in names where violations < maximumFindings {
            let injection = Injection(
                mutant: mutant, isTraced: isTraced, maximumFindings: maximumFindings - violations
            ) { TrapReport.name($0) }
            let result = injection.run(name)
            injections += result.single + result.common
            violations += result.findings.count
            show(row(name, "\(result.calls)", "\(result.single)", "\(result.common)", "\(result.findings.count)"))
            for finding in result.findings {
                for line in finding.trace { print(line) }
                show("  \(finding.injection): \(finding.violation.rule): \(finding.violation.text)")
            }
        }
        show("injections \(injections), violations \(violations), \(stopwatch.text)")
        if violations > 0 { throw ExitCode(1) }
    }

    private func row(_ cells: String...) -> String {
        let widths = [28, 7, 11, 10, 0]
        return zip(cells, widths).map { $0.padded(to: $1) }.joined()
    }
}
