import MirrorFormat
import Testing

@testable import MirrorCore

/// Plexes that are removed, replaced or copied to while the cleaner is at work: what an absent one misses has to
/// stay counted, and nothing counts for a disk that did not get it.
@Suite struct DataLossMapTests {
    private func isFlush(_ operation: DataBench.Operation) -> Bool { operation.kind == .flush }

    private func isRead(_ operation: DataBench.Operation) -> Bool { operation.kind == .read }

    /// The map of a plex that was being removed was closed at once. The cleaner then cleared bits that nobody counted,
    /// while every record still listed the plex.
    @Test func plexIsCountedForUntilItsRemovalIsOnRecord() throws {
        let bench = try DataBench(plexes: 2)
        bench.write(3, 33)
        bench.rest()
        bench.command(.stop)
        bench.settle()
        try bench.start(on: [0], isDegraded: true)
        bench.settle()
        bench.write(3, 99, fua: true)
        bench.settle()
        let flush = bench.flush()
        bench.settle()
        #expect(bench.replies[flush] == .ok)
        bench.idle(until: isFlush)
        bench.command(.remove(PlexIndex(1)))
        bench.settle(holding: \.isSuperblock)
        bench.losePower()
        try bench.start(on: [0, 1])
        bench.settle()
        bench.idle(seconds: 2)
        #expect(bench.record.inSync == set(0, 1) && bench.values(of: 3) == [99])
    }

    /// The same, when another disk takes its place.
    @Test func plexIsCountedForUntilItsReplacementIsOnRecord() throws {
        let bench = try DataBench(plexes: 2, spares: 1)
        bench.write(3, 33)
        bench.rest()
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        bench.write(3, 99, fua: true)
        bench.settle()
        bench.idle(until: isFlush)
        try bench.join(1, disk: 2)
        bench.settle(holding: \.isSuperblock)
        bench.losePower()
        try bench.start(on: [0])
        bench.settle()
        try bench.join(1, disk: 1)
        bench.settle()
        bench.idle(seconds: 2)
        #expect(bench.record.inSync == set(0, 1) && bench.values(of: 3) == [99])
    }

    /// The cleaner had noted what plex 1 still lacked when the flush began. A blank disk took its place before the flush
    /// ended, and the note was written into the map of that disk: it got one block, and was in sync.
    @Test func noteOfWhatAPlexGotDoesNotCountForTheDiskThatReplacesIt() throws {
        let bench = try DataBench(plexes: 2, spares: 1)
        bench.fill()
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        bench.write(5, 555)
        bench.rest()
        // Back by delta. The source of block 5 is slow, so the rebuild goes on.
        try bench.join(1, disk: 1)
        bench.settle(holding: isRead)
        bench.write(9, 999)
        bench.settle(holding: isRead)
        bench.idle(until: isFlush, holding: isRead)
        bench.complete(.flush, on: 1)
        let isHeld = { (operation: DataBench.Operation) in
            isRead(operation) || isFlush(operation) && operation.plex == 0
        }
        bench.settle(holding: isHeld)
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle(holding: isHeld)
        try bench.join(1, disk: 2)
        bench.settle(holding: isHeld)
        bench.complete(.flush, on: 0)
        bench.settle(holding: isRead)
        bench.losePower()
        try bench.start(on: [0, 2])
        bench.settle()
        bench.idle(seconds: 2)
        #expect(bench.record.inSync == set(0, 1) && bench.disks[0].cache == bench.disks[2].cache)
    }

