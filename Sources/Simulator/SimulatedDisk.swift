internal import MirrorCore
internal import MirrorFormat

/// A disk with a volatile cache in front of its medium.
///
/// What is written lands in the cache and in the ordered list of sectors not yet flushed; a flush moves the
/// list onto the medium; a power loss keeps any subset of the list, sector by sector (`lose`). Superblocks
/// are held as real bytes.
struct SimulatedDisk {
    /// A sector in the cache that the medium lacks.
    struct Unflushed {
        /// Order of execution on this disk.
        var order: UInt64
        var sector: Int
        var stamps: InlineArray<3, UInt32>
        /// A flush failed and the operating system dropped the dirty mark: no later flush writes it.
        var isForgotten = false
    }

    /// What the checks need of a superblock, without its tables.
    struct Summary {
        var mirror: MirrorUUID
        var generation: Generation
        var epoch: UInt64
        var isClean: Bool
        var inSync: PlexSet
        var own: PlexIndex?

        init(_ superblock: Superblock) {
            mirror = superblock.record.mirror
            generation = superblock.record.generation
            epoch = superblock.record.epoch
            isClean = superblock.record.isClean
            inSync = superblock.record.inSync
            own = superblock.record.index(of: superblock.plex)
        }

        var callsItselfInSync: Bool { own.map { inSync.contains($0) } ?? false }
    }

    struct Snapshot {
        var cells: [UInt32]
        var spares: SimulatedSpares
        var superblocks: [UInt8]
        var head: Superblock
        var pages: FoundPages?
        var pageBytes: [[UInt8]]
    }

    let number: Int
    let layout: Layout
    private var cells: [UInt32]
    private var platter: [UInt32]
    /// What is read now, and what outlasts the power, in the order of the data.
    var cached: CellView { CellView(cells, spares.moved) }
    var medium: CellView { CellView(platter, spares.moved) }
    private(set) var unflushed: [Unflushed] = []
    private(set) var order: UInt64 = 0
    /// The last 64 KiB.
    private(set) var superblocks: [UInt8]
    /// The intent bitmap and the missed-write maps as a reader would find them; nil: never formatted.
    private(set) var pages: FoundPages?
    private var pageBytes: [[UInt8]]
    /// Somebody wrote to it without the mirror.
    private(set) var isScribbled = false
    /// The newest superblock that a reader would find.
    private(set) var head: Superblock? {
        didSet {
            summary = head.map(Summary.init)
            if head?.isRemapped != oldValue?.isRemapped || head?.plex != oldValue?.plex { readRemaps() }
        }
    }
    var spares: SimulatedSpares
    private(set) var summary: Summary?
    /// Sectors that can't be read until they are written.
    var bad: [Bool]
    var badCount = 0
    /// And can't be written.
    var stuck: [Bool]
    var stuckCount = 0
    /// Every operation fails until it is opened again.
    var isGone = false
    /// The backing was made smaller: nothing at or behind this byte can be reached, least of all the superblocks.
    var truncatedAt: Int?
    var isAway: Bool { isGone || truncatedAt != nil }
    /// Answers nothing before.
    var silentUntil: UInt64 = 0
    /// Not before this moment may it be found again.
    var returnsAt: UInt64 = 0
    /// Acknowledged but unflushed data vanished from it since the server was started.
    var hasLost = false
    /// A flush failed since the server was started, with loss or without.
    var hasFailedFlush = false
    var snapshot: Snapshot?
    /// Its newest superblock, with this epoch, was destroyed: what an older one says proves nothing.
    private(set) var lostEpoch: UInt64 = 0
    /// Writes of any kind, for "zero bytes written".
    private(set) var writes: UInt64 = 0

    init(number: Int, layout: Layout) {
        self.number = number
        self.layout = layout
        let sectors = Int(layout.dataBytes) / Geometry.sectorBytes + layout.spareSlots * Geometry.sectorsPerBlock
        cells = Array(repeating: 0, count: sectors * Geometry.cellsPerSector)
        platter = cells
        spares = SimulatedSpares(layout)
        stuck = Array(repeating: false, count: sectors)
        superblocks = Array(repeating: 0, count: Int(Layout.superblockAreaBytes))
        pageBytes = []
        bad = Array(repeating: false, count: sectors)
    }

