import MirrorFormat
import Testing

@testable import MirrorCore

/// A flush that fails says that something may be lost which an earlier one had not reached, on that plex. Another
/// flush beside it may have said yes: an operating system tells of an error once.
@Suite struct DataLossFlushTests {
    private func isFlush(_ operation: DataBench.Operation) -> Bool { operation.kind == .flush }

    /// Both plexes hold everything, and plex 1 is being recorded as in sync, when plex 0 loses block 3 and fails a client's
    /// flush, which waits.
    private func flushFailedDuringThePromotion() throws -> (DataBench, flush: UInt64) {
        let bench = try DataBench.rejoining()
        bench.settle(holding: isFlush)
        let write = bench.write(3, 99)
        bench.settle(holding: isFlush)
        #expect(bench.replies[write] == .ok && bench.copies(of: 3) == [99, 99])
        let flush = bench.flush()
        bench.complete(.flush, on: 1)
        bench.settle(holding: { isFlush($0) || $0.isSuperblock })
        bench.complete(.flush, on: 1)
        #expect(bench.record.inSync == set(0, 1))
        bench.disks[0].dropCache(ofBlocks: [3])
        bench.complete(.flush, on: 0, failing: .media)
        return (bench, flush)
    }

    /// The cleaner's flush succeeded, a client's beside it failed. The bits were cleared, and the plex that had failed
    /// came back without the block that it had lost.
    @Test func flushThatSucceedsBesideOneThatFailsVouchesForNothing() throws {
        let bench = try DataBench(plexes: 2)
        bench.write(3, 33)
        bench.rest()
        bench.write(3, 99)
        bench.settle()
        bench.idle(until: isFlush)
        let flush = bench.flush()
        bench.disks[1].dropCache(ofBlocks: [3])
        for plex in [0, 1] { bench.complete(.flush, on: plex) }
        bench.settle(holding: isFlush)
        bench.complete(.flush, on: 1, failing: .media)
        bench.settle()
        #expect(bench.replies[flush] == .ok && bench.record.inSync == set(0))
        try bench.join(1, disk: 1)
        bench.settle()
        bench.idle(seconds: 2)
        #expect(bench.record.inSync == set(0, 1) && bench.copies(of: 3) == [99, 99])
    }

    /// The same with the flush before a promotion: what was copied was noted as there, and most of it was lost.
    @Test func plexThatFailsAFlushBesideThatOfItsPromotionIsCopiedAgain() throws {
        let bench = try DataBench(plexes: 2, spares: 1)
        bench.fill()
        bench.command(.remove(PlexIndex(1)))
        bench.settle()
        try bench.join(1, disk: 2)
        // All is copied.
        bench.settle(holding: isFlush)
        #expect(bench.waiting.map(\.plex) == [1] && bench.disks[0].cache == bench.disks[2].cache)
        _ = bench.flush()
        bench.complete(.flush, on: 0)
        bench.disks[2].dropCache(ofBlocks: 8..<DataBench.blocks)
        bench.complete(.flush, on: 1)
        bench.complete(.flush, on: 1, failing: .media)
        bench.settle()
        #expect(bench.record.inSync == set(0))
        try bench.join(1, disk: 2)
        bench.settle()
        bench.idle(seconds: 2)
        #expect(bench.record.inSync == set(0, 1) && bench.disks[0].cache == bench.disks[2].cache)
    }

    /// The only good plex lost a block that the plex under rebuild has, as both were told to flush. Readers saw the old
    /// value, then, after the promotion, either.
    @Test func readAfterAFailedFlushOfTheLastGoodPlexStaysTrue() throws {
        let bench = try DataBench.rejoining()
        // The rebuild goes on.
        func isSlow(_ operation: DataBench.Operation) -> Bool { operation.kind == .read && operation.isAt(4) }
        bench.settle(holding: isSlow)
        bench.write(3, 99)
        bench.settle(holding: isSlow)
        let flush = bench.flush()
        bench.complete(.flush, on: 1)
        bench.disks[0].dropCache(ofBlocks: [3])
        bench.complete(.flush, on: 0, failing: .media)
        bench.settle(holding: isSlow)
        #expect(bench.replies[flush] == .ioError)
        let read = bench.read(3)
        bench.settle(holding: isSlow)
        bench.settle()
        bench.idle(seconds: 3)
        #expect(bench.value(of: read) == 33 && bench.values(of: 3) == [33])
        // Who failed the flush leaves when there is another one.
        #expect(bench.record.inSync == set(1) && bench.disks[1].cache[3] == 33)
    }

    /// Plex 1 held everything, flushed, and its record was on its way when the flush of the only other plex failed. The
    /// client was told of an error.
    @Test func plexThatIsBeingPromotedAnswersForTheOneWhoseFlushFails() throws {
        let (bench, flush) = try flushFailedDuringThePromotion()
        #expect(bench.replies[flush] == nil)
        bench.settle()
        bench.idle(seconds: 3)
        #expect(bench.replies[flush] == .ok)
        #expect(bench.values(of: 3) == [99])
        #expect(bench.record.inSync == set(1))
    }

    /// Seed 107948: meanwhile readers were told what the first had left after its loss, and the other could be taken away.
    @Test func readWaitsForThePlexThatIsBeingPromotedAndNobodyMayTakeThatAway() throws {
        let (bench, flush) = try flushFailedDuringThePromotion()
        let read = bench.read(3)
        bench.settle(holding: \.isSuperblock)
        #expect(bench.replies[read] == nil && bench.replies[flush] == nil)
        bench.command(.remove(PlexIndex(1)))
        guard case .refused(let why) = bench.lastAnswer else {
            Issue.record("the last good copy was taken away")
            return
        }
        #expect(why.contains("last good copy"))
        bench.settle()
        bench.idle(seconds: 3)
        #expect(bench.value(of: read) == 99 && bench.values(of: 3) == [99] && bench.record.inSync == set(1))
    }

    /// The plex that had failed a flush stayed in sync beside the one that was promoted since. No write is trusted to be
    /// on it, so all of them waited for a record without it that nobody made.
    @Test func writeIsAnsweredBesideAPlexThatFailedItsFlush() throws {
        let bench = try DataBench(plexes: 2)
        bench.write(3, 33)
        bench.rest()
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        bench.write(3, 99)
        bench.settle()
        let flush = bench.flush()
        bench.settle(failing: { isFlush($0) ? .media : nil })
        #expect(bench.replies[flush] == .ioError)
        try bench.join(1, disk: 1)
        bench.settle()
        bench.idle(seconds: 2)
        let before = bench.record.epoch
        let write = bench.write(5, 5)
        bench.settle()
        bench.idle(seconds: 120)
        #expect(bench.replies[write] == .ok && bench.record.epoch < before + 10)
    }
}
