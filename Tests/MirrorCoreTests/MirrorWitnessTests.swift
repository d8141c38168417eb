import MirrorFormat
import Testing

@testable import MirrorCore

/// The witness: a page that every plex gets before the first bit is cleared, see `WriteTracking.askForWitness`.
@Suite struct MirrorWitnessTests {
    @Test func idleRegionsAreFlushedThenWitnessedThenCleared() throws {
        let bench = try MirrorBench.resting()
        bench.tick(afterMilliseconds: 4999)
        #expect(bench.waiting(.flush).isEmpty)
        bench.tick(afterMilliseconds: 1)
        #expect(bench.waiting(.flush).map(\.plex) == [0, 1])
        bench.complete(.flush, on: 0)
        #expect(bench.waiting(.writeMetadata).isEmpty)
        bench.complete(.flush, on: 1)
        let before = try #require(bench.page(0, sheet: 0))
        #expect(bench.pagesWaiting == [0, 0] && bench.pending.count == 2)
        for plex in [1, 0] {
            bench.complete(.writeMetadata, on: plex)
            #expect(bench.intent(0) == Disk.allRegions && bench.intent(1) == Disk.allRegions)
        }
        let witness = try #require(bench.page(0, sheet: 0))
        #expect(witness.sequence > before.sequence && witness.lastClear == before.lastClear)
        #expect(bench.page(1, sheet: 0) == witness && bench.pagesWaiting == [0, 0] && bench.pending.count == 2)
        bench.settle()
        for plex in 0...1 {
            #expect(bench.intent(plex).isEmpty && bench.recorded(plex)?.isClean == false)
            // What is asked of a disk is what both had before the first of them lost a bit.
            #expect(bench.page(plex, sheet: 0)?.lastClear == witness.sequence)
        }
    }

    @Test func regionWrittenWhileTheWitnessIsOnItsWayKeepsItsBitAndDoesNotWait() throws {
        let bench = try MirrorBench.resting()
        bench.tick(afterMilliseconds: 5000)
        bench.settle(holding: \.isPage)
        bench.send(1, .write, 1 << 20)
        #expect(bench.waiting(.write).count == 2 && bench.pagesWaiting == [0, 0])
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.intent(0) == [1] && bench.intent(1) == [1])
    }

    /// The bits are all there still.
    @Test(arguments: [0, 1]) func witnessThatReachedOnePlexOnlyIsAskedOfNobody(reached: Int) throws {
        let bench = try MirrorBench(freshRecord(regionBytes: 64 << 10))
        bench.write(regions: [7])
        bench.tick(afterMilliseconds: 5000)
        bench.settle()
        bench.tick(afterMilliseconds: 5000)
        bench.settle(holding: \.isPage)
        bench.complete(.writeMetadata, on: reached)
        bench.settle(holding: \.isPage)
        let pages = try [0, 1].map { try #require(bench.page($0, sheet: 0)) }
        #expect(pages[reached].sequence > pages[1 - reached].sequence && pages[0].lastClear == pages[1].lastClear)
        let restarted = try bench.restarted()
        #expect(restarted.status().dirtyRegions == 1 && !restarted.events.contains { $0.code == .plexReturned })
    }

    /// It was flushed, but its disk may come back as it was before, and shows no witness then.
    @Test func plexThatFailsTheWitnessMissesWhatIsCleared() throws {
        let bench = try MirrorBench.resting()
        bench.tick(afterMilliseconds: 5000)
        bench.settle(failing: { $0.isPage && $0.plex == 1 ? .media : nil })
        #expect(bench.recorded(0)?.inSync == set(0) && bench.intent(0).isEmpty)
        #expect(bench.missed(1) == Disk.allRegions)
    }
}
