import MirrorFormat
import Testing

@testable import MirrorCore

/// Pages of the bitmap that can't be written.
@Suite struct MirrorIntentFailureTests {
    /// The record says dirty; of the bits of the four regions only the last is set.
    private func running(_ roles: [Role] = [.inSync, .inSync]) throws -> MirrorBench {
        let bench = try MirrorBench(freshRecord(roles))
        bench.send(999_999, .write, 3 << 20)
        bench.settle()
        bench.clearTrace()
        return bench
    }

    @Test(arguments: [0, 1], [true, false])
    func plexThatCanNotTakeTheBitIsOffTheRecordBeforeDataIsSent(bad: Int, failsFirst: Bool) throws {
        let bench = try running()
        let (good, before) = (1 - bad, bench.record.generation)
        bench.send(1, .write)
        for plex in failsFirst ? [bad, good] : [good, bad] {
            bench.complete(.writeMetadata, on: plex, failing: plex == bad ? .media : nil)
        }
        let copies = bench.waiting(.writeMetadata)
        #expect(copies.map(\.plex) == [good, good] && copies.allSatisfy(\.isSuperblock))
        for _ in copies {
            #expect(bench.waiting(.write).isEmpty)
            bench.complete(.writeMetadata, on: good)
        }
        #expect(bench.recorded(good)?.inSync == set(good) && bench.recorded(good)?.generation != before)
        #expect(bench.recorded(good)?[PlexIndex(bad)].cause.operation == .metadata)
        #expect(bench.waiting(.write).map(\.plex) == [good] && bench.intent(good) == [0, 3])
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.submitted(.write).map(\.plex) == [good])
        #expect(bench.released == [PlexIndex(bad)])
    }

    /// The plex was expelled for something else while the page was on its way: its answer counts no more, whatever it
    /// is (another disk may have taken its place), and the page does not count before the record does.
    @Test(arguments: [true, false]) func bitWaitsForTheRecordOfAPlexThatWasExpelledMeanwhile(fails: Bool) throws {
        let bench = try running()
        bench.send(1, .write)
        bench.complete(.writeMetadata, on: 0)
        bench.send(2, .write, 3 << 20)
        bench.settle(holding: { $0.kind == .writeMetadata }, failing: { $0.plex == 1 ? .media : nil })
        #expect(bench.waiting(.write).isEmpty && bench.record.inSync == set(0))
        bench.complete(.writeMetadata, on: 1, failing: fails ? .gone : nil)
        #expect(bench.waiting(.write).isEmpty)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.replies[2] == .ok)
        #expect(bench.submitted(.write).filter { $0.offset == 0 }.map(\.plex) == [0])
    }

    @Test(arguments: [1, 2, 3]) func pageThatFailsOnAllIsTriedAgainAndCostsNoPlex(plexes: Int) throws {
        let bench = try running(Array(repeating: .inSync, count: plexes))
        bench.send(1, .write)
        bench.settle(failing: { $0.isPage ? .media : nil })
        #expect(bench.replies[1] == nil && bench.status().state == .suspended && bench.released.isEmpty)
        #expect(bench.submitted(.write).isEmpty && bench.record.inSync.count == plexes)
        bench.tick(afterMilliseconds: 1000)
        bench.settle(failing: { $0.isPage ? .media : nil })
        bench.tick(afterMilliseconds: 999)
        #expect(bench.pending.isEmpty && bench.replies[1] == nil)
        bench.tick(afterMilliseconds: 1)
        #expect(bench.waiting(.writeMetadata).count == plexes)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.intent(0) == [0, 3] && bench.status().state == .healthy)
        #expect(bench.events.map(\.code) == [.suspended, .resumed])
    }

    @Test func writesToRegionsThatAreMarkedGoOnWhileAPageFailsOnAll() throws {
        let bench = try running()
        bench.send(1, .write)
        bench.settle(failing: { $0.isPage ? .media : nil })
        bench.send(2, .write, 3 << 20)
        bench.settle(failing: { $0.isPage ? .media : nil })
        #expect(bench.replies[2] == .ok && bench.replies[1] == nil)
    }

    @Test func stopWithoutAPageThatCanBeWrittenEndsWithoutAPromise() throws {
        let bench = try running()
        bench.send(1, .write)
        bench.settle(failing: { $0.isPage ? .media : nil })
        let id = bench.command(.stop)
        bench.tick(afterMilliseconds: 1000)
        bench.settle(failing: { $0.isPage ? .media : nil })
        #expect(bench.replies[1] == .ioError && bench.isStopped && bench.answers[id]?.isFailed == true)
        #expect(bench.recorded(0)?.isClean == false && bench.submitted(.write).isEmpty)
    }

    @Test func transientErrorOfAPageIsNoReasonToGiveUpAPlex() throws {
        let bench = try running()
        bench.send(1, .write)
        for _ in 0..<16 { #expect(bench.complete(.writeMetadata, on: 1, failing: .busy)) }
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.released.isEmpty && bench.intent(1) == [0, 3])
        bench.send(2, .write, 1 << 20)
        for _ in 0..<17 { #expect(bench.complete(.writeMetadata, on: 1, failing: .busy)) }
        bench.settle()
        #expect(bench.replies[2] == .ok && bench.released == [PlexIndex(1)])
    }

    @Test func plexUnderRebuildThatCanNotTakeAPageEndsItsRebuild() throws {
        let bench = try running([.inSync, .failed])
        bench.command(.join(PlexIndex(1), try newDisk()))
        bench.settle(failing: { $0.plex == 1 && $0.isPage ? .media : nil })
        #expect(bench.record[PlexIndex(1)].role == .failed && bench.released == [PlexIndex(1)])
        bench.send(1, .write)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.recorded(0)?.inSync == set(0))
    }
}
