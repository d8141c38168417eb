package import MirrorCore

/// A rule of 3-correctness that was broken, as observed from outside the engine.
package struct Violation: Sendable, Equatable {
    package var rule: String
    package var text: String
    package var step: Int
}

package struct Options: Sendable {
    package var seed: UInt64
    package var mutant = Mutant.none
    package var isTraced = false
    package var disabled: [Fault] = []
    /// Ends the run, without a verdict on liveness, after so many events.
    package var maximumSteps = Int.max
    /// For speed: skip the starts after this one.
    package var maximumStarts = Int.max

    /// Some runs tell the engine of several events before they end the batch, some replace plexes and order the resync
    /// about; false: none does, as when seeds below 1100001 were found.
    package var hasAdditions = true
    /// Some runs have disks with spare pools, and sectors that can't be written; false: none, as when seeds below 2000001
    /// were found.
    package var hasSpares = true
    /// Scrubs are ordered, and at the end all is scrubbed. Without them a seed means what it always did.
    package var hasScrubs = false
    /// In some runs disks that do not answer are given up, and reads are hedged; false: none is, as when seeds below
    /// 2500001 were found.
    package var hasLate = true

    package init(seed: UInt64, mutant: Mutant = .none) {
        self.seed = seed
        self.mutant = mutant
    }
}

/// What came of one run.
package struct Outcome: Sendable {
    package var seed: UInt64
    package var violation: Violation?
    package var steps: Int
    package var simulatedNanoseconds: UInt64
    package var requests: Int
    package var histogram: Histogram
    /// A digest of everything that happened; equal for equal options.
    package var hash: UInt64
    package var trace: [String]
}
