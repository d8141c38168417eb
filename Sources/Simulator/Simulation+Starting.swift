internal import MirrorCore
internal import MirrorFormat

/// From disks to a running mirror, or to a refusal that is right.
extension Simulation {
    /// Time passes; disks come back, are restored from old snapshots, or lose superblock copies.
    func beBetweenStarts() {
        now += UInt64(random.within(1...10_000)) * 1_000_000
        blipUntil = 0
        for disk in disks.indices {
            if random.chance(200) { disks[disk].returnsAt = 0 }
            if disks[disk].returnsAt <= now {
                disks[disk].isGone = false
                disks[disk].truncatedAt = nil
            }
            damageRemaps()
            if isHostile, profile.has(.damagedPage), random.chance(200) {
                count(.damagedPage)
                disks[disk].damagePage(random: &random)
            }
            guard isHostile, profile.has(.rollBack) || profile.has(.damagedSuperblock) else { continue }
            let hasPartner = disks.indices.contains {
                $0 != disk && isCurrent($0, among: disks.indices) && !disks[$0].isAway && isWhole($0)
            }
            // Where none holds everything, the freshest must stay known: an older one would be taken for the truth.
            let isSpare = hasPartner || (!isTruth(disk) && leader(among: disks.indices) != disk)
            guard isSpare, random.chance(200) else { continue }
            if profile.has(.rollBack), hasPartner, isOutdated(disk), disk != loser,
                disks.indices.allSatisfy({ !disks[$0].isAway && isWhole($0) })
            {
                count(.rollBack)
                note("disk \(disk) is rolled back, \(disks[disk].state)")
                let leading = leader(among: disks.indices).flatMap { disks[$0].summary?.epoch }
                disks[disk].rollBack(from: leading ?? 0)
                mustShowAll = true
            } else if profile.has(.damagedSuperblock), !mustShowAll {
                count(.damagedSuperblock)
                var copies = [0, 1, 2, 3]
                random.shuffle(&copies)
                let chosen = Array(copies.prefix(random.within(1...4)))
                note("disk \(disk) loses superblock copies \(chosen)")
                disks[disk].damage(copies: chosen, random: &random)
            }
        }
        forgetLoser()
        if profile.has(.splitBrain), loser == nil, random.chance(300) { splitBrain() }
    }

    /// The loser of a split is one of the others again when it has been told, or blanked.
    func forgetLoser() {
        guard let disk = loser else { return }
        if let head = disks[disk].summary, head.mirror == mirrorUUID,
            let leader = leader(among: disks.indices), let record = disks[leader].head?.record,
            !record.knows(head.generation)
        {
            return
        }
        loser = nil
    }

    private func isWhole(_ disk: Int) -> Bool {
        if case .found = disks[disk].scanResult() { true } else { false }
    }

    /// The snapshot is of an earlier record, or of a plex that is out: what the engine can know to be old.
    private func isOutdated(_ disk: Int) -> Bool {
        guard let snapshot = disks[disk].snapshot?.head, snapshot.record.mirror == mirrorUUID,
            let leader = leader(among: disks.indices), let lead = disks[leader].head?.record
        else { return false }
        let isOut = lead.index(of: snapshot.plex).map { lead[$0].role != .inSync } ?? true
        return isOut || snapshot.record.epoch < lead.epoch
    }

    private func presentDisks() -> [Int] {
        var present = disks.indices.filter { !disks[$0].isAway }
        // A disk that was rolled back is known for what it is only beside one that was not.
        if isHostile, profile.has(.absentAtStart), !mustShowAll, present.count > 1, random.chance(400) {
            count(.absentAtStart)
            present.remove(at: random.below(present.count))
            if present.count > 1, random.chance(300) { present.remove(at: random.below(present.count)) }
        }
        return present
    }

    private func found(_ present: [Int]) -> [FoundPlex] {
        present.compactMap { disk in
            guard let superblock = disks[disk].head, superblock.record.mirror == mirrorUUID else { return nil }
            return FoundPlex(
                disk: disk, superblock: superblock, pages: disks[disk].pages, remaps: disks[disk].spares.table,
                copies: disks[disk].superblockCopies)
        }
    }

    /// Tries to start the mirror with some of the disks.
    ///
    /// - Returns: whether a server runs.
    func openSome() -> Bool {
        let present = presentDisks()
        // The loser of a split must not be started alone: that would be another decision.
        if loser != nil, !present.contains(where: { isTruth($0) }) { return false }
        var options = AssemblyOptions()
        options.mutant = self.options.mutant
        options.isReadOnly = isHostile && profile.has(.readOnlyStart) && random.chance(200)
        var plexes = found(present)
        guard !plexes.isEmpty else { return false }
        random.shuffle(&plexes)
        checkClone(plexes, options)
        let truth = present.contains { isTruth($0) }
        let verdict = judge(plexes, options)
        switch verdict {
        case .assembled(let assembly):
            guard truth else {
                let isExcused =
                    options.isReadOnly || present.contains { disks[$0].lostEpoch > disks[$0].summary?.epoch ?? 0 }
                if !isExcused { fail("R4", "disks \(present) start although none holds every acknowledged write") }
                return false
            }
            mustShowAll = mustShowAll && options.isReadOnly
            open(assembly, isReadOnly: options.isReadOnly)
            return true
        case .refused(let refusal):
            note("refused: \(refusal)")
            for disk in present {
                note("disk \(disk): \(disks[disk].state)")
            }
            return startRefused(refusal, plexes, present, truth, options)
        }
    }

