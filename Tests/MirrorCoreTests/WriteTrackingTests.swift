import MirrorFormat
import Testing

@testable import MirrorCore

/// 150 regions of 4 KiB: pages 0, 1 and 2 of the bitmap, 3 through 5 of map 0, and so on.
@Suite struct WriteTrackingTests {
    private static let pair = set(0, 1)
    private static let map = MissedWriteMap(slot: 0, id: 7, startsFull: false, epoch: 1, lastClear: 0)

    private func tracking() -> WriteTracking {
        WriteTracking(regionBytes: 4096, dataBytes: 600 << 10, bitsPerPage: 64, writesInFlight: 4)
    }

    /// One page to both plexes, from its beginning to its end.
    private func write(_ page: Int, _ tracking: inout WriteTracking, isDurable: Bool = true) {
        tracking.begin(0, page: page, targets: Self.pair, holders: .empty, generation: era(1))
        tracking.writes[0].holders = Self.pair
        tracking.answered(0)
        tracking.end(0, isDurable: isDurable)
    }

    /// The pages that the pair lacks, and that are queued for writing.
    private func stale(_ tracking: WriteTracking) -> [Int] {
        tracking.pages.indices.filter { page in
            let isStale =
                tracking.pages[page].hasChanged || !tracking.pages[page].staleOn.intersection(Self.pair).isEmpty
            #expect(!isStale || tracking.stalePages.contains(page) || tracking.pages[page].isBusy)
            return isStale
        }
    }

    private func list(_ set: RegionSet?) -> [Int]? { set.map { set in (0..<set.count).filter { set.contains($0) } } }

    @Test(
        arguments: [(0, 1, 0..<1), (4095, 1, 0..<1), (4095, 2, 0..<2), (4096, 4096, 1..<2), (0, 614_400, 0..<150)]
            as [(UInt64, UInt64, Range<Int>)])
    func requestTouchesTheRegionsOfItsFirstThroughItsLastByte(offset: UInt64, length: UInt64, regions: Range<Int>) {
        #expect(tracking().regions(offset, length) == regions)
    }

    @Test func bitCountsOnlyWhenItsPageIsOnEveryPlex() {
        var tracking = tracking()
        tracking.insertIntent(3..<5)
        #expect(list(tracking.intent) == [3, 4] && tracking.durable.isEmpty && stale(tracking) == [0])
        write(0, &tracking, isDurable: false)
        #expect(tracking.durable.isEmpty)
        tracking.touch(page: 0)
        write(0, &tracking)
        #expect(list(tracking.durable) == [3, 4] && stale(tracking).isEmpty)
    }

    @Test func bitsThatAreSetAlreadyCostNoPageWrite() {
        var tracking = tracking()
        tracking.insertIntent(3..<5)
        write(0, &tracking)
        tracking.insertIntent(3..<5)
        tracking.insertIntent(4..<5)
        #expect(stale(tracking).isEmpty)
    }

    @Test func rangeOverAPageBoundaryNeedsBothPages() {
        var tracking = tracking()
        tracking.insertIntent(60..<70)
        #expect(stale(tracking) == [0, 1])
        write(0, &tracking)
        #expect(list(tracking.durable) == Array(60..<64) && stale(tracking) == [1])
        write(1, &tracking)
        #expect(list(tracking.durable) == Array(60..<70))
    }

    @Test func bitSetWhileItsPageIsOnItsWayGoesOutWithTheNext() {
        var tracking = tracking()
        tracking.insertIntent(3..<4)
        tracking.begin(0, page: 0, targets: Self.pair, holders: .empty, generation: era(1))
        tracking.insertIntent(9..<10)
        #expect(tracking.nextStalePage(0..<3) == nil, "one write of a page at a time")
        tracking.writes[0].holders = Self.pair
        tracking.answered(0)
        tracking.end(0, isDurable: true)
        #expect(list(tracking.durable) == [3] && tracking.nextStalePage(0..<3) == 0)
        write(0, &tracking)
        #expect(list(tracking.durable) == [3, 9])
    }

