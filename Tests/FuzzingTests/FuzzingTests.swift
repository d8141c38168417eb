import MirrorCore
import Testing

@testable import Fuzzing

/// A short run of every target; `scripts/fuzz` makes longer ones. A trap fails the whole run: the target is named by the
/// last test that was begun, and `scripts/fuzz` finds the seed.
@Suite struct FuzzingTests {
    @Test(arguments: Target.all) func shortRunKeepsEveryPromise(target: Target) {
        var campaign = Campaign(target)
        for seed in 1...UInt64(20_000 / target.cost) {
            do throws(Finding) {
                try campaign.run(seed: seed)
            } catch {
                Issue.record("\(target), seed \(seed): \(error.text)\n\(hexDump(error.bytes))")
                return
            }
        }
        // It is worth something only if it gets past the first check, and also meets it.
        #expect(campaign.outcomes.count >= 3, "\(campaign.shares)")
    }

    /// What guided fuzzers are started from, and what findings are replayed from, must mean the same as the seed.
    @Test(arguments: Target.all) func recordedInputEndsAsItsSeedDid(target: Target) throws {
        for seed in UInt64(1)...10 {
            var input = Input(seed: seed, salt: target.name, isRecorded: true)
            let outcome = try target.run(&input)
            var again = Input(bytes: input.taken)
            let second = try target.run(&again)
            #expect(second == outcome)
        }
    }

    @Test(arguments: Target.all) func inputWithoutBytesEnds(target: Target) throws {
        var input = Input(bytes: [])
        _ = try target.run(&input)
    }

    /// Bugs of other mirrors, built into the verdicts: a story that does not notice them proves nothing.
    @Test(
        arguments: [.acceptOneEpochBehind, .interruptedMeansFinished, .failedReturnsInSync, .lowestIndexLeads]
            as [Mutant])
    func wrongVerdictIsFound(mutant: Mutant) {
        let target = Target.assembly(with: mutant)
        let isFound = (UInt64(1)...300).contains { seed in
            var input = Input(seed: seed, salt: target.name)
            return (try? target.run(&input)) == nil
        }
        #expect(isFound, "\(mutant) survived 300 stories")
    }

    @Test func hexDumpShowsOffsetsAndLeavesZeroesOut() {
        var bytes = [UInt8](repeating: 0, count: 40)
        bytes[33] = 0x41
        #expect(hexDump(bytes) == "000020  00 41 00 00 00 00 00 00  .A......\n40 bytes")
    }
}