    private func startRefused(
        _ refusal: Refusal, _ plexes: [FoundPlex], _ present: [Int], _ truth: Bool, _ options: AssemblyOptions
    ) -> Bool {
        switch refusal {
        case .incomplete(let missing, _, let record):
            let known = plexes.filter { $0.superblock.plex == record[PlexIndex($0.disk)].uuid }
            if missing.isSubset(of: PlexSet(mask: known.reduce(0) { $0 | 1 << UInt8($1.disk) })) {
                fail("R11", "refused for plexes \(missing.members) which are there")
            }
            guard truth, random.chance(700) || !isHostile else { return false }
            var forced = options
            forced.allowDegraded = true
            guard case .assembled(let assembly) = judge(plexes, forced) else {
                fail("R11", "a degraded start is refused although an intact plex is there")
                return false
            }
            open(assembly, isReadOnly: options.isReadOnly)
            return true
        case .noCurrentPlex:
            if present.contains(where: { isCurrent($0, among: present) }) {
                fail("R11", "no current plex, although one of disks \(present) is")
            }
        case .split:
            if let disk = lastLoser, disks[disk].lostEpoch > disks[disk].summary?.epoch ?? 0 { loser = disk }
            // Set back to what it was then, or never told.
            loser = loser ?? present.first { disks[$0].summary.map { lostSides.contains($0.generation) } ?? false }
            if loser != nil {
                // The side that goes on has to be there.
                return options.isReadOnly || !truth ? false : resolve(plexes, present.filter { isTruth($0) }, options)
            }
            if forgetAncient(present) { return false }
            fail("R11", "split brain is diagnosed in a legal history: \(refusal)")
        case .clonedPlex, .mustStayReadOnly: fail("R11", "refused without reason: \(refusal)")
        }
        return false
    }

    /// The side that was kept goes on, and what the loser wrote alone is overwritten.
    private func resolve(_ plexes: [FoundPlex], _ right: [Int], _ options: AssemblyOptions) -> Bool {
        var forced = options
        forced.allowDegraded = true
        forced.keep = random.pick(right).flatMap { disks[$0].head?.plex }
        guard case .assembled(let assembly) = judge(plexes, forced) else {
            fail("R11", "a split can't be resolved in favour of one of disks \(right)")
            return false
        }
        count(.resolve)
        open(assembly, isReadOnly: false)
        return true
    }

    /// The history of a record reaches back 16 generations. Whoever was away longer looks like a stranger and is
    /// refused, rightly: nothing proves that it is an ancestor. The administrator blanks it.
    private func forgetAncient(_ present: [Int]) -> Bool {
        // Where none holds every acknowledged write, the refusal is right, whatever the reason.
        let truths = present.filter { isTruth($0) }
        guard let leader = leader(among: truths.isEmpty ? present : truths), let record = disks[leader].head?.record,
            record.history.count == Record.historyCapacity
        else { return false }
        var hasFound = false
        for disk in present {
            guard let head = disks[disk].summary, head.mirror == mirrorUUID, !record.knows(head.generation)
            else { continue }
            disks[disk].wipeSuperblocks()
            hasFound = true
        }
        return hasFound
    }

    /// R11: the same verdict for every order of arrival.
    func judge(_ plexes: [FoundPlex], _ options: AssemblyOptions) -> Verdict {
        let verdict = assemble(plexes, options: options)
        var other = plexes
        for _ in 0..<3 {
            random.shuffle(&other)
            if !isSame(assemble(other, options: options), verdict) {
                fail("R11", "the verdict depends on the order of the disks")
            }
        }
        if isHostile, profile.has(.swappedPaths) { checkSwapped(plexes, options, verdict) }
        return verdict
    }

    func isSame(_ verdict: Verdict, _ other: Verdict) -> Bool {
        switch (verdict, other) {
        case (.assembled(let first), .assembled(let second)):
            first.record == second.record && first.current == second.current && first.behind == second.behind
                && first.recovering == second.recovering && first.missing == second.missing
                && first.returning == second.returning && first.losers == second.losers
                && first.found.mapValues(\.disk) == second.found.mapValues(\.disk)
        case (.refused(let first), .refused(let second)): first == second
        case (.assembled, .refused), (.refused, .assembled): false
        }
    }

    private func checkClone(_ plexes: [FoundPlex], _ options: AssemblyOptions) {
        guard isHostile, profile.has(.clone), var twin = random.pick(plexes) else { return }
        count(.clone)
        twin.disk = 99
        if case .refused(.clonedPlex) = judge(plexes + [twin], options) { return }
        fail("R11", "a cloned plex is not refused")
    }

