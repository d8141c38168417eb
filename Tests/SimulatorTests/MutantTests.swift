internal import MirrorCore
internal import Testing

@testable import Simulator

/// Each known bug, built in, must be found. The seeds are those of the kill table (`scripts/mutants`), so that
/// the test takes seconds; if a change of the simulator makes one stale, take the new seed from the table.
@Suite("Mutants")
struct MutantTests {
    @Test(arguments: Mutant.allCases.filter { $0 != .none })
    func mutantIsKilled(mutant: Mutant) {
        let first = Self.seeds[mutant] ?? 1
        let kill = Kill.hunt(mutant, first: first, limit: 40)
        #expect(kill.seeds != nil, "\(mutant) survived from seed \(first)")
    }

    /// Those that the first 40 seeds do not find.
    static let seeds: [Mutant: UInt64] = [
        .hideFlushError: 208,
        .acceptOneEpochBehind: 682,
        .forgetFragmentError: 92,
        .readsNotPinned: 48,
        .readWithoutRepair: 243,
        .joinBeforeSuperblock: 692,
        .flushSkipsRecovering: 480,
        .breakWithoutDrain: 65,
    ]
}
