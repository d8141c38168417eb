import MirrorFormat
import Testing

@testable import MirrorCore

/// A new plex takes the place of another one.
@Suite struct MirrorReplaceTests {
    private func replace(_ plex: Int, by new: Int, in bench: MirrorBench) throws -> UInt64 {
        bench.command(.join(PlexIndex(new), try newDisk(), replacing: PlexIndex(plex)))
    }

    @Test func oldPlexServesUntilTheNewOneIsInSyncOnRecord() throws {
        let bench = try MirrorBench()
        bench.dirty()
        let id = try replace(0, by: 2, in: bench)
        bench.settle(holding: { $0.kind == .flush })
        #expect(bench.answers[id]?.isDone == true && bench.recorded(0)?[PlexIndex(2)].replaces == PlexIndex(0))
        // All is copied, but nothing says yet that it stays: all three get writes, two are good.
        bench.send(1, .write, 0)
        #expect(Set(bench.waiting(.write).map(\.plex)) == [0, 1, 2])
        bench.settle(holding: { $0.kind == .flush })
        #expect(bench.recorded(1)?.inSync == set(0, 1) && bench.released.isEmpty)
        bench.clearTrace()
        bench.settle()
        // First the record with three good plexes, then the one without the old.
        #expect(bench.record.configured == set(1, 2) && bench.record.inSync == set(1, 2))
        #expect(bench.record[PlexIndex(2)].replaces == nil && bench.released == [PlexIndex(0)])
        #expect(bench.record.history.first?.inSync == set(0, 1, 2) && bench.record.history.first?.reason == .removed)
        guard case .none = bench.scan(0) else {
            Issue.record("the replaced disk still says that it is a plex")
            return
        }
        #expect(bench.status().state == .healthy)
    }

    @Test func failedPlexIsReplacedToo() throws {
        let bench = try MirrorBench(freshRecord([.inSync, .failed]), present: set(0))
        _ = try replace(1, by: 2, in: bench)
        bench.settle()
        #expect(bench.record.configured == set(0, 2) && bench.record.inSync == set(0, 2))
        #expect(bench.status().state == .healthy)
    }

    @Test func orderSurvivesARestartInBetween() throws {
        let bench = try MirrorBench()
        _ = try replace(0, by: 2, in: bench)
        bench.settle(holding: { $0.kind == .flush })
        let restarted = MirrorBench(
            try #require(assemble(bench.foundPlexes()).assembly), seed: bench.nextSeed())
        restarted.settle()
        for _ in 0..<3 where restarted.record.configured != set(1, 2) {
            restarted.tick()
            restarted.settle()
        }
        #expect(restarted.record.configured == set(1, 2) && restarted.record.inSync == set(1, 2))
    }

    @Test func newPlexThatFailsLeavesTheOldOneWhereItIs() throws {
        let bench = try MirrorBench()
        _ = try replace(0, by: 2, in: bench)
        bench.settle(failing: { $0.plex == 2 && $0.kind == .write ? DiskFailure(kind: .media, errorNumber: 5) : nil })
        for _ in 0..<3 {
            bench.tick()
            bench.settle()
        }
        #expect(bench.record.inSync == set(0, 1) && bench.record[PlexIndex(2)].role == .failed)
        // Given up: nothing remembers it, and another may be tried.
        bench.command(.remove(PlexIndex(2)))
        bench.settle()
        _ = try replace(0, by: 3, in: bench)
        bench.settle()
        #expect(bench.record.configured == set(1, 3))
    }

    /// The first successor has failed, and another takes its place: that of the first plex with it.
    @Test func successorOfASuccessorReplacesBoth() throws {
        let bench = try MirrorBench()
        _ = try replace(0, by: 2, in: bench)
        bench.settle(failing: { $0.plex == 2 && $0.kind == .write ? DiskFailure(kind: .media, errorNumber: 5) : nil })
        #expect(bench.record[PlexIndex(2)].role == .failed && bench.record[PlexIndex(2)].replaces == PlexIndex(0))
        let attachment = Attachment(
            uuid: plexUUID(7), layout: try Disk.layout(), sequence: 0, basis: .everything("it was a spare"))
        bench.command(.join(PlexIndex(3), attachment, replacing: PlexIndex(2)))
        for _ in 0..<4 {
            bench.settle()
            bench.tick()
        }
        bench.settle()
        #expect(bench.record.configured == set(1, 3) && bench.record.inSync == set(1, 3))
        #expect(bench.record[PlexIndex(3)].replaces == nil && bench.status().state == .healthy)
    }

    /// It comes back while its successor is copied to, and then the source fails: it must not be forgotten, it is half of
    /// all that is left.
    @Test func plexThatComesBackIsNotForgottenForItsSuccessor() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.handle(.vanished(PlexIndex(1)))
        bench.settle()
        _ = try replace(1, by: 2, in: bench)
        bench.settle(holding: { $0.plex == 2 && $0.kind == .flush })
        #expect(bench.record[PlexIndex(2)].replaces == PlexIndex(1))
        try bench.rejoin(1)
        #expect(bench.record[PlexIndex(2)].replaces == nil)
        let text = bench.events.last { $0.code == .plexReturned }?.text
        #expect(text == "plex 1 is back; plex 2 does not take its place any more")
        bench.settle()
        bench.handle(.vanished(PlexIndex(0)))
        for _ in 0..<4 {
            bench.settle()
            bench.tick()
        }
        bench.settle()
        #expect(bench.record.inSync == set(1, 2) && bench.record.configured == set(0, 1, 2))
    }

