import MirrorFormat
import Testing

@testable import MirrorCore

/// Every scenario is judged in every order of its disks: the verdict must not depend on it (R11).
private func judge(_ plexes: [FoundPlex], allowDegraded: Bool = false, isReadOnly: Bool = false) -> Verdict {
    var options = AssemblyOptions()
    options.allowDegraded = allowDegraded
    options.isReadOnly = isReadOnly
    let verdict = assemble(plexes, options: options)
    for order in permutations(of: plexes) {
        let other = assemble(order, options: options)
        #expect(other.refusal.map(normalised) == verdict.refusal.map(normalised))
        #expect(other.assembly?.record == verdict.assembly?.record)
        #expect(other.assembly.map(sets) == verdict.assembly.map(sets))
        #expect(other.assembly?.found.mapValues(\.disk) == verdict.assembly?.found.mapValues(\.disk))
    }
    return verdict
}

private func sets(_ assembly: Assembly) -> [PlexSet] {
    [
        assembly.current, assembly.behind, assembly.recovering, assembly.missing,
        assembly.returning.union(assembly.losers),
    ]
}

private func normalised(_ refusal: Refusal) -> Refusal {
    guard case .split(let sides, let related) = refusal else { return refusal }
    let sorted = sides.sorted { $0.generation.bits < $1.generation.bits }
    return .split(
        sides: sorted.map {
            var side = $0
            side.disks.sort()
            return side
        }, related: related)
}

@Suite struct AssembleTests {
    @Test func equalPairIsCurrent() throws {
        let verdict = judge([try found(0, freshRecord()), try found(1, freshRecord())])
        let assembly = try #require(verdict.assembly)
        #expect(sets(assembly) == [set(0, 1), .empty, .empty, .empty, .empty])
        #expect(assembly.found.mapValues(\.disk) == [PlexIndex(0): 0, PlexIndex(1): 1])
        #expect(assembly.participants == set(0, 1))
    }

    @Test func missingPlexIsNamedAndAllowedOnlyWhenAskedFor() throws {
        for present in 0...1 {
            let plexes = [try found(present, freshRecord())]
            let expected = Refusal.incomplete(missing: set(1 - present), present: set(present), record: freshRecord())
            #expect(judge(plexes).refusal == expected)
            for (degraded, readOnly) in [(true, false), (false, true)] {
                let assembly = try #require(judge(plexes, allowDegraded: degraded, isReadOnly: readOnly).assembly)
                #expect(sets(assembly) == [set(present), .empty, .empty, set(1 - present), .empty])
            }
        }
    }

    @Test func plexThatWentOnAloneStartsAloneUnasked() throws {
        let alone = freshRecord().next(2, roles: [1: .failed])
        let assembly = try #require(judge([try found(0, alone)]).assembly)
        #expect(sets(assembly) == [set(0), .empty, .empty, .empty, .empty])
    }

    @Test func ancestorThatWasExpelledIsNotUsed() throws {
        let alone = freshRecord().next(2, roles: [1: .failed])
        let assembly = try #require(judge([try found(0, alone), try found(1, freshRecord())]).assembly)
        #expect(sets(assembly) == [set(0), .empty, .empty, .empty, .empty])
        #expect(assembly.record == alone && assembly.participants == set(0))
    }

    @Test func ancestorWithAHigherEpochIsStillAnAncestor() throws {
        // Its last record was written just before it was expelled, and nobody else got it.
        let alone = freshRecord().next(2, roles: [1: .failed])
        let late = freshRecord().changed { $0.epoch += 1 }
        let assembly = try #require(judge([try found(0, alone), try found(1, late)]).assembly)
        #expect(assembly.current == set(0) && assembly.record == alone)
        // One that went on in that era did so without us, on a disk that was set back.
        let other = freshRecord().changed { $0.epoch += 2 }
        guard case .split = judge([try found(0, alone), try found(1, other)]).refusal else {
            Issue.record("two epochs beyond the end of the era are no split")
            return
        }
    }

    @Test func plexOneEpochBehindInTheSameEraIsRebuilt() throws {
        let ahead = freshRecord().changed { $0.epoch += 1 }
        for (older, newer) in [(0, 1), (1, 0)] {
            let assembly = try #require(judge([try found(older, freshRecord()), try found(newer, ahead)]).assembly)
            #expect(sets(assembly) == [set(newer), set(older), .empty, .empty, .empty])
            #expect(assembly.participants == set(0, 1))
        }
    }

