import MirrorFormat
import Testing

@testable import MirrorCore

/// A stop ends, whatever can't be written.
@Suite struct MirrorStopFailureTests {
    private func failingMetadata(_ operation: DataBench.Operation) -> DiskFailure? {
        operation.kind == .writeMetadata ? .media : nil
    }

    /// A write waited for the lock of another one. That one was given up, and nobody woke the one behind it: its slot
    /// had a lower number.
    @Test func stopAnswersAWriteBehindOneWhoseBitCanNotBeSet() throws {
        let bench = try DataBench(plexes: 2)
        bench.write(1, 1)
        bench.settle()
        let read = bench.read(50)
        let first = bench.write(5, 5)
        // The read's slot is free again, and the next write takes it.
        bench.complete(.read, on: try #require(bench.waiting(.read).first).plex)
        let second = bench.write(5, 6)
        bench.command(.stop)
        #expect(bench.waiting.map { bench.isPage($0, ofSheet: 0) } == [true, true])
        for plex in [0, 1] { bench.complete(.writeMetadata, on: plex, failing: .media) }
        bench.settle()
        bench.idle(seconds: 60)
        #expect(bench.replies[read] == .ok && bench.replies[first] != nil && bench.replies[second] != nil)
        #expect(bench.isStopped)
    }

    /// After a crash the plexes are made equal to plex 0, which can't be read. To choose another one takes a record.
    @Test func stopEndsWhileAWindowWaitsForASourceThatCanNotBeRecorded() throws {
        let bench = try DataBench.cutOffInAWrite()
        try bench.start(on: [0, 1])
        bench.settle(holding: { $0.kind == .read })
        bench.complete(.read, on: 0, failing: .media)
        bench.settle(failing: failingMetadata)
        bench.command(.stop)
        bench.idle(seconds: 60, failing: failingMetadata)
        #expect(bench.isStopped)
    }

    /// The stop queued behind it for ever.
    @Test func stopEndsThoughTheCommandBeforeItCanNotBeRecorded() throws {
        let bench = try DataBench(plexes: 2)
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle(failing: failingMetadata)
        #expect(!bench.isStopped)
        bench.command(.stop)
        bench.idle(seconds: 120, failing: failingMetadata)
        #expect(bench.isStopped)
    }
}
