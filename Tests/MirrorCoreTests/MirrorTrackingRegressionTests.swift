import MirrorFormat
import Testing

@testable import MirrorCore

/// Holes that were found in the counting of missed writes. 64 regions of 64 KiB.
@Suite struct MirrorTrackingRegressionTests {
    private static let region: UInt64 = 64 << 10

    /// Plex 1 is flushed, and leaves while the bit of region 7 is on its way into the map of plex 2. Its own map knew
    /// nothing of region 7: true for its disk as it left, not for one that was set back to before the flush.
    @Test func plexThatLeavesWhileBitsMoveMissesThemToo() throws {
        let bench = try MirrorBench(freshRecord([.inSync, .inSync, .inSync], regionBytes: Self.region))
        bench.write(regions: [5])
        bench.rest()
        bench.command(.takeOffline(PlexIndex(2)))
        bench.settle()
        let snapshot = try #require(bench.disks[1])
        bench.write(regions: [7, 30])
        bench.tick(afterMilliseconds: 5000)
        bench.settle()
        bench.tick(afterMilliseconds: 5000)
        bench.settle(holding: { $0.isPage && $0.plex == 0 })
        #expect(bench.waiting(.writeMetadata).count == 2 && bench.intent(0) == [7, 30])
        bench.send(1, .write, 30 * Self.region)
        bench.settle(holding: { $0.isPage && $0.plex == 0 }, failing: { $0.plex == 1 ? .media : nil })
        bench.settle()
        bench.rest()
        #expect(bench.intent(0).isEmpty && bench.record.inSync == set(0))
        bench.replaceDisk(1, with: snapshot)
        bench.clearTrace()
        try bench.rejoin(1)
        bench.settle()
        #expect(Set([7, 30]).isSubset(of: bench.regionsCopied(to: 1)) && bench.recorded(1)?.inSync == set(0, 1))
    }

    /// A note of what is copied is being taken when a write reaches the plex under rebuild and fails on its source:
    /// the region has to be copied again, and stays in the map.
    @Test func regionThatIsToBeCopiedAgainStaysInTheMapThatIsBeingNoted() throws {
        var limits = Limits()
        limits.resyncWindowsIdle = 1
        let bench = try MirrorBench(freshRecord(regionBytes: Self.region), limits: limits)
        bench.write(regions: [5])
        bench.rest()
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        bench.write(regions: [8, 20, 40])
        bench.rest()
        try bench.rejoin(1)
        func isHeld(_ operation: MirrorBench.Operation) -> Bool { operation.offset == 20 * Self.region }
        bench.settle(holding: isHeld)
        bench.send(2, .write, 8 * Self.region)
        bench.settle(holding: isHeld)
        bench.tick(afterMilliseconds: 5000)
        if bench.waiting(.flush).isEmpty { bench.tick(afterMilliseconds: 5000) }
        bench.settle(holding: { isHeld($0) || $0.kind == .flush })
        #expect(bench.waiting(.flush).map(\.plex) == [0, 1] && bench.missed(1) == [8, 20, 40])
        bench.send(1, .write, 8 * Self.region)
        bench.settle(
            holding: { isHeld($0) || $0.kind == .flush },
            failing: { $0.kind == .write && $0.plex == 0 && $0.offset == 8 * Self.region ? .media : nil })
        #expect(bench.replies[1] == .ioError)
        bench.settle(holding: isHeld)
        #expect(bench.missed(1) == [8, 20, 40])
    }

    /// The numbers of the two sides of a split are not comparable: the loser's may be high although its disk was set
    /// back to before it joined.
    @Test func loserWhoseRebuildWasCutOffAndWhoseDiskWasSetBackGetsEverything() throws {
        var limits = Limits()
        limits.resyncWindowsIdle = 1
        let bench = try MirrorBench(freshRecord(regionBytes: Self.region), limits: limits)
        bench.write(regions: [5])
        bench.rest()
        let kept = try bench.restarted(without: set(1))
        var other = try bench.restarted(without: set(0))
        kept.settle()
        kept.write(regions: [7, 20, 50])
        kept.rest()
        // The other side restarts often, and so uses up many numbers.
        for _ in 0..<8 {
            other.settle()
            other.write(regions: [40])
            other.rest()
            other.command(.stop)
            other.settle()
            other = try other.restarted(without: set(0))
        }
        let before = try #require(other.disks[1])
        kept.replaceDisk(1, with: before)
        try kept.rejoin(1)
        kept.settle(holding: { $0.kind == .write && $0.offset == 50 * Self.region })
        for _ in 0..<2 {
            kept.tick(afterMilliseconds: 5000)
            kept.settle(holding: { $0.kind == .write && $0.offset == 50 * Self.region })
        }
        #expect(kept.missed(1) == [50])
        kept.settle(failing: { $0.kind == .write && $0.offset == 50 * Self.region ? .media : nil })
        kept.replaceDisk(1, with: before)
        kept.clearTrace()
        try kept.rejoin(1)
        kept.settle()
        #expect(Set([7, 20, 40, 50]).isSubset(of: kept.regionsCopied(to: 1)))
    }

    @Test func sideThatBeganFromAnEarlierStateGetsEverything() throws {
        let bench = try MirrorBench(freshRecord(regionBytes: Self.region))
        bench.write(regions: [5])
        bench.rest()
        let snapshot = try #require(bench.disks[1])
        bench.write(regions: [9])
        bench.rest()
        let kept = try bench.restarted(without: set(1))
        bench.replaceDisk(1, with: snapshot)
        let other = try bench.restarted(without: set(0))
        kept.settle()
        other.settle()
        other.write(regions: [40])
        other.rest()
        kept.replaceDisk(1, with: other.disks[1])
        kept.clearTrace()
        try kept.rejoin(1)
        kept.settle()
        #expect(kept.regionsCopied(to: 1) == Array(0..<64) && kept.recorded(1)?.inSync == set(0, 1))
    }

    /// Nothing that our software writes, but it carries a good checksum: nobody may trust it with offsets.
    @Test func diskWithOtherRegionsThanTheMirrorsIsNotUsed() throws {
        let record = freshRecord(regionBytes: Self.region).changed { $0.epoch = 5 }
        let other = freshRecord(regionBytes: 1 << 20)
        let assembly = try #require(
            assemble([try foundWithPages(0, record), try foundWithPages(1, other)], options: .degraded).assembly)
        #expect(!assembly.participants.contains(PlexIndex(1)) && assembly.missing == set(1))
        let bench = try MirrorBench(freshRecord([.inSync, .failed], regionBytes: Self.region), present: set(0))
        let id = bench.command(
            .join(
                PlexIndex(1),
                Attachment(
                    uuid: plexUUID(1), layout: try Disk.layout(regionBytes: 1 << 20), sequence: 1,
                    basis: .everything("it is new"))))
        #expect(bench.answers[id]?.isRefused == true && bench.pending.isEmpty)
    }
}

extension AssemblyOptions {
    fileprivate static var degraded: AssemblyOptions {
        var options = AssemblyOptions()
        options.allowDegraded = true
        return options
    }
}