    /// A replaced by C while B fails: with A gone C would be alone.
    @Test func goodPlexOfADegradedMirrorIsKeptUntilTheOtherIsBackOrGivenUp() throws {
        for isBack in [true, false] {
            let bench = try MirrorBench()
            bench.dirty()
            _ = try replace(0, by: 2, in: bench)
            bench.settle(holding: { $0.kind == .flush })
            bench.handle(.vanished(PlexIndex(1)))
            for _ in 0..<3 {
                bench.settle()
                bench.tick()
            }
            bench.settle()
            #expect(bench.record.inSync == set(0, 2) && bench.record[PlexIndex(2)].replaces == PlexIndex(0))
            if isBack { try bench.rejoin(1) } else { bench.command(.remove(PlexIndex(1))) }
            for _ in 0..<4 {
                bench.settle()
                bench.tick()
            }
            bench.settle()
            #expect(bench.record.inSync == (isBack ? set(1, 2) : set(2)))
        }
    }

    @Test func onePlexIsReplacedByOneOnly() throws {
        let bench = try MirrorBench()
        _ = try replace(0, by: 2, in: bench)
        bench.settle(holding: { $0.kind == .flush })
        let second = bench.command(
            .join(
                PlexIndex(3),
                Attachment(uuid: plexUUID(7), layout: try Disk.layout(), sequence: 0, basis: .everything("new")),
                replacing: PlexIndex(0)))
        let nobody = bench.command(.join(PlexIndex(4), try newDisk(plexUUID(6)), replacing: PlexIndex(5)))
        #expect(bench.answers[second]?.isRefused == true && bench.answers[nobody]?.isRefused == true)
        #expect(bench.record.configured == set(0, 1, 2))
    }

    /// The engine's order waits for a command of the user, and what it rests on ends meanwhile.
    @Test func successorThatFailsBeforeTheOldOneIsForgottenLeavesItWhereItIs() throws {
        let bench = try MirrorBench()
        bench.dirty()
        _ = try replace(0, by: 2, in: bench)
        bench.settle(holding: { $0.kind == .flush })
        // A break that drains: its write does not end.
        bench.send(1, .write, 0)
        bench.command(.breakOff(PlexIndex(1), name: "copy"))
        bench.settle(holding: { $0.kind == .write && $0.plex == 1 })
        #expect(bench.record[PlexIndex(2)].role == .inSync && bench.record.configured == set(0, 1, 2))
        bench.send(2, .flush)
        bench.settle(
            holding: { $0.kind == .write && $0.plex == 1 },
            failing: { $0.plex == 2 && $0.kind == .flush ? DiskFailure(kind: .media, errorNumber: 5) : nil })
        #expect(bench.record[PlexIndex(2)].role == .failed)
        bench.settle()
        #expect(bench.record[PlexIndex(0)].role == .inSync && bench.record[PlexIndex(1)].role == .brokenOff)
    }

