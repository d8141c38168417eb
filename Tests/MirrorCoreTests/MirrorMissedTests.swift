import MirrorFormat
import Testing

@testable import MirrorCore

/// What an absent plex misses: under an intent bit, or in its map, at every moment. 64 regions of 64 KiB.
@Suite struct MirrorMissedTests {
    /// Plex 2 of three was taken offline when no bit was set; then region 7 was written.
    private func degraded() throws -> MirrorBench {
        let bench = try MirrorBench(freshRecord([.inSync, .inSync, .inSync], regionBytes: 64 << 10))
        bench.write(regions: [5])
        bench.rest()
        bench.command(.takeOffline(PlexIndex(2)))
        bench.settle()
        bench.write(regions: [7])
        #expect(bench.intent(0) == [7] && bench.missed(2) == [])
        bench.clearTrace()
        return bench
    }

    /// To the moment where the bit begins to move: both plexes are flushed.
    private func flushed(_ bench: MirrorBench) {
        bench.tick(afterMilliseconds: 5000)
        bench.settle()
        bench.tick(afterMilliseconds: 5000)
        bench.settle(holding: { $0.kind == .writeMetadata })
    }

    /// The map and the witness on plexes 0 and 1: whichever of these four pages is the last to arrive.
    @Test(arguments: [0, 1], [0, 1]) func bitIsClearedWhenTheMapAndTheWitnessAreOnAllPlexes(
        lastKind: Int, lastPlex: Int
    ) throws {
        let bench = try degraded()
        let slot = Int(try #require(bench.record[PlexIndex(2)].missedWriteMap).slot)
        flushed(bench)
        #expect(bench.waiting(.flush).isEmpty && bench.submitted(.flush).map(\.plex) == [0, 1])
        #expect(bench.pagesWaiting == [0, 0, slot + 1, slot + 1])
        let lastSheet = lastKind == 0 ? 0 : slot + 1
        bench.settle(holding: { bench.sheet($0) == lastSheet && $0.plex == lastPlex })
        #expect(bench.pagesWaiting == [lastSheet] && bench.intent(0) == [7] && bench.intent(1) == [7])
        #expect(bench.missed(2, accordingTo: 1 - lastPlex) == [7])
        bench.complete(.writeMetadata, on: lastPlex)
        #expect(bench.missed(2, accordingTo: lastPlex) == [7])
        #expect(bench.pagesWaiting == [0, 0] && bench.intent(0) == [7] && bench.intent(1) == [7])
        bench.settle()
        #expect(bench.intent(0).isEmpty && bench.intent(1).isEmpty)
    }

    /// Whatever of it reached the disks: nobody loses sight of region 7.
    @Test func missedRegionIsKnownAfterAPowerFailureAtAnyMoment() throws {
        let bench = try degraded()
        bench.tick(afterMilliseconds: 5000)
        bench.settle()
        bench.tick(afterMilliseconds: 5000)
        var moments = 0
        while let next = bench.pending.first {
            let restarted = try bench.restarted(without: set(2))
            #expect(restarted.status().plexes[2].missedRegions == 1, "after \(moments) operations")
            bench.complete(next.kind, on: Int(next.plex.value), at: next.offset)
            moments += 1
        }
        #expect(moments >= 6 && bench.intent(0).isEmpty)
        #expect(try bench.restarted(without: set(2)).status().plexes[2].missedRegions == 1)
    }

    @Test func plexThatFailsToTakeTheMapIsExpelledAndTheBitMovesWithoutIt() throws {
        let bench = try degraded()
        flushed(bench)
        bench.settle(failing: { $0.isPage && $0.plex == 1 ? .media : nil })
        #expect(bench.recorded(0)?.inSync == set(0))
        bench.rest()
        #expect(bench.intent(0).isEmpty && bench.missed(2) == [7])
        // Plex 1 was flushed when it had region 7 already. But its disk may come back as it was before.
        #expect(bench.missed(1) == [7])
    }

    @Test func regionWrittenAgainAfterItMovedIsInTheMapAlready() throws {
        let bench = try degraded()
        bench.rest()
        bench.write(regions: [7])
        #expect(bench.intent(0) == [7] && bench.missed(2) == [7])
        bench.clearTrace()
        bench.rest()
        // Only the intent page is written anew, before the clearing and with it.
        let pages = bench.submitted(.writeMetadata).filter(\.isPage)
        #expect(pages.count == 4 && Set(pages.map(\.offset)).count == 1 && bench.intent(0).isEmpty)
    }

    @Test func eachAbsentPlexMissesWhatWasWrittenSinceItLeft() throws {
        let bench = try degraded()
        bench.rest()
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        bench.write(regions: [20, 30])
        bench.rest()
        #expect(bench.missed(2) == [7, 20, 30] && bench.missed(1) == [20, 30] && bench.intent(0).isEmpty)
        #expect(bench.status().plexes.map(\.missedRegions) == [nil, 2, 3])
    }

    @Test func statusCountsWhatIsUnderIntentBitsAndInTheMapOnce() throws {
        let bench = try degraded()
        #expect(bench.status().plexes[2].missedRegions == 1)
        bench.rest()
        bench.write(regions: [7, 8])
        #expect(bench.status().plexes[2].missedRegions == 2 && bench.status().dirtyRegions == 2)
    }

    /// What plex 1 lacks of the write that it failed is under the bit of that write.
    @Test func failedWriteIsMissedByThePlexThatFailedIt() throws {
        let bench = try MirrorBench(freshRecord(regionBytes: 64 << 10))
        bench.send(1, .write, 7 * (64 << 10))
        bench.settle(failing: { $0.kind == .write && $0.plex == 1 ? .media : nil })
        #expect(bench.replies[1] == .ok && bench.status().plexes[1].missedRegions == 1)
        bench.rest()
        #expect(bench.missed(1) == [7] && bench.intent(0).isEmpty)
    }

    @Test func stopWithAnAbsentPlexMovesItsBitsAndIsClean() throws {
        let bench = try degraded()
        let id = bench.command(.stop)
        bench.settle(holding: { $0.kind == .writeMetadata })
        let slot = Int(try #require(bench.record[PlexIndex(2)].missedWriteMap).slot)
        #expect(bench.pagesWaiting == [0, 0, slot + 1, slot + 1])
        bench.settle()
        #expect(bench.answers[id]?.isDone == true && bench.isStopped)
        for plex in 0...1 {
            #expect(bench.recorded(plex)?.isClean == true && bench.intent(plex).isEmpty)
            #expect(bench.missed(2, accordingTo: plex) == [7])
        }
        let restarted = try bench.restarted(without: set(2))
        #expect(restarted.isOpen && restarted.pending.isEmpty && restarted.status().plexes[2].missedRegions == 1)
    }
}
