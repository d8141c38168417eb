internal import BasicContainers
internal import Logging
internal import MirrorCore
internal import MirrorFormat
internal import URing

/// What is known of plexes of one mirror whose disks are away.
struct ReturnWatch {
    /// Since when each plex is out, as far as this server has seen it; monotonic nanoseconds, by plex index.
    var outSince: [UInt64?] = Array(repeating: nil, count: PlexSet.capacity)
    var nextSearchAt: UInt64 = 0
    /// When the last search that left nothing out was begun.
    var thoroughAt: UInt64 = 0
    var searches = 0
    /// Of the search that is under way.
    var ticket: UInt64?
    var begunAt: UInt64 = 0
    /// Searches that hang, each with its thread.
    var hanging = 0
    var isThorough = false
    /// Something was seen where it is quick to look.
    var mustBeThorough = false
    /// Why a disk that is back is not taken back, by plex index.
    var objections: [String?] = Array(repeating: nil, count: PlexSet.capacity)
    /// The files of all good plexes are deleted or cut off.
    var isLastStand = false
    /// No spare is taken before.
    var nextSpareAt: UInt64 = 0

    mutating func note(out: PlexSet, now: UInt64) {
        for index in outSince.indices {
            if !out.contains(PlexIndex(index)) {
                outSince[index] = nil
                objections[index] = nil
            } else if outSince[index] == nil {
                outSince[index] = now
                mustBeThorough = true
                nextSearchAt = now
            }
        }
    }

    func isOut(_ plex: PlexIndex, forSeconds seconds: UInt64, now: UInt64) -> Bool {
        outSince[Int(plex.value)].map { now - $0 >= seconds * 1_000_000_000 } ?? false
    }
}

/// Disks that vanish while nothing is asked of them, and disks that come back.
extension Reactor {
    /// To be called often; does something now and then.
    mutating func watchDisks() {
        guard now.nanoseconds >= nextWatchAt else { return }
        nextWatchAt = now.nanoseconds + limits.watchNanoseconds
        for mirror in mirrors.indices where !mirrors[mirror].isStopped && !isStopping && handover == nil {
            findVanished(mirror)
            mirrors[mirror].returning.note(out: mirrors[mirror].mirror.plexesOut, now: now.nanoseconds)
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
        let isLastStand = mirrors[mirror].mirror.goodPlexes.isSubset(of: gone)
        if isLastStand, !mirrors[mirror].returning.isLastStand {
            logger.error("mirror=\(mirrors[mirror].name): \(ServedMirror.lastStandText)")
        }
        mirrors[mirror].returning.isLastStand = isLastStand
        guard !isLastStand else { return }
        for plex in gone.members { deliver(.vanished(plex), to: mirror) }
    }

    // MARK: coming back

    private mutating func search(_ mirror: Int) {
        let out = mirrors[mirror].mirror.plexesThatMayReturn
        let policies = group.policies
        giveUpHangingSearch(mirror)
        guard policies.rejoins, !out.isEmpty, mirrors[mirror].returning.ticket == nil,
            now.nanoseconds >= mirrors[mirror].returning.nextSearchAt, openings.count < limits.openings
        else { return }
        let record = mirrors[mirror].mirror.record
        let search = PlexSearch(
            mirror: record.mirror, plexes: Set(out.members.map { record[$0].uuid }),
            roaming: Set(out.intersection(mirrors[mirror].hadOpen).members.map { record[$0].uuid }),
            paths: mirrors[mirror].paths.compactMap { $0 } + policies.disks,
            inUse: Set(
                mirrors.indices.flatMap { index in
                    mirrors[index].disks.compactMap { $0?.identity } + mirrors[index].spares.map(\.disk.identity)
                }),
            isThorough: mirrors[mirror].returning.mustBeThorough
                || mirrors[mirror].returning.searches % limits.searchesUntilThorough == 0)
        mirrors[mirror].returning.searches += 1
        mirrors[mirror].returning.begunAt = now.nanoseconds
        mirrors[mirror].returning.isThorough = search.isThorough
        if search.isThorough {
            mirrors[mirror].returning.mustBeThorough = false
            mirrors[mirror].returning.thoroughAt = now.nanoseconds
        }
        mirrors[mirror].returning.nextSearchAt = now.nanoseconds + limits.searchNanoseconds
        let ticket = takeTicket()
        searches[ticket] = mirror
        mirrors[mirror].returning.ticket = ticket
        opener.begin(ticket) { .seen(search.run()) }
    }

    /// A disk among those that are looked at hangs: others are looked for without waiting for it, a few times.
    private mutating func giveUpHangingSearch(_ mirror: Int) {
        guard mirrors[mirror].returning.ticket != nil, mirrors[mirror].returning.hanging < limits.hangingSearches,
            now.nanoseconds - mirrors[mirror].returning.begunAt > limits.searchPatienceNanoseconds
        else { return }
        mirrors[mirror].returning.ticket = nil
        mirrors[mirror].returning.hanging += 1
        logger.warning("mirror=\(mirrors[mirror].name): a disk hangs while those of missing plexes are looked for")
    }

    mutating func seen(_ plexes: [SeenPlex], _ mirror: Int, ticket: UInt64) {
        guard mirrors[mirror].returning.ticket == ticket else {
            mirrors[mirror].returning.hanging -= 1
            return
        }
        mirrors[mirror].returning.ticket = nil
        guard !mirrors[mirror].isStopped, !isStopping, handover == nil else { return }
        guard mirrors[mirror].returning.isThorough else {
            // There may be a clone of it elsewhere.
            if !plexes.isEmpty {
                mirrors[mirror].returning.mustBeThorough = true
                mirrors[mirror].returning.nextSearchAt = now.nanoseconds
            }
            return
        }
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
        let delay = group.policies.rejoinSeconds
        guard mirrors[mirror].returning.isOut(plex, forSeconds: delay, now: now.nanoseconds) else { return }
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
        let failures = events.count {
            ($0.code == .plexFailed || $0.code == .plexMissing) && $0.plex == plex && $0.time >= since
        }
        return mirror.objection(toReturnOf: plex, superblock, pages, failures: failures)
    }
}
