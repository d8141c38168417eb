internal import MirrorFormat

/// Which regions may differ between plexes that are in sync (the intent bitmap), and which ones each absent plex
/// has missed (the missed-write maps): what is wanted on disk, what is known to be there, and the pages on their
/// way. A value; the rules of when what is set, moved and cleared are in `Mirror+Intent`, `+Pages` and `+Cleaning`.
///
/// The invariant that all delta copies rest on: *an absent plex misses nothing but the regions of its own map and
/// those whose intent bit is set.* When it leaves, its map is empty: what it may lack was under an intent bit. From
/// then on an intent bit is cleared only after it has been moved into the map of every absent plex.
struct WriteTracking {
    /// A page of one of the eight sheets; see `BitmapPage`.
    struct Page: BitwiseCopyable {
        /// Plexes whose disks lack the present contents.
        var staleOn = PlexSet.empty
        /// Plexes under rebuild that have no contents at all yet.
        var missingOn = PlexSet.empty
        /// Of the present contents; and of the last that every in-sync plex has.
        var sequence: UInt64 = 0
        var durableSequence: UInt64 = 0
        /// The contents differ from what `sequence` names.
        var hasChanged = false
        var isBusy = false
    }

    /// A page on its way to some disks. The snapshot stays until all of them have answered.
    struct PageWrite {
        var isUsed = false
        /// All disks have answered; the record must still learn who failed.
        var isAnswered = false
        var page = 0
        var header = BitmapPage(
            sheet: 0, index: 0, sequence: 0, lastClear: 0, generation: .none, absence: 0)
        var snapshot: [UInt64]
        /// The page as it is written, the same on every plex.
        var block = [UInt8](repeating: 0, count: BitmapPage.byteCount)
        var pending = PlexSet.empty
        var failed = PlexSet.empty
        /// Who has these contents.
        var holders = PlexSet.empty
        /// Left while it was on its way: another disk may have taken the number since.
        var departed = PlexSet.empty
        var transients: UInt8 = 0

        mutating func encode(mirror: MirrorUUID) {
            let (header, snapshot) = (header, snapshot)
            var span = block.mutableSpan
            var bytes = unsafe span.mutableBytes
            header.encode(mirror: mirror, words: snapshot.span, into: &bytes)
        }
    }

    static let sheets = 1 + Int(Layout.missedWriteMapCount)

    let regionShift: UInt64
    let regionCount: Int
    let wordsPerPage: Int
    let pagesPerSheet: Int

    /// As it shall be on disk.
    private(set) var intent: RegionSet
    /// Bits of `intent` that are on every plex which a restart may take for current.
    private(set) var durable: RegionSet
    /// Touched by a write since the last look of the cleaner.
    private(set) var active: RegionSet
    var writers: WriteSequence
    /// By slot; nil: not in use.
    private(set) var maps: [RegionSet?]
    /// By slot: the absence that is counted.
    private(set) var absences: [UInt64]
    var pages: [Page]
    /// Pages that are to be written.
    private(set) var stalePages: RegionSet
    private(set) var hasStalePages = false
    var writes: [PageWrite]
    /// Of the last page write begun.
    private(set) var sequence: UInt64 = 0
    /// A disk whose highest sequence is lower is in a state from before bits were cleared, see `raiseLastClear`.
    private(set) var lastClear: UInt64 = 0
    /// By slot: the same for the disk that the map counts for.
    private(set) var required: [UInt64]
    /// The last page write reached no plex.
    var isFailing = false
    var retryAt: UInt64 = 0

    init(regionBytes: UInt64, dataBytes: UInt64, bitsPerPage: Int, writesInFlight: Int) {
        precondition(bitsPerPage % 64 == 0 && bitsPerPage <= BitmapPage.bitCount)
        regionShift = UInt64(regionBytes.trailingZeroBitCount)
        regionCount = Int((dataBytes + regionBytes - 1) >> regionShift)
        wordsPerPage = bitsPerPage / 64
        pagesPerSheet = max(1, (regionCount + bitsPerPage - 1) / bitsPerPage)
        let empty = RegionSet(count: regionCount)
        intent = empty
        durable = empty
        active = empty
        writers = WriteSequence(regionCount: regionCount)
        maps = Array(repeating: nil, count: Self.sheets - 1)
        absences = Array(repeating: 0, count: Self.sheets - 1)
        required = absences
        pages = Array(repeating: Page(), count: Self.sheets * pagesPerSheet)
        stalePages = RegionSet(count: pages.count)
        writes = (0..<writesInFlight).map { _ in PageWrite(snapshot: Array(repeating: 0, count: bitsPerPage / 64)) }
    }