    /// Block 5 was copied and noted as such. While the note was on its way a write to it failed on the source only: it
    /// had to be copied again, and the note told otherwise after the next power failure.
    @Test func blockThatHasToBeCopiedAgainDropsOutOfTheNoteUnderWay() throws {
        let bench = try DataBench(plexes: 2)
        bench.fill()
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        bench.write(5, 555)
        bench.write(40, 440)
        bench.rest()
        try bench.join(1, disk: 1)
        // Block 40 takes long, block 5 does not.
        func isSlow(_ operation: DataBench.Operation) -> Bool { isRead(operation) && operation.isAt(40) }
        bench.settle(holding: isSlow)
        bench.write(9, 999)
        bench.settle(holding: isSlow)
        bench.idle(until: isFlush, holding: isSlow)
        let write = bench.write(5, 556)
        bench.settle(holding: { isSlow($0) || isFlush($0) || $0.kind == .write })
        bench.complete(.write, on: 1)
        bench.complete(.write, on: 0, failing: .media)
        let isSlower = { (operation: DataBench.Operation) in
            isSlow(operation) || isRead(operation) && operation.isAt(5)
        }
        bench.settle(holding: isSlower)
        #expect(bench.replies[write] == .ioError)
        bench.idle(seconds: 15, holding: isSlower)
        bench.losePower()
        try bench.start(on: [0, 1])
        bench.settle()
        bench.idle(seconds: 2)
        #expect(bench.record.inSync == set(0, 1) && bench.disks[0].cache == bench.disks[1].cache)
    }

    /// Plex 1 was being removed, which freed its map in memory, and plex 2 left and took it. The record on disk still
    /// named the map as that of plex 1, and its new pages said that plex 1 had missed nothing.
    @Test func mapIsNotGivenToAnotherPlexWhileARecordOnDiskNamesIt() throws {
        let bench = try DataBench(plexes: 3)
        bench.write(3, 33)
        bench.rest()
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        bench.write(3, 99, fua: true)
        bench.rest()
        bench.write(7, 77)
        bench.settle()
        // A round of the record is under way, for the counter of a read error.
        bench.tick(afterMilliseconds: 20_000)
        let isHeld = { (operation: DataBench.Operation) in isFlush(operation) || operation.isSuperblock }
        failOneRead(of: 20, bench, holding: isHeld)
        bench.idle(until: isFlush, holding: \.isSuperblock)
        #expect(bench.waiting.filter(\.isSuperblock).map(\.plex) == [0, 0, 2, 2])
        // The removal waits for the next round.
        bench.command(.remove(PlexIndex(1)))
        bench.complete(.flush, on: 2)
        for plex in [0, 0, 2, 2] { bench.complete(.writeMetadata, on: plex) }
        // Plex 2 is flushed, and gone.
        while !bench.waiting(.read).contains(where: { $0.plex == 2 }) {
            bench.settle(holding: isHeld)
            _ = bench.read(21)
        }
        bench.complete(.read, on: 2, failing: .gone)
        bench.settle(holding: isHeld)
        bench.complete(.flush, on: 0)
        bench.settle(holding: \.isSuperblock)
        bench.losePower()
        try bench.start(on: [0], isDegraded: true)
        bench.settle()
        try bench.join(1, disk: 1)
        bench.settle()
        bench.idle(seconds: 2)
        #expect(bench.record.inSync == set(0, 1) && bench.copies(of: 3) == [99, 99])
    }

    private func failOneRead(
        of block: Int, _ bench: DataBench, holding isHeld: (DataBench.Operation) -> Bool
    ) {
        _ = bench.read(block)
        for plex in bench.waiting(.read).map(\.plex) { bench.complete(.read, on: plex, failing: .media) }
        bench.settle(holding: isHeld)
    }

    /// A page of the map of plex 2 was on its way to plex 1 and 0 when another disk took the place of plex 1. The page
    /// counted for that disk, which never got it.
    @Test func pageWrittenToTheDiskBeforeDoesNotCountForTheOneThatReplacesIt() throws {
        let bench = try DataBench(plexes: 3, spares: 1)
        bench.write(3, 33)
        bench.rest()
        bench.command(.takeOffline(PlexIndex(2)))
        bench.settle()
        bench.write(3, 99, fua: true)
        bench.settle()
        let slot = Int(try #require(bench.record[PlexIndex(2)].missedWriteMap).slot)
        func isHeld(_ operation: DataBench.Operation) -> Bool {
            bench.isPage(operation, ofSheet: slot + 1) && operation.plex == 0
        }
        bench.idle(until: isHeld)
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle(holding: isHeld)
        try bench.join(1, disk: 3)
        bench.settle(holding: isHeld)
        bench.settle()
        bench.idle(seconds: 30)
        #expect(bench.record.inSync == set(0, 1))
        #expect(bench.disks[3].image.page(sheet: slot + 1, of: bench.record.mirror) != nil)
        #expect(bench.disks[3].image.regions(sheet: slot + 1) == [3])
    }
}