    func open(_ assembly: Assembly, isReadOnly: Bool) {
        if isReadOnly { count(.readOnlyStart) }
        var map = [Int?](repeating: nil, count: PlexSet.capacity)
        for plex in assembly.participants.members { map[Int(plex.value)] = assembly.found[plex]?.disk }
        for disk in map.compactMap({ $0 }) { disks[disk].isGone = false }
        note(
            "open: current \(assembly.current.members) behind \(assembly.behind.members) recovering \(assembly.recovering.members) returning \(assembly.returning.members) missing \(assembly.missing.members) clean \(assembly.record.isClean) pinned \(String(describing: assembly.record.pinned)) epoch \(assembly.record.epoch)"
        )
        if !isShadow { oracle.beginStart() }
        queue.removeAll()
        zombieUntil = 0
        ending = nil
        stopAnswer = nil
        issuedInStart = 0
        isLoaded = true
        let mirror = Mirror(
            assembly: assembly, writer: .none,
            entropy: Entropy(random.next(), random.next(), random.next(), random.next()), isReadOnly: isReadOnly,
            scrubLedger: scrubLedger(assembly.current, assembly), limits: limits, mutant: options.mutant, now: instant)
        let window = [UInt32](
            repeating: 0xFFFF_FFFF, count: Int(limits.resyncWindowBytes) / Geometry.sectorBytes * 3)
        let server = Server(
            mirror: mirror, isReadOnly: isReadOnly, disks: map,
            windows: Array(repeating: window, count: limits.resyncWindowsIdle))
        server.knownInSync = assembly.record.inSync
        server.openedWith = assembly.current
        self.server = server
        handle(.tick, server)
    }

    // MARK: split brain

    /// Two plexes each go on alone, against all advice; then both are there again. Nothing may be
    /// overwritten until somebody decides.
    private func splitBrain() {
        guard isHostile, let sides = drawSides() else { return }
        let before = disks[sides[0]].summary?.generation
        let wasOut = disks[sides[0]].summary.map { !$0.inSync.contains(PlexIndex(sides[1])) } ?? false
        count(.splitBrain)
        isHostile = false
        defer { isHostile = true }
        guard runAlone(sides[0]), wasOut || disks[sides[0]].summary?.generation != before else { return }
        let beforeOther = disks[sides[1]].summary?.generation
        isShadow = true
        let ran = runAlone(sides[1])
        isShadow = false
        let hasParted = ran && disks[sides[1]].summary?.generation != beforeOther
        if violation == nil, hasParted {
            let writes = disks.map(\.writes)
            var plexes = found(Array(disks.indices))
            random.shuffle(&plexes)
            var forced = AssemblyOptions()
            forced.mutant = options.mutant
            forced.allowDegraded = random.chance(500)
            switch judge(plexes, forced) {
            case .refused(.split(_, let related)):
                let isAncient = plexes.contains { $0.superblock.record.history.count == Record.historyCapacity }
                if !related, !isAncient { fail("R11", "two sides of one mirror are called unrelated") }
            case .refused(let other): fail("R11", "a split brain is refused as \(other)")
            case .assembled: fail("R11", "a split brain is started")
            }
            if writes != disks.map(\.writes) { fail("R11", "a refusal wrote to a disk") }
        }
        if hasParted, profile.has(.resolve) {
            loser = sides[1]
            lastLoser = sides[1]
            if let generation = disks[sides[1]].summary?.generation { lostSides.append(generation) }
            disks[sides[1]].snapshot = nil
            // Its own side of the story has no part in what the oracle knows.
            return
        }
        disks[sides[1]].wipeSuperblocks()
    }

    /// One disk that holds everything, and one that believes the same of itself: because it does, or because it has
    /// not heard that the others went on without it.
    private func drawSides() -> [Int]? {
        let right = disks.indices.filter { isTruth($0) && !disks[$0].isAway }
        guard let first = random.pick(right), let record = disks[first].head?.record else { return nil }
        let others = disks.indices.filter { disk in
            guard disk != first, !disks[disk].isAway, let head = disks[disk].summary, head.mirror == mirrorUUID,
                head.callsItselfInSync, head.own == PlexIndex(disk), isWhole(disk), disks[disk].lostEpoch <= head.epoch
            else { return false }
            return record.knows(head.generation)
                && record[PlexIndex(disk)].uuid == disks[disk].head?.plex && record[PlexIndex(disk)].role != .absent
        }
        return random.pick(others).map { [first, $0] }
    }

    private func runAlone(_ disk: Int) -> Bool {
        var forced = AssemblyOptions()
        forced.allowDegraded = true
        forced.mutant = options.mutant
        guard case .assembled(let assembly) = judge(found([disk]), forced) else { return false }
        let requests = profile.requestsPerStart
        profile.requestsPerStart = 20
        open(assembly, isReadOnly: false)
        stepsAtStart = steps
        scheduleLife()
        while violation == nil, ending == nil, !isOutOfSteps, steps - stepsAtStart < 600, step() {}
        profile.requestsPerStart = requests
        guard violation == nil, !isOutOfSteps else { return false }
        endLife()
        return violation == nil
    }
}
