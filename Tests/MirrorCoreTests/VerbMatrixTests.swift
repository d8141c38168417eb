import MirrorFormat
import Testing

@testable import MirrorCore

/// Each verb on a plex in each state, while clients write. What is refused changes nothing; what is done ends well.
@Suite struct VerbMatrixTests {
    /// Of plex 2, but for `lastGood`.
    enum State: String, CaseIterable {
        case inSync, lastGood, rebuilding, failed, missing, offline, brokenOff, absent, beingReplaced, replacing
    }

    enum Verb: String, CaseIterable {
        case breakOff, remove, takeOffline
        /// Its own disk, and one that the mirror does not know, in its place.
        case joinOwn, joinNew
        /// By a new disk in the place of plex 3.
        case replace
        case clear, reactivate, writeMostly
        /// Of the mirror; with its version preferred.
        case scrub, scrubAndRepair
    }

    /// What is refused, by state; everything else is done.
    private static let refused: [State: Set<Verb>] = [
        .inSync: [.joinOwn, .joinNew],
        .lastGood: [.breakOff, .remove, .takeOffline, .joinOwn, .joinNew, .scrub, .scrubAndRepair],
        .rebuilding: [.breakOff, .joinOwn, .joinNew, .reactivate, .scrubAndRepair],
        .failed: [.breakOff, .takeOffline, .reactivate, .scrubAndRepair],
        .missing: [.breakOff, .takeOffline, .reactivate, .scrubAndRepair],
        .offline: [.breakOff, .takeOffline, .reactivate, .scrubAndRepair],
        .brokenOff: [.breakOff, .takeOffline, .reactivate, .scrubAndRepair],
        .absent: [.breakOff, .remove, .takeOffline, .replace, .clear, .reactivate, .writeMostly, .scrubAndRepair],
        .beingReplaced: [.joinOwn, .joinNew, .replace],
        .replacing: [.breakOff, .joinOwn, .joinNew, .reactivate, .scrubAndRepair],
    ]

    private static let cases = State.allCases.flatMap { state in Verb.allCases.map { (state, $0) } }

    private let subject = PlexIndex(2)

    private func plex(_ state: State) -> PlexIndex { state == .lastGood ? PlexIndex(0) : subject }

    private func bench(_ state: State) throws -> MirrorBench {
        let bench: MirrorBench
        switch state {
        case .lastGood: bench = try MirrorBench(freshRecord([.inSync, .failed, .failed]), present: set(0))
        case .missing:
            bench = try MirrorBench(freshRecord([.inSync, .inSync, .stale]), present: set(0, 1))
        case .absent: bench = try MirrorBench(freshRecord([.inSync, .inSync]))
        default: bench = try MirrorBench(freshRecord([.inSync, .inSync, .inSync]))
        }
        bench.settle()
        bench.dirty()
        bench.settle()
        switch state {
        case .inSync, .lastGood, .missing, .absent: break
        case .failed:
            bench.send(90, .write)
            bench.settle(failing: { $0.plex == 2 && $0.kind == .write ? .media : nil })
        case .offline: bench.command(.takeOffline(subject))
        case .brokenOff: bench.command(.breakOff(subject, name: "copy"))
        case .rebuilding:
            bench.command(.takeOffline(subject))
            bench.settle()
            bench.command(.resync(.pause))
            bench.command(.join(subject, try newDisk(plexUUID(2))))
        case .beingReplaced:
            bench.command(.resync(.pause))
            bench.command(.join(PlexIndex(3), try newDisk(plexUUID(3)), replacing: subject))
        case .replacing:
            bench.command(.remove(subject))
            bench.settle()
            bench.command(.resync(.pause))
            bench.command(.join(subject, try newDisk(plexUUID(2)), replacing: PlexIndex(1)))
        }
        bench.settle()
        bench.tick()
        bench.settle()
        bench.clearTrace()
        return bench
    }

    private func command(_ verb: Verb, _ state: State) throws -> Command {
        switch verb {
        case .breakOff: .breakOff(plex(state), name: "copy")
        case .remove: .remove(plex(state))
        case .takeOffline: .takeOffline(plex(state))
        case .joinOwn: .join(plex(state), try newDisk(plexUUID(Int(plex(state).value))))
        case .joinNew: .join(plex(state), try newDisk(plexUUID(9)))
        case .replace:
            .join(PlexIndex(state == .beingReplaced ? 4 : 3), try newDisk(plexUUID(9)), replacing: plex(state))
        case .clear: .clear(plex(state))
        case .writeMostly: .writeMostly(plex(state), true)
        case .reactivate: .reactivate(plex(state))
        case .scrub: .scrub(.start(ScrubManner()))
        case .scrubAndRepair: .scrub(.start(ScrubManner(repairs: true, preferred: plex(state))))
        }
    }

