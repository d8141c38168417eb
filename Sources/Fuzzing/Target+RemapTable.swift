internal import Bytes
internal import MirrorFormat

extension Target {
    /// One page of a table, whose two copies are the same.
    static let remapPage = structure("remap page") { input in
        let plex = PlexUUID(input.uuid())
        let table = input.remapTable()
        let page = input.below(table.pageCount)
        let blocks = UInt64(1 << 16) + UInt64(input.below(1 << 40))
        return Specimen(
            bytes: table.encoded(page, plex), seal: { sealPage(&$0, mirror: MirrorUUID(plex.bits)) },
            recode: { bytes in
                let read = RemapTable(page, [bytes, bytes], plex, slotCount: table.slotCount, blocks: blocks)
                return read.isDamaged ? nil : read.encoded(page, plex)
            })
    }

    /// The pages of one plex's table while blocks move in and out, power fails, copies rot, and at last somebody writes
    /// there what he likes.
    static let remaps = Target("remaps", cost: 40) { input throws(Finding) in
        var area = RemapArea(&input)
        for _ in 0...input.below(12) {
            let isCut = try area.change(&input)
            // A copy that rots under a server is not known to it, and its next write may be torn: two faults at once.
            let isRotten = input.oneIn(4) && area.rot(&input)
            if isCut || isRotten || input.oneIn(3) { try area.readAgain() }
        }
        return try area.judgeHostile(&input)
    }
}

/// Both copies of all pages of a remap table, and what they must say.
private struct RemapArea {
    private let plex: PlexUUID
    private let blocks: UInt64
    /// What the server believes, which is what it read or made durable.
    private var table: RemapTable
    /// Power has failed in the middle of it: this counts, or `table`, and nothing between.
    private var next: RemapTable?
    /// Slots that were dead before they were tried once more: their pages may say so still.
    private var killed: Set<Int> = []
    /// By page: copies A and B.
    private var copies: [[[UInt8]]]

    init(_ input: inout Input) {
        plex = PlexUUID(input.uuid())
        table = RemapTable(slotCount: input.pick([5, 1100, 504, 505, 1512]))
        blocks = input.pick([1 << 56, 1 << 20, 8])
        table.countPageWrite()
        copies = (0..<table.pageCount).map { [table, plex] page in
            Array(repeating: table.encoded(page, plex), count: 2)
        }
    }

    private func read() -> RemapTable {
        var found = RemapTable(slotCount: table.slotCount)
        for page in copies.indices {
            let (first, second) = (copies[page][0], copies[page][1])
            unsafe found.take(page: page, first.span.bytes, second.span.bytes, plex: plex, blocks: blocks)
        }
        return found
    }

    /// A server that starts reads the table before a change, or the one after it.
    mutating func readAgain() throws(Finding) {
        let found = read()
        try require(!found.isDamaged, "the table is lost", copies.flatMap(\.self).flatMap(\.self))
        let isOld = found.remaps == table.remaps
        try require(
            isOld || next.map { found.remaps == $0.remaps } ?? false,
            "found \(found.remaps), not \(table.remaps)\(next.map { " or \($0.remaps)" } ?? "")")
        let known = killed.union(table.dead).union(next?.dead ?? [])
        try require(known.isSuperset(of: found.dead), "slots \(found.dead) are dead, not \(known)")
        table = found
        next = nil
    }

    /// A block is put into the pool, moved in it, or taken out of it.
    ///
    /// Pages in doubt are written anew first, as the table is: otherwise parts of two torn writes to the same copy could
    /// make up one that was never finished.
    ///
    /// - Returns: whether power failed meanwhile.
    mutating func change(_ input: inout Input) throws(Finding) -> Bool {
        if !table.unsettled.isEmpty {
            next = table
            if try write(table.unsettled, &input) { return true }
        }
        var next = table
        var pages: [Int] = []
        if input.oneIn(4), !next.remaps.isEmpty {
            let remap = input.pick(next.remaps)
            next.withdraw(remap.block)
            pages = [RemapTable.page(ofSlot: remap.slot)]
        } else {
            if input.oneIn(8) {
                killed.formUnion(next.dead)
                next.reviveDead()
            }
            // Slots die in crowds here, so that blocks move to pages behind their own.
            for _ in 0..<input.below(3) {
                killSlots(of: &next, input.below(next.slotCount), input.pick([1, 3, 3, 3, 500]))
            }
            let wanted = input.oneIn(3) ? UInt64(input.below(8)) : input.take(8) % blocks
            let isMoved = !next.remaps.isEmpty && input.oneIn(2)
            let block = isMoved ? input.pick(next.remaps).block : min(wanted, blocks - 1)
            let old = next[block]
            guard let slot = next.freeSlot(above: old) else { return false }
            next.put(block, into: slot)
            // The higher slot counts, and must be there before the lower one is not.
            pages = [slot, old ?? slot].map { RemapTable.page(ofSlot: $0) }
        }
        self.next = next
        return try write(pages.map { RemapTable.Unsettled(page: $0) }, &input)
    }

    private func killSlots(of table: inout RemapTable, _ first: Int, _ count: Int) {
        let used = Set(table.remaps.map(\.slot))
        for slot in first..<min(first + count, table.slotCount) where !used.contains(slot) { table.kill(slot) }
    }

