internal import MirrorCore
internal import MirrorFormat

/// What a crash may leave of a disk: all of it, listed, where `Simulation.crash` draws one.
///
/// Loose are, besides what is in flight, the unflushed writes if power fails. A write counts as one: that single
/// sectors of it survive is represented by one outcome in which everything loose is torn. With few loose
/// things every combination is taken; with many, those with all, none, all but one, and only one of them.
extension Simulation {
    /// One thing that a crash may undo.
    private enum Loose {
        /// A write in flight: lost, landed, torn.
        case data(flight: Int)
        /// The same with a superblock; it is torn as often as not, for a tear destroys what was there before.
        case metadata(flight: Int)
        /// A write that the disk has not flushed: lost, kept, torn.
        case unflushed(order: UInt64)
    }

    private enum Fate: Int { case lost, kept, torn }

    /// - Returns: first the outcome with the least, last that with the most; some may be equal.
    func remains(of disk: Int, powerFails: Bool, limit: Int) -> [SimulatedDisk] {
        let loose = looseThings(on: disk, powerFails: powerFails)
        return fates(of: loose, limit: limit).map { fates in
            remains(of: disk, powerFails: powerFails, loose: loose, fates: fates)
        }
    }

    private func looseThings(on disk: Int, powerFails: Bool) -> [Loose] {
        var loose: [Loose] = []
        if powerFails {
            var last: UInt64?
            for entry in disks[disk].unflushed where entry.order != last && !entry.isForgotten {
                loose.append(.unflushed(order: entry.order))
                last = entry.order
            }
        }
        guard !disks[disk].isGone else { return loose }
        for (index, flight) in flights.enumerated() {
            guard let flight, flight.disk == disk else { continue }
            // What the pilot lets fail has its fate already.
            guard case .succeed = flight.plan else { continue }
            switch flight.operation.kind {
            case .write, .deallocate, .zero: if !flight.isExecuted { loose.append(.data(flight: index)) }
            case .writeMetadata: loose.append(.metadata(flight: index))
            case .read, .flush, .queryAllocation, .compare, .checksum, .findData: break
            }
        }
        return loose
    }

    private func fates(of loose: [Loose], limit: Int) -> [[Fate]] {
        let count = loose.count
        let none = [Fate](repeating: .lost, count: count)
        guard count > 0 else { return [none] }
        let choices = loose.map { loose -> [Fate] in
            switch loose {
            case .data, .unflushed: [.lost, .kept]
            case .metadata: [.lost, .torn, .kept]
            }
        }
        let torn = [Fate](repeating: .torn, count: count)
        let all = [Fate](repeating: .kept, count: count)
        if choices.reduce(1, { min($0, limit + 1) * $1.count }) <= limit {
            var product: [[Fate]] = [[]]
            for choice in choices { product = product.flatMap { start in choice.map { start + [$0] } } }
            return [none, torn] + product.dropFirst()
        }
        var family = [none, torn]
        for index in loose.indices {
            for fate in choices[index] where fate != .lost { family.append(changed(none, index, fate)) }
            for fate in choices[index] where fate != .kept { family.append(changed(all, index, fate)) }
        }
        return family + [all]
    }

    private func changed(_ fates: [Fate], _ index: Int, _ fate: Fate) -> [Fate] {
        var result = fates
        result[index] = fate
        return result
    }

    private func remains(of disk: Int, powerFails: Bool, loose: [Loose], fates: [Fate]) -> SimulatedDisk {
        var result = disks[disk]
        let lastOrder = result.order
        var lost: [UInt64] = []
        var torn: [UInt64] = []
        for (thing, fate) in zip(loose, fates) {
            switch thing {
            case .unflushed(let order):
                if fate == .lost { lost.append(order) }
                if fate == .torn { torn.append(order) }
            case .data(let flight):
                if fate != .lost, let flight = flights[flight] { put(flight, on: &result, isTorn: fate == .torn) }
            case .metadata(let flight):
                guard fate != .lost, let flight = flights[flight] else { continue }
                var chance = Random(seed: 1)
                result.writeMetadata(
                    flight.metadata, offset: flight.operation.offset, landing: fate == .torn ? .torn : .whole,
                    random: &chance)
            }
        }
        result.dropForgotten()
        if powerFails {
            result.losePower { entry in
                entry.order > lastOrder
                    || !lost.contains(entry.order) && (entry.sector % 2 == 0 || !torn.contains(entry.order))
            }
        }
        result.hasLost = false
        result.hasFailedFlush = false
        result.isGone = false
        return result
    }

    /// A write in flight reaches the disk after all, the server being dead.
    private func put(_ flight: Flight, on disk: inout SimulatedDisk, isTorn: Bool) {
        let operation = flight.operation
        let first = disk.sector(at: operation.offset)
        let base = Int(operation.bufferOffset) / Geometry.sectorBytes * Geometry.cellsPerSector
        for index in 0..<Int(operation.length) / Geometry.sectorBytes
        where (!isTorn || index % 2 == 0) && !disk.hasStuck(sector: first + index, count: 1) {
            switch operation.kind {
            case .write:
                withBuffer(flight) {
                    disk.write(sector: first + index, count: 1, from: $0, cell: base + index * 3)
                }
            case .zero, .deallocate: disk.zero(sector: first + index, count: 1)
            case .read, .flush, .writeMetadata, .queryAllocation, .compare, .checksum, .findData: break
            }
        }
    }

    /// - Parameter disks: as the crash left them.
    func world(leaving disks: [SimulatedDisk], powerFails: Bool) -> World {
        var knowledge = oracle
        knowledge.crash(powerLost: powerFails)
        return World(disks: disks, oracle: knowledge, writeNumber: writeNumber, now: now + 1_000_000_000)
    }

    /// The server dies, and this is what remains; the present simulation goes on from there.
    func crash(leaving disks: [SimulatedDisk], powerFails: Bool) {
        let gone = self.disks.map(\.isGone)
        self.disks = disks
        for disk in disks.indices { self.disks[disk].isGone = gone[disk] }
        oracle.crash(powerLost: powerFails)
        leave()
    }
}
