internal import MirrorCore
internal import Testing

@testable import Simulator

@Suite("Simulation")
struct SimulationTests {
    /// Debug builds run some 20 seeds a second; `scripts/simulate` runs the many.
    @Test(arguments: 0..<8)
    func noRuleIsBroken(batch: Int) {
        for offset in 0..<25 {
            let outcome = Simulation.run(Options(seed: UInt64(batch * 25 + offset + 1)))
            #expect(outcome.violation == nil, "seed \(outcome.seed)")
        }
    }

    /// What a finished scrub tells of is just what differs, and nothing differs that no disk is to blame for.
    @Test(arguments: 0..<4)
    func scrubsTellTheTruth(batch: Int) {
        for offset in 0..<25 {
            var options = Options(seed: UInt64(batch * 25 + offset + 1))
            options.hasScrubs = true
            let outcome = Simulation.run(options)
            #expect(outcome.violation == nil, "seed \(outcome.seed)")
        }
    }

    @Test func sameSeedDoesTheSame() {
        for seed in UInt64(500)..<510 {
            var options = Options(seed: seed)
            let first = Simulation.run(options)
            options.isTraced = true
            let second = Simulation.run(options)
            #expect(first.hash == second.hash && first.steps == second.steps, "tracing changes nothing either")
            #expect(!second.trace.isEmpty)
        }
    }

    @Test func differentSeedsDoDifferently() {
        let hashes = Set((UInt64(600)..<620).map { Simulation.run(Options(seed: $0)).hash })
        #expect(hashes.count == 20)
    }

    @Test func stoppedAfterSomeEventsGivesNoVerdict() {
        var options = Options(seed: 7)
        options.maximumSteps = 50
        let outcome = Simulation.run(options)
        #expect(outcome.violation == nil)
        #expect(outcome.steps <= 51)
    }

    @Test func shrunkRunFailsWithFewerKindsOfFault() throws {
        let kill = Kill.hunt(.trimOnOnePlex, limit: 50)
        #expect(kill.seeds != nil)
        let outcome = shrink(Options(seed: kill.seed, mutant: .trimOnOnePlex)) { _ in }
        #expect(outcome.violation != nil)
        #expect(!outcome.trace.isEmpty)
    }

    /// Seeds that broke the engine once; what was wrong stands in the commit that mended it.
    @Test(arguments: [
        // A flush that failed on all plexes at the end of making them equal recursed without end.
        UInt64(9), 18, 33,
        // A read-only stop forgot the requests in flight.
        265,
        // An event-log write outlasted `stopped`.
        11, 25, 88,
        // An expelled plex got retries.
        172,
        // A flush was believed after another on the same disk had failed; an acknowledgement trusted such a plex.
        716, 243, 832,
        // A break flushed a plex that had been expelled and closed.
        456, 101, 628,
        // Data was written while a plex on record as in sync was marked clean.
        3021,
        // A read was told before the plex that says otherwise was off the record.
        4874,
        // An error was told while the plex that had taken the write was being promoted.
        104205,
        // A read failed because its source had lost the pin meanwhile.
        104636,
        // A plex that could not be flushed for a break stayed in sync and was copied onto others.
        108061,
        // EAGAIN on a superblock expelled a plex; a flush that failed while clean made plexes count as different.
        307435, 204673,
        // Wiping was cut short and an older superblock, of a plex alone in sync, showed through.
        402802,
        // A plex whose flush had failed was read, and what it lacked was copied over a good plex.
        509100,
        // With an ancient disk among them the freshest plex was not found; one set back beyond all histories was.
        7703, 6053,
        // A disk that had lost the superblocks that told of its own side of a split was joined by difference.
        45880,
        // The page that told which state a disk must show was damaged, and one that was set back was believed.
        107639,
        // A read was answered from a plex that had failed a flush, beside one just being promoted.
        107948,
        // A write was acknowledged that such a plex had dropped.
        232770,
        // Two superblock updates, both cut off, left sectors that added up to a record that was never finished.
        145271,
        // The only whole copy of a superblock lay in the pair that the next update overwrote.
        434849,
        // A plex that was complete but not yet on record so left, and was believed when its disk was set back.
        486573,
        // A window of the resync hung, and the bits of its regions were cleared.
        414177,
        // The other bytes of a cut block were told to readers before they were durable.
        443547,
        // Simulator: a record that was torn by its repetition is no promotion.
        417486,
        // Nobody knew which numbers pages had had, and an older disk showed higher ones.
        536715,
        // Simulator: a disk that is no member any more was set back to when it was, and is alone.
        575553,
        // A plex left and came back during one round of the record, and that round counted for its new disk.
        610570,
        // A plex that the others' record named in sync did not take it, and writes went on before a record without it.
        809202,
        // Simulator: the only trace of the newest data was destroyed where nobody held all of it.
        820915, 880042,
    ])
    func seedThatOnceFailedPasses(seed: UInt64) {
        var options = Options(seed: seed)
        // All of these were found before there were batches and replacements.
        options.hasAdditions = false
        options.hasSpares = false
        options.hasLate = false
        #expect(Simulation.run(options).violation == nil)
    }
}
