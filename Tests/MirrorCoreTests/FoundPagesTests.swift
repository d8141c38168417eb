import MirrorFormat
import Testing

@testable import MirrorCore

/// 256 regions of 16 KiB in four pages of 64 bits.
@Suite struct FoundPagesTests {
    private static let record = freshRecord(regionBytes: 16 << 10)
    private static let map = MissedWriteMap(slot: 2, id: 77, startsFull: false, epoch: 1, lastClear: 0)
    private static let fullMap = MissedWriteMap(slot: 2, id: 77, startsFull: true, epoch: 1, lastClear: 0)

    private func pages(
        of record: Record = record, _ change: (inout DiskImage) -> Void = { _ in }
    ) throws -> FoundPages {
        try #require(try foundWithPages(0, record, bitsPerPage: 64, change).pages)
    }

    private func list(_ set: RegionSet) -> [Int] { (0..<set.count).filter { set.contains($0) } }

    @Test func pagesAsCreateLeavesThemNameNoRegion() throws {
        let pages = try pages()
        #expect(pages.pagesPerSheet == 4 && pages.regionCount == 256 && pages.damagedPages == 0)
        #expect(pages.intentRegions == 0 && (0..<256).allSatisfy { !pages.isDirty($0) })
        #expect(pages.missedRegions(Self.map) == 0 && pages.sequence == 1 && pages.lastClear == 0)
    }

    @Test func regionsAreThoseOfTheBitsInWhicheverPage() throws {
        let dirty = [0, 63, 64, 130, 255]
        let pages = try pages { image in
            for page in 0..<4 { image.setPage(sheet: 0, page, regions: dirty, of: Self.record) }
        }
        #expect(list(pages.regions(sheet: 0, nil, isClean: false)) == dirty && pages.intentRegions == 5)
        #expect((0..<256).filter { pages.isDirty($0) } == dirty)
    }

    @Test func damagedPageOfTheBitmapCountsAsAllDirtyInItsShareOnly() throws {
        let pages = try pages { $0.damagePage(sheet: 0, 2) }
        #expect(list(pages.regions(sheet: 0, nil, isClean: false)) == Array(128..<192))
        #expect(pages.intentRegions == 64 && pages.isDirty(128) && !pages.isDirty(127) && pages.damagedPages == 1)
        // The record says that no bit was set: nothing is lost with the page.
        #expect(pages.regions(sheet: 0, nil, isClean: true).isEmpty)
    }

    @Test func damagedPageOfAMapCountsAsAllMissedEvenIfTheMirrorIsClean() throws {
        let pages = try pages { $0.damagePage(sheet: 3, 1) }
        for isClean in [false, true] {
            #expect(list(pages.regions(sheet: 3, Self.map, isClean: isClean)) == Array(64..<128))
        }
        #expect(pages.missedRegions(Self.map) == 64)
    }

    /// Nobody wrote the page for this absence: either nothing was missed in its share so far, or all was.
    @Test func pageOfAnotherAbsenceSaysNothing() throws {
        let pages = try pages { image in
            image.setPage(sheet: 3, 0, regions: [1, 2], absence: 76, of: Self.record)
            image.setPage(sheet: 3, 1, regions: [70], absence: 77, of: Self.record)
        }
        #expect(list(pages.regions(sheet: 3, Self.map, isClean: false)) == [70])
        let full = list(pages.regions(sheet: 3, Self.fullMap, isClean: false))
        #expect(full == Array(0..<64) + [70] + Array(128..<256))
    }

    @Test func pageOfThisAbsenceIsBelievedHoweverTheCountBegan() throws {
        let pages = try pages { image in
            for page in 0..<4 { image.setPage(sheet: 3, page, regions: [5], absence: 77, of: Self.record) }
        }
        #expect(list(pages.regions(sheet: 3, Self.map, isClean: false)) == [5])
        #expect(list(pages.regions(sheet: 3, Self.fullMap, isClean: false)) == [5])
    }

    @Test func sequenceIsTheHighestOfAllPagesAndLastClearThatOfTheIntentBitmap() throws {
        let pages = try pages { image in
            image.setPage(sheet: 0, 1, regions: [], sequence: 9, lastClear: 3, of: Self.record)
            image.setPage(sheet: 7, 3, regions: [], sequence: 4, lastClear: 8, of: Self.record)
            image.setPage(sheet: 5, 0, regions: [], sequence: 99, lastClear: 99, of: Self.record)
            image.damagePage(sheet: 5, 0)
        }
        #expect(pages.sequence == 9 && pages.lastClear == 3)
    }

