internal import MirrorCore

/// Disks that say one thing and do another, and those that become smaller or never answer.
///
/// Without checksums the engine can't tell a wrong value from a right one, so nothing better is expected of the
/// cells in question than one of the two, until they are written again (`Oracle.haunt`). Of all other cells, on
/// this disk and on the rest, everything is expected as ever.
extension Simulation {
    func drawLie(_ operation: DiskOperation, _ disk: Int) -> Flight.Plan? {
        guard !isShadow else { return nil }
        switch operation.kind {
        case .write:
            // One that is found out harms nobody.
            if chance(.droppedWrite, disk, divisor: operation.isVerified ? 1 : 4) { return .drop }
            guard chance(.misdirectedWrite, disk, divisor: 4) else { return nil }
            return .misdirect(toBlock: random.below(profile.dataBlocks - blocks(operation) + 1))
        case .zero, .deallocate: return chance(.droppedWrite, disk, divisor: 4) ? .drop : nil
        case .read, .flush, .writeMetadata, .queryAllocation, .compare, .checksum, .findData: return nil
        }
    }

    private func blocks(_ operation: DiskOperation) -> Int { Int(operation.length) / Geometry.blockBytes }

    /// The moment at which the write would have changed the disk.
    func lie(_ index: Int) {
        flights[index]?.isExecuted = true
        guard let flight = flights[index] else { return }
        let operation = flight.operation
        let first = disks[flight.disk].sector(at: operation.offset)
        let count = Int(operation.length) / Geometry.sectorBytes
        note("disk \(flight.disk) lies about #\(index): \(flight.plan)")
        var wanted = [UInt32](repeating: 0, count: count * 3)
        if operation.kind == .write {
            let base = Int(operation.bufferOffset) / Geometry.sectorBytes * 3
            withBuffer(flight) { wanted = Array($0[base..<base + count * 3]) }
        }
        // What is read back and found out must never be seen by anybody.
        if !operation.isVerified {
            for index in wanted.indices { keepOld(first * 3 + index, wanted[index], flight) }
        }
        guard case .misdirect(let block) = flight.plan else { return }
        let wrong = block * Geometry.sectorsPerBlock
        disks[flight.disk].write(sector: wrong, count: count, from: wanted, cell: 0)
        for cell in wrong * 3..<(wrong + count) * 3 {
            haunt(cell, with: [disks[flight.disk].cached.cells[cell]], from: .now)
        }
    }

    /// What was written is read back, and is not what is there.
    func isFoundOut(_ flight: Flight) -> Bool {
        let operation = flight.operation
        guard operation.isVerified else { return false }
        let first = disks[flight.disk].sector(at: operation.offset) * 3
        let base = Int(operation.bufferOffset) / Geometry.sectorBytes * 3
        let count = Int(operation.length) / Geometry.sectorBytes * 3
        var differs = false
        guard operation.kind == .write else {
            return (0..<count).contains { disks[flight.disk].cached.cells[first + $0] != 0 }
        }
        withBuffer(flight) { wanted in
            differs = (0..<count).contains { disks[flight.disk].cached.cells[first + $0] != wanted[base + $0] }
        }
        return differs
    }

    /// The cell goes on holding what it held, unless that is what should be there.
    private func keepOld(_ place: Int, _ wanted: UInt32, _ flight: Flight) {
        let values = disks[flight.disk].values(at: place)
        guard values != [wanted], let cell = disks[flight.disk].dataCell(at: place) else { return }
        let operation = flight.operation
        var moment = Oracle.Haunting.copy
        if operation.request.value > 0 {
            let entry = requests[Int(operation.request.value) - 1]
            if entry.cells.contains(cell), entry.request.kind != .read { moment = .write(issue: entry.issue) }
        }
        haunt(cell, with: values, from: moment)
    }

    private func haunt(_ cell: Int, with stamps: [UInt32], from moment: Oracle.Haunting) {
        oracle.haunt(cell, with: stamps, from: moment)
        // A plex that is being broken off keeps it, whatever is written to the others.
        for index in commands.indices { commands[index].copy?[cell] += stamps }
    }