    // MARK: regions

    /// - Parameter length: not zero.
    func regions(_ offset: UInt64, _ length: UInt64) -> Range<Int> {
        Int(offset >> regionShift)..<Int((offset + length - 1) >> regionShift) + 1
    }

    var regionBytes: UInt64 { 1 << regionShift }

    // MARK: contents

    /// Asks for intent bits. They count when they are in `durable`.
    mutating func insertIntent(_ range: Range<Int>) {
        guard !intent.containsAll(of: range) else { return }
        intent.insert(range)
        changed(sheet: 0, words: range.lowerBound >> 6...(range.upperBound - 1) >> 6)
    }

    /// A write begins, or goes on.
    mutating func touch(_ range: Range<Int>) { active.insert(range) }

    mutating func forgetTouches() {
        active = RegionSet(count: regionCount)
        writers.forget()
    }

    /// - Parameter witness: see `raiseLastClear`.
    mutating func removeIntent(_ set: RegionSet, witness: UInt64) {
        raiseLastClear(to: witness)
        for word in set.words.indices where set.words[word] & intent.words[word] != 0 {
            intent.setWord(word, intent.words[word] & ~set.words[word])
            durable.setWord(word, durable.words[word] & ~set.words[word])
            changed(sheet: 0, words: word...word)
        }
    }

    /// A slot begins to count for an absence. Nothing is written: pages with another number mean `startsFull`.
    mutating func openMap(_ map: MissedWriteMap) {
        maps[Int(map.slot)] = RegionSet(count: regionCount, isFull: map.startsFull)
        absences[Int(map.slot)] = map.id
        required[Int(map.slot)] = map.lastClear
    }

    var freeSlot: UInt8? { maps.firstIndex { $0 == nil }.map { UInt8($0) } }

    mutating func closeMap(slot: UInt8) {
        maps[Int(slot)] = nil
        absences[Int(slot)] = 0
        required[Int(slot)] = 0
    }

    mutating func insertMissed(_ set: RegionSet, slot: UInt8) {
        guard let old = maps[Int(slot)] else { return }
        for word in set.words.indices where set.words[word] & ~old.words[word] != 0 {
            maps[Int(slot)]?.insertWord(word, set.words[word])
            changed(sheet: Int(slot) + 1, words: word...word)
        }
    }

    /// Regions outside of `set` have been copied, durably, and all that was written since the plex came back went to it
    /// too.
    ///
    /// - Parameter witness: a page that its disk got after that. Without it the disk was set back.
    mutating func keepMissed(_ set: RegionSet, slot: UInt8, witness: UInt64) {
        guard let old = maps[Int(slot)] else { return }
        if required[Int(slot)] < witness {
            required[Int(slot)] = witness
            touch(page: (Int(slot) + 1) * pagesPerSheet)
        }
        for word in set.words.indices where old.words[word] & ~set.words[word] != 0 {
            maps[Int(slot)]?.setWord(word, old.words[word] & set.words[word])
            changed(sheet: Int(slot) + 1, words: word...word)
        }
    }

    // MARK: witnesses

    /// Before bits are cleared every plex gets a page that was written after all of them were set and flushed: the
    /// witness. It is on every disk before the first bit is gone from any. So a disk without it, or a later one, is
    /// in an earlier state, and nobody can tell what it lacks; one that has it still shows the bits, or lacks nothing.
    ///
    /// - Returns: what `isWitnessed` is asked with.
    mutating func askForWitness() -> UInt64 {
        touch(page: 0)
        return sequence
    }

    func isWitnessed(since mark: UInt64) -> Bool { witness > mark }

    /// The last page 0 that all plexes have.
    var witness: UInt64 { pages[0].durableSequence }

    mutating func raiseLastClear(to witness: UInt64) { lastClear = max(lastClear, witness) }

    private mutating func changed(sheet: Int, words: ClosedRange<Int>) {
        for page in words.lowerBound / wordsPerPage...words.upperBound / wordsPerPage {
            touch(page: sheet * pagesPerSheet + page)
        }
    }

    /// The page is to be written anew everywhere.
    mutating func touch(page: Int) {
        pages[page].hasChanged = true
        pages[page].staleOn = PlexSet(mask: .max)
        wantWrite(page)
    }

    mutating func wantWrite(_ page: Int) {
        stalePages.insert(page)
        hasStalePages = true
    }

