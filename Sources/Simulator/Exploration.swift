package import MirrorCore

/// Bounded exhaustive test: every script of a few steps, a crash at every moment of its last step, every state
/// that the crash may leave, and for each what a restart makes of it. No chance: the same each time.
///
/// Crashes in earlier steps are those of shorter scripts. States are told apart by a fingerprint of the disks
/// and of what clients may expect (`Digest`); one that was judged before is not judged again.
package final class Exploration {
    package struct Bounds: Sendable {
        package var plexes = 2
        /// Longest script, in steps.
        package var steps = 2
        /// Size of the mirror, in blocks of 4 KiB.
        package var blocks = 4
        /// Beyond so many combinations a disk's outcomes are represented by a family, see `Remains`.
        package var outcomesPerDisk = 36
        package var theme = Theme.plain
        /// Beyond so many combinations of all disks' outcomes each disk is varied by itself.
        package var statesPerMoment = 256
        /// The same for scripts of three steps and more on three plexes and more: there are twenty times as many.
        /// What they leave is judged without a second crash.
        package var outcomesPerDiskCoarse = 9
        package var statesPerMomentCoarse = 24
        /// Of the longest scripts only each `parts`th is explored, from this one on, so that several processes, or one
        /// after another, do what would take one of them too long. Shorter ones belong to part 0.
        package var part = 0
        package var parts = 1
        package init() {}
    }

    /// What scripts are about besides what all are about.
    package enum Theme: Sendable {
        case plain
        /// A disk that does not take a block; each has a spare pool of two slots.
        case sparing
        /// What scrubs leave on the disks tells states apart, too.
        case scrubs

        var spares: Int { self == .sparing ? 2 : 0 }

        /// How each script begins.
        var beginning: [ScriptStep] { self == .sparing ? [.stick(1, disk: 0)] : [] }

        func alphabet(blocks: Int) -> [ScriptStep] {
            switch self {
            case .plain: []
            case .sparing: [.stick(blocks, disk: 0), .unstick(0), .reactivate(0)]
            case .scrubs: [.rot(30, disk: 1), .scrub, .scrubAndRepair(0), .scrubAndRepair(1)]
            }
        }
    }

    package struct Figures: Sendable {
        package var scripts = 0
        /// Scripts times paces times orders of completion.
        package var runs = 0
        package var moments = 0
        package var crashStates = 0
        /// Those that differ; each was restarted, read, crashed again and read again.
        package var judged = 0
        /// Of these the states after a restart, its reads and another crash.
        package var secondCrashes = 0
        package var violations = 0
    }

    package struct Finding: Sendable {
        package var script: String
        package var violation: Violation
        package var trace: [String]
    }

    let bounds: Bounds
    let options: Options
    let limits: Limits
    package private(set) var figures = Figures()
    package private(set) var findings: [Finding] = []
    private var judged: Set<UInt64> = []
    /// Second crashes are judged by what is read after them only.
    private var reread: Set<UInt64> = []
    private var seenMoments: Set<UInt64> = []
    private let reader = SuperblockReader()
    private var maximumFindings = 1
    private var present = ""
    var isCoarse = false
    /// Scripts are run for whether they are possible; crashes belong to another part.
    private var isElsewhere = false
    /// Told each script before it is run.
    private let progress: (String) -> Void

    package init(
        _ bounds: Bounds, mutant: Mutant = .none, isTraced: Bool = false,
        progress: @escaping (String) -> Void = { _ in }
    ) {
        self.bounds = bounds
        self.progress = progress
        var options = Options(seed: 0, mutant: mutant)
        options.isTraced = isTraced
        self.options = options
        limits = Limits.steered
    }

    /// - Parameters:
    ///   - maximumFindings: ends early when so many rules were seen broken.
    ///   - report: told the figures so far when all scripts of a length are through.
    package func run(maximumFindings: Int = 1, report: (Int, Figures) -> Void = { _, _ in }) {
        self.maximumFindings = maximumFindings
        let alphabet =
            ScriptStep.alphabet(plexes: bounds.plexes, blocks: bounds.blocks)
            + bounds.theme.alphabet(blocks: bounds.blocks)
        var scripts: [[ScriptStep]] = [bounds.theme.beginning]
        for steps in 1...bounds.steps where !isOver {
            var longer: [[ScriptStep]] = []
            var number = 0
            let isLongest = steps == bounds.steps
            for script in scripts {
                for step in alphabet where !isOver && isFirstOfItsKind(script + [step]) {
                    number += 1
                    isElsewhere = isLongest ? number % bounds.parts != bounds.part : bounds.part > 0
                    if isElsewhere, isLongest { continue }
                    if explore(script + [step]) { longer.append(script + [step]) }
                }
            }
            scripts = longer
            report(steps, figures)
        }
    }

    /// One script, with the crashes of its last step.
    func run(only script: [ScriptStep]) { _ = explore(script) }

    /// Which plex is which makes a difference only where the engine takes the first it finds. Of three and more,
    /// scripts count that name them from one end to the other, 0, 1, 2 or 2, 1, 0.
    private func isFirstOfItsKind(_ script: [ScriptStep]) -> Bool {
        guard bounds.plexes > 2 else { return true }
        var named: [Int] = []
        for step in script {
            if let disk = step.disk, !named.contains(disk) { named.append(disk) }
        }
        let last = bounds.plexes - 1
        return named == Array(0..<named.count) || named == (0..<named.count).map { last - $0 }
    }

    var isOver: Bool { findings.count >= maximumFindings }

    /// - Returns: whether there is such a script: each step changes something in some run.
    private func explore(_ script: [ScriptStep]) -> Bool {
        var exists = false
        isCoarse = bounds.plexes > 2 && script.count > 2
        let text = script.map(\.description).joined(separator: "; ")
        for pace in Pace.allCases where script.count > 1 || pace == .settled {
            for order in Pilot.Order.allCases {
                present = "\(text) (\(pace), \(order))"
                progress(present)
                if run(script, pace, order) {
                    exists = true
                    if !isElsewhere { figures.runs += 1 }
                }
            }
        }
        if exists, !isElsewhere { figures.scripts += 1 }
        return exists
    }

    private func run(_ script: [ScriptStep], _ pace: Pace, _ order: Pilot.Order) -> Bool {
        let world = World.fresh(plexes: bounds.plexes, blocks: bounds.blocks, spares: bounds.theme.spares)
        let simulation = Simulation(options, world: world, pilot: Pilot(order: order), limits: limits)
        guard simulation.startSteered() else { return false }
        simulation.settle()
        for (index, step) in script.enumerated() {
            guard simulation.isApplicable(step) else { return false }
            let isLast = index == script.count - 1
            var key = UInt64.max
            let watch: (Simulation) -> Void = { simulation in
                guard isLast, simulation.momentKey != key else { return }
                key = simulation.momentKey
                self.explore(simulation)
            }
            simulation.perform(step)
            watch(simulation)
            if step.isRestart, !restart(simulation, step, watch) { return isLast }
            if isLast || pace == .settled {
                simulation.settle(moment: watch)
                simulation.checkAnswered()
            } else if pace == .answered {
                simulation.turn(until: \.hasAnswered)
            }
            if simulation.violation != nil {
                report(simulation)
                return true
            }
        }
        return true
    }

    /// - Returns: whether a server runs again.
    private func restart(_ simulation: Simulation, _ step: ScriptStep, _ watch: (Simulation) -> Void) -> Bool {
        if step == .stop { simulation.turn(until: { $0.ending != nil }, moment: watch) }
        if case .stopped(true) = simulation.ending {
            simulation.endLife()
        } else {
            let powerFails = step == .losePower
            let disks = simulation.disks.indices.map { disk in
                simulation.remains(of: disk, powerFails: powerFails, limit: 1)[0]
            }
            simulation.crash(leaving: disks, powerFails: powerFails)
        }
        simulation.ending = nil
        simulation.now += 1_000_000_000
        guard simulation.violation == nil, simulation.startSteered() else {
            if simulation.violation != nil { report(simulation) }
            return false
        }
        watch(simulation)
        return true
    }

    // MARK: crashes

    private func explore(_ simulation: Simulation) {
        guard simulation.violation == nil, !isOver, !isElsewhere else { return }
        let naming = simulation.naming(reader, hasLedgers: bounds.theme == .scrubs)
        guard seenMoments.insert(simulation.momentDigest(naming, reader)).inserted else { return }
        figures.moments += 1
        let gone = simulation.disks.indices.reduce(UInt8(0)) { simulation.disks[$1].isGone ? $0 | 1 << $1 : $0 }
        for powerFails in [false, true] {
            let disks = simulation.disks.indices.map { disk in
                simulation.remains(
                    of: disk, powerFails: powerFails,
                    limit: isCoarse ? bounds.outcomesPerDiskCoarse : bounds.outcomesPerDisk)
            }
            judge(simulation, disks, naming, powerFails: powerFails, gone: gone, depth: 0)
        }
    }

    /// A simulation stands still after its restart; it crashes again.
    func crashAgain(_ simulation: Simulation, absent: UInt8) {
        let naming = simulation.naming(reader, hasLedgers: bounds.theme == .scrubs)
        for powerFails in [false, true] {
            let disks = simulation.disks.indices.map { disk in
                let outcomes = simulation.remains(of: disk, powerFails: powerFails, limit: 1)
                return [outcomes[0], outcomes[outcomes.count - 1]]
            }
            // What the answers promise is on all plexes; of the rest the first crash had every combination.
            for fate in 0...1 {
                judge(simulation, disks.map { [$0[fate]] }, naming, powerFails: powerFails, gone: absent, depth: 1)
            }
        }
    }

    /// Every combination of what may be left of each disk, with all disks there, and with each one lost.
    private func judge(
        _ simulation: Simulation, _ disks: [[SimulatedDisk]], _ naming: Naming, powerFails: Bool, gone: UInt8,
        depth: Int
    ) {
        let blank = simulation.world(leaving: [], powerFails: powerFails)
        let knowledge = naming.digest(blank.oracle)
        let outcomes = disks.map { distinct($0, naming) }
        var absences: [UInt8] = [gone]
        if gone != 0, depth == 0 { absences.append(0) }
        for disk in disks.indices where !absences.contains(gone | 1 << disk) { absences.append(gone | 1 << disk) }
        for choice in combinations(outcomes.map(\.count)) {
            for absent in absences where !isOver {
                figures.crashStates += 1
                var digest = Digest()
                digest.add(knowledge)
                digest.add(UInt64(absent))
                for disk in choice.indices where absent & 1 << disk == 0 {
                    digest.add(outcomes[disk][choice[disk]].digest)
                }
                guard isNew(digest.value, depth) else { continue }
                var world = blank
                world.disks = choice.indices.map { outcomes[$0][choice[$0]].disk }
                figures.judged += 1
                if depth == 1 { figures.secondCrashes += 1 }
                judge(world, absent: absent, depth: depth)
            }
        }
    }

    private func isNew(_ state: UInt64, _ depth: Int) -> Bool {
        if depth == 0 { return judged.insert(state).inserted }
        return !judged.contains(state) && reread.insert(state).inserted
    }

    /// Outcomes that differ; worst first, best last.
    private func distinct(_ disks: [SimulatedDisk], _ naming: Naming) -> [(disk: SimulatedDisk, digest: UInt64)] {
        var result: [(disk: SimulatedDisk, digest: UInt64)] = []
        for disk in disks {
            let digest = naming.digest(disk)
            if let place = result.firstIndex(where: { $0.digest == digest }) {
                result.append(result.remove(at: place))
            } else {
                result.append((disk, digest))
            }
        }
        return result
    }

    /// All combinations, or, if they are too many, those in which all disks but one fare alike: worst or best.
    private func combinations(_ counts: [Int]) -> [[Int]] {
        if counts.reduce(1, *) <= (isCoarse ? bounds.statesPerMomentCoarse : bounds.statesPerMoment) {
            return counts.reduce([[]]) { product, count in product.flatMap { start in (0..<count).map { start + [$0] } }
            }
        }
        let worst = counts.map { _ in 0 }
        let best = counts.map { $0 - 1 }
        var family = [worst, best]
        for disk in counts.indices {
            for outcome in 0..<counts[disk] {
                for base in [worst, best] {
                    var choice = base
                    choice[disk] = outcome
                    family.append(choice)
                }
            }
        }
        return family
    }

    func report(_ simulation: Simulation) {
        guard let violation = simulation.violation else { return }
        figures.violations += 1
        findings.append(Finding(script: present, violation: violation, trace: simulation.trace))
    }
}
