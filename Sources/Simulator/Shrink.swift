/// Makes a failing run smaller: fewer kinds of fault, then fewer events.
package func shrink(_ failing: Options, progress: (String) -> Void) -> Outcome {
    var best = failing
    var outcome = Simulation.run(best)
    // A kind that is not needed is left out; what remains is what the failure takes.
    for fault in Fault.allCases where !best.disabled.contains(fault) && outcome.histogram[fault] > 0 {
        var candidate = best
        candidate.disabled.append(fault)
        let result = Simulation.run(candidate)
        if result.violation != nil, result.steps <= outcome.steps * 2 {
            best = candidate
            outcome = result
            progress("fails without \(fault.name) too, at step \(result.steps)")
        }
    }
    // The run is deterministic, so it may as well end with the event that broke the rule.
    best.maximumSteps = outcome.steps + 1
    best.isTraced = true
    return Simulation.run(best)
}