    /// A plex under rebuild gets all pages.
    mutating func initialise(_ plex: PlexIndex) {
        for page in pages.indices {
            pages[page].staleOn.insert(plex)
            pages[page].missingOn.insert(plex)
            wantWrite(page)
        }
    }

    mutating func forget(_ plex: PlexIndex) {
        for page in pages.indices { pages[page].missingOn.remove(plex) }
        for write in writes.indices where writes[write].isUsed {
            writes[write].departed.insert(plex)
            writes[write].holders.remove(plex)
            writes[write].failed.remove(plex)
        }
    }

    func isInitialised(_ plex: PlexIndex) -> Bool { !pages.contains { $0.missingOn.contains(plex) } }

    /// Whether all pages of the slot are on each of the plexes.
    func isMapDurable(slot: UInt8, on plexes: PlexSet) -> Bool {
        let first = (Int(slot) + 1) * pagesPerSheet
        return pages[first..<first + pagesPerSheet].allSatisfy {
            !$0.isBusy && !$0.hasChanged && $0.staleOn.intersection(plexes).isEmpty
        }
    }

    func isIntentDurable(on plexes: PlexSet) -> Bool {
        pages[0..<pagesPerSheet].allSatisfy {
            !$0.isBusy && !$0.hasChanged && $0.staleOn.intersection(plexes).isEmpty
        }
    }

    // MARK: page writes

    /// The next page to write among those of the sheets, and not on its way already.
    mutating func nextStalePage(_ range: Range<Int>) -> Int? {
        var position = range.lowerBound
        while let page = stalePages.next(from: position), page < range.upperBound {
            if !pages[page].isBusy { return page }
            position = page + 1
        }
        return nil
    }

    var freeWrite: Int? { writes.firstIndex { !$0.isUsed } }

    mutating func dropStale(_ page: Int) {
        stalePages.remove(page)
        hasStalePages = !stalePages.isEmpty
    }

    /// Takes the page's contents for `targets`.
    mutating func begin(_ write: Int, page: Int, targets: PlexSet, holders: PlexSet, generation: Generation) {
        dropStale(page)
        if pages[page].hasChanged {
            pages[page].hasChanged = false
            sequence += 1
            pages[page].sequence = sequence
        }
        pages[page].isBusy = true
        let sheet = page / pagesPerSheet
        let index = page % pagesPerSheet
        takeSnapshot(write, sheet: sheet, index)
        writes[write].header = BitmapPage(
            sheet: UInt8(sheet), index: UInt64(index), sequence: pages[page].sequence,
            lastClear: sheet == 0 ? lastClear : required[sheet - 1], generation: generation,
            absence: sheet == 0 ? 0 : absences[sheet - 1])
        writes[write].isUsed = true
        writes[write].isAnswered = false
        writes[write].page = page
        writes[write].pending = targets
        writes[write].failed = .empty
        writes[write].holders = holders
        writes[write].departed = .empty
        writes[write].transients = 0
    }

    private mutating func takeSnapshot(_ write: Int, sheet: Int, _ index: Int) {
        var snapshot: [UInt64] = []
        swap(&snapshot, &writes[write].snapshot)
        let first = index * wordsPerPage
        if sheet == 0 {
            intent.copyWords(from: first, to: &snapshot)
        } else if let map = maps[sheet - 1] {
            map.copyWords(from: first, to: &snapshot)
        } else {
            for word in snapshot.indices { snapshot[word] = 0 }
        }
        swap(&snapshot, &writes[write].snapshot)
    }

    private func word(_ index: Int, of sheet: Int) -> UInt64 {
        if sheet == 0 { return index < intent.words.count ? intent.words[index] : 0 }
        guard let map = maps[sheet - 1] else { return 0 }
        return index < map.words.count ? map.words[index] : 0
    }

    /// All disks have answered. Whoever has it is up to date, unless the page changed meanwhile.
    mutating func answered(_ write: Int) {
        let page = writes[write].page
        writes[write].isAnswered = true
        let holders = writes[write].holders
        if !pages[page].hasChanged { pages[page].staleOn = pages[page].staleOn.subtracting(holders) }
        pages[page].missingOn = pages[page].missingOn.subtracting(holders)
    }

    /// Ends the write. If the contents are on every plex that matters, their bits count from now on.
    mutating func end(_ write: Int, isDurable: Bool) {
        let page = writes[write].page
        writes[write].isUsed = false
        pages[page].isBusy = false
        if isDurable {
            pages[page].durableSequence = writes[write].header.sequence
            if page < pagesPerSheet {
                durable.insertWords(writes[write].snapshot, at: page * wordsPerPage, common: intent)
            }
        }
        if !pages[page].staleOn.isEmpty { wantWrite(page) }
    }

