import MirrorFormat
import Testing

@testable import MirrorCore

/// A plex comes back and gets what it missed, if its disk shows that the count holds. 64 regions of 64 KiB.
@Suite struct MirrorDeltaTests {
    private static let earlier = "its disk is in an earlier state than the one in which it left"

    private func pair(_ limits: Limits = Limits()) throws -> MirrorBench {
        let bench = try MirrorBench(freshRecord(regionBytes: 64 << 10), limits: limits)
        bench.write(regions: [5])
        return bench
    }

    private func takeOffline(_ plex: Int, _ bench: MirrorBench) {
        bench.command(.takeOffline(PlexIndex(plex)))
        bench.settle()
        bench.clearTrace()
    }

    private func joinText(_ bench: MirrorBench) -> String { bench.events.last { $0.code == .joined }?.text ?? "" }

    private func isWhole(_ bench: MirrorBench) -> Bool {
        (0...1).allSatisfy { plex in
            bench.recorded(plex)?.inSync == set(0, 1) && bench.recorded(plex)?[PlexIndex(1)].missedWriteMap == nil
        } && bench.status().state == .healthy && bench.status().plexes[1].missedRegions == nil
    }

    @Test(arguments: [true, false]) func plexTakenOfflineAndBackGetsExactlyWhatWasWrittenSince(areMoved: Bool) throws {
        let bench = try pair()
        bench.rest()
        takeOffline(1, bench)
        bench.write(regions: [7, 20, 21])
        if areMoved { bench.rest() }
        bench.clearTrace()
        let id = try bench.rejoin(1)
        bench.settle()
        #expect(bench.regionsCopied(to: 1) == [7, 20, 21] && bench.answers[id]?.isDone == true && isWhole(bench))
        #expect(joinText(bench).contains("3 of 64 regions are copied: what changed while it was away"))
        bench.rest()
        #expect(bench.intent(0).isEmpty && bench.intent(1).isEmpty)
    }

    /// What was not flushed when the plex left may be lost on it.
    @Test func regionUnderABitWhenThePlexLeftIsCopiedToo() throws {
        let bench = try pair()
        takeOffline(1, bench)
        bench.write(regions: [7])
        bench.rest()
        #expect(bench.missed(1) == [5, 7])
        bench.clearTrace()
        try bench.rejoin(1)
        bench.settle()
        #expect(bench.regionsCopied(to: 1) == [5, 7] && isWhole(bench))
    }

    @Test func plexThatMissedNothingIsPromotedWithoutCopying() throws {
        let bench = try pair()
        bench.rest()
        takeOffline(1, bench)
        try bench.rejoin(1)
        bench.settle()
        #expect(bench.regionsCopied(to: 1).isEmpty && bench.submitted(.read).isEmpty && isWhole(bench))
    }

    @Test func writesDuringTheDeltaReachThePlexThemselves() throws {
        let bench = try pair()
        bench.rest()
        takeOffline(1, bench)
        bench.write(regions: [7])
        try bench.rejoin(1)
        bench.settle(holding: { $0.kind == .read })
        bench.send(1, .write, 40 * (64 << 10))
        bench.settle(holding: { $0.kind == .read })
        #expect(bench.submitted(.write).filter { $0.offset == 40 * (64 << 10) }.map(\.plex) == [0, 1])
        bench.settle()
        #expect(bench.regionsCopied(to: 1) == [7] && isWhole(bench))
    }

    /// The bit may be cleared before the region is copied: it has to be in the map by then.
    @Test func regionUnderABitWhenThePlexJoinsStaysWantedWhenTheBitIsCleared() throws {
        let bench = try pair()
        bench.rest()
        takeOffline(1, bench)
        bench.write(regions: [7])
        try bench.rejoin(1)
        for _ in 0..<3 {
            bench.settle(holding: { $0.kind == .read })
            bench.tick(afterMilliseconds: 5000)
        }
        bench.settle(holding: { $0.kind == .read })
        #expect(bench.intent(0).isEmpty && bench.missed(1) == [7])
        bench.settle()
        #expect(bench.regionsCopied(to: 1) == [7] && isWhole(bench))
    }

    // MARK: disks in another state than expected

    /// - Parameter image: the disk as it was at some moment.
    private func rejoin(_ bench: MirrorBench, _ image: DiskImage) throws {
        bench.replaceDisk(1, with: image)
        bench.clearTrace()
        try bench.rejoin(1)
        bench.settle()
    }

    @Test func diskWithAnOlderRecordGetsEverything() throws {
        let bench = try MirrorBench(freshRecord(regionBytes: 64 << 10))
        let old = try #require(bench.disks[1])
        // The record that says dirty is the first.
        bench.write(regions: [5])
        takeOffline(1, bench)
        try rejoin(bench, old)
        #expect(bench.regionsCopied(to: 1) == Array(0..<64) && isWhole(bench))
        #expect(joinText(bench).contains(Self.earlier))
    }

    @Test func diskThatLacksTheLastClearingGetsEverything() throws {
        let bench = try pair()
        let old = try #require(bench.disks[1])
        bench.write(regions: [9])
        bench.rest()
        takeOffline(1, bench)
        #expect(bench.recorded(0)?[PlexIndex(1)].missedWriteMap?.epoch == bench.recorded(1)?.epoch)
        try rejoin(bench, old)
        #expect(bench.regionsCopied(to: 1) == Array(0..<64) && isWhole(bench))
        #expect(joinText(bench).contains(Self.earlier))
    }

    /// Nothing was cleared since: all that the disk lacks is under bits.
    @Test func diskSetBackToAfterTheLastClearingGetsWhatIsUnderBits() throws {
        let bench = try pair()
        bench.rest()
        let old = try #require(bench.disks[1])
        bench.write(regions: [9])
        takeOffline(1, bench)
        bench.write(regions: [30])
        try rejoin(bench, old)
        #expect(bench.regionsCopied(to: 1) == [9, 30] && isWhole(bench))
    }

    @Test func diskThatWasInUseWhenItWasSetBackDuringItsRebuildGetsEverything() throws {
        let bench = try pair()
        bench.rest()
        takeOffline(1, bench)
        let old = try #require(bench.disks[1])
        bench.write(regions: [9])
        bench.rest()
        try bench.rejoin(1)
        bench.settle()
        #expect(isWhole(bench))
        takeOffline(1, bench)
        try rejoin(bench, old)
        #expect(bench.regionsCopied(to: 1) == Array(0..<64) && isWhole(bench))
    }

    @Test func anotherDiskInItsPlaceGetsEverything() throws {
        let bench = try pair()
        bench.rest()
        takeOffline(1, bench)
        bench.write(regions: [7])
        let layout = try Disk.layout(regionBytes: 64 << 10)
        bench.clearTrace()
        bench.command(
            .join(PlexIndex(1), Attachment(uuid: plexUUID(9), layout: layout, sequence: 0, basis: .everything("new"))))
        bench.settle()
        #expect(bench.regionsCopied(to: 1) == Array(0..<64) && isWhole(bench))
    }

    @Test func diskThatWasWrittenToElsewhereGetsThatBackToo() throws {
        let bench = try pair()
        bench.rest()
        takeOffline(1, bench)
        bench.write(regions: [7])
        // Its own bitmap says that a write to region 50 was under way when it left.
        let record = try #require(bench.recorded(1))
        var image = try #require(bench.disks[1])
        image.setPage(sheet: 0, regions: [50], sequence: 5000, of: record)
        try rejoin(bench, image)
        #expect(bench.regionsCopied(to: 1) == [7, 50] && isWhole(bench))
    }
}
