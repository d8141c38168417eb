import TestSupport
import Testing

@testable import MirrorFormat

private let diskSizes: [UInt64] = {
    var random = XorShift(seed: 0x1A40)
    var sizes: [UInt64] = []
    for shift in UInt64(24)...44 {
        let power = UInt64(1) << shift
        sizes += [power, power + 1, power - 1, power + 512, power + 4096, power + (5 << 20)]
        sizes.append(UInt64.random(in: power..<power * 2, using: &random))
    }
    return sizes.filter { $0 >= 16 << 20 && $0 <= 16 << 40 }
}()
private let regionSizes: [UInt64?] = [nil, 64 << 10, 1 << 20, 4 << 20, 64 << 20]
private let spareSizes: [UInt64?] = [nil, 0, 1, 4096, 5000, 64 << 20]

@Suite struct LayoutTests {
    /// The order of the documented picture.
    private static let order: [AreaKind] = [
        .sparePool, .missedWriteMaps, .intentBitmap, .remapTableA, .remapTableB, .eventLog, .superblocks,
    ]

    @Test(arguments: diskSizes) func areasAreDisjointAlignedAndBehindTheDataAtTheEnd(disk: UInt64) throws {
        for region in regionSizes {
            for spare in spareSizes {
                guard let data = Layout.capacity(ofDisk: disk, regionBytes: region, spareBytes: spare) else { continue }
                for data in [data, data / 2 & ~4095, 1 << 20] {
                    let layout = try Layout(diskBytes: disk, dataBytes: data, regionBytes: region, spareBytes: spare)
                    #expect(layout.isSound && layout.areas.map(\.kind) == Self.order)
                    var end = data
                    for area in layout.areas {
                        #expect(area.offset % 4096 == 0 && area.length % 4096 == 0 && area.offset >= end)
                        end = area.end
                    }
                    #expect(end == disk & ~4095)
                    try checkSizes(of: layout, spare: spare)
                }
            }
        }
    }

    private func checkSizes(of layout: Layout, spare: UInt64?) throws {
        let bitmap = try #require(layout.area(.intentBitmap))
        #expect(bitmap.length / 4096 * Layout.bitsPerBitmapPage >= layout.regionCount)
        #expect(layout.area(.missedWriteMaps)?.length == 7 * bitmap.length)
        #expect(layout.area(.superblocks)?.offset == Layout.superblockOffset(copy: 0, diskBytes: layout.diskBytes))
        #expect(layout.area(.superblocks)?.length == 64 << 10)
        #expect((layout.area(.sparePool)?.length ?? 0) >= spare ?? max(4 << 20, layout.dataBytes / 5000))
        #expect((layout.area(.eventLog)?.length ?? 0) % UInt64(EventRecord.byteCount * EventRecord.perBlock) == 0)
    }

    @Test(arguments: diskSizes) func capacityFitsAndOneBlockMoreDoesNot(disk: UInt64) throws {
        for region in regionSizes {
            for spare in spareSizes {
                guard let data = Layout.capacity(ofDisk: disk, regionBytes: region, spareBytes: spare) else {
                    #expect(disk < 80 << 20, "no capacity on \(disk)")
                    continue
                }
                #expect(data % 4096 == 0 && data >= Layout.minimumDataBytes)
                let layouts = [data, data + 4096].map {
                    try? Layout(diskBytes: disk, dataBytes: $0, regionBytes: region, spareBytes: spare)
                }
                let (fits, isLargest) = (layouts[0] != nil, layouts[1] == nil)
                #expect(fits && isLargest, "disk \(disk) region \(region ?? 0) spare \(spare ?? 0) data \(data)")
            }
        }
    }

    @Test(arguments: [0, 1, 4095, 65_535, 65_536, 1 << 20, 5 << 20] as [UInt64])
    func diskTooSmallForAnyDataHasNoCapacity(disk: UInt64) {
        #expect(Layout.capacity(ofDisk: disk, regionBytes: nil, spareBytes: nil) == nil)
    }