    @Test func whatAMapAsksOfItsDiskIsTheHighestOfItsPagesOfThatAbsence() throws {
        let pages = try pages { image in
            image.setPage(sheet: 0, 0, regions: [], sequence: 40, lastClear: 39, of: Self.record)
            image.setPage(sheet: 3, 0, regions: [], absence: 77, lastClear: 4, of: Self.record)
            image.setPage(sheet: 3, 1, regions: [], absence: 77, lastClear: 6, of: Self.record)
            image.setPage(sheet: 3, 2, regions: [], absence: 76, lastClear: 8, of: Self.record)
            image.setPage(sheet: 3, 3, regions: [], absence: 77, lastClear: 9, of: Self.record)
            image.damagePage(sheet: 3, 3)
            image.setPage(sheet: 4, 0, regions: [], absence: 77, lastClear: 7, of: Self.record)
        }
        #expect(pages.required(by: Self.map) == 6 && pages.required(by: Self.fullMap) == 6)
        let other = MissedWriteMap(slot: 2, id: 75, startsFull: false, epoch: 1, lastClear: 0)
        #expect(pages.required(by: other) == 0)
    }

    @Test func pagesThatWereNotReadAreUnreadable() throws {
        let superblock = try found(0, Self.record, bitsPerPage: 64).superblock
        let pages = FoundPages(of: superblock, bitsPerPage: 64)
        #expect(pages.damagedPages == 32 && pages.intentRegions == 256 && pages.sequence == 0)
        #expect(pages.missedRegions(Self.map) == 256)
    }

    @Test func pageReadAgainAndDamagedByThenIsForgotten() throws {
        let superblock = try found(0, Self.record, bitsPerPage: 64).superblock
        var image = DiskImage(superblock, bitsPerPage: 64)
        image.setPage(sheet: 0, 1, regions: [64, 65], sequence: 5, of: Self.record)
        var pages = image.pages(of: superblock)
        #expect(pages.intentRegions == 2)
        image.damagePage(sheet: 0, 1)
        let bytes = try #require(image.blocks[image.layout.pageOffset(sheet: 0, index: 1)])
        unsafe pages.take(sheet: 0, page: 1, bytes: bytes.span.bytes)
        #expect(pages.intentRegions == 64 && pages.sequence == 1 && pages.word(sheet: 0, 1) == 0)
    }

    @Test func pageOfAnotherMirrorIsUnreadable() throws {
        let other = Self.record.changed { $0.mirror = MirrorUUID(UUID128(high: 1, low: 1)) }
        let pages = try pages { $0.setPage(sheet: 0, 0, regions: [], of: other) }
        #expect(pages.damagedPages == 1 && pages.intentRegions == 64)
    }

    /// The pages of a copy that was broken off are those of the mirror that it left.
    @Test func pagesOfACopyAreReadUnderTheNameOfItsOrigin() throws {
        var image = DiskImage(try found(0, Self.record, bitsPerPage: 64).superblock, bitsPerPage: 64)
        image.setPage(sheet: 0, 0, regions: [3], of: Self.record)
        let copy = Self.record.changed { $0.mirror = MirrorUUID(UUID128(high: 2, low: 2)) }
        let superblock = try found(0, copy, bitsPerPage: 64).superblock
        #expect(image.pages(of: superblock).damagedPages == 32)
        let pages = image.pages(of: superblock, mirror: Self.record.mirror)
        #expect(pages.damagedPages == 0 && pages.intentRegions == 1)
    }

    /// Software that kept no bitmap wrote this superblock: whatever lies there is older.
    @Test func pagesBesideASuperblockThatDoesNotTrackAreUnreadable() throws {
        var superblock = try found(0, Self.record, bitsPerPage: 64).superblock
        let image = DiskImage(superblock, bitsPerPage: 64)
        superblock.tracksWrites = false
        #expect(image.pages(of: superblock).damagedPages == 32)
    }

    @Test func lastPageEndsWithTheLastRegion() throws {
        // 100 regions: 64 in the first page, 36 in the second.
        let record = Self.record.changed { $0.dataBytes = 100 * (16 << 10) }
        let layout = try Disk.layout(dataBytes: record.dataBytes, regionBytes: 16 << 10, bitsPerPage: 64)
        let superblock = Superblock(record: record, plex: plexUUID(0), sequence: 1, layout: layout, writer: .none)
        var image = DiskImage(superblock, bitsPerPage: 64)
        image.damagePage(sheet: 0, 1)
        let pages = image.pages(of: superblock)
        #expect(pages.pagesPerSheet == 2 && pages.intentRegions == 36 && pages.isDirty(99))
        // Bits behind the last region mean nothing.
        image.setPage(sheet: 0, 1, regions: [99, 100, 127], of: record)
        #expect(image.pages(of: superblock).intentRegions == 1)
    }
}
