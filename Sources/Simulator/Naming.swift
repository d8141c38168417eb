internal import Bytes
internal import MirrorCore
internal import MirrorFormat

/// Fingerprints of states that are blind to what makes no difference.
///
/// Two states of which one will fare as the other are one: whether a block was written by the third write or the
/// fifth, whether the mirror's epoch is 9 or 12. Hence
///
/// - a cell's value counts as its place on the oracle's list of versions of that cell, and one that is on no
///   list counts as wrong: the engine never looks at contents;
/// - epochs count from the highest, page sequences by their order, generations by their descent, absences by their
///   place; of superblocks counts the newest;
/// - times, error counters and the offsets of past errors do not count: no decision depends on them.
struct Naming {
    /// Per cell the stamps on the oracle's list, each once.
    private let stamps: [[UInt32]]
    private let mirror = World.mirrorUUID
    /// What a scrub left counts.
    private let hasLedgers: Bool
    private let highestEpoch: UInt64
    /// Those that share their descent with another are told apart by their place here.
    private var generations: [Generation] = []
    private let reader: SuperblockReader
    /// Of pages, ascending: they are compared, and nothing else.
    private let sequences: [UInt64]
    private var absences: [UInt64] = []

    /// - Parameters:
    ///   - superblocks: 4 KiB blocks on disks or on their way there.
    ///   - pages: the same of the bitmap and the maps.
    init(
        _ oracle: Oracle, reader: SuperblockReader, superblocks: [SuperblockReader.Copy], pages: [BitmapPage],
        hasLedgers: Bool
    ) {
        self.reader = reader
        self.hasLedgers = hasLedgers
        let maps = superblocks.flatMap { $0.maps.compactMap { $0 } }
        sequences = Set(pages.flatMap { [$0.sequence, $0.lastClear] } + maps.map(\.lastClear)).sorted()
        for map in maps where !absences.contains(map.id) { absences.append(map.id) }
        stamps = oracle.cells.map { versions in
            var distinct: [UInt32] = []
            for version in versions where !distinct.contains(version.stamp) { distinct.append(version.stamp) }
            return distinct
        }
        highestEpoch = superblocks.reduce(0) { max($0, $1.epoch) }
        for copy in superblocks where copy.isValid && !generations.contains(copy.generation) {
            generations.append(copy.generation)
        }
    }

    /// - Parameter cell: as it lies. In the spare pool the stamp says which cell of the data it was written to.
    func name(_ stamp: UInt32, at cell: Int) -> UInt64 {
        if cell < stamps.count { return UInt64(stamps[cell].firstIndex(of: stamp) ?? 255) }
        let home = Int(stamp) % (1 << Int(Geometry.cellBits))
        guard stamp != 0, home < stamps.count else { return stamp == 0 ? 0xFFFF : 0xFFFE }
        return UInt64(home) << 8 | UInt64(stamps[home].firstIndex(of: stamp) ?? 255)
    }

    func digest(_ oracle: Oracle) -> UInt64 {
        var digest = Digest()
        for (cell, versions) in oracle.cells.enumerated() {
            for version in versions {
                digest.add(
                    name(version.stamp, at: cell) << 2 | (version.isVisible ? 2 : 0)
                        | (version.acknowledged == nil ? 0 : 1))
                if version.isGhost { digest.add(.max - 1) }
            }
            digest.add(.max)
        }
        return digest.value
    }

    func digest(_ disk: SimulatedDisk) -> UInt64 {
        var digest = Digest()
        var word: UInt64 = 0
        let cells = disk.medium.cells
        for cell in stamps.indices {
            word = word << 8 | name(cells[cell], at: cell)
            if cell % 8 == 7 { digest.add(word) }
        }
        digest.add(word)
        for cell in stamps.count..<cells.count { digest.add(name(cells[cell], at: cell)) }
        for entry in disk.unflushed {
            digest.add(UInt64(entry.sector) << 1 | (entry.isForgotten ? 1 : 0))
            for cell in 0..<3 { digest.add(name(entry.stamps[cell], at: entry.sector * 3 + cell)) }
        }
        digest.add(disk.lostEpoch == 0 ? .max : highestEpoch &- disk.lostEpoch)
        addSuperblocks(of: disk, to: &digest)
        addPages(of: disk, to: &digest)
        addSpares(of: disk, to: &digest)
        if hasLedgers { add(disk.scrubLedger(of: mirror), to: &digest) }
        return digest.value
    }

