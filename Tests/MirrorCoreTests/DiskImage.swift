import Bytes
import MirrorFormat

@testable import MirrorCore

/// The metadata of one disk, byte for byte: what `create` leaves, what a test changes, what a mirror writes.
struct DiskImage {
    /// Blocks of 4 KiB by their offset on the disk.
    var blocks: [UInt64: [UInt8]] = [:]
    var layout: Layout
    let bitsPerPage: Int

    /// A disk as `create` leaves it: one superblock, and empty pages of the bitmap and all maps.
    init(_ superblock: Superblock, bitsPerPage: Int = BitmapPage.bitCount) {
        layout = superblock.layout
        self.bitsPerPage = bitsPerPage
        write(superblock)
        for sheet in 0..<FoundPages.sheetCount {
            for index in 0..<pagesPerSheet { setPage(sheet: sheet, index, regions: [], of: superblock.record) }
        }
    }

    /// A disk on which nothing lies.
    init(blank layout: Layout, bitsPerPage: Int) {
        self.layout = layout
        self.bitsPerPage = bitsPerPage
    }

    /// The disk of which this was found.
    init(_ found: FoundPlex, bitsPerPage: Int) {
        layout = found.superblock.layout
        self.bitsPerPage = bitsPerPage
        write(found.superblock)
        guard let pages = found.pages else { return }
        for sheet in 0..<FoundPages.sheetCount {
            for index in 0..<pagesPerSheet {
                guard let header = pages.header(sheet: sheet, page: index) else { continue }
                let first = index * bitsPerPage / 64
                let words = (0..<bitsPerPage / 64).map { pages.word(sheet: sheet, first + $0) }
                write(header, words: words, of: found.superblock.record.mirror)
            }
        }
    }

    private var pagesPerSheet: Int { Int((layout.area(.intentBitmap)?.length ?? 0) / Layout.blockBytes) }

    private mutating func write(_ superblock: Superblock) {
        let copies = Superblock.copies(ofSequence: superblock.sequence)
        for copy in [copies.0, copies.1] { write(superblock, copy: copy) }
    }

    mutating func write(_ superblock: Superblock, copy: Int) {
        blocks[Layout.superblockOffset(copy: copy, diskBytes: layout.diskBytes)] = block {
            superblock.encode(copy: copy, into: &$0)
        }
    }

    private mutating func write(_ page: BitmapPage, words: [UInt64], of mirror: MirrorUUID) {
        blocks[layout.pageOffset(sheet: Int(page.sheet), index: Int(page.index))] = block {
            page.encode(mirror: mirror, words: words.span, into: &$0)
        }
    }

    func block(_ fill: (inout MutableRawSpan) -> Void) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: Superblock.byteCount)
        do {
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            fill(&raw)
        }
        return bytes
    }

    // MARK: pages

    /// - Parameter regions: those of the whole mirror that the page names; others are not its own.
    mutating func setPage(
        sheet: Int, _ index: Int = 0, regions: [Int], absence: UInt64 = 0, sequence: UInt64 = 1, lastClear: UInt64 = 0,
        of record: Record
    ) {
        var words = [UInt64](repeating: 0, count: bitsPerPage / 64)
        for region in regions where region / bitsPerPage == index {
            words[region % bitsPerPage / 64] |= 1 << UInt64(region % 64)
        }
        let page = BitmapPage(
            sheet: UInt8(sheet), index: UInt64(index), sequence: sequence, lastClear: lastClear,
            generation: record.generation, absence: absence)
        write(page, words: words, of: record.mirror)
    }

    mutating func damagePage(sheet: Int, _ index: Int = 0) {
        blocks[layout.pageOffset(sheet: sheet, index: index)]?[2000] ^= 0x10
    }

    /// Nil: damaged, or never written.
    func page(sheet: Int, _ index: Int = 0, of mirror: MirrorUUID) -> BitmapPage? {
        guard let bytes = blocks[layout.pageOffset(sheet: sheet, index: index)] else { return nil }
        return unsafe BitmapPage(
            decoding: bytes.span.bytes, mirror: mirror, sheet: UInt8(sheet), index: UInt64(index))
    }

    /// The regions that one sheet names.
    func regions(sheet: Int) -> [Int] {
        (0..<pagesPerSheet).flatMap { index in
            guard let bytes = blocks[layout.pageOffset(sheet: sheet, index: index)] else { return [Int]() }
            return (0..<bitsPerPage).filter { bit in
                unsafe BitmapPage.word(bit / 64, of: bytes.span.bytes) >> UInt64(bit % 64) & 1 != 0
            }.map { index * bitsPerPage + $0 }
        }
    }

    // MARK: as a server reads it

    func scan() -> SuperblockScan {
        unsafe SuperblockScan.scan(area: superblockArea.span.bytes, diskBytes: layout.diskBytes)
    }

    private var superblockArea: [UInt8] {
        let start = Layout.usableBytes(ofDisk: layout.diskBytes) - Layout.superblockAreaBytes
        var area = [UInt8](repeating: 0, count: Int(Layout.superblockAreaBytes))
        for (offset, block) in blocks where offset >= start {
            area.replaceSubrange(Int(offset - start)..<Int(offset - start) + block.count, with: block)
        }
        return area
    }

    /// - Parameter mirror: whose pages they should be; nil: those of the superblock.
    func pages(of superblock: Superblock, mirror: MirrorUUID? = nil) -> FoundPages {
        var pages = FoundPages(of: superblock, mirror: mirror, bitsPerPage: bitsPerPage)
        for sheet in 0..<FoundPages.sheetCount {
            for index in 0..<pages.pagesPerSheet {
                guard let bytes = blocks[layout.pageOffset(sheet: sheet, index: index)] else { continue }
                unsafe pages.take(sheet: sheet, page: index, bytes: bytes.span.bytes)
            }
        }
        return pages
    }

    /// Nil: its superblock says that there is none.
    func remaps(of superblock: Superblock) -> RemapTable? {
        guard superblock.isRemapped else { return nil }
        var table = RemapTable(layout)
        for page in 0..<table.pageCount {
            let first = blocks[layout.remapPageOffset(copy: 0, page: page)] ?? []
            let second = blocks[layout.remapPageOffset(copy: 1, page: page)] ?? []
            unsafe table.take(
                page: page, first.span.bytes, second.span.bytes, plex: superblock.plex,
                blocks: layout.dataBytes / Layout.blockBytes)
        }
        return table
    }

    func scrubLedger(of mirror: MirrorUUID) -> ScrubLedger {
        var ledger = ScrubLedger()
        for page in 0..<ScrubLedger.pageCount {
            guard let bytes = blocks[ScrubLedger.pageOffset(page, diskBytes: layout.diskBytes)] else { continue }
            unsafe ledger.take(page: page, bytes: bytes.span.bytes, mirror: mirror)
        }
        return ledger
    }

    /// Nil: no superblock can be read.
    func found(disk: Int) -> FoundPlex? {
        guard case .found(let superblock) = scan() else { return nil }
        return unsafe FoundPlex(
            disk: disk, superblock: superblock, pages: pages(of: superblock), remaps: remaps(of: superblock),
            copies: SuperblockScan.copies(area: superblockArea.span.bytes, diskBytes: layout.diskBytes))
    }
}
