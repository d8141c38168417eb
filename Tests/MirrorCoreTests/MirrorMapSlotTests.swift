import MirrorFormat
import Testing

@testable import MirrorCore

/// Seven maps for up to seven absent plexes; a map is dropped by the record that says why, and not before (R10).
@Suite struct MirrorMapSlotTests {
    /// Eight plexes, of which seven were taken offline one after the other. After the n-th the region 8n was written.
    private func alone() throws -> MirrorBench {
        let bench = try MirrorBench(freshRecord(Array(repeating: .inSync, count: 8), regionBytes: 64 << 10))
        bench.write(regions: [0])
        bench.rest()
        for plex in 1...7 {
            bench.command(.takeOffline(PlexIndex(plex)))
            bench.settle()
            bench.write(regions: [8 * plex])
            bench.rest()
        }
        bench.clearTrace()
        return bench
    }

    private func slot(_ plex: Int, _ record: Record?) -> UInt8? { record?[PlexIndex(plex)].missedWriteMap?.slot }

    @Test func sevenAbsentPlexesHaveAMapEach() throws {
        let bench = try alone()
        #expect(Set((1...7).compactMap { slot($0, bench.recorded(0)) }) == Set(0..<7))
        for plex in 1...7 { #expect(bench.missed(plex) == (plex...7).map { 8 * $0 }) }
    }

    @Test func sevenPlexesThatComeBackGetWhatEachMissed() throws {
        let bench = try alone()
        for plex in 1...7 { try bench.rejoin(plex) }
        bench.settle()
        for plex in 1...7 { #expect(bench.regionsCopied(to: plex) == (plex...7).map { 8 * $0 }) }
        #expect(bench.recorded(7)?.inSync == PlexSet(mask: 255) && bench.status().state == .healthy)
        #expect(bench.recorded(7)?.members.allSatisfy { $0.missedWriteMap == nil } == true)
    }

    @Test func plexForWhichNoMapIsLeftGetsEverything() throws {
        let bench = try MirrorBench(freshRecord(Array(repeating: .inSync, count: 8), regionBytes: 64 << 10))
        let old = try #require(bench.disks[3])
        bench.write(regions: [0])
        for plex in 1...7 { bench.command(.takeOffline(PlexIndex(plex))) }
        bench.settle()
        // Its old map is named by the record until the next is durable, and all others are in use.
        bench.replaceDisk(3, with: old)
        try bench.rejoin(3)
        bench.settle(holding: { $0.kind == .read })
        #expect(bench.recorded(3)?[PlexIndex(3)].role == .recovering && slot(3, bench.recorded(3)) == nil)
        // It is cut off: nobody counted.
        bench.command(.takeOffline(PlexIndex(3)))
        bench.settle()
        #expect(slot(3, bench.recorded(0)) == nil && bench.status().plexes[3].missedRegions == nil)
        bench.clearTrace()
        try bench.rejoin(3)
        bench.settle()
        #expect(bench.regionsCopied(to: 3) == Array(0..<64) && bench.recorded(3)?.inSync == set(0, 3))
        #expect(bench.events.last { $0.code == .joined }?.text.contains("what it lacks was not counted") == true)
    }

    @Test func slotIsFreeAgainWhenItsPlexIsInSyncOrForgotten() throws {
        let bench = try alone()
        try bench.rejoin(3)
        bench.command(.remove(PlexIndex(5)))
        bench.settle()
        let free = Set(UInt8(0)..<7).subtracting((1...7).compactMap { slot($0, bench.recorded(0)) })
        #expect(free.count == 2)
        bench.command(.takeOffline(PlexIndex(3)))
        bench.settle()
        #expect(slot(3, bench.recorded(0)).map { free.contains($0) } == true)
        bench.write(regions: [33])
        bench.rest()
        #expect(bench.missed(3) == [33], "the pages of the earlier absence mean nothing")
    }

    /// Three plexes; plex 1 was offline, and all that it missed is copied: its flush is on its way.
    private func promoting() throws -> MirrorBench {
        let bench = try MirrorBench(freshRecord(Array(repeating: .inSync, count: 4), regionBytes: 64 << 10))
        bench.write(regions: [5])
        bench.rest()
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        bench.write(regions: [9])
        bench.rest()
        try bench.rejoin(1)
        bench.settle(holding: { $0.kind == .flush })
        #expect(bench.waiting(.flush).map(\.plex) == [1] && bench.regionsCopied(to: 1) == [9])
        return bench
    }

    @Test func mapIsOnRecordUntilTheRecordSaysInSync() throws {
        let bench = try promoting()
        #expect(slot(1, bench.recorded(0)) != nil && bench.missed(1) == [9])
        bench.complete(.flush, on: 1)
        bench.settle(holding: \.isSuperblock)
        // Not a page of the map is touched before.
        #expect(bench.recorded(0)?.inSync == set(0, 2, 3) && slot(1, bench.recorded(0)) != nil)
        let map = try #require(bench.recorded(0)?[PlexIndex(1)].missedWriteMap)
        let found = try #require(bench.disks[0]?.found(disk: 0)?.pages)
        #expect(found.missedRegions(map) == 1)
        bench.settle()
        #expect(bench.recorded(1)?.inSync == set(0, 1, 2, 3) && slot(1, bench.recorded(0)) == nil)
    }

    @Test func slotThatAPromotionDropsIsNotReusedBeforeItIsOnRecord() throws {
        let bench = try promoting()
        let used = try #require(slot(1, bench.recorded(0)))
        bench.complete(.flush, on: 1)
        bench.send(1, .write, 5 * (64 << 10))
        bench.settle(holding: \.isSuperblock, failing: { $0.plex == 2 && $0.kind == .write ? .media : nil })
        #expect(bench.record[PlexIndex(2)].role == .failed && slot(2, bench.record) != used)
        bench.settle()
        #expect(bench.recorded(0)?.inSync == set(0, 1, 3) && bench.missed(2) != nil)
    }

    /// A round of the record is on its way, and still names the map, when the promotion drops it.
    @Test func slotNamedByTheRecordThatIsOnItsWayIsNotReused() throws {
        let bench = try promoting()
        let used = try #require(slot(1, bench.recorded(0)))
        bench.command(.takeOffline(PlexIndex(3)))
        #expect(bench.waiting(.writeMetadata).count == 4 && slot(1, bench.record) == used)
        bench.complete(.flush, on: 1)
        #expect(slot(1, bench.record) == nil, "the next round will say so")
        // First those in sync, then the plex under rebuild.
        for plex in [0, 0, 2, 2, 1, 1] { #expect(bench.complete(.writeMetadata, on: plex)) }
        // The record on the disks names the map of plex 1; the one without it is on its way.
        #expect(slot(1, bench.recorded(0)) == used && slot(1, bench.record) == nil)
        bench.send(1, .write, 5 * (64 << 10))
        bench.settle(holding: \.isSuperblock, failing: { $0.plex == 2 && $0.kind == .write ? .media : nil })
        #expect(bench.record[PlexIndex(2)].role == .failed && slot(1, bench.recorded(0)) == used)
        #expect(slot(2, bench.record) != used)
    }
}