    private func addSpares(of disk: SimulatedDisk, to digest: inout Digest) {
        if disk.badCount > 0 {
            for sector in disk.bad.indices where disk.bad[sector] {
                digest.add(UInt64(sector) << 1 | (disk.stuck[sector] ? 1 : 0))
            }
        }
        let pages = disk.spares.pages
        let count = pages.count / 2
        for page in 0..<count {
            for copy in [pages[page], pages[count + page]] { add(remapPage: copy, to: &digest) }
            let (first, second) = (Self.sequence(pages[page]), Self.sequence(pages[count + page]))
            digest.add(first == second ? 0 : first < second ? 1 : 2)
        }
    }

    private static func sequence(_ page: [UInt8]) -> UInt64 {
        unsafe page.span.bytes.loadLittleEndian(at: 24, as: UInt64.self)
    }

    /// All but the checksum and the sequence, and whether there is one: sequences are compared, and nothing else.
    func add(remapPage page: [UInt8], to digest: inout Digest) {
        for offset in stride(from: 0, to: page.count, by: 8) where offset != 8 && offset != 24 {
            let word: UInt64 = unsafe page.span.bytes.loadLittleEndian(at: offset)
            if word != 0 { digest.add(UInt64(offset) << 56 ^ word) }
        }
        digest.add(Self.sequence(page) == 0 ? 0 : 1)
    }

    private func add(_ ledger: ScrubLedger, to digest: inout Digest) {
        let state = ledger.state
        digest.add(state.position << 2 | (state.isRunning ? 2 : 0) | (state.repairs ? 1 : 0))
        digest.add(state.preferred.map { UInt64($0.value) } ?? 255)
        for sequence in ledger.sequences { digest.add(sequence) }
        for case let entry? in ledger.entries {
            digest.add(entry.offset << 1 | (entry.isOpen ? 1 : 0))
            digest.add(UInt64(entry.plexes.mask) << 8 | UInt64(entry.odd.mask))
        }
    }

    private func addPages(of disk: SimulatedDisk, to digest: inout Digest) {
        guard let pages = disk.pages else { return }
        for sheet in 0..<FoundPages.sheetCount {
            for page in 0..<pages.pagesPerSheet {
                add(pages.header(sheet: sheet, page: page), to: &digest)
            }
            for word in 0..<(pages.regionCount + 63) / 64 { digest.add(pages.word(sheet: sheet, word)) }
        }
    }

    func add(_ page: BitmapPage?, to digest: inout Digest) {
        guard let page else { return digest.add(.max) }
        digest.add(place(of: page.sequence) << 32 | place(of: page.lastClear))
        digest.add(UInt64(absences.firstIndex(of: page.absence) ?? 255))
    }

    private func place(of sequence: UInt64) -> UInt64 { UInt64(sequences.firstIndex(of: sequence) ?? sequences.count) }

    private func addSuperblocks(of disk: SimulatedDisk, to digest: inout Digest) {
        let copies = reader.copies(of: disk)
        guard let newest = copies.indices.max(by: { copies[$0].sequence < copies[$1].sequence }) else { return }
        add(copies[newest], to: &digest)
        // The pair that holds the newest is never the next to be written, so what older copies say comes to
        // light only where the newest are damaged: it counts which are legible.
        var legible: UInt64 = 0
        for place in copies.indices where copies[place ^ (newest & 1)].isValid { legible |= 1 << UInt64(place) }
        digest.add(legible)
    }

