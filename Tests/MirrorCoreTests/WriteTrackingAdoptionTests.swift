import MirrorFormat
import Testing

@testable import MirrorCore

@Suite struct WriteTrackingAdoptionTests {
    private static let record = freshRecord(regionBytes: 16 << 10)
    private static let map = MissedWriteMap(slot: 2, id: 77, startsFull: false, epoch: 1, lastClear: 0)

    private func adopted(
        isClean: Bool = false, maps: [MissedWriteMap] = [], _ changes: [(inout DiskImage) -> Void]
    ) throws -> WriteTracking {
        var tracking = WriteTracking(
            regionBytes: 16 << 10, dataBytes: Disk.dataBytes, bitsPerPage: 64, writesInFlight: 4)
        let found = try changes.enumerated().map { index, change in
            (PlexIndex(index), try #require(foundWithPages(index, Self.record, bitsPerPage: 64, change).pages))
        }
        tracking.adopt(found, maps: maps, isClean: isClean, time: 1_000_000)
        return tracking
    }

    private func list(_ set: RegionSet?) -> [Int]? { set.map { set in (0..<set.count).filter { set.contains($0) } } }

    @Test func bitsOfAllDisksAreUnitedAndCountWhereAllDisksHaveThem() throws {
        let tracking = try adopted([
            { image in
                image.setPage(sheet: 0, 0, regions: [1], of: Self.record)
                image.setPage(sheet: 0, 1, regions: [64], of: Self.record)
            },
            { image in
                image.setPage(sheet: 0, 0, regions: [2], of: Self.record)
                image.setPage(sheet: 0, 1, regions: [64], of: Self.record)
            },
        ])
        #expect(list(tracking.intent) == [1, 2, 64] && list(tracking.durable) == [64])
        #expect(set(0, 1).isSubset(of: tracking.pages[0].staleOn) && tracking.stalePages.contains(0))
        #expect(!tracking.stalePages.contains(1) && tracking.stalePages.population == 1)
    }

    @Test func damagedPageIsAllDirtyUnlessTheRecordIsClean() throws {
        let damage: (inout DiskImage) -> Void = { $0.damagePage(sheet: 0, 3) }
        let unclean = try adopted([damage, { _ in }])
        #expect(list(unclean.intent) == Array(192..<256) && unclean.durable.isEmpty)
        let clean = try adopted(isClean: true, [damage, { _ in }])
        #expect(clean.intent.isEmpty && list(clean.intent) == [] && clean.stalePages.contains(3), "it is mended")
    }

    @Test func bitsBesideACleanRecordAreBelieved() throws {
        let tracking = try adopted(
            isClean: true, [{ $0.setPage(sheet: 0, 0, regions: [5], of: Self.record) }, { _ in }])
        #expect(list(tracking.intent) == [5])
    }

    @Test func mapsInUseAreUnitedAndOthersIgnored() throws {
        let tracking = try adopted(
            maps: [Self.map],
            [
                { image in
                    image.setPage(sheet: 3, 0, regions: [1], absence: 77, of: Self.record)
                    image.setPage(sheet: 5, 0, regions: [9], absence: 78, of: Self.record)
                },
                { image in
                    image.setPage(sheet: 3, 0, regions: [2], absence: 77, of: Self.record)
                    image.setPage(sheet: 3, 1, regions: [100], absence: 76, of: Self.record)
                },
            ])
        #expect(list(tracking.maps[2]) == [1, 2] && tracking.maps[4] == nil && tracking.maps[0] == nil)
        #expect(tracking.absences == [0, 0, 77, 0, 0, 0, 0])
    }

    @Test func damagedPageOfAMapIsAllMissedEvenIfTheRecordIsClean() throws {
        let tracking = try adopted(isClean: true, maps: [Self.map], [{ $0.damagePage(sheet: 3, 1) }, { _ in }])
        #expect(list(tracking.maps[2]) == Array(64..<128))
    }

    /// Seed 107639: the page that told of the last witness was damaged on the only disk that was not set back, and the
    /// other was believed.
    @Test func noDiskShowsEnoughWhereThePageThatTellsOfTheWitnessIsLost() throws {
        let damage: (inout DiskImage) -> Void = { image in
            image.damagePage(sheet: 0, 2)
            image.damagePage(sheet: 3, 0)
        }
        let lost = try adopted(isClean: true, maps: [Self.map], [damage, damage])
        #expect(lost.lastClear == lost.sequence && lost.required[2] == lost.sequence && lost.sequence >= 1_000_000)
        let found = try adopted(isClean: true, maps: [Self.map], [damage, { _ in }])
        #expect(found.lastClear == 0 && found.required[2] == 0)
    }

    @Test func numbersGoOnBehindAllThatMayHaveBeenUsed() throws {
        let tracking = try adopted([
            { $0.setPage(sheet: 0, 0, regions: [], sequence: 500, lastClear: 400, of: Self.record) },
            { $0.setPage(sheet: 7, 3, regions: [], sequence: 501, lastClear: 450, of: Self.record) },
        ])
        // What a map asks for is asked of one disk only.
        #expect(tracking.sequence > 501 + 1000 && tracking.lastClear == 400)
    }

    @Test func whatAMapAsksIsTheHighestThatAnyDiskOrTheRecordSays() throws {
        let changes: [(inout DiskImage) -> Void] = [
            { $0.setPage(sheet: 3, 0, regions: [], absence: 77, sequence: 20, lastClear: 12, of: Self.record) },
            { image in
                image.setPage(sheet: 3, 1, regions: [], absence: 77, sequence: 21, lastClear: 8, of: Self.record)
                image.setPage(sheet: 3, 2, regions: [], absence: 76, sequence: 22, lastClear: 19, of: Self.record)
            },
        ]
        for (recorded, expected) in [(UInt64(5), UInt64(12)), (15, 15)] {
            let map = MissedWriteMap(slot: 2, id: 77, startsFull: false, epoch: 1, lastClear: recorded)
            let tracking = try adopted(maps: [map], changes)
            #expect(tracking.required == [0, 0, expected, 0, 0, 0, 0] && tracking.lastClear == 0)
        }
    }
}
