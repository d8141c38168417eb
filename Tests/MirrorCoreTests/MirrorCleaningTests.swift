import MirrorFormat
import Testing

@testable import MirrorCore

/// R6: an intent bit is cleared when the region is at rest, and durable on every plex.
@Suite struct MirrorCleaningTests {
    @Test func idleRegionsAreFlushedThenCleared() throws {
        let bench = try MirrorBench.resting()
        bench.tick(afterMilliseconds: 4999)
        #expect(bench.waiting(.flush).isEmpty)
        bench.tick(afterMilliseconds: 1)
        #expect(bench.waiting(.flush).map(\.plex) == [0, 1])
        bench.complete(.flush, on: 0)
        #expect(bench.waiting(.writeMetadata).isEmpty)
        bench.complete(.flush, on: 1)
        #expect(bench.pending.count == 2 && bench.waiting(.writeMetadata).allSatisfy(\.isPage))
        bench.settle()
        for plex in 0...1 { #expect(bench.intent(plex).isEmpty && bench.recorded(plex)?.isClean == false) }
        // The next write sets its bit again first; the record says dirty already.
        bench.clearTrace()
        bench.send(1, .write)
        #expect(bench.waiting(.write).isEmpty && bench.waiting(.writeMetadata).map(\.isPage) == [true, true])
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.intent(0) == [0] && bench.intent(1) == [0])
        #expect(bench.submitted(.writeMetadata).filter(\.isSuperblock).isEmpty)
    }

    @Test func regionWrittenDuringTheIdleFlushKeepsItsBit() throws {
        let bench = try MirrorBench.resting()
        bench.tick(afterMilliseconds: 5000)
        bench.send(1, .write, 1 << 20)
        #expect(bench.waiting(.write).count == 2)
        bench.settle(holding: { $0.kind == .write })
        #expect(bench.intent(0) == [1] && bench.intent(1) == [1] && bench.waiting(.writeMetadata).isEmpty)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.intent(0) == [1] && bench.intent(1) == [1])
    }

    /// To the moment where the pages without the bits are on their way: flushed, and the witness is there.
    private func clearing() throws -> MirrorBench {
        let bench = try MirrorBench.resting()
        bench.tick(afterMilliseconds: 5000)
        bench.settle(holding: { $0.kind == .writeMetadata })
        for plex in 0...1 {
            #expect(bench.intent(plex) == [0, 1, 2, 3])
            bench.complete(.writeMetadata, on: plex)
        }
        #expect(bench.waiting(.writeMetadata).map(\.plex) == [0, 1] && bench.intent(0) == [0, 1, 2, 3])
        return bench
    }

    @Test func writeDuringTheClearingWaitsUntilItsBitIsSetAgain() throws {
        let bench = try clearing()
        bench.send(1, .write)
        #expect(bench.waiting(.write).isEmpty)
        bench.settle(holding: { $0.kind == .write })
        #expect(bench.waiting(.write).count == 2 && bench.intent(0) == [0] && bench.intent(1) == [0])
    }

    @Test func onlyRegionsAtRestAreCleared() throws {
        let bench = try MirrorBench.resting()
        for round in UInt64(0)..<12 {
            bench.send(round, .write, 2 << 20)
            bench.tick(afterMilliseconds: 1000)
            bench.settle()
        }
        #expect(bench.intent(0) == [2] && bench.intent(1) == [2])
    }

    @Test func regionWithAWriteInFlightKeepsItsBitHoweverLongItTakes() throws {
        let bench = try MirrorBench.resting()
        bench.send(1, .write, 1 << 20)
        for _ in 0..<4 {
            bench.tick(afterMilliseconds: 5000)
            bench.settle(holding: { $0.kind == .write && $0.plex == 1 })
        }
        #expect(bench.intent(0) == [1] && bench.intent(1) == [1] && bench.replies[1] == nil)
        bench.settle()
        bench.rest()
        #expect(bench.intent(0).isEmpty && bench.intent(1).isEmpty)
    }

    /// Two plexes, and no more: the other one is the last good copy.
    @Test func plexWhoseFlushFailsKeepsTheBitsUntilItIsOutAndIsCopiedInFull() throws {
        let bench = try MirrorBench.resting()
        bench.tick(afterMilliseconds: 5000)
        bench.complete(.flush, on: 0)
        bench.complete(.flush, on: 1, failing: .media)
        bench.settle()
        #expect(bench.intent(0) == [0, 1, 2, 3] && bench.recorded(0)?.inSync == set(0))
        bench.rest()
        // A flush that was under way beside it may have said yes to what was lost: it is copied in full.
        #expect(bench.intent(0).isEmpty && bench.record[PlexIndex(1)].missedWriteMap == nil)
    }

    @Test func flushThatFailsOnAllClearsNothingEver() throws {
        let bench = try MirrorBench.resting()
        bench.tick(afterMilliseconds: 5000)
        bench.settle(failing: { $0.kind == .flush ? .media : nil })
        for _ in 0..<3 { bench.rest() }
        #expect(bench.record.inSync == set(0) || bench.record.inSync == set(1))
        let last = bench.record.inSync == set(0) ? 0 : 1
        #expect(bench.intent(last) == [0, 1, 2, 3] && bench.recorded(last)?.isClean == false)
    }

    @Test func bitsOfRegionsThatMayDifferStayUntilTheyAreEqual() throws {
        let bench = try MirrorBench(freshRecord().changed { $0.isClean = false }, dirty: [1, 2])
        bench.settle(holding: { $0.kind == .read && $0.offset == 2 << 20 })
        for _ in 0..<3 {
            bench.tick(afterMilliseconds: 5000)
            bench.settle(holding: { $0.kind == .read && $0.offset == 2 << 20 })
        }
        #expect(bench.intent(0) == [2] && bench.intent(1) == [2] && bench.record.pinned == PlexIndex(0))
        bench.settle()
        bench.rest()
        #expect(bench.intent(0).isEmpty && bench.intent(1).isEmpty && bench.recorded(0)?.pinned == nil)
    }

    /// A clearing that is lost with the power does no harm, and neither does half of one: who lacks it is no older copy
    /// of itself.
    @Test(arguments: [0, 1]) func clearingThatReachedOnePlexOnlyLeavesTheRegionDirty(cleared: Int) throws {
        let bench = try clearing()
        bench.complete(.writeMetadata, on: cleared)
        #expect(bench.intent(cleared).isEmpty && bench.intent(1 - cleared) == [0, 1, 2, 3])
        let restarted = try bench.restarted()
        #expect(restarted.status().dirtyRegions == 4 && restarted.record.pinned == PlexIndex(cleared))
        #expect(!restarted.events.contains { $0.code == .plexReturned })
    }

    @Test func plexThatFailsTheClearingIsExpelled() throws {
        let bench = try clearing()
        bench.settle(failing: { $0.isPage && $0.plex == 1 ? .media : nil })
        #expect(bench.recorded(0)?.inSync == set(0) && bench.intent(0).isEmpty)
        // The bits were cleared when both had everything: plex 1 misses what is written from now on.
        #expect(bench.missed(1) == [])
        bench.write(regions: [2])
        bench.rest()
        #expect(bench.missed(1) == [2])
    }

    @Test func readOnlyMirrorClearsNothing() throws {
        let bench = try MirrorBench(freshRecord().changed { $0.isClean = false }, dirty: [1], isReadOnly: true)
        bench.rest()
        #expect(bench.trace.isEmpty && bench.intent(0) == [1])
    }
}
