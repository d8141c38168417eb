import MirrorFormat
import Testing

@testable import MirrorCore

@Suite struct MirrorStopTests {
    @Test func stopFlushesThenMarksCleanThenReleases() throws {
        let bench = try MirrorBench()
        bench.dirty()
        let id = bench.command(.stop)
        #expect(bench.pending.map(\.kind) == [.flush, .flush])
        bench.complete(.flush, on: 0)
        #expect(bench.waiting(.writeMetadata).isEmpty)
        bench.complete(.flush, on: 1)
        // The bits first: never a clean mark beside a bit.
        #expect(bench.pending.count == 2 && bench.waiting(.writeMetadata).allSatisfy(\.isPage))
        // Once as they are, then cleared; see `WriteTracking.askForWitness`.
        for isCleared in [false, true] {
            #expect(bench.intent(0).isEmpty == false && bench.intent(1).isEmpty == false)
            bench.complete(.writeMetadata, on: 0)
            #expect(bench.pending.count == 1 && bench.intent(0).isEmpty == isCleared)
            bench.complete(.writeMetadata, on: 1)
        }
        #expect(bench.intent(0).isEmpty && bench.intent(1).isEmpty)
        #expect(bench.pending.count == 4 && bench.waiting(.writeMetadata).allSatisfy(\.isSuperblock))
        #expect(!bench.isStopped)
        bench.settle()
        #expect(bench.recorded(0)?.isClean == true && bench.recorded(1)?.isClean == true)
        #expect(bench.answers[id]?.isDone == true && bench.isStopped && bench.released.count == 2)
        #expect(bench.trace.last == .stopped)
    }

    @Test func stopWaitsForRequestsUnderWayAndTurnsNewOnesAway() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.send(1, .write)
        bench.command(.stop)
        bench.send(2, .write, 8192)
        bench.send(3, .read)
        #expect(bench.replies[2] == .shuttingDown && bench.replies[3] == .shuttingDown)
        #expect(bench.waiting(.flush).isEmpty)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.isStopped && bench.recorded(0)?.isClean == true)
    }

    /// Nothing is cleared, so nobody has to see a witness of it.
    @Test func stopWithoutAnyBitWritesNoPage() throws {
        let bench = try MirrorBench()
        bench.dirty()
        for _ in 0..<2 { bench.rest() }
        #expect(bench.intent(0).isEmpty && bench.recorded(0)?.isClean == false)
        bench.clearTrace()
        bench.command(.stop)
        bench.settle()
        #expect(bench.isStopped && bench.recorded(1)?.isClean == true && bench.submitted(.flush).count == 2)
        #expect(bench.submitted(.writeMetadata).filter(\.isPage).isEmpty)
    }

    @Test func stopWhoseFlushFailsOnOnePlexExpelsItAndIsCleanOnTheOther() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.command(.stop)
        bench.settle(failing: { $0.kind == .flush && $0.plex == 0 ? .media : nil })
        #expect(bench.isStopped && bench.recorded(1)?.isClean == true && bench.recorded(1)?.inSync == set(1))
    }

    @Test func stopWithoutAGoodFlushLeavesTheMirrorDirty() throws {
        let bench = try MirrorBench()
        bench.dirty()
        let id = bench.command(.stop)
        bench.settle(failing: { $0.kind == .flush ? .media : nil })
        #expect(bench.isStopped && bench.answers[id]?.isFailed == true)
        for plex in 0...1 { #expect(bench.recorded(plex)?.isClean == false) }
    }

    @Test func stopThatCannotBeRecordedSaysSoAndEnds() throws {
        let bench = try MirrorBench()
        bench.dirty()
        let id = bench.command(.stop)
        bench.settle(failing: { $0.kind == .writeMetadata ? .media : nil })
        #expect(bench.isStopped && bench.answers[id]?.isFailed == true)
        for plex in 0...1 { #expect(bench.recorded(plex)?.isClean == false) }
    }

    /// The window would be written to the target after the stop was answered and its disk closed.
    @Test func stopThatCannotBeRecordedWaitsForTheWindowThatIsBeingCopied() throws {
        var limits = Limits()
        limits.resyncWindowsIdle = 1
        let bench = try MirrorBench(freshRecord([.inSync, .recovering]), present: set(0, 1), limits: limits)
        bench.settle(holding: { $0.kind == .read })
        bench.send(1, .write, Disk.dataBytes - 4096)
        let id = bench.command(.stop)
        bench.settle(holding: { $0.kind == .read }, failing: { $0.isSuperblock ? .media : nil })
        #expect(bench.replies[1] == .ioError && bench.released.isEmpty && bench.answers[id] == nil)
        bench.complete(.read, on: 0)
        #expect(bench.waiting(.write).map(\.plex) == [1])
        bench.tick(afterMilliseconds: 1000)
        bench.settle(failing: { $0.isSuperblock ? .media : nil })
        bench.tick(afterMilliseconds: 1000)
        bench.settle(failing: { $0.isSuperblock ? .media : nil })
        #expect(bench.isStopped && bench.answers[id]?.isFailed == true && bench.released.count == 2)
    }
}

@Suite struct MirrorSuspensionTests {
    @Test func expulsionThatCannotBeRecordedSuspendsUntilItCan() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.send(1, .write)
        bench.settle(failing: { $0.plex == 1 || $0.kind == .writeMetadata ? .media : nil })
        #expect(bench.replies[1] == nil && bench.status().state == .suspended)
        #expect(bench.events.contains { $0.code == .suspended })
        bench.tick(afterMilliseconds: 1000)
        bench.settle(failing: { $0.kind == .writeMetadata ? .media : nil })
        #expect(bench.replies[1] == nil)
        bench.tick(afterMilliseconds: 999)
        #expect(bench.waiting(.writeMetadata).isEmpty)
        bench.tick(afterMilliseconds: 1)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.recorded(0)?.inSync == set(0))
        #expect(bench.status().state == .degraded && bench.events.last?.code == .resumed)
    }

    @Test func writeThatFailsOnAllAlikeIsTriedAgainAndCostsNoPlex() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.send(1, .write)
        bench.settle(failing: { _ in .media })
        #expect(bench.replies[1] == nil && bench.status().state == .suspended)
        bench.tick(afterMilliseconds: 1000)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.record.inSync == set(0, 1) && bench.status().state == .healthy)
    }

    @Test func writeThatKeepsFailingOnAllIsToldAfterARecordThatTheyMayDiffer() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.send(1, .write)
        for attempt in 0..<4 {
            if attempt > 0 { bench.tick(afterMilliseconds: 1000) }
            bench.settle(holding: \.isSuperblock, failing: { $0.kind == .write ? .media : nil })
            #expect(bench.replies[1] == nil)
        }
        #expect(bench.waiting(.writeMetadata).count == 4)
        bench.settle()
        #expect(bench.replies[1] == .ioError && bench.record.inSync == set(0, 1))
        #expect(bench.submitted(.write).filter { $0.length == 4096 }.count == 8)
    }

    @Test func spaceThatRanOutOnAllIsToldAtOnce() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.send(1, .write)
        bench.settle(failing: { $0.kind == .write && $0.length == 4096 ? .noSpace : nil })
        #expect(bench.replies[1] == .noSpace && bench.record.inSync == set(0, 1))
        bench.send(2, .write)
        bench.settle()
        #expect(bench.replies[2] == .ok)
    }
}