    /// A bit of the medium flips, on whatever disk, in use or not.
    func rot() {
        guard isHostile, profile.has(.bitFlip), !isShadow, random.chance(profile.rate * 2) else { return }
        count(.bitFlip)
        let disk = random.below(disks.count)
        var sector = random.below(disks[disk].bad.count)
        if random.chance(500), let hot = random.pick(profile.hotBlocks) {
            sector = hot * Geometry.sectorsPerBlock + random.below(Geometry.sectorsPerBlock)
        }
        let cell = sector * 3 + random.below(3)
        let stamp = UInt32.max - UInt32(random.below(1000))
        note("disk \(disk): cell \(cell) flips")
        // In a slot that no table names yet nothing is believed until it has been read back.
        guard let data = disks[disk].dataCell(at: cell) else { return }
        disks[disk].rot(cell, to: stamp)
        haunt(data, with: [stamp], from: .now)
    }

    // MARK: the end of the disk

    /// What becomes of an operation that reaches beyond the end of a backing that was made smaller.
    func planBeyondTheEnd(_ operation: DiskOperation, _ disk: Int) -> Flight.Plan? {
        guard let end = disks[disk].truncatedAt, Int(operation.offset + operation.length) > end else { return nil }
        let left = UInt64(max(0, end - Int(operation.offset)))
        switch operation.kind {
        case .read: return .short(left)
        // A block device says that it is full; anything else moves nothing.
        case .write: return left == 0 && isBlockDevice ? .fail(errorNumber: 28, effect: .none) : .short(left)
        case .zero, .deallocate, .writeMetadata:
            return .fail(errorNumber: isBlockDevice ? 28 : 6, effect: .none)
        case .flush, .queryAllocation, .findData: return nil
        case .compare, .checksum: return left == operation.length ? nil : .fail(errorNumber: 6, effect: .none)
        }
    }

    // MARK: operations that take hours

    /// While one hangs everybody else takes their time, so that hours pass in few events.
    var crawl: UInt64 { now < zombieUntil ? 10_000 : 1 }

    /// How long an operation hangs that was given up for lost.
    func drawZombie() -> UInt64? {
        guard isHostile, profile.has(.zombie), now >= zombieUntil, random.chance(max(1, profile.rate / 16)) else {
            return nil
        }
        count(.zombie)
        // Where somebody looks at the clock hours would pass tick by tick.
        if late != nil { return UInt64(random.within(1...6)) * 10_000_000_000 }
        let delay = UInt64(random.within(1...6)) * 3_600_000_000_000
        zombieUntil = now + delay
        return delay
    }

    // MARK: paths

    /// R11: it does not matter under which name a disk is found. What it is stands in its superblock.
    func checkSwapped(_ plexes: [FoundPlex], _ options: AssemblyOptions, _ verdict: Verdict) {
        guard plexes.count > 1 else { return }
        count(.swappedPaths)
        var swapped = plexes
        for index in swapped.indices { swapped[index].disk = plexes[(index + 1) % plexes.count].disk }
        var names: [Int: Int] = [:]
        for index in plexes.indices { names[swapped[index].disk] = plexes[index].disk }
        if !isSame(renamed(assemble(swapped, options: options)) { names[$0] ?? $0 }, verdict) {
            fail("R11", "the verdict depends on the paths of the disks")
        }
    }

    private func renamed(_ verdict: Verdict, _ name: (Int) -> Int) -> Verdict {
        switch verdict {
        case .assembled(var assembly):
            assembly.found = assembly.found.mapValues {
                FoundPlex(disk: name($0.disk), superblock: $0.superblock, remaps: $0.remaps)
            }
            return .assembled(assembly)
        case .refused(.clonedPlex(let uuid, let disks)):
            return .refused(.clonedPlex(uuid, disks: disks.map(name).sorted()))
        case .refused(.split(var sides, let related)):
            for index in sides.indices { sides[index].disks = sides[index].disks.map(name) }
            return .refused(.split(sides: sides, related: related))
        case .refused(.mustStayReadOnly(let disks)): return .refused(.mustStayReadOnly(disks: disks.map(name)))
        case .refused(.incomplete), .refused(.noCurrentPlex): return verdict
        }
    }
}
