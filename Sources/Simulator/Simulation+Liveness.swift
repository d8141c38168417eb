internal import MirrorCore
internal import MirrorFormat

/// The end of every run: faults cease, all disks are back, and all must become good by itself.
extension Simulation {
    func recover() {
        isHostile = false
        now += 1_000_000_000
        for disk in disks.indices { disks[disk].heal() }
        guard openAll() else { return }
        isLoaded = false
        stepsAtStart = steps
        scheduleLife()
        guard turnHealthy() else { return }
        readAll()
        guard wait(until: { $0.outstanding.isEmpty }) else { return stuck("requests are unanswered") }
        guard wait(until: { $0.isAllClean() }) else { return stuck("intent bits are not cleared") }
        checkEqual()
        proveScrub()
        orderStop()
        guard wait(until: { $0.ending != nil }) else { return stuck("the stop is not answered") }
        if case .stopped(true) = ending { endLife() } else { stuck("the last stop is not clean") }
        if violation == nil { checkEqual() }
    }

    private func openAll() -> Bool {
        for _ in 0..<4 where violation == nil {
            if openSome() { return true }
        }
        // After a split, the side that went further may have lost its superblocks for good: then nothing starts.
        let isExcused = disks.contains { $0.lostEpoch > $0.summary?.epoch ?? 0 }
        if violation == nil, !isOutOfSteps, !isExcused {
            fail("liveness", "the mirror does not start with all disks present")
        }
        return false
    }

    func stuck(_ text: String) {
        guard violation == nil, !isOutOfSteps else { return }
        let status = server?.mirror.status()
        fail("liveness", "\(text); \(status?.state.rawValue ?? "no server"): \(status?.reason ?? "")")
    }

    /// Lets at most 300 simulated seconds pass.
    func wait(until isReached: (Simulation) -> Bool) -> Bool {
        let deadline = now + 300_000_000_000
        while violation == nil, !isOutOfSteps {
            if isReached(self) { return true }
            guard now < deadline, step() else { return false }
        }
        return false
    }

    private func turnHealthy() -> Bool {
        let deadline = now + 300_000_000_000
        while violation == nil, !isOutOfSteps, let server {
            if server.mirror.isOpen, isUncommanded {
                for disk in disks.indices where server.disks[disk] == nil { join(disk) }
                let record = server.mirror.record
                // Whoever is to be replaced by another would still be forgotten.
                let isSettled = record.configured.members.allSatisfy { record[$0].replaces == nil }
                overwriteBad(server)
                if server.mirror.status().state == .healthy, record.inSync.count == disks.count, isSettled {
                    return true
                }
            }
            guard now < deadline, step() else {
                stuck("the mirror does not become healthy")
                return false
            }
        }
        return false
    }

    /// What nobody holds any more comes back by being written to.
    private func overwriteBad(_ server: Server) {
        let record = server.mirror.record
        guard outstanding.isEmpty, now >= nextOverwriteAt,
            let range = record.badRanges.first(where: { record.inSync.contains($0.plex) })
        else { return }
        nextOverwriteAt = now + 1_000_000_000
        let block = Int(range.offset) / Geometry.blockBytes
        let perBlock = Geometry.sectorsPerBlock * Geometry.cellsPerSector
        issue(.write, cells: block * perBlock..<(block + 1) * perBlock, isForced: false)
    }

    private func readAll() {
        let all = oracle.cells.count
        let perBlock = Geometry.sectorsPerBlock * Geometry.cellsPerSector
        var start = 0
        while start < all, violation == nil {
            let end = min(all, start + 4 * perBlock)
            guard wait(until: { $0.outstanding.count < 8 }) else { return }
            issue(.read, cells: start..<end, isForced: false)
            start = end
        }
    }

    private func isAllClean() -> Bool {
        disks.allSatisfy { $0.pages?.intentRegions == 0 }
    }

    private func checkEqual() {
        for disk in disks.indices {
            for cell in oracle.cells.indices {
                guard disks[disk].cached[cell] == disks[0].cached[cell] || oracle.isHaunted(cell) else {
                    return fail("R10", "at the end plexes 0 and \(disk) differ at cell \(cell)")
                }
                guard oracle.isLegal(disks[disk].medium[cell], at: cell) else {
                    return fail("R7", "at the end plex \(disk) has an illegal value at cell \(cell)")
                }
            }
        }
    }
}