    // MARK: data

    /// Takes sectors from a buffer into the cache.
    mutating func write(sector first: Int, count: Int, from buffer: [UInt32], cell: Int) {
        writes += 1
        order += 1
        for index in 0..<count {
            let source = cell + index * 3
            put(first + index, [buffer[source], buffer[source + 1], buffer[source + 2]])
        }
    }

    mutating func zero(sector first: Int, count: Int) {
        writes += 1
        order += 1
        for index in 0..<count { put(first + index, [0, 0, 0]) }
    }

    private mutating func put(_ sector: Int, _ stamps: InlineArray<3, UInt32>) {
        for cell in 0..<3 { cells[sector * 3 + cell] = stamps[cell] }
        if hasLost { unflushed.removeAll { $0.isForgotten && $0.sector == sector } }
        unflushed.append(Unflushed(order: order, sector: sector, stamps: stamps))
        if badCount > 0, bad[sector] {
            bad[sector] = false
            badCount -= 1
        }
    }

    func hasBad(sector first: Int, count: Int) -> Bool {
        badCount > 0 && bad[first..<first + count].contains(true)
    }

    /// Everything executed up to `mark` is on the platter from now on.
    mutating func flush(through mark: UInt64) {
        var kept: [Unflushed] = []
        for entry in unflushed {
            if entry.order <= mark, !entry.isForgotten { settle(entry) } else { kept.append(entry) }
        }
        unflushed = kept
    }

    /// A write with forced unit access: its sectors, and nothing else.
    mutating func flush(sectors: Range<Int>, through mark: UInt64) {
        var kept: [Unflushed] = []
        for entry in unflushed {
            if entry.order <= mark, sectors.contains(entry.sector) { settle(entry) } else { kept.append(entry) }
        }
        unflushed = kept
    }

    private mutating func settle(_ entry: Unflushed) {
        for cell in 0..<3 { platter[entry.sector * 3 + cell] = entry.stamps[cell] }
    }

    /// A flush failed: what it covered is partly written, partly dropped at once, partly still readable
    /// but never to be written (ATC'20, "Can applications recover from fsync failures?").
    mutating func failFlush(through mark: UInt64, random: inout Random) {
        hasLost = true
        var kept: [Unflushed] = []
        for var entry in unflushed {
            if entry.order > mark {
                kept.append(entry)
                continue
            }
            switch random.below(3) {
            case 0: settle(entry)
            case 1: break
            default:
                entry.isForgotten = true
                kept.append(entry)
            }
        }
        unflushed = kept
        rebuildCache()
    }

    private mutating func rebuildCache() {
        cells = platter
        for entry in unflushed {
            for cell in 0..<3 { cells[entry.sector * 3 + cell] = entry.stamps[cell] }
        }
    }

    /// The process that used the disk died; the cache lives on, but for what a failed flush made orphans.
    mutating func dropForgotten() {
        guard unflushed.contains(where: { $0.isForgotten }) else { return }
        unflushed.removeAll { $0.isForgotten }
        rebuildCache()
    }

    enum Loss: Int, CaseIterable { case nothing, everything, half, few }

    /// Power fails: any subset of the unflushed sectors survives.
    mutating func losePower(_ loss: Loss, random: inout Random) {
        losePower { _ in
            switch loss {
            case .nothing: true
            case .everything: false
            case .half: random.chance(500)
            case .few: random.chance(900)
            }
        }
    }

    /// Power fails, and it is known which of the unflushed sectors survive.
    mutating func losePower(survives: (Unflushed) -> Bool) {
        for entry in unflushed where !entry.isForgotten && survives(entry) { settle(entry) }
        unflushed.removeAll()
        cells = platter
    }

    /// A cell of the platter changes by itself. What lies in the cache above it is as it was.
    mutating func rot(_ cell: Int, to stamp: UInt32) {
        platter[cell] = stamp
        if !unflushed.contains(where: { $0.sector == cell / 3 }) { cells[cell] = stamp }
    }