    func add(_ copy: SuperblockReader.Copy, to digest: inout Digest) {
        guard copy.isValid else { return digest.add(.max) }
        digest.add(copy.contents)
        digest.add(copy.lineage)
        digest.add(UInt64(generations.firstIndex(of: copy.generation) ?? 255))
        digest.add(highestEpoch &- copy.epoch)
        for map in copy.maps {
            guard let map else {
                digest.add(.max)
                continue
            }
            digest.add(UInt64(map.slot) << 1 | (map.startsFull ? 1 : 0))
            digest.add(UInt64(absences.firstIndex(of: map.id) ?? 255))
            digest.add(highestEpoch &- map.epoch)
            digest.add(place(of: map.lastClear))
        }
    }
}

/// Decodes superblocks, each once: exploring, the same few come by again and again.
final class SuperblockReader {
    /// What counts of one copy.
    struct Copy {
        var isValid = false
        var generation = Generation.none
        /// What led to the generation.
        var lineage: UInt64 = 0
        var epoch: UInt64 = 0
        var sequence: UInt64 = 0
        /// By member.
        var maps: [MissedWriteMap?] = []
        /// The rest.
        var contents: UInt64 = 0
    }

    private var known: [UInt64: Copy] = [:]
    /// Behind that a superblock is zero.
    private static let usedBytes = 2304

    func copies(of disk: SimulatedDisk) -> [Copy] {
        (0..<Layout.superblockCopies).map { copy in
            let start = copy * Int(Layout.superblockSpacingBytes)
            let area = unsafe disk.superblocks.span.bytes
            return read(
                area.extracting(start..<start + Superblock.byteCount), copy: copy, diskBytes: disk.layout.diskBytes)
        }
    }

    /// - Returns: nil if the operation writes something else.
    func copy(in metadata: [UInt8], at offset: UInt64, diskBytes: UInt64) -> Copy? {
        for copy in 0..<Layout.superblockCopies
        where Layout.superblockOffset(copy: copy, diskBytes: diskBytes) == offset {
            return unsafe read(metadata.span.bytes, copy: copy, diskBytes: diskBytes)
        }
        return nil
    }

    private func read(_ bytes: RawSpan, copy: Int, diskBytes: UInt64) -> Copy {
        var key = Digest()
        key.add(UInt64(copy))
        for offset in stride(from: 0, to: Self.usedBytes, by: 8) {
            key.add(bytes.loadLittleEndian(at: offset, as: UInt64.self))
        }
        if let found = known[key.value] { return found }
        var result = Copy()
        if let superblock = try? Superblock(decoding: bytes, copy: copy, diskBytes: diskBytes) {
            result = Self.summary(superblock)
        }
        known[key.value] = result
        return result
    }

    private static func summary(_ superblock: Superblock) -> Copy {
        let record = superblock.record
        var result = Copy(
            isValid: true, generation: record.generation, epoch: record.epoch, sequence: superblock.sequence)
        var lineage = Digest()
        for past in record.history.reversed() {
            lineage.add(UInt64(past.reason.rawValue) << 8 | UInt64(past.inSync.mask))
        }
        result.lineage = lineage.value
        var contents = Digest()
        contents.add(record.mirror == World.mirrorUUID ? 1 : 0)
        contents.add(superblock.plex.bits.high)
        contents.add(superblock.plex.bits.low)
        contents.add((record.isClean ? 256 : 0) | (record.pinned.map { UInt64($0.value) } ?? 255))
        for member in record.members {
            contents.add(UInt64(member.role.rawValue) << 8 | UInt64(member.cause.operation.rawValue))
            contents.add(member.uuid.bits.high)
            contents.add(member.uuid.bits.low)
            if member.isRemapped { contents.add(.max) }
        }
        for range in record.badRanges { contents.add(range.offset << 8 | UInt64(range.plex.value)) }
        result.maps = record.members.map(\.missedWriteMap)
        result.contents = contents.value
        return result
    }
}
