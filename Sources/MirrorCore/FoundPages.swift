internal import Bytes
package import MirrorFormat

/// What lies in the bitmap areas of one disk: the intent bitmap and the seven missed-write maps, as far as they can
/// be read. The driver feeds the pages; everything it does not feed counts as unreadable.
package struct FoundPages: Sendable {
    /// What a page says about the regions of its share.
    enum Meaning {
        case bits
        case none
        /// Unreadable, damaged, or never written for an absence that starts full.
        case all
    }

    private struct Sheet {
        var words: [UInt64]
        var headers: [BitmapPage?]
    }

    private let mirror: MirrorUUID
    private let isTrusted: Bool
    private let wordsPerPage: Int
    package let regionCount: Int
    private var sheets: [Sheet]
    /// - Parameters:
    ///   - mirror: whose pages they should be; a copy that was broken off has its old mirror's until it is served.
    ///   - bitsPerPage: another number than 32,256 in the simulator only.
    package init(of superblock: Superblock, mirror: MirrorUUID? = nil, bitsPerPage: Int = BitmapPage.bitCount) {
        self.mirror = mirror ?? superblock.record.mirror
        isTrusted = superblock.tracksWrites
        wordsPerPage = bitsPerPage / 64
        regionCount = Int(superblock.layout.regionCount)
        let pages = max(1, (regionCount + bitsPerPage - 1) / bitsPerPage)
        let sheet = Sheet(
            words: Array(repeating: 0, count: (regionCount + 63) / 64), headers: Array(repeating: nil, count: pages))
        sheets = Array(repeating: sheet, count: WriteTracking.sheets)
    }

    package var pagesPerSheet: Int { sheets[0].headers.count }
    package static let sheetCount = WriteTracking.sheets

    /// Takes 4 KiB read from where the page lies; anything else than this very page is left out.
    package mutating func take(sheet: Int, page: Int, bytes: RawSpan) {
        guard isTrusted,
            let header = BitmapPage(decoding: bytes, mirror: mirror, sheet: UInt8(sheet), index: UInt64(page))
        else { return forget(sheet: sheet, page: page) }
        sheets[sheet].headers[page] = header
        let first = page * wordsPerPage
        for word in first..<min(first + wordsPerPage, sheets[sheet].words.count) {
            sheets[sheet].words[word] = BitmapPage.word(word - first, of: bytes)
        }
    }

    private mutating func forget(sheet: Int, page: Int) {
        sheets[sheet].headers[page] = nil
        let first = page * wordsPerPage
        for word in first..<min(first + wordsPerPage, sheets[sheet].words.count) { sheets[sheet].words[word] = 0 }
    }

    /// The highest of all pages: how new the disk is.
    package var sequence: UInt64 {
        sheets.reduce(0) { $1.headers.reduce($0) { max($0, $1?.sequence ?? 0) } }
    }

    /// The era in which the newest page was written.
    package var generation: Generation? {
        sheets.lazy.flatMap(\.headers).compactMap(\.self).max { $0.sequence < $1.sequence }?.generation
    }

    /// What every disk in sync must have: one whose `sequence` is lower was set back.
    package var lastClear: UInt64 { sheets[0].headers.reduce(0) { max($0, $1?.lastClear ?? 0) } }

    /// What the disk that the map counts for must have.
    package func required(by map: MissedWriteMap) -> UInt64 {
        sheets[Int(map.slot) + 1].headers.reduce(0) { $1?.absence == map.id ? max($0, $1?.lastClear ?? 0) : $0 }
    }

    /// Whether the intent bitmap has the region's bit, or can't be read there.
    package func isDirty(_ region: Int) -> Bool {
        guard sheets[0].headers[region / (wordsPerPage * 64)] != nil else { return true }
        return sheets[0].words[region >> 6] >> UInt64(region & 63) & 1 != 0
    }

    package func header(sheet: Int, page: Int) -> BitmapPage? { sheets[sheet].headers[page] }

    package func word(sheet: Int, _ index: Int) -> UInt64 {
        index < sheets[sheet].words.count ? sheets[sheet].words[index] : 0
    }

    func meaning(sheet: Int, page: Int, _ map: MissedWriteMap?, isClean: Bool) -> Meaning {
        guard let header = sheets[sheet].headers[page] else { return sheet == 0 && isClean ? .none : .all }
        guard let map, header.absence != map.id else { return .bits }
        return map.startsFull ? .all : .none
    }

    /// The regions that one sheet of this disk names.
    package func regions(sheet: Int, _ map: MissedWriteMap?, isClean: Bool) -> RegionSet {
        var set = RegionSet(count: regionCount)
        for index in sheets[sheet].words.indices {
            switch meaning(sheet: sheet, page: index / wordsPerPage, map, isClean: isClean) {
            case .bits: set.setWord(index, sheets[sheet].words[index])
            case .none: break
            case .all: set.setWord(index, ~0)
            }
        }
        return set
    }

    // MARK: what a user is told

    /// Bits set in the intent bitmap; unreadable pages count in full.
    package var intentRegions: Int { regions(sheet: 0, nil, isClean: false).population }
    package func missedRegions(_ map: MissedWriteMap) -> Int {
        regions(sheet: Int(map.slot) + 1, map, isClean: false).population
    }
    package var damagedPages: Int { sheets.reduce(0) { $0 + $1.headers.count { $0 == nil } } }
}
