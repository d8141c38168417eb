/// What one area of the private part of a disk holds. Raw values are on disk: never renumber.
package enum AreaKind: UInt32, Sendable, CaseIterable, BitwiseCopyable {
    case superblocks = 1
    case eventLog = 2
    case remapTableA = 3
    case remapTableB = 4
    case intentBitmap = 5
    case missedWriteMaps = 6
    case sparePool = 7
}

/// A stretch of a disk, in bytes; both numbers are multiples of 4 KiB.
package struct Area: Sendable, Hashable, BitwiseCopyable {
    package var kind: AreaKind
    package var offset: UInt64
    package var length: UInt64
    package var end: UInt64 { offset + length }

    package init(kind: AreaKind, offset: UInt64, length: UInt64) {
        self.kind = kind
        self.offset = offset
        self.length = length
    }
}

package enum LayoutError: Error, Equatable {
    /// `neededBytes` is the smallest disk that can carry the wished data size.
    case diskTooSmall(diskBytes: UInt64, neededBytes: UInt64)
    case regionSizeInvalid(UInt64)
}

/// Where everything lies on one disk: user data at offset 0, the private area at the tail.
///
///     data | (gap) | spare pool | missed-write maps | intent bitmap | remap A, B | event log | superblocks
///
/// Every area is a multiple of 4 KiB and starts at one. The gap exists where the disk is larger than the
/// smallest disk of its mirror. 1 TiB with 1 MiB regions: bitmap 33 pages of 32,256 bits = 132 KiB.
package struct Layout: Sendable, Equatable {
    package static let blockBytes: UInt64 = 4096
    package static let superblockAreaBytes: UInt64 = 64 << 10
    package static let superblockCopies = 4
    package static let superblockSpacingBytes: UInt64 = 16 << 10
    package static let missedWriteMapCount: UInt64 = 7
    package static let minimumRegionBytes: UInt64 = 64 << 10
    package static let maximumRegionBytes: UInt64 = 64 << 20
    package static let defaultRegionBytes: UInt64 = 1 << 20
    /// The finest region that the format carries; `create` makes none below `minimumRegionBytes`.
    package static let finestRegionBytes: UInt64 = 4096
    /// 2^24 bits are 2 MiB for the bitmap and 14 MiB for the maps, in memory too: 1 TiB at 64 KiB, 16 TiB at 1 MiB.
    package static let maximumRegions: UInt64 = 1 << 24
    /// 4 KiB less the page header of 64 bytes, in bits.
    package static let bitsPerBitmapPage = UInt64(BitmapPage.bitCount)
    package static let minimumDataBytes: UInt64 = 1 << 20

    package let diskBytes: UInt64
    package let dataBytes: UInt64
    package let regionBytes: UInt64
    package let areas: [Area]

    package var regionCount: UInt64 { (dataBytes + regionBytes - 1) / regionBytes }

    package func area(_ kind: AreaKind) -> Area? { areas.first { $0.kind == kind } }

    /// Byte offset on the disk of superblock copy 0 through 3.
    package static func superblockOffset(copy: Int, diskBytes: UInt64) -> UInt64 {
        precondition(copy >= 0 && copy < superblockCopies)
        return usableBytes(ofDisk: diskBytes) - superblockAreaBytes + UInt64(copy) * superblockSpacingBytes
    }

    /// A disk is used up to its last whole 4 KiB block.
    package static func usableBytes(ofDisk diskBytes: UInt64) -> UInt64 { diskBytes & ~(blockBytes - 1) }

    /// The largest data size that a disk can carry; nil if it can carry none.
    package static func capacity(ofDisk diskBytes: UInt64, regionBytes: UInt64?, spareBytes: UInt64?) -> UInt64? {
        let usable = usableBytes(ofDisk: diskBytes)
        func fits(_ blocks: UInt64) -> Bool {
            let dataBytes = blocks * blockBytes
            let region = regionBytes ?? defaultRegion(forData: dataBytes)
            guard isRegion(region), dataBytes / region < maximumRegions else { return false }
            return neededBytes(dataBytes: dataBytes, regionBytes: region, spareBytes: spareBytes).map { $0 <= usable }
                ?? false
        }
        // More data needs more private bytes, so bisect; 52 steps for 2^64 bytes. Where the default region
        // doubles the need falls by some pages: even there one block more than the result does not fit.
        var low = minimumDataBytes / blockBytes
        var high = usable / blockBytes
        guard low < high, fits(low) else { return nil }
        while high - low > 1 {
            let middle = low + (high - low) / 2
            if fits(middle) { low = middle } else { high = middle }
        }
        return low * blockBytes
    }

    /// - Parameters:
    ///   - diskBytes: size of the disk.
    ///   - dataBytes: size of the mirror; a multiple of 4 KiB.
    ///   - regionBytes: power of two, 64 KiB through 64 MiB; nil: by rule.
    ///   - spareBytes: nil: by rule, max(4 MiB, 0.02 % of the data).
    /// - Throws: `LayoutError`.
    package init(diskBytes: UInt64, dataBytes: UInt64, regionBytes: UInt64?, spareBytes: UInt64?) throws(LayoutError) {
        try self.init(
            diskBytes: diskBytes, dataBytes: dataBytes, region: try Self.region(regionBytes, forData: dataBytes),
            spareBytes: spareBytes, bitsPerPage: Self.bitsPerBitmapPage)
    }

    /// Of a disk that joins a mirror: the spare pool by rule, or as much of it as the disk has room for.
    ///
    /// - Throws: `LayoutError`, if it is too small even without one.
    package init(joining diskBytes: UInt64, dataBytes: UInt64, regionBytes: UInt64) throws(LayoutError) {
        let least = try Layout(diskBytes: diskBytes, dataBytes: dataBytes, regionBytes: regionBytes, spareBytes: 0)
        let room = (least.areas.first?.offset ?? dataBytes) - dataBytes
        try self.init(
            diskBytes: diskBytes, dataBytes: dataBytes, regionBytes: regionBytes,
            spareBytes: min(room, Self.defaultSpares(forData: dataBytes)))
    }

    /// For the simulator, which needs many regions and several pages on a disk of some blocks.
    package init(
        tinyDisk diskBytes: UInt64, dataBytes: UInt64, regionBytes: UInt64, spareBytes: UInt64 = 0, bitsPerPage: UInt64
    ) throws(LayoutError) {
        try self.init(
            diskBytes: diskBytes, dataBytes: dataBytes, region: regionBytes, spareBytes: spareBytes,
            bitsPerPage: bitsPerPage)
    }

    private init(
        diskBytes: UInt64, dataBytes: UInt64, region: UInt64, spareBytes: UInt64?, bitsPerPage: UInt64
    ) throws(LayoutError) {
        let usable = Self.usableBytes(ofDisk: diskBytes)
        let needed = Self.neededBytes(
            dataBytes: dataBytes, regionBytes: region, spareBytes: spareBytes, bitsPerPage: bitsPerPage)
        guard let needed, dataBytes % Self.blockBytes == 0, usable >= needed else {
            throw .diskTooSmall(diskBytes: diskBytes, neededBytes: needed ?? .max)
        }
        var offset = usable - (needed - dataBytes)
        var areas: [Area] = []
        for (kind, length) in Self.privateLengths(
            dataBytes: dataBytes, regionBytes: region, spareBytes: spareBytes, bitsPerPage: bitsPerPage)
        {
            areas.append(Area(kind: kind, offset: offset, length: length))
            offset += length
        }
        self.diskBytes = diskBytes
        self.dataBytes = dataBytes
        self.regionBytes = region
        self.areas = areas
    }

    /// The smallest disk that carries so much data.
    ///
    /// - Throws: `LayoutError.regionSizeInvalid`; nil: the wishes are beyond all disks.
    package static func diskBytes(
        forData dataBytes: UInt64, regionBytes: UInt64?, spareBytes: UInt64?
    ) throws(LayoutError) -> UInt64? {
        neededBytes(
            dataBytes: dataBytes, regionBytes: try region(regionBytes, forData: dataBytes), spareBytes: spareBytes)
    }

    private static func region(_ wish: UInt64?, forData dataBytes: UInt64) throws(LayoutError) -> UInt64 {
        let region = wish ?? defaultRegion(forData: dataBytes)
        guard isRegion(region), dataBytes / region < maximumRegions else { throw .regionSizeInvalid(region) }
        return region
    }

    /// Rebuilds the layout that a superblock describes.
    init(diskBytes: UInt64, dataBytes: UInt64, regionBytes: UInt64, areas: [Area]) {
        self.diskBytes = diskBytes
        self.dataBytes = dataBytes
        self.regionBytes = regionBytes
        self.areas = areas
    }

    /// 1 MiB, or coarser so that there are at most 2^20 regions (a bitmap of 128 KiB): 64 TiB reach the
    /// ceiling of 64 MiB.
    package static func defaultRegion(forData dataBytes: UInt64) -> UInt64 {
        var region = defaultRegionBytes
        while region < maximumRegionBytes, dataBytes / region > 1 << 20 { region <<= 1 }
        return region
    }

    /// Whether a superblock may claim this: the number of regions bounds what a reader allocates.
    static func canRead(regionBytes: UInt64, dataBytes: UInt64) -> Bool {
        regionBytes.nonzeroBitCount == 1 && regionBytes >= finestRegionBytes && regionBytes <= maximumRegionBytes
            && dataBytes > 0 && dataBytes / regionBytes < maximumRegions
    }

    private static func isRegion(_ bytes: UInt64) -> Bool {
        bytes.nonzeroBitCount == 1 && bytes >= minimumRegionBytes && bytes <= maximumRegionBytes
    }

    /// Data and private area together; nil where a wish is beyond 2^62 bytes: the sums could overflow.
    private static func neededBytes(
        dataBytes: UInt64, regionBytes: UInt64, spareBytes: UInt64?, bitsPerPage: UInt64 = bitsPerBitmapPage
    ) -> UInt64? {
        guard dataBytes <= 1 << 62, spareBytes ?? 0 <= 1 << 62 else { return nil }
        return privateLengths(
            dataBytes: dataBytes, regionBytes: regionBytes, spareBytes: spareBytes, bitsPerPage: bitsPerPage
        )
        .reduce(dataBytes) { $0 + $1.1 }
    }

    /// The areas from the lowest offset to the end of the disk.
    private static func privateLengths(
        dataBytes: UInt64, regionBytes: UInt64, spareBytes: UInt64?, bitsPerPage: UInt64
    ) -> [(AreaKind, UInt64)] {
        let regions = (dataBytes + regionBytes - 1) / regionBytes
        let bitmap = max(1, (regions + bitsPerPage - 1) / bitsPerPage) * blockBytes
        let isSmall = dataBytes < 1 << 30
        let remap: UInt64 = isSmall ? 16 << 10 : 256 << 10
        let log: UInt64 = isSmall ? 64 << 10 : 1 << 20
        let spare = roundUp(spareBytes ?? defaultSpares(forData: dataBytes))
        return [
            (.sparePool, spare), (.missedWriteMaps, bitmap * missedWriteMapCount), (.intentBitmap, bitmap),
            (.remapTableA, remap), (.remapTableB, remap), (.eventLog, log), (.superblocks, superblockAreaBytes),
        ]
    }

    private static func defaultSpares(forData dataBytes: UInt64) -> UInt64 { max(4 << 20, dataBytes / 5000) }

    private static func roundUp(_ bytes: UInt64) -> UInt64 { (bytes + blockBytes - 1) & ~(blockBytes - 1) }

    /// Where page `index` of sheet 0 (the intent bitmap) through 7 (missed-write map 6) lies on the disk.
    package func pageOffset(sheet: Int, index: Int) -> UInt64 {
        guard let bitmap = area(.intentBitmap), let maps = area(.missedWriteMaps) else {
            preconditionFailure("a layout without bitmap is not sound")
        }
        precondition(UInt64(index) < bitmap.length / Self.blockBytes && UInt64(sheet) <= Self.missedWriteMapCount)
        let page = UInt64(index) * Self.blockBytes
        return sheet == 0 ? bitmap.offset + page : maps.offset + UInt64(sheet - 1) * bitmap.length + page
    }

    /// The maps are as long as seven bitmaps, and the bitmap has a bit for each region.
    var hasRoomForMaps: Bool {
        guard let bitmap = area(.intentBitmap), let maps = area(.missedWriteMaps) else { return false }
        let pages = (regionCount + Self.bitsPerBitmapPage - 1) / Self.bitsPerBitmapPage
        return bitmap.length / Self.blockBytes >= pages && maps.length / Self.missedWriteMapCount == bitmap.length
            && maps.length % Self.missedWriteMapCount == 0
    }

    /// Whether every area lies behind the data, on the disk, aligned, and apart from all others. A decoded
    /// superblock is trusted only if this holds.
    package var isSound: Bool {
        guard dataBytes % Self.blockBytes == 0, dataBytes <= diskBytes else { return false }
        let sorted = areas.filter { $0.length > 0 }.sorted { $0.offset < $1.offset }
        var end = dataBytes
        for area in sorted {
            guard area.offset % Self.blockBytes == 0, area.length % Self.blockBytes == 0, area.offset >= end,
                area.length <= Self.usableBytes(ofDisk: diskBytes),
                area.offset <= Self.usableBytes(ofDisk: diskBytes) - area.length
            else { return false }
            end = area.end
        }
        return Set(areas.map(\.kind)).count == areas.count
    }
}