    /// A disk that is as large as one without a spare pool can join it, and one that is larger gets what it has room for.
    @Test(arguments: diskSizes) func joiningDiskGetsTheSparePoolThatFits(disk: UInt64) throws {
        let data = try #require(Layout.capacity(ofDisk: disk, regionBytes: 1 << 20, spareBytes: 0))
        let byRule = (max(4 << 20, data / 5000) + 4095) & ~4095
        for more in [0, 4096, 1 << 20, byRule - 4096, byRule, byRule + 4096, 1 << 40] {
            let layout = try Layout(joining: disk + more, dataBytes: data, regionBytes: 1 << 20)
            #expect(layout.isSound && layout.areas.map(\.kind) == Self.order)
            let spares = try #require(layout.area(.sparePool)).length
            // The data is less than a block short of all that the disk could carry.
            #expect(spares <= byRule && spares >= min(more & ~4095, byRule) && spares <= min(more + 8192, byRule))
        }
        #expect(throws: LayoutError.self) {
            try Layout(joining: disk - 8192, dataBytes: data, regionBytes: 1 << 20)
        }
    }

    @Test(arguments: diskSizes) func errorNamesTheSmallestDiskThatWouldDo(disk: UInt64) throws {
        let data = disk & ~4095
        do throws(LayoutError) {
            _ = try Layout(diskBytes: disk, dataBytes: data, regionBytes: nil, spareBytes: nil)
            Issue.record("no private area on \(disk)")
        } catch {
            guard case .diskTooSmall(let named, let needed) = error else {
                Issue.record("\(error)")
                return
            }
            #expect(named == disk)
            let layout = try Layout(diskBytes: needed, dataBytes: data, regionBytes: nil, spareBytes: nil)
            #expect(layout.areas.first?.offset == data)
            #expect(throws: LayoutError.diskTooSmall(diskBytes: needed - 1, neededBytes: needed)) {
                try Layout(diskBytes: needed - 1, dataBytes: data, regionBytes: nil, spareBytes: nil)
            }
        }
    }

    @Test(arguments: [0, 1, 4096, 65_535, 65_537, 96 << 10, 128 << 20] as [UInt64])
    func regionThatIsNoPowerOfTwoInBoundsIsRejected(region: UInt64) {
        #expect(throws: LayoutError.regionSizeInvalid(region)) {
            try Layout(diskBytes: 1 << 30, dataBytes: 1 << 20, regionBytes: region, spareBytes: nil)
        }
    }

    @Test func sizesBeyondAllBoundsAreErrorsNotTraps() {
        for data in [UInt64.max & ~4095, UInt64.max - (1 << 22) + 1, 1 << 63] {
            for spare in [nil, 0, UInt64.max, UInt64.max - 4096, 1 << 63] as [UInt64?] {
                #expect(throws: LayoutError.self) {
                    try Layout(diskBytes: 1 << 40, dataBytes: data, regionBytes: nil, spareBytes: spare)
                }
            }
        }
        #expect(Layout.capacity(ofDisk: 1 << 40, regionBytes: nil, spareBytes: .max) == nil)
        #expect(Layout.capacity(ofDisk: 1 << 40, regionBytes: nil, spareBytes: 1 << 40) == nil)
        #expect(Layout.capacity(ofDisk: 1 << 40, regionBytes: 0, spareBytes: nil) == nil)
    }

    @Test func defaultRegionGrowsSoThatThereAreAtMostAMillion() {
        #expect(Layout.defaultRegion(forData: 1 << 20) == 1 << 20)
        #expect(Layout.defaultRegion(forData: 1 << 40) == 1 << 20)
        #expect(Layout.defaultRegion(forData: 2 << 40) == 2 << 20)
        #expect(Layout.defaultRegion(forData: 64 << 40) == 64 << 20)
        #expect(Layout.defaultRegion(forData: 1 << 50) == 64 << 20)
    }

    @Test func regionsBeyondTheMaximumAreRejectedAndNeverProposed() throws {
        // 2^24 regions of 64 KiB are 1 TiB.
        let most = Layout.maximumRegions * (64 << 10)
        #expect(throws: LayoutError.regionSizeInvalid(64 << 10)) {
            try Layout(diskBytes: 2 << 40, dataBytes: most, regionBytes: 64 << 10, spareBytes: nil)
        }
        let layout = try Layout(diskBytes: 2 << 40, dataBytes: most - 4096, regionBytes: 64 << 10, spareBytes: nil)
        #expect(layout.regionCount == Layout.maximumRegions)
        #expect(Layout.capacity(ofDisk: 2 << 40, regionBytes: 64 << 10, spareBytes: nil) == most - 4096)
        #expect(Layout.canRead(regionBytes: 64 << 10, dataBytes: most - 4096))
        #expect(!Layout.canRead(regionBytes: 64 << 10, dataBytes: most))
    }

    @Test(arguments: [nil, 64 << 10] as [UInt64?]) func pagesOfAllSheetsLieOneAfterTheOtherInTheirAreas(
        region: UInt64?
    ) throws {
        let layout = try Layout(diskBytes: 1 << 34, dataBytes: 1 << 33, regionBytes: region, spareBytes: nil)
        let bitmap = try #require(layout.area(.intentBitmap))
        let maps = try #require(layout.area(.missedWriteMaps))
        let pages = Int(bitmap.length / 4096)
        #expect(pages == (region == nil ? 1 : 5))
        #expect(
            (0..<pages).map { layout.pageOffset(sheet: 0, index: $0) }
                == (0..<pages).map { bitmap.offset + UInt64($0) * 4096 })
        let inMaps = (1...7).flatMap { sheet in (0..<pages).map { layout.pageOffset(sheet: sheet, index: $0) } }
        #expect(inMaps == (0..<7 * pages).map { maps.offset + UInt64($0) * 4096 })
        #expect((inMaps.last ?? 0) + 4096 == maps.end)
    }

    @Test func tinyDiskHasSeveralPagesOnFewBlocks() throws {
        let layout = try Layout(tinyDisk: 4 << 20, dataBytes: 600 << 10, regionBytes: 4096, bitsPerPage: 64)
        #expect(layout.isSound && layout.regionCount == 150 && layout.area(.intentBitmap)?.length == 3 * 4096)
        #expect(layout.area(.missedWriteMaps)?.length == 21 * 4096 && layout.hasRoomForMaps)
    }

    @Test func mapsThatAreNotSevenBitmapsLongHaveNoRoom() throws {
        let good = try Layout(diskBytes: 16 << 20, dataBytes: 8 << 20, regionBytes: nil, spareBytes: nil)
        #expect(good.hasRoomForMaps)
        for (kind, length) in [
            (AreaKind.missedWriteMaps, 6 * 4096), (.missedWriteMaps, 7 * 4096 + 6), (.missedWriteMaps, 8 * 4096),
            (.intentBitmap, 0), (.intentBitmap, 8192),
        ] as [(AreaKind, UInt64)] {
            let areas = good.areas.map { $0.kind == kind ? Area(kind: kind, offset: $0.offset, length: length) : $0 }
            let layout = Layout(diskBytes: 16 << 20, dataBytes: 8 << 20, regionBytes: 1 << 20, areas: areas)
            #expect(!layout.hasRoomForMaps, "\(kind) \(length)")
        }
        let areas = good.areas.filter { $0.kind != .missedWriteMaps }
        #expect(!Layout(diskBytes: 16 << 20, dataBytes: 8 << 20, regionBytes: 1 << 20, areas: areas).hasRoomForMaps)
    }

    /// The worked example of the documentation.
    @Test func oneTebibyteHasTheDocumentedSizes() throws {
        let layout = try Layout(diskBytes: 1 << 41, dataBytes: 1 << 40, regionBytes: nil, spareBytes: nil)
        #expect(layout.area(.intentBitmap)?.length == 33 * 4096)
        #expect(layout.area(.missedWriteMaps)?.length == 7 * 33 * 4096)
        #expect(layout.area(.eventLog)?.length == 1 << 20)
        #expect(layout.area(.remapTableA)?.length == 256 << 10 && layout.area(.remapTableB)?.length == 256 << 10)
    }

    @Test func overlappingOrMisplacedAreasAreUnsound() throws {
        let good = try Layout(diskBytes: 16 << 20, dataBytes: 8 << 20, regionBytes: nil, spareBytes: nil)
        for index in good.areas.indices {
            for change in 0..<5 {
                var areas = good.areas
                switch change {
                case 0: areas[index].offset -= 4096 + areas[index].offset - (areas.first?.offset ?? 0)
                case 1: areas[index].length += 512
                case 2: areas[index].length = .max & ~4095
                case 3: areas[index].offset = .max & ~4095
                default: areas[index].kind = areas[(index + 1) % areas.count].kind
                }
                let data = change == 0 ? good.areas[0].offset : good.dataBytes
                let layout = Layout(diskBytes: good.diskBytes, dataBytes: data, regionBytes: 1 << 20, areas: areas)
                #expect(!layout.isSound, "area \(index), change \(change)")
            }
        }
    }
}
