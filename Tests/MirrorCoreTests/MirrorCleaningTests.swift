import MirrorFormat
import Testing

@testable import MirrorCore

/// R6: an intent bit is cleared when the regions is at rest, and durable on every plex.
@Suite struct MirrorCleaningTests {
    /// All bits are set, and the cleaner has looked once: from now on five seconds of rest count.
    private func resting(_ record: Record = freshRecord()) throws -> MirrorBench {
        let bench = try MirrorBench(record)
        bench.dirty()
        bench.tick()
        #expect(bench.pending.isEmpty)
        return bench
    }

    @Test func idleRegionsAreFlushedThenCleared() throws {
        let bench = try resting()
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
        let bench = try resting()
        bench.tick(afterMilliseconds: 5000)
        bench.send(1, .write, 1 << 20)
        #expect(bench.waiting(.write).count == 2)
        bench.settle(holding: { $0.kind == .write })
        #expect(bench.intent(0) == [1] && bench.intent(1) == [1] && bench.waiting(.writeMetadata).isEmpty)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.intent(0) == [1] && bench.intent(1) == [1])
    }

    @Test func writeDuringTheClearingWaitsUntilItsBitIsSetAgain() throws {
        let bench = try resting()
        bench.tick(afterMilliseconds: 5000)
        bench.settle(holding: { $0.kind == .writeMetadata })
        bench.send(1, .write)
        #expect(bench.waiting(.write).isEmpty)
        bench.settle(holding: { $0.kind == .write })
        #expect(bench.waiting(.write).count == 2 && bench.intent(0) == [0] && bench.intent(1) == [0])
    }
}
