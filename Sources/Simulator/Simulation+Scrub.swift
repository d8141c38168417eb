internal import MirrorCore
internal import MirrorFormat

/// Scrubs among everything else, and the proof at the end: a finished scrub tells of the blocks in which plexes differ, of
/// all of them, and of no other.
extension Simulation {
    // MARK: disks

    /// What a disk says to the questions that only a scrub asks; nil: it is none of these.
    func scrubResult(_ flight: Flight) -> DiskResult? {
        let operation = flight.operation
        guard [.compare, .checksum, .findData].contains(operation.kind) else { return nil }
        // As they lie: what is in the spare pool is asked for there.
        let first = disks[flight.disk].sector(at: operation.offset) * Geometry.cellsPerSector
        let cells = first..<first + Geometry.cells(0, operation.length).count
        let contents = disks[flight.disk].cached.cells[cells]
        switch operation.kind {
        case .compare:
            let base = Geometry.cells(operation.bufferOffset, operation.length).lowerBound
            var isSame = false
            withBuffer(flight) { isSame = $0[base..<base + cells.count] == contents }
            return isSame
                ? .transferred(operation.length) : .failed(DiskFailure(kind: .differs, errorNumber: 0))
        case .checksum: return .transferred(UInt64(Self.checksum(contents)))
        case .findData:
            let perBlock = Geometry.sectorsPerBlock * Geometry.cellsPerSector
            let data = contents.firstIndex { $0 != 0 } ?? cells.upperBound
            return .transferred(UInt64((data - cells.lowerBound) / perBlock * Geometry.blockBytes))
        case .read, .write, .deallocate, .zero, .flush, .writeMetadata, .queryAllocation: return nil
        }
    }

    private static func checksum(_ cells: ArraySlice<UInt32>) -> UInt32 {
        cells.reduce(0x811C_9DC5) { ($0 ^ $1) &* 0x0100_0193 }
    }

    func scrubLedger(_ plexes: PlexSet, _ assembly: Assembly) -> ScrubLedger {
        var ledger = ScrubLedger()
        for plex in plexes.members {
            if let disk = assembly.found[plex]?.disk { ledger.merge(disks[disk].scrubLedger(of: mirrorUUID)) }
        }
        return ledger
    }

    // MARK: orders

    func scrubTurn() {
        guard scrubs?.chance(120) ?? false, let drawn = scrubs?.below(10), let server,
            let plex = scrubs?.below(disks.count)
        else { return }
        let preferred = server.mirror.goodPlexes.contains(PlexIndex(plex)) ? PlexIndex(plex) : nil
        switch drawn {
        case 0: give(.scrub, PlexIndex(0), .scrub(.stop))
        case 1: give(.scrub, PlexIndex(0), .scrub(.limit(1 << 20)))
        case 2: give(.scrub, PlexIndex(0), .scrub(.limit(nil)))
        case 3, 4:
            give(.scrub, PlexIndex(0), .scrub(.start(ScrubManner(repairs: true, preferred: preferred))))
        default: give(.scrub, PlexIndex(0), .scrub(.start(ScrubManner(readsHoles: drawn > 7))))
        }
    }

    // MARK: rules

    /// No client and no legal history makes plexes differ where a scrub looks.
    func checkMismatch(_ event: EventRecord) {
        guard event.code == .scrubMismatch, !isShadow, let server else { return }
        let isExcused =
            Geometry.cells(event.offset, event.length).contains { oracle.isHaunted($0) }
            || server.disks.contains { $0.map { disks[$0].hasLost || disks[$0].hasFailedFlush } ?? false }
        if !isExcused { fail("scrub", "a difference at \(event.offset) that no disk is to blame for: \(event.text)") }
    }

    private var isScrubbing: Bool { server?.mirror.status().scrub?.isRunning ?? false }

