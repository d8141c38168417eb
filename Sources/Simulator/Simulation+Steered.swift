internal import MirrorCore
internal import MirrorFormat

/// Running a `Simulation` by hand: start, one step of a script, waiting.
extension Simulation {
    /// Nothing ever takes this long, unless it waits for a disk that is gone.
    private static let patience: UInt64 = 20_000_000_000

    /// All disks that are there are shown to the engine; it starts, degraded if need be, or is right not to.
    func startSteered() -> Bool {
        random = Random(seed: UInt64(oracle.start) + 1)
        guard openSome() else { return false }
        isLoaded = false
        queue.add(.tick, at: now + profile.tickNanoseconds)
        return true
    }

    /// - Returns: false if the step changes nothing in this state, so that there is no script with it.
    func isApplicable(_ step: ScriptStep) -> Bool {
        guard let server, !server.isStopping else { return false }
        switch step {
        case .write, .forcedWrite, .zeroes, .trim, .flush, .read, .stop, .kill, .losePower: return true
        case .failingWrite(_, let disk, _), .vanish(let disk): return server.disks[disk] != nil && !disks[disk].isGone
        case .comeBack(let disk): return disks[disk].isGone || server.disks[disk] == nil
        case .replace(let plex, let disk):
            return server.disks[disk] == nil && server.mirror.record[PlexIndex(disk)].role == .absent
                && server.mirror.record[PlexIndex(plex)].role != .absent
        case .stick(let block, let disk):
            return !disks[disk].hasStuck(
                sector: block * Geometry.sectorsPerBlock, count: Geometry.sectorsPerBlock)
        case .unstick(let disk): return disks[disk].stuckCount > 0
        case .rot(_, let disk): return !disks[disk].isGone
        case .scrub: return server.mirror.goodPlexes.count > 1
        case .scrubAndRepair(let disk):
            return server.mirror.goodPlexes.count > 1 && server.mirror.goodPlexes.contains(PlexIndex(disk))
        case .breakOff(let disk), .remove(let disk), .takeOffline(let disk), .reactivate(let disk):
            return server.mirror.record[PlexIndex(disk)].role != .absent
        }
    }

    func perform(_ step: ScriptStep) {
        switch step {
        case .write(let cells): issue(.write, cells: cells, isForced: false)
        case .forcedWrite(let cells): issue(.write, cells: cells, isForced: true)
        case .zeroes(let cells): issue(.zeroes, cells: cells, isForced: false)
        case .trim(let cells): issue(.trim, cells: cells, isForced: false)
        case .flush: issue(.flush, cells: 0..<0, isForced: false)
        case .read(let cells): issue(.read, cells: cells, isForced: false)
        case .failingWrite(let cells, let disk, let effect):
            pilot?.failingWrite = (disk, effect)
            issue(.write, cells: cells, isForced: false)
        case .vanish(let disk): disks[disk].isGone = true
        case .comeBack(let disk): comeBack(disk)
        case .replace(let plex, let disk): join(disk, replacing: PlexIndex(plex))
        case .stick(let block, let disk):
            let first = block * Geometry.sectorsPerBlock
            disks[disk].stick(sectors: first..<first + Geometry.sectorsPerBlock)
        case .unstick(let disk): disks[disk].unstick()
        case .reactivate(let disk): give(.other, PlexIndex(disk), .reactivate(PlexIndex(disk)))
        case .rot(let cell, let disk):
            let stamp = UInt32.max - 2000
            disks[disk].rot(cell, to: stamp)
            oracle.haunt(cell, with: [stamp], from: .now)
        case .scrub: give(.scrub, PlexIndex(0), .scrub(.start(ScrubManner(readsHoles: true))))
        case .scrubAndRepair(let disk):
            let manner = ScrubManner(readsHoles: true, repairs: true, preferred: PlexIndex(disk))
            give(.scrub, PlexIndex(0), .scrub(.start(manner)))
        case .breakOff(let disk): breakOff(PlexIndex(disk))
        case .remove(let disk): give(.remove, PlexIndex(disk), .remove(PlexIndex(disk)))
        case .takeOffline(let disk): give(.takeOffline, PlexIndex(disk), .takeOffline(PlexIndex(disk)))
        case .stop: orderStop()
        case .kill: ending = .crash
        case .losePower: ending = .crash
        }
    }

    private func comeBack(_ disk: Int) {
        disks[disk].isGone = false
        guard let server, server.disks[disk] == nil, mayJoin(disk, server) else { return }
        join(disk)
    }

    /// Lets the world turn until `isReached`; `moment` sees it after each event.
    ///
    /// - Returns: false if that did not come to pass.
    @discardableResult
    func turn(until isReached: (Simulation) -> Bool, moment: (Simulation) -> Void = { _ in }) -> Bool {
        let deadline = now + Self.patience
        while violation == nil, ending == nil {
            if isReached(self) { return true }
            guard now < deadline, step() else { return false }
            moment(self)
        }
        return isReached(self)
    }

    var hasAnswered: Bool { outstanding.isEmpty && commands.isEmpty }
    var hasFlights: Bool { flights.contains { $0 != nil } }

    /// Until nothing has been in flight for half a second: copied, flushed and marked clean, if that can be.
    func settle(moment: (Simulation) -> Void = { _ in }) {
        var restingSince = now
        turn(until: { $0.now >= restingSince + 500_000_000 }) { simulation in
            if simulation.hasFlights || !simulation.hasAnswered { restingSince = simulation.now }
            moment(simulation)
        }
    }

    /// One read per block.
    func issueReads() {
        let block = Geometry.sectorsPerBlock * Geometry.cellsPerSector
        for start in stride(from: 0, to: oracle.cells.count, by: block) where violation == nil {
            issue(.read, cells: start..<start + block, isForced: false)
        }
    }
}