    /// Everything that a read of the cell may return, now or after a power loss.
    func values(at cell: Int) -> [UInt32] {
        var values = [platter[cell]]
        for entry in unflushed where entry.sector == cell / 3 {
            if !values.contains(entry.stamps[cell % 3]) { values.append(entry.stamps[cell % 3]) }
        }
        return values
    }

    // MARK: superblocks

    enum Landing: Int { case whole, torn, none }

    /// Puts 4 KiB of metadata onto the platter. `offset` is on the disk.
    mutating func writeMetadata(_ bytes: [UInt8], offset: UInt64, landing: Landing, random: inout Random) {
        writes += 1
        let start = Layout.usableBytes(ofDisk: layout.diskBytes) - Layout.superblockAreaBytes
        guard landing != .none else { return }
        if let page = remapPage(at: offset) { return writeRemapPage(bytes, page, landing, random: &random) }
        if let (sheet, page) = page(at: offset) { return writePage(bytes, sheet, page, landing, random: &random) }
        guard offset >= start else { return }
        let base = Int(offset - start)
        let before = summary
        defer {
            if let before, let summary, before.mirror == summary.mirror, summary.epoch < before.epoch {
                lostEpoch = before.epoch
            }
        }
        for sector in 0..<Geometry.sectorsPerBlock {
            if landing == .torn, random.chance(500) { continue }
            let from = sector * Geometry.sectorBytes
            superblocks.replaceSubrange(
                base + from..<base + from + Geometry.sectorBytes, with: bytes[from..<from + Geometry.sectorBytes])
        }
        scan(changed: base / Int(Layout.superblockSpacingBytes))
    }

    /// One copy was written. If it is good and no older than the newest, the others need not be read again.
    private mutating func scan(changed copy: Int) {
        guard let head, let found = decoded(copy), found.sequence > head.sequence || found == head else {
            return scan()
        }
        self.head = found
    }

    private func decoded(_ copy: Int) -> Superblock? {
        let start = copy * Int(Layout.superblockSpacingBytes)
        let bytes = unsafe superblocks.span.bytes.extracting(start..<start + Superblock.byteCount)
        return try? Superblock(decoding: bytes, copy: copy, diskBytes: layout.diskBytes)
    }

    mutating func scan() {
        if case .found(let superblock) = scanResult() { head = superblock } else { head = nil }
    }

    func scanResult() -> SuperblockScan {
        unsafe SuperblockScan.scan(area: superblocks.span.bytes, diskBytes: layout.diskBytes)
    }

    var superblockCopies: SuperblockCopies {
        unsafe SuperblockScan.copies(area: superblocks.span.bytes, diskBytes: layout.diskBytes)
    }

    mutating func wipeSuperblocks() {
        superblocks = Array(repeating: 0, count: superblocks.count)
        head = nil
        lostEpoch = 0
        snapshot = nil
    }

    /// Flips bytes of the chosen copies.
    mutating func damage(copies: [Int], random: inout Random) {
        let before = summary
        for copy in copies {
            let base = copy * Int(Layout.superblockSpacingBytes)
            superblocks[base + random.below(Superblock.byteCount)] ^= UInt8(1 + random.below(255))
        }
        scan()
        guard let before, summary?.generation != before.generation || summary?.epoch != before.epoch else { return }
        // Epochs of two sides of a split can't be compared: whatever it shows now is too old.
        lostEpoch = max(before.epoch, (summary?.epoch ?? 0) + 1)
    }

    // MARK: bitmap and maps

    private var pagesPerSheet: Int { Int((layout.area(.intentBitmap)?.length ?? 0) / Layout.blockBytes) }

    var headersOfPages: [BitmapPage] {
        guard let pages else { return [] }
        return (0..<FoundPages.sheetCount * pagesPerSheet).compactMap {
            pages.header(sheet: $0 / pagesPerSheet, page: $0 % pagesPerSheet)
        }
    }

    func page(at offset: UInt64) -> (sheet: Int, index: Int)? {
        for sheet in 0..<FoundPages.sheetCount {
            let start = layout.pageOffset(sheet: sheet, index: 0)
            if offset >= start, offset < start + UInt64(pagesPerSheet) * Layout.blockBytes {
                return (sheet, Int((offset - start) / Layout.blockBytes))
            }
        }
        return nil
    }

