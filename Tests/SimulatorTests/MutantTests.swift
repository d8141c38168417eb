internal import MirrorCore
internal import Testing

@testable import Simulator

/// Each known bug, built in, must be found. The seeds are those of the kill table (`scripts/mutants`), so that
/// the test takes seconds; if a change makes one stale it takes longer: take the new seed from the table.
@Suite("Mutants")
struct MutantTests {
    @Test(arguments: Mutant.allCases.filter { $0 != .none })
    func mutantIsKilled(mutant: Mutant) {
        let first = Self.seeds[mutant] ?? 1
        let kill = Kill.hunt(mutant, first: first, limit: 40)
        if kill.seeds != nil { return }
        // The seed has gone stale; what counts is that the mutant is found.
        #expect(Kill.hunt(mutant, first: 1, limit: 2000).seeds != nil, "\(mutant) survived 2,000 seeds")
    }

    /// Those that the first 40 seeds do not find.
    static let seeds: [Mutant: UInt64] = [
        .hideFlushError: 926,
        .acceptOneEpochBehind: 58,
        .readsNotPinned: 41,
        .readWithoutRepair: 300,
        .joinBeforeSuperblock: 334,
        .flushSkipsRecovering: 198,
        .deltaWithoutEvidence: 228,
        .joinForgetsOwnChanges: 131,
        .noGenerationIfDegraded: 728,
        .badPageIsClean: 962,
        .differenceIgnored: 395,
        .scrubRepairUnlocked: 2455,
        .lateBufferReused: 154,
    ]
}
