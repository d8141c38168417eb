internal import MirrorCore
internal import MirrorFormat

/// The rules that can be checked from outside, at the moment at which they matter.
extension Simulation {
    typealias Summary = SimulatedDisk.Summary

    /// The freshest superblock of the mirror among the disks: the one that no other descends from.
    func leader(among candidates: some Sequence<Int>) -> Int? {
        var best: Int?
        for disk in candidates where disk != loser {
            guard let head = disks[disk].summary, head.mirror == mirrorUUID else { continue }
            guard let present = best, let other = disks[present].summary else {
                best = disk
                continue
            }
            if head.generation == other.generation {
                if head.epoch > other.epoch { best = disk }
            } else if descends(disk, from: other.generation) {
                best = disk
            } else if head.epoch > other.epoch, !descends(present, from: head.generation) {
                // Too far apart for the history to tell: one of them has not been written for very long.
                best = disk
            }
        }
        return best
    }

    private func descends(_ disk: Int, from generation: Generation) -> Bool {
        disks[disk].head?.record.history.contains { $0.generation == generation } ?? false
    }

    /// Whether it also holds the newest record: what the engine calls current.
    func isCurrent(_ disk: Int, among candidates: some Sequence<Int>) -> Bool {
        guard isTruth(disk), let leader = leader(among: candidates) else { return false }
        return disks[leader].summary?.epoch == disks[disk].summary?.epoch
    }

    /// Whether the disk alone could carry the mirror on without losing anything.
    func isTruth(_ disk: Int) -> Bool {
        guard let own = disks[disk].summary, own.mirror == mirrorUUID, own.callsItselfInSync, let plex = own.own,
            own.epoch >= disks[disk].lostEpoch,
            let leader = leader(among: disks.indices), let lead = disks[leader].summary
        else { return false }
        return own.generation == lead.generation && lead.inSync.contains(plex)
    }

    /// Every plex that a disk in use may, after a crash, make the mirror take for current.
    func reachableInSync(_ server: Server) -> PlexSet {
        let open = server.disks.compactMap { $0 }
        guard let leader = leader(among: open), let lead = disks[leader].summary else { return .empty }
        var set = lead.inSync
        for disk in open {
            guard let head = disks[disk].summary, let own = head.own, lead.inSync.contains(own),
                head.mirror == mirrorUUID
            else { continue }
            set = set.union(head.inSync)
        }
        return set
    }

    // MARK: at submission

    func checkSubmission(_ flight: Flight, _ server: Server) {
        let operation = flight.operation
        let isWrite: Bool
        switch operation.kind {
        case .write, .deallocate, .zero: isWrite = true
        case .read, .queryAllocation, .compare, .checksum, .findData: isWrite = false
        case .flush: return
        case .writeMetadata:
            if server.isReadOnly { fail("R12", "a superblock is written in a read-only start") }
            return
        }
        guard let operation = inData(operation, server) else {
            // Into a slot that no table names yet: nobody can read it.
            return isWrite ? checkSlot(operation) : fail("R12", "a free spare slot is read")
        }
        if isWrite, server.isReadOnly { return fail("R12", "data is written in a read-only start") }
        let block = UInt64(Geometry.blockBytes)
        if operation.kind != .queryAllocation {
            guard operation.offset % block == 0, operation.length % block == 0, operation.length > 0,
                operation.offset + operation.length <= layout.dataBytes
            else {
                return fail("R13", "\(operation.kind) at \(operation.offset)+\(operation.length): not whole blocks")
            }
        }
        checkOverlap(operation, isWrite, server)
        if isWrite {
            checkIntent(operation, server)
        } else {
            checkSource(flight, server)
        }
    }

    /// The operation where its block belongs, by the engine's own table; nil: in a slot that has no block.
    func inData(_ operation: DiskOperation, _ server: Server) -> DiskOperation? {
        guard let pool = layout.area(.sparePool), operation.kind != .flush, operation.kind != .writeMetadata,
            operation.offset >= pool.offset, operation.offset < pool.end
        else { return operation }
        let slot = Int((operation.offset - pool.offset) / Layout.blockBytes)
        guard let remap = server.mirror.remaps(of: operation.plex).first(where: { $0.slot == slot }) else { return nil }
        var moved = operation
        moved.offset = remap.block * Layout.blockBytes
        return moved
    }

    private func checkSlot(_ operation: DiskOperation) {
        if operation.length != Layout.blockBytes || !operation.isDurable {
            fail("sparing", "a spare slot is filled with \(operation.length) bytes, durable: \(operation.isDurable)")
        }
    }

