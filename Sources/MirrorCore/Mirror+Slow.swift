internal import MirrorFormat

/// Plexes that are slower than the others, and go on being: they are asked for reads in need only, until they are as
/// fast as the others again.
extension Mirror {
    /// The tick's part: judges once in a while.
    mutating func watchSlow(_ owed: InlineArray<8, Owed>) {
        guard now.nanoseconds >= slowJudgedAt + limits.slowJudgeNanoseconds else { return }
        slowJudgedAt = now.nanoseconds
        for plex in working.members { judge(plex, owed[Int(plex.value)]) }
        for plex in working.members {
            let position = Int(plex.value)
            if let p99 = plexes[position].readTimes.within(990) { plexes[position].hedgeAfter = p99 * 10 }
            plexes[position].readTimes.fadeIfMany()
            plexes[position].lostRaces = 0
            plexes[position].probes = limits.slowProbes
        }
    }

    private mutating func judge(_ plex: PlexIndex, _ owed: Owed) {
        let position = Int(plex.value)
        let isMute = lateness.zombies(of: plex) > 0 || age(owed.read) >= limits.slowJudgeNanoseconds
        let hasLost = plexes[position].lostRaces >= limits.slowLosses
        let isSlower = isSlower(plex)
        let isBad = isMute || hasLost || isSlower == true
        if !plexes[position].isSlow {
            plexes[position].badJudgements = isBad ? plexes[position].badJudgements + 1 : 0
            guard plexes[position].badJudgements >= limits.slowJudgements, working.count > 1 else { return }
            plexes[position].isSlow = true
            // What it took until now says nothing of when it has come round.
            plexes[position].readTimes = ReadTimes()
            lookForReluctant()
            plexes[position].badJudgements = 0
            log(
                .slow, plex: plex,
                text: "plex \(plex) answers reads much later than the others: it is read in need only")
        } else if isBad {
            plexes[position].badJudgements = 0
        } else if isSlower == false {
            // Good ones are counted now.
            plexes[position].badJudgements += 1
            guard plexes[position].badJudgements >= limits.slowJudgements else { return }
            plexes[position].isSlow = false
            lookForReluctant()
            plexes[position].badJudgements = 0
            log(.slowEnded, plex: plex, text: "plex \(plex) answers reads as soon as the others again")
        }
    }

    /// - Returns: nil: too few reads to tell.
    private func isSlower(_ plex: PlexIndex) -> Bool? {
        guard let own = plexes[Int(plex.value)].readTimes.within(500) else { return nil }
        guard own >= limits.slowNanoseconds else { return false }
        var best: UInt64?
        for other in working.members where other != plex {
            guard let time = plexes[Int(other.value)].readTimes.within(500) else { continue }
            best = min(best ?? time, time)
        }
        return best.map { own > $0 * limits.slowFactor }
    }

    mutating func lookForReluctant() {
        hasReluctant = plexes.indices.contains { plexes[$0].isSlow || record[PlexIndex($0)].isWriteMostly }
    }

    /// What choosing a plex for a read costs beyond its load. One that is slow gets some reads nevertheless, which are
    /// hedged like all, or nobody would know that it is slow no more.
    func reluctance(_ plex: PlexIndex) -> Int {
        let position = Int(plex.value)
        if plexes[position].isSlow {
            guard plexes[position].probes > 0, plexes[position].readsInFlight == 0 else { return 1 << 18 }
            return -8
        }
        return record[plex].isWriteMostly ? 1 << 17 : 0
    }
}