    /// All is well and nobody writes: some cells flip, and what a scrub tells of is just what differs.
    func proveScrub() {
        guard var draws = scrubs, disks.count > 1, violation == nil else { return }
        scrubs = nil
        guard wait(until: { !$0.isScrubbing }) else { return stuck("a scrub does not end") }
        for _ in 0..<draws.below(4) {
            let cell = draws.below(oracle.cells.count)
            let stamp = UInt32.max - 2000 - UInt32(draws.below(1000))
            disks[draws.below(disks.count)].rot(cell, to: stamp)
            oracle.haunt(cell, with: [stamp], from: .now)
        }
        scrub(ScrubManner(readsHoles: draws.chance(500)))
        checkLedger()
        let majority = draws.chance(500) && disks.count > 2
        let preferred = majority ? nil : PlexIndex(draws.below(disks.count))
        let wanted = (0..<profile.dataBlocks).map { right($0, preferred) }
        scrub(ScrubManner(repairs: true, preferred: preferred))
        guard violation == nil else { return }
        for block in wanted.indices {
            guard let version = wanted[block] else { continue }
            for disk in disks.indices where Array(contents(disk, block)) != version {
                return fail("scrub", "block \(block) is repaired, and plex \(disk) has another version")
            }
        }
        checkLedger()
    }

    private func scrub(_ manner: ScrubManner) {
        guard violation == nil else { return }
        give(.scrub, PlexIndex(0), .scrub(.start(manner)))
        if !wait(until: { !$0.isScrubbing && $0.isUncommanded }) { stuck("a scrub does not end") }
    }

    private func contents(_ disk: Int, _ block: Int) -> ArraySlice<UInt32> {
        disks[disk].cached[Geometry.cells(UInt64(block * Geometry.blockBytes), UInt64(Geometry.blockBytes))]
    }

    /// What all plexes hold after a repair; nil: what they held before.
    private func right(_ block: Int, _ preferred: PlexIndex?) -> [UInt32]? {
        if let preferred { return Array(contents(Int(preferred.value), block)) }
        let versions = disks.indices.map { Array(contents($0, block)) }
        return versions.first { version in versions.filter { $0 == version }.count * 2 > versions.count }
    }

    private func checkLedger() {
        guard violation == nil, let server else { return }
        let differing = (0..<profile.dataBlocks).filter { block in
            disks.indices.contains { contents($0, block) != contents(0, block) }
        }
        let told = server.mirror.scrubLedger.entries.compactMap { entry in
            entry.flatMap { $0.isOpen ? Int($0.offset) / Geometry.blockBytes : nil }
        }
        guard told.sorted() == differing, server.mirror.status().scrub?.mismatches == UInt64(differing.count) else {
            return fail("scrub", "a scrub tells of blocks \(told.sorted()), and plexes differ in \(differing)")
        }
    }
}

extension Geometry {
    /// Of whole sectors.
    static func cells(_ offset: UInt64, _ length: UInt64) -> Range<Int> {
        let first = Int(offset) / sectorBytes * cellsPerSector
        return first..<first + Int(length) / sectorBytes * cellsPerSector
    }
}

extension SimulatedDisk {
    func scrubLedger(of mirror: MirrorUUID) -> ScrubLedger {
        var ledger = ScrubLedger()
        let start = Layout.usableBytes(ofDisk: layout.diskBytes) - Layout.superblockAreaBytes
        for page in 0..<ScrubLedger.pageCount {
            let base = Int(ScrubLedger.pageOffset(page, diskBytes: layout.diskBytes) - start)
            let bytes = Array(superblocks[base..<base + ScrubLedger.pageBytes])
            unsafe ledger.take(page: page, bytes: bytes.span.bytes, mirror: mirror)
        }
        return ledger
    }
}

extension Mutant {
    /// Found only where there are scrubs.
    var isOfScrub: Bool {
        [.scrubReadsOnePlex, .scrubWithoutLock, .scrubRepairUnlocked, .scrubForgetsMissed].contains(self)
    }
}
