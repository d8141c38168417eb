internal import MirrorCore
internal import MirrorFormat

extension Target {
    /// Superblocks and events whose checksums are right and whose contents are not: whatever they make of a mirror, it
    /// neither traps nor writes outside of its areas.
    static let opening = Target("opening", cost: 4) { input throws(Finding) in
        let found = input.hostilePlexes()
        guard !found.isEmpty else { return "refused" }
        var options = AssemblyOptions()
        options.allowDegraded = !input.oneIn(3)
        options.isReadOnly = input.oneIn(4)
        switch assemble(found, options: options) {
        case .refused(let refusal): return refusal.word
        case .assembled(let assembly):
            var driver = Driver(assembly, isReadOnly: options.isReadOnly, &input)
            try driver.run(&input)
            return options.isReadOnly ? "opened to read" : "opened"
        }
    }
}

extension Input {
    /// One to three disks that call themselves plexes of one mirror.
    fileprivate mutating func hostilePlexes() -> [FoundPlex] {
        var first = superblock()
        first.record.epoch = oneIn(3) ? first.record.epoch : UInt64(below(100))
        let members = Array(first.record.configured.members)
        // Without a plex that is in sync nothing is opened.
        for member in members where !oneIn(4) { first.record[member].role = pick([.inSync, .recovering, .failed]) }
        if !oneIn(4) { first.record[members[0]].role = .inSync }
        var found: [FoundPlex] = []
        for disk in 0...min(below(3), members.count - 1) {
            var superblock = first
            superblock.plex = first.record[members[disk]].uuid
            if oneIn(6) { superblock.record.epoch = superblock.record.epoch &- 1 }
            guard let hostile = hostile(superblock) else { continue }
            found.append(FoundPlex(disk: disk, superblock: hostile, pages: oneIn(4) ? nil : hostilePages(of: hostile)))
        }
        return found
    }

    /// Pages of the bitmap and the maps, some of which say more than is true, or nothing that can be read.
    private mutating func hostilePages(of superblock: Superblock) -> FoundPages {
        let record = superblock.record
        var pages = FoundPages(of: superblock)
        let absences = record.members.compactMap { $0.missedWriteMap?.id } + [0]
        for sheet in 0..<FoundPages.sheetCount where !oneIn(5) {
            for index in 0..<min(2, pages.pagesPerSheet) {
                var bits = [UInt64](repeating: 0, count: BitmapPage.wordCount)
                for _ in 0..<below(4) { bits[below(bits.count)] = number() }
                var bytes = BitmapPage(
                    sheet: UInt8(sheet), index: UInt64(index), sequence: oneIn(3) ? number() : count(),
                    lastClear: oneIn(3) ? number() : UInt64(below(8)), generation: record.generation,
                    absence: sheet == 0 ? 0 : pick(absences)
                ).encoded(mirror: record.mirror, words: bits)
                if oneIn(6) {
                    damage(&bytes)
                    if oneIn(2) { sealPage(&bytes, mirror: record.mirror) }
                }
                show("hostile page", bytes)
                pages.take(sheet: sheet, page: index, bytes: unsafe bytes.span.bytes)
            }
        }
        return pages
    }

    /// Nil: refused already by the decoder.
    private mutating func hostile(_ superblock: Superblock) -> Superblock? {
        let diskBytes = superblock.layout.diskBytes
        var bytes = superblock.encoded(copy: 0)
        // The fields end with the maps: 2240 + 8 x 32 bytes.
        for _ in 0..<below(4) { putNumber(into: &bytes, below: 2496) }
        if oneIn(4) { damage(&bytes) }
        sealSuperblock(&bytes, copy: 0, diskBytes: diskBytes)
        show("hostile superblock", bytes)
        return decodeSuperblock(bytes, copy: 0, diskBytes: diskBytes)
    }

    fileprivate mutating func hostileEvents(of mirror: MirrorUUID) -> [EventRecord] {
        var events: [EventRecord] = []
        for _ in 0..<below(3) {
            var event = event()
            if oneIn(2) { event.sequence = number() }
            let bytes = event.encoded(mirror: mirror)
            if let decoded = EventRecord(decoding: unsafe bytes.span.bytes, mirror: mirror) { events.append(decoded) }
        }
        return events.sorted { $0.sequence < $1.sequence }
    }
}