    @Test func bitClearedWhileItsPageIsOnItsWayDoesNotCount() {
        var tracking = tracking()
        tracking.insertIntent(3..<4)
        tracking.begin(0, page: 0, targets: Self.pair, holders: .empty, generation: era(1))
        tracking.removeIntent(tracking.intent, witness: 1)
        tracking.writes[0].holders = Self.pair
        tracking.answered(0)
        tracking.end(0, isDurable: true)
        #expect(tracking.durable.isEmpty && stale(tracking) == [0])
    }

    /// The page that clears a bit is on its way when the bit is wanted again.
    @Test func bitWantedAgainDuringItsClearingWaitsForAnotherWrite() {
        var tracking = tracking()
        tracking.insertIntent(3..<4)
        write(0, &tracking)
        tracking.removeIntent(tracking.intent, witness: 1)
        tracking.begin(0, page: 0, targets: Self.pair, holders: .empty, generation: era(1))
        tracking.insertIntent(3..<4)
        tracking.writes[0].holders = Self.pair
        tracking.answered(0)
        tracking.end(0, isDurable: true)
        #expect(tracking.durable.isEmpty && stale(tracking) == [0])
        write(0, &tracking)
        #expect(list(tracking.durable) == [3])
    }

    @Test func whatIsAskedOfADiskIsTheWitnessFromBeforeTheClearing() {
        var tracking = tracking()
        tracking.insertIntent(3..<4)
        write(0, &tracking)
        let mark = tracking.askForWitness()
        #expect(!tracking.isWitnessed(since: mark) && stale(tracking) == [0])
        write(0, &tracking)
        #expect(tracking.isWitnessed(since: mark))
        let witness = tracking.witness
        tracking.removeIntent(tracking.intent, witness: witness)
        tracking.begin(0, page: 0, targets: Self.pair, holders: .empty, generation: era(1))
        let header = tracking.writes[0].header
        // The page that clears need not have arrived: a disk without it shows the bits.
        #expect(header.sequence > header.lastClear && header.lastClear == witness)
        #expect(tracking.isWitnessed(since: mark) && tracking.witness == witness)
    }

    /// A page that some plex has not taken is no witness, nor is one that was on its way already.
    @Test func witnessIsWrittenAfterItWasAskedForAndIsOnAllPlexes() {
        var tracking = tracking()
        tracking.insertIntent(3..<4)
        tracking.begin(0, page: 0, targets: Self.pair, holders: .empty, generation: era(1))
        let mark = tracking.askForWitness()
        tracking.writes[0].holders = Self.pair
        tracking.answered(0)
        tracking.end(0, isDurable: true)
        #expect(!tracking.isWitnessed(since: mark))
        tracking.begin(0, page: 0, targets: Self.pair, holders: .empty, generation: era(1))
        tracking.writes[0].holders = set(0)
        tracking.answered(0)
        tracking.end(0, isDurable: false)
        #expect(!tracking.isWitnessed(since: mark))
        write(0, &tracking)
        #expect(tracking.isWitnessed(since: mark))
    }

    /// Another disk may have taken the number of one that left.
    @Test func pageDoesNotCountForADiskThatLeftMeanwhile() {
        var tracking = tracking()
        tracking.insertIntent(3..<4)
        tracking.begin(0, page: 0, targets: Self.pair, holders: .empty, generation: era(1))
        tracking.writes[0].holders = Self.pair
        tracking.forget(PlexIndex(1))
        tracking.answered(0)
        tracking.end(0, isDurable: true)
        #expect(tracking.pages[0].staleOn.contains(PlexIndex(1)) && !tracking.pages[0].staleOn.contains(PlexIndex(0)))
    }

    @Test func pageThatSomeDisksOnlyLackKeepsItsNumber() {
        var tracking = tracking()
        tracking.insertIntent(3..<4)
        write(0, &tracking)
        let sequence = tracking.pages[0].sequence
        tracking.initialise(PlexIndex(2))
        tracking.begin(0, page: 0, targets: set(2), holders: Self.pair, generation: era(1))
        #expect(tracking.writes[0].header.sequence == sequence)
    }

    @Test func plexUnderRebuildHasTheBitmapWhenItGotAllPagesOfAllSheets() {
        var tracking = tracking()
        tracking.initialise(PlexIndex(1))
        #expect(stale(tracking).count == 24 && !tracking.isInitialised(PlexIndex(1)))
        for page in 0..<24 {
            #expect(!tracking.isInitialised(PlexIndex(1)))
            write(page, &tracking)
        }
        #expect(tracking.isInitialised(PlexIndex(1)) && tracking.isInitialised(PlexIndex(0)))
        tracking.initialise(PlexIndex(1))
        tracking.forget(PlexIndex(1))
        #expect(tracking.isInitialised(PlexIndex(1)))
    }