    private mutating func writePage(
        _ bytes: [UInt8], _ sheet: Int, _ page: Int, _ landing: Landing, random: inout Random
    ) {
        let index = sheet * pagesPerSheet + page
        if landing == .whole {
            pageBytes[index] = bytes
        } else {
            for sector in 0..<Geometry.sectorsPerBlock where random.chance(500) {
                let from = sector * Geometry.sectorBytes
                for byte in from..<from + Geometry.sectorBytes { pageBytes[index][byte] = bytes[byte] }
            }
        }
        rescan(index)
    }

    private mutating func rescan(_ index: Int) {
        let block = pageBytes[index]
        let count = pagesPerSheet
        unsafe pages?.take(sheet: index / count, page: index % count, bytes: block.span.bytes)
    }

    /// Flips a byte of a page.
    mutating func damagePage(random: inout Random) {
        guard !pageBytes.isEmpty else { return }
        let index = random.below(pageBytes.count)
        pageBytes[index][random.below(BitmapPage.byteCount)] ^= UInt8(1 + random.below(255))
        rescan(index)
    }

    private mutating func formatPages(_ superblock: Superblock) {
        pages = FoundPages(of: superblock, bitsPerPage: Geometry.bitsPerPage)
        pageBytes = []
        let empty: [UInt64] = []
        for sheet in 0..<FoundPages.sheetCount {
            for page in 0..<pagesPerSheet {
                var bytes = [UInt8](repeating: 0, count: BitmapPage.byteCount)
                var span = bytes.mutableSpan
                var raw = unsafe span.mutableBytes
                BitmapPage(
                    sheet: UInt8(sheet), index: UInt64(page), sequence: 1, lastClear: 0,
                    generation: superblock.record.generation, absence: 0
                ).encode(mirror: superblock.record.mirror, words: empty.span, into: &raw)
                pageBytes.append(bytes)
                rescan(pageBytes.count - 1)
            }
        }
    }

    mutating func format(_ superblock: Superblock) {
        formatPages(superblock)
        for copy in 0..<Layout.superblockCopies {
            let base = copy * Int(Layout.superblockSpacingBytes)
            var bytes = [UInt8](repeating: 0, count: Superblock.byteCount)
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            superblock.encode(copy: copy, into: &raw)
            for index in bytes.indices { superblocks[base + index] = bytes[index] }
        }
        scan()
    }

    /// For the trace.
    var state: String {
        guard let summary else { return "without a superblock" }
        return "epoch \(summary.epoch) of \(summary.generation), plex \(summary.own.map { "\($0)" } ?? "-"), "
            + "in sync \(summary.inSync.members), clean \(summary.isClean), page \(pages?.sequence ?? 0), "
            + "last clear \(pages?.lastClear ?? 0), lost epoch \(lostEpoch)"
    }

    // MARK: time travel

    mutating func takeSnapshot() {
        guard let head else { return }
        snapshot = Snapshot(
            cells: platter, spares: spares, superblocks: superblocks, head: head, pages: pages, pageBytes: pageBytes)
    }

    /// - Parameter epoch: of the mirror; of the disk's own record it may be another's.
    mutating func rollBack(from epoch: UInt64) {
        guard let snapshot else { return }
        lostEpoch = max(lostEpoch, epoch, summary?.epoch ?? 0)
        platter = snapshot.cells
        unflushed.removeAll()
        cells = platter
        superblocks = snapshot.superblocks
        pages = snapshot.pages
        pageBytes = snapshot.pageBytes
        spares = snapshot.spares
        scan()
        readRemaps()
    }

    /// Somebody used the disk for something else.
    mutating func scribble(random: inout Random) {
        isScribbled = true
        for sector in bad.indices where random.chance(300) {
            for cell in 0..<3 { platter[sector * 3 + cell] = .max - UInt32(random.below(1000)) }
        }
        unflushed.removeAll()
        cells = platter
    }

    /// The sector errors were of a kind that passes.
    mutating func heal() {
        isGone = false
        truncatedAt = nil
        returnsAt = 0
        bad = Array(repeating: false, count: bad.count)
        badCount = 0
        stuck = bad
        stuckCount = 0
    }
}