    @Test func plexListedInSyncThatDidNotReachTheNewEraIsRebuilt() throws {
        // Power failed while the expulsion of plex 2 was being recorded: plex 1 has not got it yet.
        let three = freshRecord([.inSync, .inSync, .inSync])
        let ahead = three.next(2, roles: [2: .failed])
        let assembly = try #require(
            judge([try found(0, ahead), try found(1, three), try found(2, three)]).assembly)
        #expect(sets(assembly) == [set(0), set(1), .empty, .empty, .empty])
    }

    @Test func eachSideWentOnAloneIsSplitBrain() throws {
        let left = freshRecord().next(2, roles: [1: .failed]).changed { $0.updatedTime = 20 }
        let right = freshRecord().next(3, roles: [0: .failed]).changed { $0.updatedTime = 30 }
        let refusal = try #require(judge([try found(0, left), try found(1, right)]).refusal)
        guard case .split(let sides, let related) = refusal else {
            Issue.record("\(refusal)")
            return
        }
        #expect(related)
        #expect(Set(sides.map(\.generation)) == [era(2), era(3)])
        #expect(sides.first { $0.generation == era(2) }?.disks == [0])
        #expect(sides.first { $0.generation == era(3) }?.updatedTime == 30)
    }

    @Test func splitBrainIsFoundHoweverFarEachSideWent() throws {
        var left = freshRecord()
        var right = freshRecord()
        for step in UInt64(0)..<12 {
            left = left.next(100 + step, roles: [1: .failed])
            if step % 3 == 0 { right = right.next(200 + step, roles: [0: .failed]) }
            for (first, second) in [(left, right), (right, left)] {
                let refusal = judge([try found(0, first), try found(1, second)], allowDegraded: true).refusal
                guard case .split(_, let related) = refusal else {
                    Issue.record("\(String(describing: refusal))")
                    return
                }
                #expect(related)
            }
        }
    }

    @Test func thirdPlexJoinsTheSideItAgreesWith() throws {
        let three = freshRecord([.inSync, .inSync, .inSync])
        let left = three.next(2, roles: [1: .failed])
        let right = three.next(3, roles: [0: .failed, 2: .failed])
        let refusal = judge([try found(0, left), try found(1, right), try found(2, left)]).refusal
        guard case .split(let sides, true) = refusal else {
            Issue.record("\(String(describing: refusal))")
            return
        }
        #expect(sides.first { $0.generation == era(2) }?.disks.sorted() == [0, 2])
    }

    @Test func sameEpochWithAnotherStoryIsSplitBrain() throws {
        let other = freshRecord().changed { $0[PlexIndex(1)].readErrors = 7 }
        guard case .split = judge([try found(0, freshRecord()), try found(1, other)]).refusal else {
            Issue.record("a fork was accepted")
            return
        }
    }

    @Test func superblocksWithoutACommonAncestorAreUnrelated() throws {
        let other = freshRecord().changed { $0.generation = era(99) }
        guard case .split(_, related: false) = judge([try found(0, freshRecord()), try found(1, other)]).refusal else {
            Issue.record("strangers were accepted")
            return
        }
    }

    @Test func clonedPlexIsRefusedWithBothDisksNamed() throws {
        let refusal = judge([
            try found(0, freshRecord()), try found(1, freshRecord()), try found(0, freshRecord(), disk: 7),
        ]).refusal
        #expect(refusal == .clonedPlex(plexUUID(0), disks: [0, 7]))
        // However old the clone is.
        let old = judge([
            try found(0, freshRecord().next(2, roles: [1: .failed])), try found(0, freshRecord(), disk: 3),
        ]).refusal
        #expect(old == .clonedPlex(plexUUID(0), disks: [0, 3]))
    }

    @Test func recoveringPlexAloneIsNotCurrent() throws {
        let rebuilding = freshRecord([.inSync, .recovering])
        for allowDegraded in [false, true] {
            #expect(
                judge([try found(1, rebuilding)], allowDegraded: allowDegraded).refusal
                    == .noCurrentPlex(needed: set(0), record: rebuilding))
        }
        let both = try #require(judge([try found(0, rebuilding), try found(1, rebuilding)]).assembly)
        #expect(sets(both) == [set(0), .empty, set(1), .empty, .empty])
    }

    @Test(arguments: [.failed, .offline, .brokenOff] as [Role])
    func plexThatIsOutOfTheSetIsNotUsed(role: Role) throws {
        let record = freshRecord([.inSync, role])
        let assembly = try #require(judge([try found(0, record), try found(1, record)]).assembly)
        #expect(sets(assembly) == [set(0), .empty, .empty, .empty, .empty] && assembly.participants == set(0))
        #expect(assembly.found.count == 2)
        #expect(judge([try found(1, record)]).refusal == .noCurrentPlex(needed: set(0), record: record))
    }

    /// Nobody took it out: it was absent at a start, and is rebuilt without being asked for.
    @Test func plexThatWasAbsentAtAStartReturns() throws {
        let record = freshRecord().next(2, because: .startedDegraded, roles: [1: .stale])
        let assembly = try #require(judge([try found(0, record), try found(1, freshRecord())]).assembly)
        #expect(sets(assembly) == [set(0), .empty, .empty, .empty, set(1)] && assembly.participants == set(0, 1))
        #expect(judge([try found(1, record)]).refusal == .noCurrentPlex(needed: set(0), record: record))
        let alone = try #require(judge([try found(0, record)]).assembly)
        #expect(alone.participants == set(0))
    }

    /// An era so old that no history names it.
    private func forgotten(_ record: Record) -> Record { record.changed { $0.history = [] } }

    /// Seeds 7703 and 34991: the ancient disk can be compared with plex 1 only, and plex 1 with plex 0.
    @Test func freshestLeadsAlthoughAnAncientDiskCanBeComparedWithAnotherOnly() throws {
        let ancient = freshRecord([.absent, .inSync, .inSync])
        let now = forgotten(
            freshRecord([.inSync, .recovering, .failed]).next(40).changed { $0.epoch = 70 })
        let next = now.changed { $0.epoch = 71 }
        let assembly = try #require(
            judge([try found(0, next), try found(1, now), try found(2, ancient)]).assembly)
        #expect(assembly.record.epoch == 71 && assembly.current == set(0) && assembly.recovering == set(1))
    }

    /// Seed 6053: plex 1 was set back to a time when plex 0 was out, so long ago that no history tells. It must not be
    /// taken for the one that went on without plex 0.
    @Test func diskSetBackBeyondAllHistoriesDoesNotLead() throws {
        let now = forgotten(freshRecord().next(50).changed { $0.epoch = 133 })
        let then = forgotten(freshRecord([.recovering, .inSync]).next(30).changed { $0.epoch = 65 })
        let plexes = [try found(0, now), try found(1, then)]
        guard case .split = judge(plexes, allowDegraded: true).refusal else {
            Issue.record("a disk in an earlier state was believed")
            return
        }
        var options = AssemblyOptions()
        options.allowDegraded = true
        options.keep = plexUUID(0)
        let assembly = try #require(assemble(plexes, options: options).assembly)
        #expect(assembly.current == set(0) && assembly.losers == set(1))
    }

    @Test func forgottenPlexThatComesBackIsNotFound() throws {
        let alone = freshRecord().changed { $0[PlexIndex(1)] = .absent }.next(2, because: .removed)
        let assembly = try #require(judge([try found(0, alone), try found(1, freshRecord())]).assembly)
        #expect(sets(assembly) == [set(0), .empty, .empty, .empty, .empty] && assembly.found.count == 1)
    }

    @Test func unknownReadOnlyFeatureAllowsReadingOnly() throws {
        var marked = try found(1, freshRecord())
        marked.superblock.mustStayReadOnly = true
        let plexes = [try found(0, freshRecord()), marked]
        #expect(judge(plexes, allowDegraded: true).refusal == .mustStayReadOnly(disks: [1]))
        #expect(judge(plexes, isReadOnly: true).assembly?.current == set(0, 1))
    }

    @Test func plexThatClaimsAnotherSizeIsNotUsed() throws {
        // Rebuilding it would write beyond its data, into its own metadata.
        for change in [{ $0.dataBytes -= 4096 }, { $0.regionBytes *= 2 }] as [(inout Record) -> Void] {
            let other = freshRecord().changed { $0.epoch = 0 }.changed(change)
            let plexes = [try found(0, freshRecord()), try found(1, other)]
            #expect(
                judge(plexes).refusal == .incomplete(missing: set(1), present: set(0), record: freshRecord()))
            let assembly = try #require(judge(plexes, allowDegraded: true).assembly)
            #expect(assembly.participants == set(0) && assembly.missing == set(1))
        }
    }
}
