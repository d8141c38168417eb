import MirrorFormat
import Testing

@testable import MirrorCore

/// A disk that is pulled out takes its cache with it: it may lack all that was written since its last flush, whatever was
/// the first that was asked of it afterwards.
@Suite struct DataLossPulledTests {
    private func isFlush(_ operation: DataBench.Operation) -> Bool { operation.kind == .flush }

    private func objection(_ bench: DataBench, _ plex: Int = 1) throws -> String? {
        let found = try #require(bench.disks[plex].image.found(disk: plex))
        return bench.mirror.objection(toReturnOf: PlexIndex(plex), found.superblock, found.pages, failures: 1)
    }

    /// Blocks 3 and 14 are written and acknowledged, and not flushed.
    private func unflushed() throws -> DataBench {
        let bench = try DataBench(plexes: 2)
        bench.fill()
        bench.write(3, 33)
        bench.write(14, 44)
        bench.settle()
        bench.disks[1].dropCache(ofBlocks: 0..<DataBench.blocks)
        return bench
    }

    /// The disk of plex 1 is there again, and the other one goes.
    private func expectAll(_ bench: DataBench, copied count: Int, _ expected: [Int: UInt32]) throws {
        try #expect(objection(bench) == nil)
        try bench.join(1, disk: 1)
        bench.settle()
        bench.idle(seconds: 2)
        let joined = try #require(bench.events.last { $0.code == .joined })
        #expect(joined.text.contains("; \(count) of 64 regions are copied: what changed while it was away"))
        #expect(bench.record.inSync == set(0, 1))
        bench.command(.takeOffline(PlexIndex(0)))
        bench.settle()
        for (block, value) in expected { #expect(bench.values(of: block) == [value], "block \(block)") }
    }

    @Test(arguments: [RequestKind.flush, .write, .read]) func whatWasNotFlushedIsCopiedAgain(first: RequestKind) throws
    {
        let bench = try unflushed()
        var expected: [Int: UInt32] = [3: 33, 14: 44, 36: 66, 7: 107]
        switch first {
        case .flush: _ = bench.flush()
        case .read: for block in [7, 27, 47, 17, 57, 1, 2] { _ = bench.read(block) }
        default:
            expected[25] = 55
            bench.write(25, 55)
        }
        bench.settle(failing: { $0.plex == 1 ? .absent : nil })
        let status = bench.mirror.status().plexes[1]
        #expect(status.state == "missing" && status.reason == "its disk is gone")
        #expect(bench.events.contains { $0.code == .plexMissing } && !bench.events.contains { $0.code == .plexFailed })
        bench.write(36, 66)
        // The others flush, and clear their bits.
        bench.rest()
        try expectAll(bench, copied: expected.count - 1, expected)
    }

    /// The cleaner was about to clear the bits of 3 and 14, and its flush was the first that failed.
    @Test func flushOfTheCleanerIsNoOther() throws {
        let bench = try DataBench(plexes: 2)
        bench.fill()
        bench.write(3, 33)
        bench.write(14, 44)
        bench.settle()
        bench.idle(until: isFlush)
        bench.disks[1].dropCache(ofBlocks: 0..<DataBench.blocks)
        bench.settle(failing: { $0.plex == 1 ? .absent : nil })
        bench.rest()
        try expectAll(bench, copied: 2, [3: 33, 14: 44])
    }

    /// A plex under rebuild has got block 3 already, in its cache.
    @Test func plexUnderRebuildIsNoOther() throws {
        let bench = try DataBench.rejoining()
        bench.settle(holding: isFlush)
        #expect(bench.waiting(.flush).contains { $0.plex == 1 })
        bench.disks[1].dropCache(ofBlocks: 0..<DataBench.blocks)
        bench.settle(failing: { $0.plex == 1 ? .absent : nil })
        #expect(bench.record.inSync == set(0) && bench.copies(of: 4) == [45])
        try expectAll(bench, copied: 1, [3: 33, 4: 45])
    }

    /// Another error of a flush tells of a disk that is there, and may have lost what it said was flushed.
    @Test func failedFlushOfADiskThatIsThereNeedsAFullCopy() throws {
        let bench = try unflushed()
        _ = bench.flush()
        bench.settle(failing: { $0.plex == 1 ? DiskFailure(kind: .gone, errorNumber: 28) : nil })
        #expect(bench.mirror.status().plexes[1].state == "failed")
        let text = try objection(bench)
        #expect(text == "everything would have to be copied, because what it lacks was not counted")
    }

    /// The cleaner's flush succeeded while one of a client was under way, which may have taken its error.
    @Test func flushThatWasBelievedMeanwhileNeedsAFullCopy() throws {
        let bench = try unflushed()
        bench.idle(until: isFlush)
        _ = bench.flush()
        bench.tick()
        bench.complete(.flush, on: 0)
        bench.complete(.flush, on: 1)
        bench.settle(failing: { $0.plex == 1 && $0.kind == .flush ? .absent : nil })
        #expect(bench.mirror.status().plexes[1].state == "missing")
        let text = try objection(bench)
        #expect(text == "everything would have to be copied, because what it lacks was not counted")
    }
}