    @Test func plexThatIsBrokenOffNeitherReplacesNorIsReplaced() throws {
        for broken in [0, 2] {
            let bench = try MirrorBench(freshRecord([.inSync, .inSync, .absent]))
            _ = try replace(0, by: 2, in: bench)
            bench.settle(holding: { $0.kind == .flush && $0.plex == 2 })
            if broken == 0 {
                bench.command(.breakOff(PlexIndex(0), name: "copy"))
                bench.settle(holding: { $0.kind == .flush && $0.plex == 2 })
                #expect(bench.record[PlexIndex(0)].role == .brokenOff)
                bench.settle()
                bench.tick()
                bench.settle()
                #expect(bench.record[PlexIndex(0)].role == .brokenOff && bench.record.inSync == set(1, 2))
            } else {
                bench.command(.takeOffline(PlexIndex(2)))
                bench.settle()
                #expect(bench.record.inSync == set(0, 1) && bench.record[PlexIndex(2)].replaces == PlexIndex(0))
            }
        }
    }

    /// With eight plexes a new disk takes the number of the failed one that was to be replaced.
    @Test func diskThatGetsTheNumberOfAReplacedPlexIsNobodysVictim() throws {
        let bench = try MirrorBench()
        _ = try replace(0, by: 2, in: bench)
        bench.settle(holding: { $0.plex == 2 && $0.kind == .flush })
        bench.command(.takeOffline(PlexIndex(0)))
        bench.settle(holding: { $0.plex == 2 && $0.kind == .flush })
        bench.command(.join(PlexIndex(0), try newDisk(plexUUID(5))))
        bench.settle()
        bench.tick()
        bench.settle()
        #expect(bench.record.configured == set(0, 1, 2) && bench.record.inSync == set(0, 1, 2))
    }

    @Test func removingTheOldPlexByHandEndsTheReplacement() throws {
        let bench = try MirrorBench()
        _ = try replace(0, by: 2, in: bench)
        bench.settle(holding: { $0.kind == .flush })
        bench.command(.remove(PlexIndex(0)))
        bench.settle()
        #expect(bench.record.configured == set(1, 2) && bench.record[PlexIndex(2)].replaces == nil)
        // A third that takes the free place later is nobody's victim.
        bench.command(.join(PlexIndex(0), try newDisk(plexUUID(5))))
        bench.settle()
        bench.tick()
        bench.settle()
        #expect(bench.record.inSync == set(0, 1, 2))
    }
}

/// Pausing and slowing down what is copied in the background.
@Suite struct ResyncOrderTests {
    private func joining() throws -> MirrorBench {
        let bench = try MirrorBench(freshRecord([.inSync, .failed]), present: set(0))
        bench.dirty()
        bench.clearTrace()
        return bench
    }

    @Test func pausedResyncBeginsNothingAndResumesWhereItWas() throws {
        let bench = try joining()
        bench.command(.resync(.pause))
        bench.command(.join(PlexIndex(1), try newDisk()))
        bench.settle()
        for _ in 0..<3 {
            bench.tick()
            bench.settle()
        }
        #expect(bench.submitted(.read).isEmpty && bench.status().resync?.isPaused == true)
        #expect(bench.recorded(1)?[PlexIndex(1)].role == .recovering)
        // Writes go to both all the same.
        bench.send(1, .write, 0)
        #expect(Set(bench.waiting(.write).map(\.plex)) == [0, 1])
        bench.settle()
        let id = bench.command(.resync(.resume))
        bench.settle()
        #expect(bench.answers[id]?.isDone == true && bench.record.inSync == set(0, 1))
    }

    @Test func limitHoldsOverSeconds() throws {
        let bench = try joining()
        // The data are 4 MiB: at 1 MiB per second not less than three seconds, and not much more than four.
        bench.command(.resync(.limit(1 << 20)))
        bench.command(.join(PlexIndex(1), try newDisk()))
        bench.settle()
        var ticks = 0
        while bench.record.inSync != set(0, 1), ticks < 100 {
            bench.tick()
            bench.settle()
            ticks += 1
        }
        #expect((30...55).contains(ticks), "\(ticks) ticks of 100 ms")
        #expect(bench.submitted(.read).allSatisfy { $0.length <= 1 << 16 })
    }

