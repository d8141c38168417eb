import MirrorFormat
import Testing

@testable import MirrorCore

/// A delta copy that is cut off: whatever the plex still lacks stays in its map. 64 regions of 64 KiB.
@Suite struct MirrorInterruptedDeltaTests {
    private static let region: UInt64 = 64 << 10

    /// Plex 1 missed regions 8, 20, 40 and 50; its map says so. It is joining: 8 and 20 are copied, the write of 40 is
    /// under way.
    ///
    /// - Parameter dirty: regions that it missed as well, but whose bits are still set.
    private func halfWay(dirty: [Int] = []) throws -> MirrorBench {
        var limits = Limits()
        limits.resyncWindowsIdle = 1
        let bench = try MirrorBench(freshRecord(regionBytes: Self.region), limits: limits)
        bench.write(regions: [5])
        bench.rest()
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        bench.write(regions: [8, 20, 40, 50])
        bench.rest()
        #expect(bench.missed(1) == [8, 20, 40, 50])
        bench.write(regions: dirty)
        bench.tick(afterMilliseconds: 5000)
        #expect(bench.pending.isEmpty && bench.intent(0) == dirty)
        try bench.rejoin(1)
        bench.settle(holding: isTheThird)
        #expect(bench.regionsCopied(to: 1) == [8, 20, 40] && bench.waiting(.write).count == 1)
        return bench
    }

    private func isTheThird(_ operation: MirrorBench.Operation) -> Bool {
        operation.kind == .write && operation.offset == 40 * Self.region && operation.length == Self.region
    }

    /// Time passes, and what was copied so far is flushed and noted.
    private func checkpoint(_ bench: MirrorBench) {
        for _ in 0..<2 {
            bench.tick(afterMilliseconds: 5000)
            bench.settle(holding: isTheThird)
        }
    }

    private func fail(_ bench: MirrorBench) {
        bench.settle(failing: { isTheThird($0) ? .media : nil })
        #expect(bench.recorded(0)?[PlexIndex(1)].role == .failed && bench.released.last == PlexIndex(1))
        bench.clearTrace()
    }

    @Test func plexThatFailsMissesAllThatWasNotNotedAsCopied() throws {
        let bench = try halfWay()
        fail(bench)
        #expect(bench.missed(1) == [8, 20, 40, 50])
        try bench.rejoin(1)
        bench.settle()
        #expect(bench.regionsCopied(to: 1) == [8, 20, 40, 50] && bench.recorded(1)?.inSync == set(0, 1))
    }

    @Test func plexThatFailsAfterANoteMissesTheRest() throws {
        let bench = try halfWay()
        checkpoint(bench)
        #expect(bench.missed(1) == [40, 50] && bench.status().plexes[1].missedRegions == 2)
        fail(bench)
        bench.write(regions: [60])
        try bench.rejoin(1)
        bench.settle()
        #expect(bench.regionsCopied(to: 1) == [40, 50, 60] && bench.recorded(1)?.inSync == set(0, 1))
    }

    @Test func noteIsTakenOnlyAfterAFlushOfThePlexUnderRebuild() throws {
        let bench = try halfWay()
        bench.tick(afterMilliseconds: 5000)
        #expect(bench.waiting(.flush).map(\.plex) == [0, 1])
        bench.settle(holding: { isTheThird($0) || ($0.kind == .flush && $0.plex == 1) })
        #expect(bench.missed(1) == [8, 20, 40, 50])
        bench.settle(holding: isTheThird, failing: { $0.kind == .flush ? .media : nil })
        // Nothing that it was given is believed any more.
        let failed = bench.record[PlexIndex(1)]
        #expect(failed.missedWriteMap == nil && failed.role == .failed)
    }

