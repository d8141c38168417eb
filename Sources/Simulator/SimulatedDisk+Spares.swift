internal import MirrorCore
internal import MirrorFormat

/// The cells of a disk in the order of the data, wherever they lie.
struct CellView {
    /// As they lie: data, then the spare pool.
    let cells: [UInt32]
    /// First cell of a remapped block, and where it lies.
    private let moved: [Int: Int]

    init(_ cells: [UInt32], _ moved: [Int: Int]) {
        self.cells = cells
        self.moved = moved
    }

    private static let perBlock = Geometry.sectorsPerBlock * Geometry.cellsPerSector

    subscript(cell: Int) -> UInt32 {
        if moved.isEmpty { return cells[cell] }
        let inside = cell % Self.perBlock
        return cells[(moved[cell - inside] ?? cell - inside) + inside]
    }

    subscript(range: Range<Int>) -> ArraySlice<UInt32> {
        if moved.isEmpty { return cells[range] }
        var view = cells
        for cell in range { view[cell] = self[cell] }
        return view[range]
    }
}

/// The spare pool and the remap table of a simulated disk, byte for byte.
struct SimulatedSpares {
    /// Pages of copy A, then of copy B.
    var pages: [[UInt8]]
    /// As a reader would find it; nil: the superblock says that there is none.
    var table: RemapTable?
    /// First cell of a remapped block of data, and of where it lies.
    var moved: [Int: Int] = [:]

    init(_ layout: Layout) {
        let count = RemapTable(layout).pageCount
        pages = Array(repeating: [UInt8](repeating: 0, count: RemapTable.pageBytes), count: count * 2)
    }
}

extension SimulatedDisk {
    /// Where a byte of the disk lies among the sectors: data, then the spare pool.
    func sector(at offset: UInt64) -> Int {
        guard offset >= layout.dataBytes, let pool = layout.area(.sparePool), offset >= pool.offset else {
            return Int(offset) / Geometry.sectorBytes
        }
        return Int(layout.dataBytes + offset - pool.offset) / Geometry.sectorBytes
    }

    /// A page of the remap table by the byte of the disk where it lies.
    func remapPage(at offset: UInt64) -> Int? {
        for (copy, kind) in [AreaKind.remapTableA, .remapTableB].enumerated() {
            guard let area = layout.area(kind), offset >= area.offset, offset < area.end else { continue }
            let page = Int((offset - area.offset) / Layout.blockBytes)
            let count = spares.pages.count / 2
            return page < count ? copy * count + page : nil
        }
        return nil
    }

    mutating func writeRemapPage(_ bytes: [UInt8], _ page: Int, _ landing: Landing, random: inout Random) {
        for sector in 0..<Geometry.sectorsPerBlock where landing == .whole || random.chance(500) {
            let from = sector * Geometry.sectorBytes
            spares.pages[page].replaceSubrange(
                from..<from + Geometry.sectorBytes, with: bytes[from..<from + Geometry.sectorBytes])
        }
        readRemaps()
    }

    /// What a server would find.
    mutating func readRemaps() {
        spares.table = nil
        spares.moved = [:]
        guard let head, head.isRemapped else { return }
        var table = RemapTable(layout)
        let count = table.pageCount
        for page in 0..<count {
            let (first, second) = (spares.pages[page], spares.pages[count + page])
            unsafe table.take(
                page: page, first.span.bytes, second.span.bytes, plex: head.plex,
                blocks: layout.dataBytes / Layout.blockBytes)
        }
        let perBlock = Geometry.sectorsPerBlock * Geometry.cellsPerSector
        let dataCells = Int(layout.dataBytes) / Geometry.blockBytes * perBlock
        for remap in table.remaps {
            spares.moved[Int(remap.block) * perBlock] = dataCells + remap.slot * perBlock
        }
        spares.table = table
    }

    /// A page of the table that is the same in both copies, as copy A or B.
    func soundRemapPage(_ number: Int) -> Int? {
        let count = spares.pages.count / 2
        guard count > 0, spares.table?.isDamaged == false else { return nil }
        let page = number % count
        return spares.pages[page] == spares.pages[count + page] ? number % (count * 2) : nil
    }

    mutating func damageRemapPage(_ page: Int, byte: Int) {
        spares.pages[page][byte] ^= 0xFF
        readRemaps()
    }

    func hasStuck(sector first: Int, count: Int) -> Bool {
        stuckCount > 0 && stuck[first..<first + count].contains(true)
    }

    mutating func unstick() {
        stuck = Array(repeating: false, count: stuck.count)
        stuckCount = 0
    }

    /// Sectors that can be neither read nor written from now on.
    mutating func stick(sectors: Range<Int>) {
        for sector in sectors.clamped(to: stuck.indices) where !stuck[sector] {
            stuck[sector] = true
            stuckCount += 1
            if !bad[sector] {
                bad[sector] = true
                badCount += 1
            }
        }
    }
}

extension SimulatedDisk {
    /// The cell of the data that is kept at this place; nil: none is.
    func dataCell(at place: Int) -> Int? {
        let perBlock = Geometry.sectorsPerBlock * Geometry.cellsPerSector
        let block = place - place % perBlock
        if block < Int(layout.dataBytes) / Geometry.blockBytes * perBlock { return place }
        return spares.moved.first { $0.value == block }.map { $0.key + place - block }
    }
}