    /// R13: what overlaps is never in flight together, on no disk.
    private func checkOverlap(_ operation: DiskOperation, _ isWrite: Bool, _ server: Server) {
        let end = operation.offset + operation.length
        for other in flights {
            // What was given up happens to a disk that nobody reads, or is a read that nobody waits for.
            guard let other = other.flatMap({ isGivenUp($0, server) ? nil : inData($0.operation, server) }),
                other.offset < end,
                operation.offset < other.offset + other.length
            else {
                continue
            }
            let otherWrites: Bool
            switch other.kind {
            case .write, .deallocate, .zero: otherWrites = true
            case .read, .queryAllocation, .compare, .checksum, .findData: otherWrites = false
            case .flush, .writeMetadata: continue
            }
            guard isWrite || otherWrites else { continue }
            // The same request on several plexes.
            if other.request == operation.request, other.plex != operation.plex, isSame(other.kind, operation.kind) {
                continue
            }
            return fail(
                "R13",
                "\(operation.kind) \(operation.offset)+\(operation.length) on plex \(operation.plex) overlaps \(other.kind) on plex \(other.plex)"
            )
        }
    }

    /// What is freed on one plex is overwritten with zeroes in the spare pool of another.
    private func isSame(_ one: DiskOperation.Kind, _ other: DiskOperation.Kind) -> Bool {
        let zeroing: [DiskOperation.Kind] = [.zero, .deallocate]
        return one == other || zeroing.contains(one) && zeroing.contains(other)
    }

    /// R12: nobody is read who is not in sync by every record in use.
    private func checkSource(_ flight: Flight, _ server: Server) {
        let open = server.disks.compactMap { $0 }
        guard let own = disks[flight.disk].summary, let leader = leader(among: open), let lead = disks[leader].summary
        else { return }
        guard lead.inSync.contains(flight.operation.plex), own.mirror == mirrorUUID, own.callsItselfInSync else {
            return fail("R12", "plex \(flight.operation.plex) is read, and is not in sync")
        }
    }

    // MARK: at the reply

    /// R2: every plex that may be taken for current has it.
    func checkAcknowledgement(_ entry: ClientRequest) {
        guard let server, !entry.cells.isEmpty else { return }
        let record = leadingRecord(server)
        for plex in reachableInSync(server).members where disks.indices.contains(Int(plex.value)) {
            let disk = Int(plex.value)
            // A disk that was pulled with its cache: nobody can know yet.
            if disks[disk].isGone, disks[disk].hasLost { continue }
            for cell in entry.cells {
                let stamp = entry.request.kind == .write ? Geometry.stamp(write: entry.write, cell: cell) : 0
                if isBad(disk, cell, record) {
                    // It took the write nowhere: the others have it, and say so.
                    let holders = reachableInSync(server).filter { !isBad(Int($0.value), cell, record) }
                    if !holders.isEmpty { continue }
                    return fail(
                        "R2", "request \(entry.request.id.value) is acknowledged; no plex holds cell \(cell) on record")
                }
                guard disks[disk].cached[cell] == stamp || oracle.isHaunted(cell) else {
                    return fail(
                        "R2",
                        "request \(entry.request.id.value) is acknowledged; plex \(plex), in sync on record, lacks cell \(cell)"
                    )
                }
                if entry.request.isForcedUnitAccess, disks[disk].medium[cell] != stamp, !oracle.isHaunted(cell) {
                    return fail(
                        "R8", "forced write \(entry.request.id.value) is acknowledged and not durable on plex \(plex)")
                }
            }
        }
    }

    /// R8: what was acknowledged before the flush was issued is durable on every plex that may be taken
    /// for current.
    func checkFlushed(since moment: UInt32) {
        guard let server else { return }
        let record = leadingRecord(server)
        for plex in reachableInSync(server).members where disks.indices.contains(Int(plex.value)) {
            for cell in oracle.cells.indices where !isBad(Int(plex.value), cell, record) {
                guard let stamp = oracle.settled(cell, by: moment), disks[Int(plex.value)].medium[cell] != stamp,
                    !oracle.isHaunted(cell)
                else { continue }
                let found = disks[Int(plex.value)].medium[cell] >> Geometry.cellBits
                return fail(
                    "R8",
                    "a flush is answered; the medium of plex \(plex) has write \(found) in cell \(cell): \(oracle.describe(cell))"
                )
            }
        }
    }

