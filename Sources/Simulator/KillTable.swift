package import MirrorCore

/// How many seeds it took to find a bug that was built in on purpose.
package struct Kill: Sendable {
    package var mutant: Mutant
    /// Number of seeds tried, the killing one included; nil: it survived.
    package var seeds: Int?
    package var seed: UInt64
    package var violation: Violation?

    /// - Parameter before: told each seed before it is run.
    package static func hunt(
        _ mutant: Mutant, first: UInt64 = 1, limit: Int, before: (UInt64) -> Void = { _ in }
    ) -> Kill {
        for offset in 0..<limit {
            before(first + UInt64(offset))
            var options = Options(seed: first + UInt64(offset), mutant: mutant)
            options.hasScrubs = mutant.isOfScrub
            options.hasLate = mutant.isOfLate
            let outcome = Simulation.run(options)
            if let violation = outcome.violation {
                return Kill(mutant: mutant, seeds: offset + 1, seed: outcome.seed, violation: violation)
            }
        }
        return Kill(mutant: mutant, seeds: nil, seed: 0, violation: nil)
    }
}

extension Mutant {
    /// The bug of another mirror that it stands for; project and commit as in the list of real bugs.
    package var source: String {
        switch self {
        case .none: "-"
        case .acknowledgeBeforeRecord: "1, 3: md LR e0185f09, gmirror"
        case .recordOnOnePlex: "28: DRBD 7bc900858, 11a8e075e"
        case .readFromRecovering: "12: md LR 76156437/7be5ca64"
        case .resyncWithoutLock: "15, 58: md 133d452"
        case .resyncSkipsFirstWindow: "17: md LR 3256db26"
        case .promoteWithoutFlush: "44: Longhorn #13139"
        case .hideFlushError: "19, 55: md LR cff18e5f"
        case .acceptOneEpochBehind: "6: md LR 58c1e75d"
        case .forgetFragmentError: "26: DRBD 497149ded"
        case .flushDoesNothing: "60: a mirror on ublk"
        case .joinAtCursor: "18: md LR 3338c48b"
        case .interruptedMeansFinished: "16: md LR 5d0d702c"
        case .readsNotPinned: "4: SPDK raid1"
        case .readWithoutRepair: "4: SPDK raid1"
        case .dataBeforeDirty: "25: DRBD b46379422"
        case .readWithoutLock: "27: DRBD d5e7b414d"
        case .lowestIndexLeads: "3: gmirror"
        case .joinBeforeSuperblock: "43: Longhorn #7425"
        case .flushSkipsRecovering: "61: a mirror on ublk"
        case .trimOnOnePlex: "47: md raid10 LR 3a23dcde"
        case .breakWithoutDrain: "39: ZFS #7865"
        case .failedReturnsInSync: "5, 45: dm-raid1, SPDK #3497"
        case .cleanWithoutFlush: "33: DRBD f4acb16fb"
        case .intentOnOnePlex: "25: DRBD b46379422"
        case .clearWithoutFlush: "19: md LR cff18e5f"
        case .clearInFlight: "33: DRBD f4acb16fb"
        case .clearTouched: "57: a mirror on ublk"
        case .clearWhileDegraded: "14: md LR c3ec4d60"
        case .clearBeforeMove: "30: DRBD 3cb0ba6d1"
        case .deltaWithoutEvidence: "7: md 2006 msg05742"
        case .joinForgetsOwnChanges: "9, 10: ZFS #14640, bcachefs #579"
        case .joinForgetsIntent: "46: QEMU 0f51f9c342"
        case .missesFromFailureOn: "-"
        case .noGenerationIfDegraded: "29: DRBD 499533fe3"
        case .badPageIsClean: "63: a mirror on ublk"
        case .recoveringMissesWrites: "24, 42: DRBD 18bf57ca9, Longhorn #4354"
        case .checkpointWithoutFlush: "52: dm-integrity 118ba36"
        case .scrubReadsOnePlex: "40: ZFS #13642"
        case .scrubForgetsMissed: "37: ZFS #6103"
        case .scrubWithoutLock: "15, 58: md 133d452"
        case .lateBufferReused, .hedgeNotAdopted, .zombieForgotten: "36: DRBD disk-timeout"
        case .scrubRepairUnlocked, .replacedTooEarly, .differenceIgnored, .repairWithoutLock, .badRangeServed,
            .healedTooEarly, .remapForgotten, .remapNotWritten, .remapUnannounced:
            "-"
        }
    }
}
