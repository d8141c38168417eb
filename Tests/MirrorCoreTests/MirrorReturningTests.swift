import MirrorFormat
import Testing

@testable import MirrorCore

/// Disks that vanish, and what may come back without being asked for.
@Suite struct MirrorReturningTests {
    private func pair(_ limits: Limits = Limits()) throws -> MirrorBench {
        let bench = try MirrorBench(freshRecord(regionBytes: 64 << 10), limits: limits)
        bench.write(regions: [5])
        bench.rest()
        return bench
    }

    /// Plex 1 is gone, and the others have that on record.
    private func pairWithoutOne() throws -> MirrorBench {
        let bench = try pair()
        bench.handle(.vanished(PlexIndex(1)))
        bench.settle()
        return bench
    }

    private func objection(
        _ bench: MirrorBench, _ plex: Int = 1, failures: Int = 0, _ change: (inout Superblock) -> Void = { _ in }
    ) throws -> String? {
        let found = try #require(bench.disks[plex]?.found(disk: plex))
        var superblock = found.superblock
        change(&superblock)
        return bench.mirror.objection(toReturnOf: PlexIndex(plex), superblock, found.pages, failures: failures)
    }

    @Test func diskThatVanishesUnaskedIsMissing() throws {
        let bench = try pairWithoutOne()
        #expect(bench.recorded(0)?.inSync == set(0) && bench.released == [PlexIndex(1)])
        #expect(bench.events.contains { $0.code == .plexMissing && $0.plex == PlexIndex(1) })
        let status = bench.status()
        #expect(status.state == .degraded && status.plexes[1].state == "missing")
        #expect(status.plexes[1].reason == "its disk is gone")
        #expect(bench.mirror.plexesThatMayReturn == set(1) && bench.mirror.goodPlexes == set(0))
    }

    @Test func lastGoodPlexStaysWhateverIsSaidOfItsDisk() throws {
        let bench = try pairWithoutOne()
        bench.handle(.vanished(PlexIndex(0)))
        bench.settle()
        #expect(bench.recorded(0)?.inSync == set(0) && bench.mirror.goodPlexes == set(0))
        bench.send(1, .write, 0)
        bench.settle()
        #expect(bench.replies[1] == .ok)
    }

    @Test func plexUnderRebuildThatVanishesGoesOnWithItsMap() throws {
        let bench = try pairWithoutOne()
        bench.write(regions: [7])
        try bench.rejoin(1)
        bench.settle(holding: { $0.kind == .read })
        bench.handle(.vanished(PlexIndex(1)))
        bench.settle()
        #expect(bench.recorded(0)?.inSync == set(0))
        try #expect(objection(bench) == nil)
        try bench.rejoin(1)
        bench.settle()
        #expect(bench.recorded(1)?.inSync == set(0, 1) && bench.status().state == .healthy)
    }

    @Test func plexComesBackUnaskedIfItsMissedWritesWereCounted() throws {
        let bench = try pairWithoutOne()
        bench.write(regions: [9])
        bench.rest()
        bench.clearTrace()
        try #expect(objection(bench) == nil)
        try bench.rejoin(1)
        bench.settle()
        #expect(bench.regionsCopied(to: 1) == [9] && bench.status().state == .healthy)
        #expect(bench.events.contains { $0.code == .plexReturned && $0.plex == PlexIndex(1) })
        #expect(bench.mirror.plexesThatMayReturn.isEmpty)
    }

    @Test(arguments: [(2, nil), (3, "it failed 3 times within an hour")]) func plexThatKeepsFailingIsNotTakenBack(
        failures: Int, objection: String?
    ) throws {
        try #expect(self.objection(pairWithoutOne(), failures: failures) == objection)
    }

    @Test func plexThatAUserTookOutStaysOut() throws {
        let bench = try pair()
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        #expect(bench.mirror.plexesThatMayReturn.isEmpty)
        try #expect(objection(bench) == "it is not out")
        let broken = try pair()
        broken.command(.breakOff(PlexIndex(1), name: "copy"))
        broken.settle()
        #expect(broken.mirror.plexesThatMayReturn.isEmpty)
    }

    @Test func diskSetBackToAnEarlierStateIsNotTakenBack() throws {
        let bench = try pair()
        let old = bench.disks[1]
        bench.write(regions: [6])
        bench.rest()
        bench.handle(.vanished(PlexIndex(1)))
        bench.settle()
        bench.replaceDisk(1, with: old)
        let text = try objection(bench)
        #expect(
            text
                == "everything would have to be copied, because its disk is in an earlier state than the one in which it left"
        )
    }

    @Test func diskThatWentOnAloneIsNotTakenBack() throws {
        let bench = try pairWithoutOne()
        try #expect(
            objection(bench) {
                $0.record.begin(era(99), because: .startedDegraded, inSync: set(1), time: 9)
                $0.record.epoch += 1
            } == "it went on without this mirror (split brain)")
    }

    @Test func otherDisksAreNotTakenForIt() throws {
        let bench = try pairWithoutOne()
        try #expect(objection(bench) { $0.plex = plexUUID(7) } == "it is another disk")
        try #expect(
            objection(bench) { $0.record.mirror = MirrorUUID(UUID128(high: 1, low: 1)) } == "it is another disk")
    }

    @Test func plexWhoseFlushFailedIsNotTakenBack() throws {
        let bench = try pair()
        bench.write(regions: [5])
        bench.send(77, .flush, 0)
        bench.settle(failing: { $0.kind == .flush && $0.plex == 1 ? DiskFailure(kind: .media, errorNumber: 5) : nil })
        #expect(bench.recorded(0)?.inSync == set(0) && bench.mirror.plexesThatMayReturn == set(1))
        let text = try objection(bench)
        #expect(text == "everything would have to be copied, because what it lacks was not counted")
    }
}
