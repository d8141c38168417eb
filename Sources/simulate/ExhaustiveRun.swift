internal import ArgumentParser
internal import MirrorCore
internal import Simulator

/// `simulate --exhaustive`: prints each finding with its script, and the figures.
struct ExhaustiveRun {
    var bounds: Exploration.Bounds
    var mutant: Mutant
    var isTraced: Bool
    var maximumFindings: Int

    func run() throws {
        let stopwatch = Stopwatch()
        let exploration = Exploration(bounds, mutant: mutant, isTraced: isTraced) { TrapReport.name($0) }
        var reported = 0
        exploration.run(maximumFindings: maximumFindings) { steps, figures in
            show(
                "plexes \(bounds.plexes), scripts of up to \(steps) steps: scripts \(figures.scripts), runs \(figures.runs), moments \(figures.moments), crash states \(figures.crashStates), judged \(figures.judged) (second crashes \(figures.secondCrashes)), violations \(figures.violations), \(stopwatch.text)"
            )
            for finding in exploration.findings[reported...] {
                for line in finding.trace { print(line) }
                show("\(finding.script): \(finding.violation.rule): \(finding.violation.text)")
            }
            reported = exploration.findings.count
        }
        if reported > 0 { throw ExitCode(1) }
    }
}