/// Stands in for the reactor: carries out what a mirror wants, or says that it failed.
private struct Driver: ~Copyable {
    private var mirror: Mirror
    private var layouts: [Layout?]
    private var now = Instant(nanoseconds: 1, unixNanoseconds: 1)
    private var pending: [DiskOperation] = []
    private var effects = 0

    /// Far beyond what so few events can lead to.
    private static let maximumEffects = 20_000

    init(_ assembly: Assembly, isReadOnly: Bool, _ input: inout Input) {
        var limits = Limits()
        limits.requests = 8
        layouts = Array(repeating: nil, count: PlexSet.capacity)
        for plex in assembly.participants.members {
            layouts[Int(plex.value)] = assembly.found[plex]?.superblock.layout
        }
        mirror = Mirror(
            assembly: assembly, writer: .none,
            entropy: Entropy(input.take(8), input.take(8), input.take(8), input.take(8)), isReadOnly: isReadOnly,
            recentEvents: input.hostileEvents(of: assembly.record.mirror), limits: limits, now: now)
    }

    mutating func run(_ input: inout Input) throws(Finding) {
        try drain()
        for step in 0..<30 {
            now.nanoseconds += UInt64(input.below(1 << 16)) << 16
            switch input.below(4) {
            case 0: mirror.handle(.tick, now: now)
            case 1: request(step, &input)
            default: complete(&input)
            }
            try drain()
        }
        mirror.handle(.command(CommandID(1), .stop), now: now)
        try drain()
        for _ in 0..<200 where !pending.isEmpty {
            complete(&input)
            try drain()
        }
    }

    private mutating func request(_ step: Int, _ input: inout Input) {
        guard mirror.isOpen, mirror.hasRoom else { return }
        let size = mirror.record.dataBytes
        let offset = input.take(8) % size
        let length = min(size - offset, UInt64(1 + input.below(1 << 16)))
        let kind = input.pick([RequestKind.read, .write, .zeroes, .trim, .flush])
        // A read-only export offers no other command.
        guard kind == .read || kind == .flush || !mirror.status().isReadOnly else { return }
        let isFlush = kind == .flush
        mirror.handle(
            .request(
                Request(
                    id: RequestID(UInt64(step) + 1), kind: kind, offset: isFlush ? 0 : offset,
                    length: isFlush ? 0 : length, buffer: BufferID(UInt32(step)))), now: now)
    }

    private mutating func complete(_ input: inout Input) {
        guard !pending.isEmpty else { return }
        let operation = pending.remove(at: input.below(pending.count))
        let errors: [Int32] = [5, 6, 11, 22, 28]
        let result: DiskResult =
            input.oneIn(12)
            ? .failed(DiskFailure(errorNumber: input.pick(errors), isBlockDevice: input.oneIn(2)))
            : .transferred(operation.length)
        mirror.handle(.completion(operation.tag, result), now: now)
    }

    private mutating func drain() throws(Finding) {
        mirror.endBatch(now: now)
        while let effect = mirror.nextEffect() {
            effects += 1
            try require(effects < Self.maximumEffects, "effects without end")
            switch effect {
            case .submit(let operation):
                try check(operation)
                pending.append(operation)
            case .answer: _ = mirror.takeAnswer()
            case .events: _ = mirror.takeEvents()
            case .release(let plex): layouts[Int(plex.value)] = nil
            case .reply, .copyBytes, .fillZeroes, .adopt, .detach, .stopped: break
            }
        }
    }

    /// Data stays in the data, metadata in the private areas, and both on the disk.
    private func check(_ operation: DiskOperation) throws(Finding) {
        guard let layout = layouts[Int(operation.plex.value)] else {
            throw Finding("\(operation.kind) on plex \(operation.plex), which has no disk")
        }
        let (end, overflows) = operation.offset.addingReportingOverflow(operation.length)
        try require(!overflows, "\(operation.kind) beyond all numbers")
        switch operation.kind {
        case .writeMetadata:
            var bytes = [UInt8](repeating: 0xEE, count: Int(Limits.blockBytes))
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            mirror.encodeMetadata(operation, into: &raw)
            let isInside = layout.areas.contains { $0.offset <= operation.offset && end <= $0.end }
            try require(isInside, "metadata at \(operation.offset), outside of every area")
        case .read, .write, .deallocate, .zero, .queryAllocation, .compare, .checksum, .findData:
            try require(end <= layout.dataBytes, "\(operation.kind) at \(operation.offset), beyond the data")
        case .flush: break
        }
    }
}
