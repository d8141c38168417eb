internal import MirrorCore
internal import MirrorFormat

/// A fixed course of events for `Injection`: up to where calls are counted, and from there on.
struct Scenario {
    var name: String
    var plexes = 2
    var prelude: (Simulation) -> Void
    var body: (Simulation) -> Void

    static var all: [Scenario] {
        [
            Scenario(name: "normal", prelude: { $0.begin([]) }, body: { $0.work() }),
            Scenario(name: "normal, 3 plexes", plexes: 3, prelude: { $0.begin([]) }, body: { $0.work() }),
            Scenario(name: "degraded", prelude: { $0.begin([expelling(1)]) }, body: { $0.work() }),
            Scenario(name: "degraded, 3 plexes", plexes: 3, prelude: { $0.begin([expelling(0)]) }, body: { $0.work() }),
            Scenario(
                name: "resync", prelude: { $0.begin([expelling(1)]) },
                body: { simulation in
                    simulation.together([.comeBack(1)])
                    simulation.work()
                }),
            Scenario(
                name: "resync of two", plexes: 3, prelude: { $0.begin([.takeOffline(1), .takeOffline(2)]) },
                body: { simulation in
                    simulation.together([.comeBack(1)])
                    simulation.together([.write(whole(4)), .comeBack(2)])
                    simulation.work()
                }),
            Scenario(
                name: "stop during resync", prelude: { $0.begin([.write(whole(0)), expelling(1)]) },
                body: { simulation in
                    simulation.together([.comeBack(1)])
                    simulation.together([.write(whole(3)), .stop])
                }),
            Scenario(
                name: "open after crash", prelude: { $0.beginUnequal() },
                body: { simulation in
                    guard simulation.startSteered() else { return }
                    simulation.together([.read(whole(0)), .write(whole(1)), .read(whole(2))])
                    simulation.work()
                }),
            Scenario(
                name: "open after crash, 3 plexes", plexes: 3, prelude: { $0.beginUnequal() },
                body: { simulation in
                    guard simulation.startSteered() else { return }
                    simulation.together([.read(whole(0)), .write(whole(1)), .read(whole(2))])
                    simulation.work()
                }),
            Scenario(
                name: "open without a plex",
                prelude: { simulation in
                    simulation.begin([.write(whole(0)), .kill])
                    simulation.disks[1].isGone = true
                },
                body: { simulation in
                    guard simulation.startSteered() else { return }
                    simulation.work()
                }),
            Scenario(name: "break", plexes: 3, prelude: { $0.begin([]) }, body: { $0.lose(.breakOff(1)) }),
            Scenario(name: "remove", plexes: 3, prelude: { $0.begin([]) }, body: { $0.lose(.remove(1)) }),
            Scenario(name: "offline", plexes: 3, prelude: { $0.begin([]) }, body: { $0.lose(.takeOffline(1)) }),
            Scenario(name: "break to one", prelude: { $0.begin([]) }, body: { $0.lose(.breakOff(0)) }),
            Scenario(
                name: "join", prelude: { $0.begin([.remove(1)]) },
                body: { simulation in
                    simulation.together([.comeBack(1), .write(whole(0)), .write(whole(7))])
                    simulation.work()
                }),
            Scenario(
                name: "replace", plexes: 3, prelude: { $0.begin([.remove(2)]) },
                body: { simulation in
                    simulation.together([.replace(0, disk: 2), .write(whole(0)), .write(whole(7))])
                    simulation.work()
                }),
            Scenario(
                name: "scrub", plexes: 3, prelude: { $0.begin([.write(whole(0)), .write(whole(1))]) },
                body: { simulation in
                    simulation.flip(1, on: 2)
                    simulation.scrub()
                    simulation.together([.write(whole(0)), .read(whole(1))])
                    simulation.settle()
                }),
            Scenario(
                name: "stop", prelude: { $0.begin([.write(whole(0))]) },
                body: { simulation in
                    simulation.together([.write(whole(0)), .write(whole(5)), .flush, .read(whole(1)), .stop])
                }),
        ]
    }

    private static func expelling(_ disk: Int) -> ScriptStep {
        .failingWrite(whole(6), disk: disk, effect: .torn)
    }

    /// The cells of a block.
    static func whole(_ block: Int) -> Range<Int> {
        let cells = Geometry.sectorsPerBlock * Geometry.cellsPerSector
        return block * cells..<(block + 1) * cells
    }
}

extension Simulation {
    /// Starts, does one thing after the other, and comes to rest.
    fileprivate func begin(_ steps: [ScriptStep]) {
        guard startSteered() else { return }
        settle()
        for step in steps {
            perform(step)
            if step.isRestart { return crash(leaving: disks, powerFails: false) }
            settle()
        }
    }

    /// A crash at which only the first plex had a write that is on its way to all.
    fileprivate func beginUnequal() {
        begin([.write(Scenario.whole(0))])
        perform(.write(Scenario.whole(0).lowerBound..<Scenario.whole(2).upperBound))
        let writes = disks.map(\.writes)
        turn(until: { simulation in
            simulation.disks[0].cached.cells != simulation.disks[1].cached.cells
                && simulation.disks[1].writes > writes[1]
        })
        crash(leaving: disks, powerFails: false)
    }

    /// A disk comes to hold something else by itself.
    fileprivate func flip(_ block: Int, on disk: Int) {
        let cell = Scenario.whole(block).lowerBound
        disks[disk].rot(cell, to: .max)
        oracle.haunt(cell, with: [.max], from: .now)
    }

    /// With repairs. A plex may have left since.
    fileprivate func scrub() {
        guard ending == nil, server != nil else { return }
        give(.scrub, PlexIndex(0), .scrub(.start(ScrubManner(repairs: true))))
    }

    /// All at once, then waits for the answers.
    fileprivate func together(_ steps: [ScriptStep]) {
        for step in steps where violation == nil && ending == nil && server != nil { perform(step) }
        turn(until: \.hasAnswered)
    }

    /// A bit of everything, then rest: long enough for copies, flushes and the clean mark.
    fileprivate func work() {
        let cells = Geometry.sectorsPerBlock * Geometry.cellsPerSector
        together([.write(0..<2 * cells), .write(3 * cells..<4 * cells), .read(4 * cells..<6 * cells)])
        together([.write(cells + 4..<cells + 9), .forcedWrite(2 * cells..<3 * cells)])
        together([.zeroes(4 * cells + 3..<6 * cells + 2), .trim(0..<cells), .flush])
        together([.read(0..<8 * cells), .write(cells..<2 * cells)])
        settle()
    }

    /// A plex goes while writes are under way.
    fileprivate func lose(_ step: ScriptStep) {
        together([.write(Scenario.whole(0)), step, .write(Scenario.whole(0)), .write(Scenario.whole(3)), .flush])
        together([.write(Scenario.whole(1)), .read(Scenario.whole(0))])
        settle()
    }
}
