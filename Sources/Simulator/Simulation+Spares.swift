internal import MirrorCore
internal import MirrorFormat

/// Sectors that can't be written, and what the spare pool is for.
extension Simulation {
    /// A few neighbours at a time, more often where clients write, now and then in the spare pool itself.
    func stickSectors() {
        guard isHostile, server != nil, !isShadow, spares?.chance(250) ?? false else { return }
        let disk = spares?.below(disks.count) ?? 0
        let block: Int
        if let hot = profile.hotBlocks.first, spares?.chance(600) ?? false {
            block = hot
        } else {
            block = spares?.below(disks[disk].stuck.count / Geometry.sectorsPerBlock) ?? 0
        }
        let first = block * Geometry.sectorsPerBlock + (spares?.below(Geometry.sectorsPerBlock) ?? 0)
        count(.stuck)
        disks[disk].stick(sectors: first..<first + 1 + (spares?.below(4) ?? 0))
        note("disk \(disk): sectors from \(first) can't be written any more")
    }

    /// They can again, now and then: what was put elsewhere goes back when the administrator says so.
    func unstickSectors() {
        guard spares?.chance(60) ?? false, let disk = spares?.below(disks.count) else { return }
        disks[disk].unstick()
    }

    /// One copy of a page of the table, where the other is as good.
    func damageRemaps() {
        guard isHostile, spares?.chance(150) ?? false, let disk = spares?.below(disks.count),
            let page = disks[disk].soundRemapPage(spares?.below(64) ?? 0)
        else { return }
        count(.damagedRemaps)
        disks[disk].damageRemapPage(page, byte: spares?.below(RemapTable.pageBytes) ?? 0)
    }

    func orderSparing() {
        guard spares?.chance(80) ?? false, let number = spares?.below(disks.count) else { return }
        let plex = PlexIndex(number)
        count(.reactivate)
        if spares?.chance(700) ?? false {
            give(.other, plex, .reactivate(plex))
        } else {
            give(.other, plex, .clear(plex))
        }
    }

    /// Old software must be told of a table before anything is in it: by every disk that it may take for current.
    func checkAnnounced() {
        guard let server, spares != nil else { return }
        for plex in server.mirror.goodPlexes.members {
            guard !server.mirror.remaps(of: plex).isEmpty else { continue }
            for other in server.mirror.goodPlexes.members {
                guard let disk = server.disks[Int(other.value)], let record = disks[disk].head?.record,
                    record.mirror == mirrorUUID, record.epoch >= disks[disk].lostEpoch, record.inSync.contains(plex),
                    !record[plex].isRemapped
                else { continue }
                return fail("sparing", "plex \(plex) has remaps, and disk \(disk) does not say that it has a table")
            }
        }
    }
}
