internal import MirrorCore
internal import MirrorFormat

/// What becomes of a state that a crash left.
extension Exploration {
    /// The mirror is started, degraded if need be, and read in full; what is read must be legal. Then it crashes
    /// again, with the loss of each plex, and must still say the same (R7). If it does not crash, its plexes must
    /// become equal.
    func judge(_ world: World, absent: UInt8, depth: Int) {
        let simulation = Simulation(options, world: world, pilot: Pilot(), limits: limits)
        for disk in world.disks.indices where absent & 1 << disk != 0 {
            simulation.disks[disk].isGone = true
            simulation.disks[disk].returnsAt = .max
        }
        defer { report(simulation) }
        guard simulation.startSteered() else { return }
        simulation.issueReads()
        var unanswered = simulation.outstanding.count
        let first = unanswered - 1
        let isRead = simulation.turn(until: { $0.outstanding.isEmpty }) { simulation in
            guard depth == 0, !isCoarse, simulation.outstanding.count < unanswered else { return }
            unanswered = simulation.outstanding.count
            // The first answer is a promise already, while all else is still under way.
            if unanswered == first || unanswered == 0 { self.crashAgain(simulation, absent: absent) }
        }
        guard simulation.violation == nil else { return }
        guard isRead else { return simulation.fail("liveness", "a read after a restart is not answered") }
        guard depth == 0 else { return }
        simulation.settle()
        guard simulation.violation == nil else { return }
        simulation.checkRecovered(absent: absent)
    }
}

extension Simulation {
    /// Changes whenever something happens that a crash may bring to light.
    var momentKey: UInt64 {
        var digest = Digest()
        for (index, flight) in flights.enumerated() {
            if let flight { digest.add(UInt64(index) << 1 | (flight.isExecuted ? 1 : 0)) }
        }
        for disk in disks {
            digest.add(disk.writes)
            digest.add(UInt64(disk.unflushed.count))
        }
        digest.add(UInt64(oracle.clock))
        digest.add(UInt64(oracle.start))
        return digest.value
    }

    func naming(_ reader: SuperblockReader, hasLedgers: Bool) -> Naming {
        var copies = disks.flatMap { reader.copies(of: $0) }
        var pages = disks.flatMap(\.headersOfPages)
        for flight in flights {
            guard let flight, flight.operation.kind == .writeMetadata else { continue }
            let copy = reader.copy(
                in: flight.metadata, at: flight.operation.offset, diskBytes: layout.diskBytes)
            if let copy { copies.append(copy) }
            if let page = page(flight) { pages.append(page) }
        }
        return Naming(oracle, reader: reader, superblocks: copies, pages: pages, hasLedgers: hasLedgers)
    }

    /// What a flight writes, if that is a page of the bitmap or of a map.
    private func page(_ flight: Flight) -> BitmapPage? {
        guard let place = disks[flight.disk].page(at: flight.operation.offset) else { return nil }
        return unsafe BitmapPage(
            decoding: flight.metadata.span.bytes, mirror: mirrorUUID, sheet: UInt8(place.sheet),
            index: UInt64(place.index))
    }

    /// All that crash states come from: the disks, the writes in flight, what clients know.
    func momentDigest(_ naming: Naming, _ reader: SuperblockReader) -> UInt64 {
        var digest = Digest()
        for powerFails in [false, true] {
            digest.add(naming.digest(world(leaving: [], powerFails: powerFails).oracle))
        }
        for disk in disks {
            digest.add(disk.isGone ? 1 : 0)
            digest.add(naming.digest(disk))
        }
        for flight in flights {
            guard let flight, case .succeed = flight.plan else { continue }
            add(flight, naming, reader, to: &digest)
        }
        return digest.value
    }

    private func add(_ flight: Flight, _ naming: Naming, _ reader: SuperblockReader, to digest: inout Digest) {
        let operation = flight.operation
        switch operation.kind {
        case .read, .flush, .queryAllocation, .compare, .checksum, .findData: return
        case .writeMetadata:
            if let copy = reader.copy(in: flight.metadata, at: operation.offset, diskBytes: layout.diskBytes) {
                naming.add(copy, to: &digest)
            } else if let page = page(flight) {
                naming.add(page, to: &digest)
                digest.add(unsafe BitmapPage.word(0, of: flight.metadata.span.bytes))
            } else if disks[flight.disk].remapPage(at: operation.offset) != nil {
                naming.add(remapPage: flight.metadata, to: &digest)
            } else {
                return
            }
        case .write:
            guard !flight.isExecuted else { return }
            let first = disks[flight.disk].sector(at: operation.offset) * 3
            let base = Int(operation.bufferOffset) / Geometry.sectorBytes * 3
            withBuffer(flight) { buffer in
                for cell in 0..<Int(operation.length) / Geometry.sectorBytes * 3 {
                    digest.add(naming.name(buffer[base + cell], at: first + cell))
                }
            }
        case .deallocate, .zero: if flight.isExecuted { return }
        }
        digest.add(operation.offset)
        digest.add(operation.length << 16 | UInt64(operation.kind.rawValue) << 8 | UInt64(flight.disk))
    }

    /// Long after everything happened: who still has a disk that works answers.
    func checkAnswered() {
        guard violation == nil, let server, !server.mirror.isStopped else { return }
        let works = server.mirror.record.inSync.members.contains { plex in
            server.disks[Int(plex.value)].map { !disks[$0].isAway } ?? false
        }
        guard works, !hasAnswered else { return }
        fail("liveness", "\(outstanding.count) requests and \(commands.count) commands are never answered")
    }

    /// Long after a restart: nothing is left to do, and whoever counts as in sync is equal, clean and right.
    func checkRecovered(absent: UInt8) {
        guard let server else { return }
        let status = server.mirror.status()
        guard hasAnswered, !hasFlights, !(status.resync?.isRunning ?? false), status.dirtyRegions == 0 else {
            return fail(
                "liveness",
                "not at rest after a restart: \(status.state.rawValue), \(status.dirtyRegions) dirty: \(status.reason ?? "")"
            )
        }
        let members = disks.indices.filter { disk in
            absent & 1 << disk == 0 && server.mirror.record.inSync.contains(PlexIndex(disk))
        }
        guard let first = members.first else { return fail("liveness", "no plex is in sync after a restart") }
        for disk in members {
            for cell in oracle.cells.indices {
                let isExcused = oracle.isHaunted(cell) || isBad(disk, cell, server.mirror.record)
                guard isExcused || disks[disk].medium[cell] == disks[first].medium[cell] else {
                    return fail("R10", "after a restart plexes \(first) and \(disk) differ at cell \(cell)")
                }
                guard isExcused || oracle.isLegal(disks[disk].medium[cell], at: cell) else {
                    return fail("R7", "after a restart plex \(disk) has an illegal value at cell \(cell)")
                }
            }
        }
    }
}