    @Test(arguments: [20, 50, 90]) func timeLeftIsRightWithinAFifthAtConstantSpeed(ticks: Int) throws {
        let bench = try joining()
        // 16 seconds for 4 MiB.
        bench.command(.resync(.limit(256 << 10)))
        bench.command(.join(PlexIndex(1), try newDisk()))
        bench.settle()
        for _ in 0..<ticks {
            bench.tick()
            bench.settle()
        }
        let resync = try #require(bench.status().resync)
        let told = Double(try #require(resync.etaSeconds))
        #expect(abs(Double(resync.done) / Double(ticks) * 10 / Double(256 << 10) - 1) < 0.2)
        var left = 0
        while bench.record.inSync != set(0, 1), left < 300 {
            bench.tick()
            bench.settle()
            left += 1
        }
        let truth = Double(left) / 10
        #expect(abs(told - truth) <= max(truth * 0.2, 1), "told \(told) s, took \(truth) s")
    }

    @Test func whatIsCopiedIsReadBackAndADiskThatDiffersIsFailed() throws {
        let bench = try joining()
        bench.command(.resync(.verify(true)))
        bench.command(.join(PlexIndex(1), try newDisk()))
        bench.settle(holding: { $0.kind == .write })
        let copies = bench.pending.filter { $0.kind == .write }
        #expect(!copies.isEmpty && copies.allSatisfy { Int($0.plex.value) == 1 && $0.isVerified })
        bench.send(1, .write, bench.record.dataBytes - 4096)
        bench.settle(holding: { $0.kind == .write })
        let others = bench.pending.filter { $0.kind == .write && $0.request == RequestID(1) }
        #expect(others.allSatisfy { !$0.isVerified })
        bench.complete(.write, on: 1, at: copies[0].offset, failing: DiskFailure(kind: .differs, errorNumber: 0))
        bench.settle()
        #expect(bench.record[PlexIndex(1)].role == .failed && bench.record.inSync == set(0))
        #expect(bench.record[PlexIndex(1)].cause.operation == .verification)
        #expect(bench.status().reason?.contains("could not be read back the same") == true)
    }

    @Test func copyingWaitsForAMirrorThatComesFirst() throws {
        let bench = try joining()
        bench.mirror.copy(behind: "other")
        bench.command(.join(PlexIndex(1), try newDisk()))
        bench.settle()
        bench.tick()
        bench.settle()
        #expect(bench.submitted(.read).isEmpty && bench.mirror.wantsToCopy)
        #expect(bench.status().resync?.isPaused == true && bench.status().action?.contains("mirror other") == true)
        bench.mirror.copy(behind: nil)
        bench.tick()
        bench.settle()
        #expect(bench.record.inSync == set(0, 1) && !bench.mirror.wantsToCopy)
        bench.command(.resync(.priority(.low)))
        #expect(bench.mirror.resyncPriority == .low)
    }

    @Test func limitIsLifted() throws {
        let bench = try joining()
        bench.command(.resync(.limit(4096)))
        bench.command(.join(PlexIndex(1), try newDisk()))
        bench.settle()
        bench.tick()
        bench.settle()
        #expect(bench.record.inSync == set(0) && bench.status().resync?.limit == 4096)
        bench.command(.resync(.limit(nil)))
        bench.settle()
        #expect(bench.record.inSync == set(0, 1))
    }

    @Test func onlyWindowsOfTheResyncMayBecomeHoles() throws {
        let bench = try joining()
        bench.command(.join(PlexIndex(1), try newDisk()))
        bench.settle(holding: { $0.kind == .write })
        #expect(!bench.pending.isEmpty && bench.pending.allSatisfy { $0.kind == .write && $0.isSparse })
        bench.settle()
        bench.send(1, .write, 3 << 20)
        #expect(bench.pending.count == 2 && bench.pending.allSatisfy { $0.kind == .write && !$0.isSparse })
    }
}