    @Test func sevenMapsAreAllThatThereAre() {
        var tracking = tracking()
        for slot in UInt8(0)..<7 {
            #expect(tracking.freeSlot == slot)
            tracking.openMap(MissedWriteMap(slot: slot, id: 1, startsFull: false, epoch: 1, lastClear: 0))
        }
        #expect(tracking.freeSlot == nil)
        tracking.closeMap(slot: 4)
        #expect(tracking.freeSlot == 4)
    }

    @Test func mapThatStartsFullNamesAllRegionsWithoutAPageWrite() {
        var tracking = tracking()
        tracking.openMap(MissedWriteMap(slot: 0, id: 7, startsFull: true, epoch: 1, lastClear: 0))
        tracking.openMap(MissedWriteMap(slot: 1, id: 8, startsFull: false, epoch: 1, lastClear: 0))
        #expect(tracking.maps[0]?.population == 150 && tracking.maps[1]?.population == 0)
        #expect(stale(tracking).isEmpty)
    }

    @Test func missedRegionsAreWrittenToThePagesOfTheirMapWithItsNumber() {
        var tracking = tracking()
        tracking.openMap(Self.map)
        var missed = RegionSet(count: 150)
        missed.insert(70)
        tracking.insertMissed(missed, slot: 0)
        #expect(list(tracking.maps[0]) == [70] && stale(tracking) == [4])
        #expect(!tracking.isMapDurable(slot: 0, on: Self.pair))
        tracking.begin(0, page: 4, targets: Self.pair, holders: .empty, generation: era(1))
        let header = tracking.writes[0].header
        #expect(header.sheet == 1 && header.index == 1 && header.absence == 7)
        #expect(tracking.writes[0].snapshot == [1 << 6])
        #expect(!tracking.isMapDurable(slot: 0, on: Self.pair), "it is on its way")
    }

    @Test func mapIsDurableOnThosePlexesThatHaveAllItsPages() {
        var tracking = tracking()
        tracking.openMap(Self.map)
        var missed = RegionSet(count: 150)
        missed.insert(60..<70)
        tracking.insertMissed(missed, slot: 0)
        tracking.begin(0, page: 3, targets: Self.pair, holders: .empty, generation: era(1))
        tracking.writes[0].holders = set(0)
        tracking.answered(0)
        tracking.end(0, isDurable: false)
        write(4, &tracking)
        write(5, &tracking)
        #expect(tracking.isMapDurable(slot: 0, on: set(0)) && !tracking.isMapDurable(slot: 0, on: Self.pair))
        #expect(stale(tracking) == [3])
    }

    @Test func copiedRegionsLeaveTheMapAndTheRestStays() {
        var tracking = tracking()
        tracking.openMap(Self.map)
        var missed = RegionSet(count: 150)
        missed.insert(0..<100)
        tracking.insertMissed(missed, slot: 0)
        for page in 3..<6 { write(page, &tracking) }
        var left = RegionSet(count: 150)
        left.insert(90..<150)
        tracking.keepMissed(left, slot: 0, witness: 7)
        // Never more than there was before. Of other disks nothing is asked.
        #expect(list(tracking.maps[0]) == Array(90..<100) && tracking.required[0] == 7 && tracking.lastClear == 0)
        #expect(stale(tracking) == [3, 4])
        for page in 3..<5 { write(page, &tracking) }
        tracking.keepMissed(left, slot: 0, witness: 6)
        #expect(tracking.required[0] == 7 && stale(tracking).isEmpty)
        tracking.keepMissed(left, slot: 0, witness: 8)
        #expect(tracking.required[0] == 8 && stale(tracking) == [3], "what is asked must be on disk, too")
    }

    @Test func mapThatIsClosedTakesNothing() {
        var tracking = tracking()
        tracking.insertMissed(RegionSet(count: 150, isFull: true), slot: 3)
        tracking.keepMissed(RegionSet(count: 150), slot: 3, witness: 7)
        #expect(stale(tracking).isEmpty && tracking.required[3] == 0)
    }
}
