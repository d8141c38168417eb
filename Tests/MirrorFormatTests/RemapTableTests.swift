import Bytes
import Testing

@testable import MirrorFormat

@Suite struct RemapTableTests {
    private let plex = PlexUUID(UUID128(high: 0x0102_0304_0506_0708, low: 0x1112_1314_1516_1718))
    private let blocks: UInt64 = 1 << 40

    private func page(_ table: RemapTable, _ page: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: RemapTable.pageBytes)
        do {
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            table.encode(page: page, plex: plex, into: &raw)
        }
        return bytes
    }

    /// - Parameter copies: of each page, A and B.
    private func read(_ copies: [([UInt8], [UInt8])], slots: Int) -> RemapTable {
        var table = RemapTable(slotCount: slots)
        for (number, copy) in copies.enumerated() {
            let (first, second) = copy
            unsafe table.take(page: number, first.span.bytes, second.span.bytes, plex: plex, blocks: blocks)
        }
        return table
    }

    @Test func goldenPage() {
        var table = RemapTable(slotCount: 600)
        table.put(0x0012_3456_789A, into: 505)
        table.kill(504)
        table.countPageWrite()
        let bytes = page(table, 1)
        let golden: [(offset: Int, bytes: [UInt8])] = [
            (0, Array("PLEXUSRM".utf8)),
            (8, [0xFA, 0x30, 0x64, 0xAC]),
            (12, [0, 0, 0, 0]),
            (16, [1, 0, 0, 0, 0, 0, 0, 0]),
            (24, [1, 0, 0, 0, 0, 0, 0, 0]),
            (32, [UInt8](repeating: 0, count: 32)),
            (64, [0, 0, 0, 0, 0, 0, 0, 2]),
            (72, [0x9A, 0x78, 0x56, 0x34, 0x12, 0, 0, 1]),
            (80, [UInt8](repeating: 0, count: 4016)),
        ]
        for row in golden {
            #expect(Array(bytes[row.offset..<row.offset + row.bytes.count]) == row.bytes, "offset \(row.offset)")
        }
        #expect(golden.reduce(0) { $0 + $1.bytes.count } == RemapTable.pageBytes)
    }

    @Test func tableComesBackAsItWas() {
        var table = RemapTable(slotCount: 1024)
        for number in 0..<700 { table.put(UInt64(number) * 7919 % 100_003, into: number + 3) }
        table.kill(1)
        table.countPageWrite()
        let copies = (0..<table.pageCount).map { (page(table, $0), page(table, $0)) }
        #expect(table.pageCount == 3 && read(copies, slots: 1024) == table)
    }

    @Test func lookupFindsTheFirstAtOrBehind() {
        var table = RemapTable(slotCount: 16)
        for (slot, block) in [UInt64(40), 10, 1 << 45, 30].enumerated() { table.put(block, into: slot) }
        #expect(table.first(from: 0)?.block == 10 && table.first(from: 10)?.slot == 1)
        #expect(table.first(from: 11)?.block == 30 && table.first(from: 41)?.block == 1 << 45)
        #expect(table.first(from: 1 << 45 + 1) == nil && table[40] == 0 && table[41] == nil)
        table.withdraw(30)
        #expect(table.first(from: 11)?.block == 40 && table.freeSlots == 13)
    }

    @Test func lookupAgreesWithANaiveOne() {
        var random: UInt64 = 0x9E37_79B9_7F4A_7C15
        func next(_ bound: UInt64) -> UInt64 {
            random ^= random << 13
            random ^= random >> 7
            random ^= random << 17
            return random % bound
        }
        var table = RemapTable(slotCount: 64)
        var model: [UInt64: Int] = [:]
        for _ in 0..<5000 {
            let block = next(100) + (next(2) == 0 ? 0 : 1 << 40)
            if next(2) == 0, let slot = table.freeSlot(above: model[block]) {
                table.put(block, into: slot)
                model[block] = slot
            } else {
                table.withdraw(block)
                model[block] = nil
            }
            if table.dead.count > 20 { table.reviveDead() }
            let probe = next(110) + (next(2) == 0 ? 0 : 1 << 40)
            #expect(table.first(from: probe)?.block == model.keys.filter { $0 >= probe }.min())
            #expect(table.remaps.count == model.count && Set(table.remaps.map(\.slot)).count == model.count)
        }
    }

    @Test func slotThatTookNoMoreIsDeadAndTheNextOneLiesHigher() {
        var table = RemapTable(slotCount: 4)
        table.put(9, into: 1)
        #expect(table.freeSlot(above: nil) == 0 && table.freeSlot(above: 1) == 2)
        table.put(9, into: 2)
        #expect(table.dead == [1] && table[9] == 2 && table.freeSlots == 2)
        table.kill(3)
        #expect(table.freeSlot(above: 2) == nil)
        table.reviveDead()
        #expect(table.freeSlot(above: 2) == 3)
    }

    @Test func newerCopyCountsAndADamagedOneIsNone() {
        var old = RemapTable(slotCount: 8)
        old.countPageWrite()
        var new = old
        new.put(5, into: 0)
        new.countPageWrite()
        let (first, second) = (page(old, 0), page(new, 0))
        for copies in [(first, second), (second, first), ([], second)] {
            var found = read([copies], slots: 8)
            #expect(found.unsettled.map(\.page) == [0])
            found.settle()
            #expect(found == new)
        }
        #expect(read([(first, second)], slots: 8).unsettled.first?.good == 1)
        #expect(read([(second, [])], slots: 8).unsettled.first?.good == 0)
        #expect(read([(second, second)], slots: 8) == new)
        var torn = second
        torn[70] ^= 1
        #expect(read([(first, torn)], slots: 8).remaps == old.remaps)
        #expect(read([(torn, [])], slots: 8).isDamaged && !read([(torn, second)], slots: 8).isDamaged)
    }

    @Test func blockThatTwoPagesNameIsInTheHigherSlot() {
        var table = RemapTable(slotCount: 1000)
        table.put(77, into: 3)
        let before = page(table, 0)
        table.put(77, into: 600)
        // Power failed between the pages.
        let found = read([(before, before), (page(table, 1), page(table, 1))], slots: 1000)
        #expect(found[77] == 600 && found.dead == [3] && !found.isDamaged)
        // The page that still names the lower one is to be written anew, or it would have the last word one day.
        #expect(found.unsettled.map(\.page) == [0])
    }

    @Test func pageOfAnotherPlexOrPlaceIsNone() {
        var table = RemapTable(slotCount: 1000)
        table.put(77, into: 3)
        let bytes = page(table, 0)
        var other = RemapTable(slotCount: 1000)
        unsafe other.take(
            page: 0, bytes.span.bytes, bytes.span.bytes, plex: PlexUUID(UUID128(high: 1, low: 1)), blocks: blocks)
        #expect(other.isDamaged)
        #expect(read([(page(table, 1), page(table, 1))], slots: 1000).isDamaged)
        // Blocks that the mirror does not have.
        var small = RemapTable(slotCount: 1000)
        unsafe small.take(page: 0, bytes.span.bytes, bytes.span.bytes, plex: plex, blocks: 77)
        #expect(small.isDamaged)
    }

    @Test func everyLayoutHasATableForItsPool() throws {
        for gibibytes in [UInt64(0), 1, 10, 1000, 30_000] {
            let data = gibibytes == 0 ? 64 << 20 : gibibytes << 30
            let bytes = try #require(try Layout.diskBytes(forData: data, regionBytes: nil, spareBytes: nil))
            let layout = try Layout(diskBytes: bytes, dataBytes: data, regionBytes: nil, spareBytes: nil)
            let table = RemapTable(layout)
            let pool = try #require(layout.area(.sparePool))
            #expect(table.slotCount > 0 && layout.spareOffset(slot: table.slotCount - 1) + 4096 <= pool.end)
            for copy in 0...1 {
                let last = layout.remapPageOffset(copy: copy, page: table.pageCount - 1)
                let area = try #require(layout.area(copy == 0 ? .remapTableA : .remapTableB))
                #expect(last >= area.offset && last + 4096 <= area.end)
            }
        }
        let none = try Layout(diskBytes: 64 << 20, dataBytes: 32 << 20, regionBytes: nil, spareBytes: 0)
        #expect(none.spareSlots == 0 && RemapTable(none).pageCount == 0)
    }
}