    @Test func benchesAreInTheStatesThatTheyAreNamedAfter() throws {
        for state in State.allCases {
            let record = try bench(state).record
            let role = record[plex(state)].role
            switch state {
            case .inSync: #expect(role == .inSync && record.inSync == set(0, 1, 2))
            case .lastGood: #expect(role == .inSync && record.inSync == set(0))
            case .rebuilding: #expect(role == .recovering)
            case .failed: #expect(role == .failed)
            case .missing: #expect(role == .stale)
            case .offline: #expect(role == .offline)
            case .brokenOff: #expect(role == .brokenOff)
            case .absent: #expect(role == .absent)
            case .beingReplaced: #expect(role == .inSync && record[PlexIndex(3)].replaces == subject)
            case .replacing: #expect(role == .recovering && record[subject].replaces == PlexIndex(1))
            }
        }
    }

    @Test(arguments: cases) func verbIsDoneOrRefusedWithoutAChange(state: State, verb: Verb) throws {
        let bench = try bench(state)
        let before = bench.record
        let released = bench.released
        let mustRefuse = Self.refused[state]?.contains(verb) == true
        bench.send(1, .write, 0)
        let id = bench.command(try command(verb, state))
        if mustRefuse {
            #expect(bench.answers[id]?.isRefused == true, "\(bench.answers[id].debugDescription)")
            #expect(bench.record == before && bench.released == released)
            bench.settle()
            #expect(bench.record == before && !bench.trace.contains { Self.isRecord($0) })
        }
        bench.send(2, .write, 8192)
        bench.settle()
        if !mustRefuse { #expect(bench.answers[id]?.isDone == true, "\(bench.answers[id].debugDescription)") }
        bench.command(.resync(.resume))
        for _ in 0..<100 {
            bench.tick()
            bench.settle()
        }
        #expect(bench.replies[1] == .ok && bench.replies[2] == .ok)
        if !mustRefuse { checkEnd(bench, state, verb) }
        // All that are in sync say the same, and one good copy at least is left.
        let record = bench.record
        #expect(!record.inSync.isEmpty)
        // The bench has put the disk that was refused in the place of the plex's own.
        let strangers = mustRefuse && (verb == .joinOwn || verb == .joinNew) ? PlexSet(plex(state)) : .empty
        for plex in record.inSync.subtracting(strangers).members {
            #expect(bench.recorded(Int(plex.value)) == record)
        }
    }

    private static func isRecord(_ step: MirrorBench.Step) -> Bool {
        if case .submit(let operation) = step { operation.isSuperblock } else { false }
    }

    private func checkEnd(_ bench: MirrorBench, _ state: State, _ verb: Verb) {
        let record = bench.record
        let role = record[plex(state)].role
        switch verb {
        case .breakOff: #expect(role == .brokenOff)
        case .remove: #expect(role == .absent)
        // One that is being replaced is forgotten wherever it is.
        case .takeOffline: #expect(role == (state == .beingReplaced ? .absent : .offline))
        case .joinOwn: #expect(role == .inSync && record[plex(state)].uuid == plexUUID(Int(plex(state).value)))
        case .joinNew: #expect(role == .inSync && record[plex(state)].uuid == plexUUID(9))
        // The only other good copy stays as long as the mirror lacks more.
        case .replace:
            #expect(role == (state == .lastGood ? .inSync : .absent) && record[PlexIndex(3)].role == .inSync)
        case .clear, .reactivate, .writeMostly, .scrub, .scrubAndRepair:
            #expect(role == Self.roleLeftAlone[state])
            #expect(record[plex(state)].isWriteMostly == (verb == .writeMostly && state != .beingReplaced))
            if verb == .clear { #expect(record[plex(state)].writeErrors == 0 && record[plex(state)].readErrors == 0) }
            guard verb == .scrub || verb == .scrubAndRepair else { return }
            let scrub = bench.status().scrub
            #expect(scrub?.isRunning == false && scrub?.lastFinished ?? 0 > 0 && scrub?.mismatches == 0)
        }
    }

    /// What comes of a plex whose place in the mirror nobody touches.
    private static let roleLeftAlone: [State: Role] = [
        .inSync: .inSync, .lastGood: .inSync, .rebuilding: .inSync, .failed: .failed, .missing: .stale,
        .offline: .offline, .brokenOff: .brokenOff, .absent: .absent, .beingReplaced: .absent, .replacing: .inSync,
    ]

    /// Of the whole mirror.
    enum Condition: String, CaseIterable {
        case readOnly, opening, stopping
    }

    @Test(arguments: Condition.allCases) func nothingIsDoneWhileTheMirrorCanNotChange(condition: Condition) throws {
        for verb in Verb.allCases {
            let bench: MirrorBench
            switch condition {
            case .readOnly: bench = try MirrorBench(freshRecord([.inSync, .inSync, .inSync]), isReadOnly: true)
            case .opening:
                bench = try MirrorBench(freshRecord([.inSync, .inSync, .inSync]).changed { $0.isClean = false })
            case .stopping:
                bench = try MirrorBench(freshRecord([.inSync, .inSync, .inSync]))
                bench.settle()
                bench.send(1, .write)
                bench.command(.stop)
            }
            if condition == .opening { #expect(!bench.isOpen) }
            let before = bench.record
            let id = bench.command(try command(verb, .inSync))
            if condition == .stopping { bench.settle() }
            // Comparing changes nothing.
            let isDone = condition == .readOnly && verb == .scrub
            #expect(bench.answers[id]?.isRefused == !isDone, "\(verb) while \(condition)")
            #expect(bench.record.members == before.members)
            guard condition == .readOnly else { continue }
            bench.settle()
            for _ in 0..<20 {
                bench.tick()
                bench.settle()
            }
            #expect(bench.trace.allSatisfy { !Self.isWrite($0) } && bench.record == before)
        }
    }

    private static func isWrite(_ step: MirrorBench.Step) -> Bool {
        guard case .submit(let operation) = step else { return false }
        switch operation.kind {
        case .write, .zero, .deallocate, .writeMetadata: return true
        case .read, .flush, .compare, .checksum, .findData, .queryAllocation: return false
        }
    }

    /// The state can't be recorded anywhere: what was ordered waits, and is done when it can.
    @Test(arguments: [Verb.breakOff, .remove, .takeOffline, .replace, .clear, .writeMostly])
    func verbWaitsWhileTheMirrorIsSuspended(verb: Verb) throws {
        let bench = try bench(.inSync)
        let id = bench.command(try command(verb, .inSync))
        bench.settle(failing: { $0.kind == .writeMetadata ? .media : nil })
        #expect(bench.answers[id] == nil && bench.status().state == .suspended)
        for _ in 0..<50 {
            bench.tick()
            bench.settle()
        }
        #expect(bench.answers[id]?.isDone == true && bench.status().state != .suspended)
        checkEnd(bench, .inSync, verb)
    }
    /// No plex can record anything already when they are given: what needs no record begins, and what does waits.
    @Test(arguments: [Verb.clear, .reactivate, .writeMostly, .scrub, .scrubAndRepair])
    func verbGivenToASuspendedMirrorWritesNothingBeforeItGoesOn(verb: Verb) throws {
        let bench = try bench(.inSync)
        let failing: (MirrorBench.Operation) -> DiskFailure? = { $0.kind == .writeMetadata ? .media : nil }
        let earlier = bench.command(.takeOffline(PlexIndex(1)))
        bench.settle(failing: failing)
        #expect(bench.status().state == .suspended)
        bench.clearTrace()
        let id = bench.command(try command(verb, .inSync))
        for _ in 0..<3 {
            bench.tick()
            bench.settle(failing: failing)
        }
        #expect(bench.answers[earlier] == nil && bench.answers[id]?.isRefused != true)
        #expect(!bench.trace.contains { Self.isWrite($0) && !Self.isMetadata($0) })
        for _ in 0..<100 {
            bench.tick()
            bench.settle()
        }
        #expect(bench.answers[earlier]?.isDone == true && bench.answers[id]?.isDone == true)
        #expect(bench.status().state == .degraded)
        checkEnd(bench, .inSync, verb)
    }

    private static func isMetadata(_ step: MirrorBench.Step) -> Bool {
        if case .submit(let operation) = step { operation.kind == .writeMetadata } else { false }
    }
}