    /// The copy that was believed is overwritten last.
    private mutating func write(_ pages: [RemapTable.Unsettled], _ input: inout Input) throws(Finding) -> Bool {
        guard var next else { return false }
        var written: [Int] = []
        for page in pages where !written.contains(page.page) {
            written.append(page.page)
            next.countPageWrite()
            let bytes = next.encoded(page.page, plex)
            for copy in page.good == 0 ? [1, 0] : [0, 1] {
                if input.oneIn(16) {
                    tear(page.page, copy, bytes, sectors: input.byte())
                    return true
                }
                copies[page.page][copy] = bytes
            }
        }
        next.settle()
        table = next
        self.next = nil
        let found = read()
        try require(found.unsettled.isEmpty, "pages \(found.unsettled) are in doubt after they were written")
        return false
    }

    private mutating func tear(_ page: Int, _ copy: Int, _ bytes: [UInt8], sectors: UInt8) {
        // One that could not be read can, where it was written.
        guard !copies[page][copy].isEmpty else { return }
        for sector in 0..<8 where sectors & (1 << UInt8(sector)) != 0 {
            let range = sector * 512..<(sector + 1) * 512
            copies[page][copy].replaceSubrange(range, with: bytes[range])
        }
    }

    /// One copy of a page of which both are good.
    ///
    /// - Returns: whether there was one.
    mutating func rot(_ input: inout Input) -> Bool {
        let page = input.below(copies.count)
        guard next == nil, !table.unsettled.contains(where: { $0.page == page }) else { return false }
        guard copies[page][0] == copies[page][1] else { return false }
        let copy = input.below(2)
        input.damage(&copies[page][copy])
        if input.oneIn(4) { copies[page][copy] = [] }
        return true
    }

    /// Anything at all, with checksums that are right: it is refused, or becomes a table that can be written and read.
    mutating func judgeHostile(_ input: inout Input) throws(Finding) -> String {
        for page in copies.indices {
            for copy in 0...1 where input.oneIn(2) && !copies[page][copy].isEmpty {
                // Mostly among the entries, and those in front, where they mean something.
                input.damage(&copies[page][copy])
                if input.oneIn(2) { input.putNumber(into: &copies[page][copy], below: 128) }
                if !input.oneIn(8) { sealPage(&copies[page][copy], mirror: MirrorUUID(plex.bits)) }
                input.show("page \(page) of the remap table, copy \(copy)", copies[page][copy])
            }
        }
        let found = read()
        var isReadable = true
        for page in copies.indices {
            let alone = RemapTable(page, copies[page], plex, slotCount: table.slotCount, blocks: blocks)
            isReadable = isReadable && !alone.isDamaged
        }
        try require(found.isDamaged == !isReadable, "damaged: \(found.isDamaged), readable: \(isReadable)")
        try judge(found)
        guard isReadable else { return "lost" }
        // Nobody has counted this far, and nobody counts on from there.
        guard found.sequence < Superblock.maximumCount - 16 else { return "beyond" }
        let isChanged = found.remaps != table.remaps
        table = found
        next = found
        _ = try write(copies.indices.map { RemapTable.Unsettled(page: $0) }, &input)
        if next == nil { try readAgain() }
        return isChanged ? "changed" : "kept"
    }

    /// What the engine builds upon.
    private func judge(_ table: RemapTable) throws(Finding) {
        let slots = table.remaps.map(\.slot)
        try require(
            zip(table.remaps, table.remaps.dropFirst()).allSatisfy { $0.block < $1.block }, "blocks are out of order")
        try require(table.remaps.allSatisfy { $0.block < blocks }, "blocks beyond the data")
        try require(Set(slots).count == slots.count, "two blocks in one slot")
        try require(Set(slots).isDisjoint(with: table.dead), "a block in a dead slot")
        try require(
            (slots + table.dead).allSatisfy { $0 >= 0 && $0 < table.slotCount }, "slots that the pool does not have")
        try require(table.freeSlots >= 0 && table.sequence <= Superblock.maximumCount, "a count is out of bounds")
        for remap in table.remaps { try require(table[remap.block] == remap.slot, "block \(remap.block) is not found") }
    }
}

extension RemapTable {
    /// One page alone, from its two copies.
    fileprivate init(_ page: Int, _ copies: [[UInt8]], _ plex: PlexUUID, slotCount: Int, blocks: UInt64) {
        self.init(slotCount: slotCount)
        let (first, second) = (copies[0], copies[1])
        unsafe take(page: page, first.span.bytes, second.span.bytes, plex: plex, blocks: blocks)
    }

    fileprivate func encoded(_ page: Int, _ plex: PlexUUID) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: RemapTable.pageBytes)
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        encode(page: page, plex: plex, into: &raw)
        return bytes
    }
}

extension Input {
    /// With something on each page.
    fileprivate mutating func remapTable() -> RemapTable {
        var table = RemapTable(slotCount: pick([5, 1100, 504, 505]))
        for page in 0..<table.pageCount {
            let first = page * RemapTable.slotsPerPage
            for _ in 0...below(5) {
                let slot = first + below(min(RemapTable.slotsPerPage, table.slotCount - first))
                guard !table.dead.contains(slot), !table.remaps.contains(where: { $0.slot == slot }) else { continue }
                if oneIn(4) { table.kill(slot) } else { table.put(UInt64(below(1 << 16)), into: slot) }
            }
        }
        for _ in 0...below(3) { table.countPageWrite() }
        return table
    }
}