    func checkRefusal(_ entry: ClientRequest, _ status: ReplyStatus) {
        guard let server else { return }
        if status == .shuttingDown {
            if !server.isStopping {
                fail("R16", "request \(entry.request.id.value) is told of a shutdown that nobody ordered")
            }
            return
        }
        guard !server.isStopping else { return }
        let isOnRecord = entry.cells.contains { cell in
            (0..<disks.count).contains { isBad($0, cell, server.mirror.record) }
        }
        if isOnRecord { return }
        if entry.failed.isEmpty, entry.operations > 0, entry.request.kind != .flush, !isSuspect(server) {
            return fail("R16", "request \(entry.request.id.value) failed although no operation did")
        }
        guard entry.request.kind == .read, !isSuspect(server) else { return }
        for plex in PlexSet(mask: .max).members where !entry.failed.contains(plex) {
            if server.mirror.canServe(plex, offset: entry.request.offset, length: entry.request.length) {
                return fail("R12", "read \(entry.request.id.value) failed and plex \(plex) was not asked")
            }
        }
    }

    /// Plexes may differ at present, or a disk has gone that the engine has yet to miss.
    private func isSuspect(_ server: Server) -> Bool {
        server.mirror.record.pinned != nil
            || server.disks.contains { $0.map { disks[$0].isAway || disks[$0].hasLost } ?? false }
    }

    /// But for cells that a disk spoiled by itself, and those that one of these plexes is on record as not holding.
    func isSame(
        _ contents: ArraySlice<UInt32>, _ other: ArraySlice<UInt32>, _ plexes: [Int], _ record: Record?
    ) -> Bool {
        contents == other
            || zip(contents.indices, other.indices).allSatisfy { cell, twin in
                contents[cell] == other[twin] || oracle.isHaunted(cell)
                    || plexes.contains { isBad($0, cell, record) }
            }
    }

    /// Whether the record says that the plex does not hold the cell's block.
    func isBad(_ plex: Int, _ cell: Int, _ record: Record?) -> Bool {
        guard let record, !record.badRanges.isEmpty else { return false }
        let block = cell / (Geometry.sectorsPerBlock * Geometry.cellsPerSector)
        return record.isBad(
            PlexIndex(plex), offset: UInt64(block * Geometry.blockBytes), length: UInt64(Geometry.blockBytes))
    }

    /// Of the freshest superblock in use.
    private func leadingRecord(_ server: Server) -> Record? {
        leader(among: server.disks.compactMap { $0 }).flatMap { disks[$0].head?.record }
    }

    func checkPromotion(_ newcomers: PlexSet, _ server: Server, _ members: [Int]) {
        let pinned = server.mirror.record.pinned.map { Int($0.value) }
        guard let base = pinned ?? members.first(where: { !newcomers.contains(PlexIndex($0)) }), members.contains(base)
        else { return }
        var busy = [Bool](repeating: false, count: oracle.cells.count)
        let perBlock = Geometry.sectorsPerBlock * Geometry.cellsPerSector
        for index in outstanding {
            let plan = requests[index].plan
            let start = Int(plan.bodyOffset) / Geometry.blockBytes * perBlock
            for cell in start..<start + Int(plan.bodyLength) / Geometry.blockBytes * perBlock { busy[cell] = true }
        }
        for flight in flights {
            guard let flown = flight?.operation, flown.kind == .write, flown.request.value == 0,
                let operation = inData(flown, server)
            else { continue }
            let start = Int(operation.offset) / Geometry.blockBytes * perBlock
            for cell in start..<start + Int(operation.length) / Geometry.blockBytes * perBlock { busy[cell] = true }
        }
        let record = leadingRecord(server)
        for plex in newcomers.members where members.contains(Int(plex.value)) {
            for cell in busy.indices where isBad(Int(plex.value), cell, record) || isBad(base, cell, record) {
                busy[cell] = true
            }
            for cell in busy.indices
            where !busy[cell] && disks[Int(plex.value)].cached[cell] != disks[base].cached[cell]
                && !oracle.isHaunted(cell)
            {
                return fail("R10", "plex \(plex) is promoted and differs from plex \(base) at cell \(cell)")
            }
            // What is flushed for ever must be on the medium of whoever counts as in sync.
            for cell in busy.indices where !busy[cell] && oracle.cells[cell].count == 1 {
                guard oracle.cells[cell][0].stamp != disks[Int(plex.value)].medium[cell] else { continue }
                return fail(
                    "R10",
                    "plex \(plex) is promoted without flushed cell \(cell) on its medium: \(oracle.cells[cell][0].stamp) is \(disks[Int(plex.value)].medium[cell]), in the cache \(disks[Int(plex.value)].cached[cell]), on plex \(base) \(disks[base].cached[cell])"
                )
            }
        }
    }
}
