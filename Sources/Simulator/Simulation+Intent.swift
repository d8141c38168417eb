internal import MirrorCore
internal import MirrorFormat

/// What the intent bitmap and the missed-write maps promise, checked against what is on the disks.
extension Simulation {
    private func regions(_ offset: UInt64, _ length: UInt64) -> Range<Int> {
        let first = Int(offset / layout.regionBytes)
        return first..<Int((offset + length - 1) / layout.regionBytes) + 1
    }

    /// R1: no client's data before the bits of its regions are on every disk that a restart may take for current.
    /// And the resync, and reads that make plexes equal, write to an in-sync plex only where a bit is set.
    func checkIntent(_ operation: DiskOperation, _ server: Server) {
        let open = server.disks.compactMap { $0 }
        guard let leader = leader(among: open), let lead = disks[leader].summary else { return }
        let isClient = operation.request.value > 0
        if !isClient, !lead.inSync.contains(operation.plex) { return }
        for disk in open {
            guard let head = disks[disk].summary, head.mirror == mirrorUUID, let own = head.own,
                lead.inSync.contains(own), let pages = disks[disk].pages
            else { continue }
            if head.isClean { return fail("R1", "data is written while the superblock of plex \(own) says clean") }
            for region in regions(operation.offset, operation.length) where !pages.isDirty(region) {
                return fail("R1", "data is written to region \(region), whose bit is not set on plex \(own)")
            }
        }
    }

    /// R6, R10: where no in-sync plex has the intent bit all of them are equal, in the cache and on the medium; one
    /// that comes into the set equals those that are in it. An absent plex lacks nothing but what its map says.
    func checkAgreement() {
        agreementIsDue = false
        forgetLoser()
        guard let server, !server.isReadOnly, !isShadow else { return }
        let attached = server.disks.compactMap { $0 }
        let open = attached.filter { !disks[$0].isAway && !disks[$0].hasLost }
        // What stale disks say counts for nothing while those that know better can't be reached.
        guard let leader = leader(among: open), let lead = disks[leader].summary,
            let newest = self.leader(among: attached).flatMap({ disks[$0].summary }),
            newest.generation == lead.generation, newest.epoch == lead.epoch
        else { return }
        let members = open.filter { disk in
            guard let own = disks[disk].summary, own.callsItselfInSync, own.generation == lead.generation,
                own.epoch >= disks[disk].lostEpoch
            else { return false }
            return lead.inSync.contains(PlexIndex(disk))
        }
        let inSync = PlexSet(mask: members.reduce(0) { $0 | 1 << UInt8($1) })
        guard let first = members.first else { return }
        checkClear(members, first, disks[leader].head?.record)
        checkMaps(members, first, leader)
        let newcomers = inSync.subtracting(server.knownInSync)
        server.knownInSync = server.knownInSync.intersection(lead.inSync).union(inSync)
        // An update that failed may land, and be torn by its repetition: the record before it shows again.
        let isNewest = lead.epoch >= server.knownEpoch
        server.knownEpoch = max(server.knownEpoch, lead.epoch)
        guard isNewest, !newcomers.isEmpty, server.mirror.isOpen else { return }
        checkPromotion(newcomers, server, members)
    }

    private func cells(of region: Int) -> Range<Int> {
        let perRegion = profile.regionBlocks * Geometry.sectorsPerBlock * Geometry.cellsPerSector
        return region * perRegion..<min((region + 1) * perRegion, oracle.cells.count)
    }

    private var regionCount: Int { Int(layout.regionCount) }

    private func checkClear(_ members: [Int], _ first: Int, _ record: Record?) {
        for region in 0..<regionCount where !members.contains(where: { disks[$0].pages?.isDirty(region) ?? true }) {
            let range = cells(of: region)
            for disk in members {
                guard isSame(disks[disk].cached[range], disks[first].cached[range], [disk, first], record) else {
                    return fail("R6", "plexes \(first) and \(disk) differ in region \(region), which is not dirty")
                }
                guard isSame(disks[disk].medium[range], disks[disk].cached[range], [disk], record) else {
                    return fail("R6", "region \(region) is not dirty, and not durable on plex \(disk)")
                }
            }
        }
    }

    /// What a disk that is not in use would be given by a join must be all that it lacks.
    private func checkMaps(_ members: [Int], _ first: Int, _ leader: Int) {
        guard let record = disks[leader].head?.record else { return }
        for disk in disks.indices {
            let plex = PlexIndex(disk)
            // One that is being rebuilt is as if it were gone at the next moment.
            guard server?.disks[disk] == nil || record[plex].role == .recovering else { continue }
            guard let map = record[plex].missedWriteMap, let head = disks[disk].head, head.plex == record[plex].uuid,
                head.record.mirror == mirrorUUID || head.record.parent?.mirror == mirrorUUID,
                !disks[disk].isScribbled,
                case .evidence(let evidence) = JoinBasis(head, disks[disk].pages, joining: record),
                evidence.epoch >= map.epoch,
                evidence.sequence >= members.reduce(map.lastClear, { max($0, disks[$1].pages?.required(by: map) ?? 0) })
            else { continue }
            var missed = evidence.changes
            for member in members {
                guard let pages = disks[member].pages else { continue }
                missed.formUnion(pages.regions(sheet: 0, nil, isClean: false))
                missed.formUnion(pages.regions(sheet: Int(map.slot) + 1, map, isClean: false))
            }
            for region in 0..<regionCount where !missed.contains(region) {
                let range = cells(of: region)
                guard isSame(disks[disk].medium[range], disks[first].cached[range], [disk, first], record) else {
                    return fail(
                        "delta", "\(record[plex].role) plex \(plex) lacks region \(region), which nobody counted")
                }
            }
        }
    }
}