    /// What is noted as copied is asked for: the witness is on both disks before the note, the note before a bit goes.
    @Test func noteIsTakenWhenBothHaveTheWitnessAndBitsAreClearedWhenBothHaveTheNote() throws {
        let bench = try halfWay(dirty: [60])
        bench.tick(afterMilliseconds: 5000)
        bench.settle(holding: { isTheThird($0) || $0.isPage })
        let slot = Int(try #require(bench.record[PlexIndex(1)].missedWriteMap).slot)
        #expect(bench.pagesWaiting == [0, 0])
        for plex in [0, 1] {
            #expect(bench.missed(1) == [8, 20, 40, 50, 60] && bench.intent(0) == [60] && bench.intent(1) == [60])
            bench.complete(.writeMetadata, on: plex)
        }
        let witness = try #require(bench.page(0, sheet: 0)?.sequence)
        #expect(bench.page(1, sheet: 0)?.sequence == witness && bench.pagesWaiting == [slot + 1, slot + 1])
        for plex in [0, 1] {
            #expect(bench.intent(0) == [60] && bench.intent(1) == [60])
            bench.complete(.writeMetadata, on: plex)
            #expect(bench.missed(1, accordingTo: plex) == [40, 50, 60])
            #expect(bench.page(plex, sheet: slot + 1)?.lastClear == witness)
        }
        #expect(bench.pagesWaiting == [0, 0])
        bench.settle(holding: isTheThird)
        #expect(bench.intent(0).isEmpty && bench.intent(1).isEmpty)
        #expect(bench.page(0, sheet: 0)?.lastClear == witness && bench.page(1, sheet: 0)?.lastClear == witness)
    }

    @Test func regionCopiedAfterTheFlushBeganIsNotNoted() throws {
        let bench = try halfWay()
        bench.tick(afterMilliseconds: 5000)
        #expect(bench.waiting(.flush).map(\.plex) == [0, 1])
        bench.settle(holding: { $0.kind == .flush || $0.offset == 50 * Self.region })
        #expect(bench.regionsCopied(to: 1) == [8, 20, 40])
        bench.settle(holding: { $0.offset == 50 * Self.region })
        #expect(bench.missed(1) == [40, 50])
    }

    /// Any disk of the set may be the only one that is there the next time.
    @Test func serverKilledDuringTheDeltaGoesOnWithTheNotedRest() throws {
        let bench = try halfWay()
        checkpoint(bench)
        let restarted = try bench.restarted()
        restarted.settle()
        #expect(restarted.regionsCopied(to: 1) == [40, 50] && restarted.recorded(1)?.inSync == set(0, 1))
    }

    @Test func serverKilledAtAnyMomentOfTheDeltaLosesSightOfNoRegion() throws {
        let bench = try halfWay()
        var uncopied: Set = [40, 50]
        var moments = 0
        while let next = bench.pending.first {
            if bench.recorded(0)?.inSync == set(0) {
                let restarted = try bench.restarted()
                restarted.settle()
                #expect(uncopied.isSubset(of: restarted.regionsCopied(to: 1)), "after \(moments) operations")
                #expect(restarted.recorded(1)?.inSync == set(0, 1))
            } else {
                #expect(uncopied.isEmpty)
            }
            bench.complete(next.kind, on: Int(next.plex.value), at: next.offset)
            if next.kind == .write, next.length == Self.region { uncopied.remove(Int(next.offset / Self.region)) }
            moments += 1
        }
        #expect(moments > 5 && bench.recorded(1)?.inSync == set(0, 1))
    }

    @Test func plexTakenOfflineDuringItsDeltaMissesWhatIsWrittenThen() throws {
        let bench = try halfWay()
        checkpoint(bench)
        let id = bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        #expect(bench.answers[id]?.isDone == true)
        bench.write(regions: [8])
        bench.rest()
        #expect(bench.missed(1) == [8, 40, 50])
        bench.clearTrace()
        try bench.rejoin(1)
        bench.settle()
        #expect(bench.regionsCopied(to: 1) == [8, 40, 50])
    }

    @Test func serverStartedWithoutThePlexUnderRebuildCountsOn() throws {
        let bench = try halfWay()
        checkpoint(bench)
        let alone = try bench.restarted(without: set(1))
        alone.settle()
        alone.write(regions: [62])
        alone.rest()
        #expect(alone.recorded(0)?[PlexIndex(1)].role == .stale && alone.missed(1) == [40, 50, 62])
        let both = try alone.restarted()
        both.settle()
        #expect(both.regionsCopied(to: 1) == [40, 50, 62] && both.recorded(1)?.inSync == set(0, 1))
    }

    /// A full copy that was cut off goes on where it was noted, too: its map began full.
    @Test func fullCopyThatWasCutOffGoesOnWithTheNotedRest() throws {
        var limits = Limits()
        limits.resyncWindowsIdle = 1
        let bench = try MirrorBench(freshRecord([.inSync, .failed]), present: set(0), limits: limits)
        bench.command(.join(PlexIndex(1), try newDisk()))
        bench.settle(holding: { $0.kind == .write && $0.offset == 2 << 20 })
        for _ in 0..<2 {
            bench.tick(afterMilliseconds: 5000)
            bench.settle(holding: { $0.kind == .write && $0.offset == 2 << 20 })
        }
        #expect(bench.missed(1) == [2, 3])
        let restarted = try bench.restarted()
        restarted.settle()
        #expect(restarted.regionsCopied(to: 1) == [2, 3] && restarted.record.inSync == set(0, 1))
    }
}
