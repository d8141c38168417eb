import MirrorFormat
import Testing

@testable import MirrorCore

/// A server is killed or power fails, and plexes differ: a client that was told one value is never told another.
@Suite struct DataLossCrashTests {
    @Test func plexThatWasAbsentGetsWhatItMissedAfterAPowerFailure() throws {
        let bench = try DataBench(plexes: 2)
        bench.write(3, 33)
        bench.rest()
        bench.command(.stop)
        bench.settle()
        #expect(bench.isStopped && bench.record.isClean)
        try bench.start(on: [0], isDegraded: true)
        bench.settle()
        bench.write(4, 44)
        bench.rest()
        bench.losePower()
        try bench.start(on: [0, 1])
        bench.settle()
        bench.idle(seconds: 1)
        #expect(
            bench.record.inSync == set(0, 1) && bench.copies(of: 4) == [44, 44] && bench.copies(of: 3) == [33, 33])
    }

    /// Seed 414177. What makes plex 1 equal to plex 0 is still on its way when plex 0 leaves: they count as equal, but
    /// it may arrive at any time.
    @Test func bitsStayWhileACopyIsOnItsWayToALonePlex() throws {
        let bench = try DataBench.cutOffInAWrite()
        try bench.start(on: [0, 1])
        let isCopy = { (operation: DataBench.Operation) in operation.kind == .write }
        bench.settle(holding: isCopy)
        #expect(bench.waiting(.write).map(\.plex) == [1])
        bench.command(.takeOffline(PlexIndex(0)))
        bench.settle(holding: isCopy)
        #expect(bench.record.inSync == set(1))
        bench.idle(seconds: 12, holding: isCopy)
        #expect(!bench.disks[1].image.regions(sheet: 0).isEmpty)
        bench.rest()
        #expect(bench.disks[1].image.regions(sheet: 0).isEmpty)
    }

    /// Nobody could read the bitmap, and nothing was made equal.
    @Test func plexesWithoutReadablePagesAreMadeEqual() throws {
        let bench = try DataBench.cutOffInAWrite()
        #expect(bench.copies(of: 3) == [34, 0])
        try bench.start(on: [0, 1], readsPages: false)
        bench.settle()
        #expect(bench.values(of: 3) == [34] && bench.copies(of: 3) == [34, 34])
    }

    /// Plex 2 is under rebuild and has got block 4 from plex 0, which the others are made equal to. Plex 0 fails, the
    /// others agree on what plex 1 says, and nobody copied block 4 to plex 2 again.
    @Test(arguments: [DiskFailure.media, .gone]) func plexUnderRebuildFollowsTheSourceOfTheOthers(failure: DiskFailure)
        throws
    {
        let bench = try DataBench(plexes: 3)
        for block in 2...4 { bench.write(block, UInt32(10 + block)) }
        bench.rest()
        bench.command(.takeOffline(PlexIndex(2)))
        bench.settle()
        bench.write(3, 34)
        bench.rest()
        try bench.join(2, disk: 2)
        let isRead = { (operation: DataBench.Operation) in operation.kind == .read }
        bench.settle(holding: isRead)
        writeToPlex0Only(bench)
        bench.kill()
        #expect(bench.copies(of: 2) == [22, 12, 12] && bench.copies(of: 4) == [44, 14, 14])
        try bench.start(on: [0, 1, 2])
        bench.settle(holding: isRead)
        bench.complete(.read, on: 0, at: 2)
        bench.settle(holding: isRead)
        // Plex 2 gets blocks 3 and 4 from plex 0, its flush is slow.
        let isSlowFlush = { (operation: DataBench.Operation) in operation.kind == .flush && operation.plex == 2 }
        bench.complete(.read, on: 0, at: 3)
        bench.settle(holding: { isRead($0) || isSlowFlush($0) })
        #expect(bench.copies(of: 4) == [44, 14, 44])
        bench.complete(.read, on: 0, at: 4, failing: failure)
        bench.settle(holding: isSlowFlush)
        bench.settle()
        bench.idle(seconds: 2)
        #expect(Set(bench.copies(of: 4)).count == 1 && bench.values(of: 4) == Set(bench.copies(of: 4)))
    }

    /// Two writes, to blocks 2 and 4, that nobody else has when the server is killed.
    private func writeToPlex0Only(_ bench: DataBench) {
        bench.write(2, 22)
        bench.write(4, 44)
        bench.settle(holding: { $0.kind == .write || $0.kind == .read })
        bench.complete(.write, on: 0, at: 2)
        bench.complete(.write, on: 0, at: 4)
    }

    /// The last record, which told of no more than a read error, had reached plex 0 only. The others stayed out.
    @Test func plexesThatLackTheLastRecordJoinByThemselves() throws {
        let bench = try DataBench(plexes: 3)
        bench.tick(afterMilliseconds: 20_000)
        _ = bench.read(20)
        for plex in bench.waiting(.read).map(\.plex) { bench.complete(.read, on: plex, failing: .media) }
        let isHeld = { (operation: DataBench.Operation) in operation.isSuperblock && operation.plex != 0 }
        bench.settle(holding: isHeld)
        bench.tick()
        bench.settle(holding: isHeld)
        #expect(bench.waiting.map(\.plex) == [1, 1, 2, 2])
        bench.losePower()
        try bench.start(on: [0, 1, 2])
        bench.settle()
        bench.idle(seconds: 120)
        #expect(bench.record.inSync == set(0, 1, 2))
    }
}
