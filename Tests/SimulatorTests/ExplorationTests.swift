internal import MirrorCore
internal import Testing

@testable import Simulator

/// A debug build judges some hundred states a second; `scripts/simulate --exhaustive` goes further.
@Suite("Exploration")
struct ExplorationTests {
    private func explore(
        _ steps: [ScriptStep], plexes: Int = 2, theme: Exploration.Theme = .plain, mutant: Mutant = .none
    ) -> Exploration {
        var bounds = Exploration.Bounds()
        bounds.plexes = plexes
        bounds.steps = steps.count
        bounds.theme = theme
        bounds.outcomesPerDisk = plexes > 2 ? 3 : 6
        bounds.statesPerMoment = plexes > 2 ? 4 : 12
        let exploration = Exploration(bounds, mutant: mutant)
        exploration.run(only: steps)
        return exploration
    }

    @Test(arguments: [
        [ScriptStep.write(0..<48)],
        [.failingWrite(0..<48, disk: 0, effect: .torn)],
        [.write(28..<33), .kill],
        [.vanish(1), .forcedWrite(24..<48), .comeBack(1)],
        [.takeOffline(0), .comeBack(0)],
    ])
    func noCrashInTheScriptBreaksARule(script: [ScriptStep]) {
        let exploration = explore(script)
        #expect(exploration.figures.scripts == 1 && exploration.figures.judged > 20)
        #expect(exploration.findings.isEmpty, "\(exploration.findings)")
    }

    /// Disk 2 takes the place of plex 0, and each verb meets that at any moment: before it is copied to, in between, and
    /// when the old plex is being forgotten.
    @Test(arguments: [
        [], [ScriptStep.write(0..<48)], [.breakOff(0)], [.remove(1)], [.takeOffline(2)], [.vanish(0)], [.stop],
    ])
    func noCrashInAReplacementBreaksARule(next: [ScriptStep]) {
        let exploration = explore([.remove(2), .replace(0, disk: 2)] + next, plexes: 3)
        #expect(exploration.figures.scripts == 1)
        #expect(exploration.findings.isEmpty, "\(exploration.findings)")
    }

    /// The old plex has failed, was taken out, or is gone; the new one replaces it in every one of these states.
    @Test(arguments: [
        ScriptStep.vanish(0), .breakOff(0),
    ])
    func noCrashInTheReplacementOfAPlexThatIsOutBreaksARule(first: ScriptStep) {
        let exploration = explore([.remove(2), first, .replace(0, disk: 2)], plexes: 3)
        #expect(exploration.figures.scripts == 1 && exploration.figures.judged > 20)
        #expect(exploration.findings.isEmpty, "\(exploration.findings)")
    }

    /// Block 1 of disk 0 takes nothing: it goes to the spare pool, is found there, and goes back.
    @Test(arguments: [
        [ScriptStep.write(24..<48)], [.write(24..<48), .losePower], [.write(24..<48), .unstick(0), .reactivate(0)],
        // Nor does the first slot of the pool.
        [.stick(4, disk: 0), .write(24..<48)],
    ])
    func noCrashWhileABlockIsSparedBreaksARule(next: [ScriptStep]) {
        let exploration = explore([.stick(1, disk: 0)] + next, theme: .sparing)
        #expect(exploration.figures.scripts == 1 && exploration.figures.judged > 20, "\(exploration.figures)")
        #expect(exploration.findings.isEmpty, "\(exploration.findings)")
    }

    @Test(arguments: [
        [ScriptStep.scrub, .write(24..<48)], [.rot(30, disk: 1), .scrub],
        [.rot(30, disk: 1), .scrubAndRepair(0), .write(24..<48)],
    ])
    func noCrashInAScrubBreaksARule(script: [ScriptStep]) {
        let exploration = explore(script, theme: .scrubs)
        #expect(exploration.figures.scripts == 1 && exploration.figures.judged > 20, "\(exploration.figures)")
        #expect(exploration.findings.isEmpty, "\(exploration.findings)")
    }

    @Test func brokenSparingAndScrubAreFoundOut() {
        let sparing: [ScriptStep] = [.stick(1, disk: 0), .write(24..<48)]
        #expect(!explore(sparing, theme: .sparing, mutant: .remapNotWritten).findings.isEmpty)
        #expect(!explore(sparing + [.unstick(0)], theme: .sparing, mutant: .remapForgotten).findings.isEmpty)
        #expect(!explore([.scrub, .write(0..<48)], theme: .scrubs, mutant: .scrubWithoutLock).findings.isEmpty)
    }

    @Test func sameScriptGivesTheSameFigures() {
        let (first, second) = (explore([.write(24..<48)]).figures, explore([.write(24..<48)]).figures)
        #expect(first.judged == second.judged && first.crashStates == second.crashStates)
    }

    @Test func brokenEngineIsFoundOut() {
        #expect(explore([.write(0..<48)], mutant: .readWithoutRepair).findings.first?.violation.rule == "R7")
        #expect(!explore([.write(0..<48), .breakOff(0)], mutant: .breakWithoutDrain).findings.isEmpty)
        #expect(!explore([.write(0..<48), .flush], mutant: .flushDoesNothing).findings.isEmpty)
    }

    @Test func stepThatChangesNothingMakesNoScript() {
        #expect(explore([.comeBack(0)]).figures.scripts == 0)
    }

    /// The smallest of states, counted by hand: a write in flight to two plexes in one order, nothing cached.
    @Test func crashStatesOfAWriteInFlightAreAllCombinations() throws {
        let world = World.fresh(plexes: 2, blocks: 4)
        let simulation = Simulation(Options(seed: 0), world: world, pilot: Pilot(), limits: .steered)
        #expect(simulation.startSteered())
        simulation.perform(.write(0..<24))
        // The dirty mark and the bit first: two copies of the superblock and a page on each plex, each lost, torn or kept;
        // and all torn.
        #expect(simulation.remains(of: 0, powerFails: true, limit: 36).count == 3 * 3 * 3 + 1)
        simulation.turn(until: { simulation in
            simulation.flights.contains { $0?.operation.kind == .write }
        })
        let outcomes = simulation.remains(of: 1, powerFails: true, limit: 36)
        #expect(outcomes.map { $0.medium[0] == 0 } == [true, false, false])
        #expect(outcomes.map { $0.medium[3] == 0 } == [true, true, false], "the second is torn at every other sector")
    }
}
