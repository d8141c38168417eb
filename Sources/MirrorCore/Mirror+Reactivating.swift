internal import MirrorFormat

/// `clear`, `reactivate` and `write-mostly`: what an owner says who knows a disk.
extension Mirror {
    mutating func clear(_ plex: PlexIndex) {
        guard record[plex].role != .absent else {
            answer(.refused("mirror \(record.name) has no plex \(plex)"))
            return
        }
        record[plex].readErrors = 0
        record[plex].writeErrors = 0
        record[plex].corrected = 0
        record[plex].spared = 0
        plexes[Int(plex.value)].badBlocks.forgetCorrected()
        if working.contains(plex), !plexes[Int(plex.value)].flushFailed { record[plex].cause = .none }
        log(.cleared, plex: plex, text: "the counters of plex \(plex) begin anew")
        awaitRecord()
    }

    mutating func setWriteMostly(_ plex: PlexIndex, _ isWanted: Bool) {
        guard record[plex].role != .absent else {
            answer(.refused("mirror \(record.name) has no plex \(plex)"))
            return
        }
        record[plex].isWriteMostly = isWanted
        lookForReluctant()
        awaitRecord()
    }

    mutating func beginReactivating(_ plex: PlexIndex) {
        guard working.contains(plex) else {
            answer(.refused("plex \(plex) is not in sync: bring its disk back with plexus online or plexus join"))
            return
        }
        guard !hasUnequal else {
            answer(
                .refused("plex \(plex) may differ until the running resync is finished: plexus wait \(record.name)"))
            return
        }
        plexes[Int(plex.value)].remaps.reviveDead()
        running?.step = .puttingBack
        beginPuttingBack(plex)
    }

    /// - Parameter putting: how far it got.
    mutating func commandAfterPuttingBack(_ putting: PuttingBack) {
        guard let running, case .puttingBack = running.step else { return }
        switch running.command {
        case .breakOff(let plex, _, let mustBeWhole): breakPutBack(plex, mustBeWhole: mustBeWhole)
        case .reactivate(let plex): reactivated(plex, putting)
        case .remove, .takeOffline, .join, .resync, .scrub, .clear, .writeMostly, .stop: break
        }
    }

    private mutating func reactivated(_ plex: PlexIndex, _ putting: PuttingBack) {
        guard working.contains(plex) else {
            answer(.failed("plex \(plex) failed meanwhile: \(describe(record[plex].cause))"))
            return
        }
        let position = Int(plex.value)
        let left = plexes[position].remaps.remaps.count
        let bad = plexes[position].badBlocks.offsets.count
        plexes[position].badBlocks.retryAt = now.nanoseconds
        retryRepairs()
        var text = "plex \(plex): \(putting.done) blocks are back in their own places"
        if left > 0 { text += ", \(left) stay in its spare pool" }
        if bad > 0 { text += "; \(bad) bad blocks are being tried again" }
        answer(.done(text))
    }
}