    // MARK: opening

    /// Takes over what lies on the disks of the current plexes: the union of all, see `FoundPages`.
    ///
    /// - Parameters:
    ///   - isClean: the record says that no bit is set: a page that can't be read holds none.
    ///   - time: nanoseconds since 1970.
    mutating func adopt(
        _ found: [(PlexIndex, FoundPages)], maps used: [MissedWriteMap], isClean: Bool, time: UInt64
    ) {
        for map in used {
            openMap(map)
            required[Int(map.slot)] = found.reduce(map.lastClear) { max($0, $1.1.required(by: map)) }
        }
        for sheet in 0..<Self.sheets {
            let map = used.first { Int($0.slot) + 1 == sheet }
            guard sheet == 0 || map != nil else { continue }
            adopt(sheet: sheet, map, found, isClean: isClean)
        }
        for (_, disk) in found {
            sequence = max(sequence, disk.sequence)
            lastClear = max(lastClear, disk.lastClear)
        }
        // Numbers that were used up by writes of which no trace is left.
        sequence += 4096
        // What a disk that is behind must show may have stood on a page that nobody can read: no disk shows enough. Nor
        // does anybody know then which numbers were used; there were never as many as nanoseconds.
        let isIntentLost = (0..<pagesPerSheet).contains { isLost(sheet: 0, $0, found) }
        let lostMaps = used.filter { isLost(sheet: Int($0.slot) + 1, 0, found) }
        if isIntentLost || !lostMaps.isEmpty { sequence = max(sequence, time) }
        if isIntentLost { lastClear = sequence }
        for map in lostMaps { required[Int(map.slot)] = sequence }
        for page in pages.indices { judge(page, found) }
    }

    private mutating func adopt(
        sheet: Int, _ map: MissedWriteMap?, _ found: [(PlexIndex, FoundPages)], isClean: Bool
    ) {
        var union = RegionSet(count: regionCount)
        for (_, disk) in found {
            for word in union.words.indices {
                let meaning = disk.meaning(sheet: sheet, page: word / wordsPerPage, map, isClean: isClean)
                switch meaning {
                case .bits: union.insertWord(word, disk.word(sheet: sheet, word))
                case .none: break
                case .all: union.insertWord(word, ~0)
                }
            }
        }
        if sheet == 0 { intent = union } else { maps[sheet - 1] = union }
    }

    private func isLost(sheet: Int, _ page: Int, _ found: [(PlexIndex, FoundPages)]) -> Bool {
        found.allSatisfy { $0.1.header(sheet: sheet, page: page) == nil }
    }

    /// A page is written anew wherever it is not what it should be.
    private mutating func judge(_ page: Int, _ found: [(PlexIndex, FoundPages)]) {
        let sheet = page / pagesPerSheet
        let index = page % pagesPerSheet
        var stale = PlexSet.empty
        for (plex, disk) in found where !holds(disk, sheet, index) { stale.insert(plex) }
        pages[page].staleOn = PlexSet(mask: .max).subtracting(
            PlexSet(mask: found.reduce(0) { $0 | PlexSet($1.0).mask }).subtracting(stale))
        guard !stale.isEmpty else {
            if sheet == 0 { acceptDurable(index) }
            return
        }
        touch(page: page)
    }

    private func holds(_ disk: FoundPages, _ sheet: Int, _ index: Int) -> Bool {
        guard let header = disk.header(sheet: sheet, page: index) else { return false }
        if sheet > 0 {
            guard maps[sheet - 1] != nil else { return true }
            // Never written for this absence: right if nothing was missed so far.
            if header.absence != absences[sheet - 1] { return isZero(sheet, index) }
        }
        let first = index * wordsPerPage
        return (first..<first + wordsPerPage).allSatisfy { disk.word(sheet: sheet, $0) == word($0, of: sheet) }
    }

    private func isZero(_ sheet: Int, _ index: Int) -> Bool {
        let first = index * wordsPerPage
        return (first..<first + wordsPerPage).allSatisfy { word($0, of: sheet) == 0 }
    }

    private mutating func acceptDurable(_ index: Int) {
        let first = index * wordsPerPage
        for word in first..<min(first + wordsPerPage, intent.words.count) {
            durable.insertWord(word, intent.words[word])
        }
    }
}
