internal import BasicContainers
internal import Glibc
internal import Logging
internal import MirrorCore
internal import MirrorFormat
internal import URing

/// What is known of plexes of one mirror whose disks are away.
struct ReturnWatch {
    /// Monotonic nanoseconds.
    var nextSearchAt: UInt64 = 0
    var searches = 0
    var isSearching = false
    /// Why a disk that is back is not taken back, by plex index.
    var objections: [String?] = Array(repeating: nil, count: PlexSet.capacity)
}

/// Disks that vanish while nothing is asked of them, and disks that come back.
extension Reactor {
    /// To be called often; does something now and then.
    mutating func watchDisks() {
        guard now.nanoseconds >= nextWatchAt else { return }
        nextWatchAt = now.nanoseconds + limits.watchNanoseconds
        for mirror in mirrors.indices where !mirrors[mirror].isStopped && !isStopping {
            findVanished(mirror)
            search(mirror)
            takeSpare(mirror)
        }
    }

    // MARK: vanishing

    /// A disk that is gone while others are there. If none is there they share a cause, or somebody has deleted all of the
    /// files: then what is still open of them is all that is left.
    private mutating func findVanished(_ mirror: Int) {
        var gone = PlexSet.empty
        for (index, disk) in mirrors[mirror].disks.enumerated() where disk?.hasVanished ?? false {
            gone.insert(PlexIndex(index))
        }
        guard !mirrors[mirror].mirror.goodPlexes.isSubset(of: gone) else { return }
        for plex in gone.members { deliver(.vanished(plex), to: mirror) }
    }

    // MARK: coming back

    private mutating func search(_ mirror: Int) {
        let out = mirrors[mirror].mirror.plexesThatMayReturn
        for plex in PlexSet(mask: ~out.mask).members { mirrors[mirror].returning.objections[Int(plex.value)] = nil }
        let policies = group.policies
        guard policies.rejoins, !out.isEmpty, !mirrors[mirror].returning.isSearching,
            now.nanoseconds >= mirrors[mirror].returning.nextSearchAt, openings.count < limits.openings
        else { return }
        let record = mirrors[mirror].mirror.record
        let search = PlexSearch(
            mirror: record.mirror, plexes: Set(out.members.map { record[$0].uuid }),
            paths: mirrors[mirror].paths.compactMap { $0 } + policies.disks,
            inUse: Set(
                mirrors.indices.flatMap { index in
                    mirrors[index].disks.compactMap { $0?.identity } + mirrors[index].spares.map(\.disk.identity)
                }),
            isThorough: mirrors[mirror].returning.searches % limits.searchesUntilThorough == 0)
        mirrors[mirror].returning.searches += 1
        mirrors[mirror].returning.isSearching = true
        mirrors[mirror].returning.nextSearchAt = now.nanoseconds + limits.searchNanoseconds
        let ticket = nextCommand
        nextCommand += 1
        searches[ticket] = mirror
        opener.begin(ticket) { .seen(search.run()) }
    }

    mutating func seen(_ plexes: [SeenPlex], _ mirror: Int) {
        mirrors[mirror].returning.isSearching = false
        guard !mirrors[mirror].isStopped, !isStopping else { return }
        let record = mirrors[mirror].mirror.record
        for plex in mirrors[mirror].mirror.plexesThatMayReturn.members {
            let found = plexes.filter { $0.superblock.plex == record[plex].uuid }
            guard let first = found.first else {
                mirrors[mirror].returning.objections[Int(plex.value)] = nil
                continue
            }
            if found.count > 1 {
                object(
                    mirror, plex,
                    "its disk and a clone of it are there: \(found.map(\.path).joined(separator: " and "))")
                continue
            }
            consider(first, mirror, plex)
        }
    }

    private mutating func consider(_ seen: SeenPlex, _ mirror: Int, _ plex: PlexIndex) {
        let index = Int(plex.value)
        if let objection = mirrors[mirror].objection(
            toReturnOf: plex, seen.superblock, seen.pages, unixNanoseconds: now.unixNanoseconds)
        {
            mirrors[mirror].paths[index] = seen.path
            object(
                mirror, plex,
                "its disk is there, and is not taken back by itself: \(objection); to take it back: plexus join \(mirrors[mirror].name) \(seen.path)"
            )
            return
        }
        let wentAt = mirrors[mirror].mirror.record[plex].cause.time
        guard now.unixNanoseconds >= wentAt + group.policies.rejoinSeconds * 1_000_000_000 else { return }
        do throws(DiskError) {
            try open(seen.path, mirror, .returning(plex), force: false, for: nil)
        } catch {
            object(mirror, plex, error.description)
        }
    }

    /// Told once, and shown as long as it holds.
    mutating func object(_ mirror: Int, _ plex: PlexIndex, _ text: String) {
        let index = Int(plex.value)
        guard mirrors[mirror].returning.objections[index] != text else { return }
        mirrors[mirror].returning.objections[index] = text
        logger.warning("mirror=\(mirrors[mirror].name) plex=\(plex): \(text)")
    }
}

extension ServedMirror {
    func objection(
        toReturnOf plex: PlexIndex, _ superblock: Superblock, _ pages: FoundPages?, unixNanoseconds: UInt64
    ) -> String? {
        let since = unixNanoseconds - min(unixNanoseconds, Limits().distrustNanoseconds)
        let failures = events.count { $0.code == .plexFailed && $0.plex == plex && $0.time >= since }
        return mirror.objection(toReturnOf: plex, superblock, pages, failures: failures)
    }
}

extension Disk {
    /// Deleted, cut off, or pulled. Of a file system that may hang nothing is asked.
    var hasVanished: Bool {
        guard !channel.mayHang else { return false }
        if isBlockDevice { return lseek(file, 0, SEEK_END) < off_t(bytes) }
        var information = stat()
        guard unsafe fstat(file, &information) == 0 else { return false }
        return information.st_nlink == 0 || UInt64(information.st_size) < bytes
    }
}
