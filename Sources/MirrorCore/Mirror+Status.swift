package import MirrorFormat

/// What a user is told. Derived from the record and the running state, nothing else (R11).
package struct MirrorStatus: Sendable {
    package enum State: String, Sendable {
        case healthy, degraded, rebuilding, split, failed, suspended, offline
    }

    package struct ResyncStatus: Sendable {
        package var plex: PlexIndex?
        package var done: UInt64
        package var total: UInt64
        package var bytesPerSecond: UInt64
        package var etaSeconds: UInt64?
        package var isPaused: Bool
        package var reason: String
        /// Bytes per second, by the user's order.
        package var limit: UInt64?
        package var isVerifying = false
        package var priority = ResyncPriority.normal
        /// False: this is what the last one came to.
        package var isRunning = true
    }

    package struct ScrubStatus: Sendable {
        package var isRunning: Bool
        /// Nanoseconds since 1970; 0: never.
        package var lastFinished: UInt64
        /// Blocks in which plexes are known to differ, and of these those that the ledger has no room for.
        package var mismatches: UInt64
        package var unrecorded: UInt64
        package var done: UInt64
        package var total: UInt64
        package var bytesPerSecond: UInt64
        package var etaSeconds: UInt64?
        /// Why it does not go on; nil: it does, or does not run.
        package var waiting: String?
        /// Bytes per second, by the user's order.
        package var limit: UInt64?
        package var manner: ScrubManner
        /// Blocks, by this scrub or by the last.
        package var repaired: UInt64
        package var unreadable: UInt64
    }

    package struct PlexStatus: Sendable {
        package var index: PlexIndex
        package var member: Member
        package var state: String
        package var reason: String?
        package var isOpen: Bool
        package var isAtRisk: Bool
        /// Regions that a join would copy; nil: it lacks none, or nobody counts.
        package var missedRegions: Int?
        package var operationsInFlight: Int
        /// In bytes: what can be neither read nor written anew.
        package var badRanges: [(offset: UInt64, length: UInt64)]
        /// Blocks that lie in the spare pool, and how many more it has room for; 0: the disk is not open.
        package var remapped: Int
        package var sparesFree: Int
        /// Is read in need only: for being slower than the others.
        package var isSlow: Bool
        /// Of `operationsInFlight`, those that nobody waits for any more.
        package var unanswered: Int
        /// Reads that another plex was asked for as well, since its disk was opened.
        package var hedgedReads: UInt64
    }

    package var state: State
    package var reason: String?
    package var action: String?
    package var record: Record
    package var isReadOnly: Bool
    package var dirtyRegions: UInt64
    package var regions: UInt64
    package var resync: ResyncStatus?
    /// Nil: none has ever run.
    package var scrub: ScrubStatus?
    package var plexes: [PlexStatus]
}

extension Mirror {
    package func status() -> MirrorStatus {
        let regions = (record.dataBytes + record.regionBytes - 1) / record.regionBytes
        var status = MirrorStatus(
            state: .healthy, reason: nil, action: nil, record: record, isReadOnly: isReadOnly,
            dirtyRegions: UInt64(tracking.intent.population), regions: regions, resync: resyncStatus(),
            scrub: scrubStatus(), plexes: [])
        for plex in record.configured.members { status.plexes.append(plexStatus(plex)) }
        judge(&status)
        return status
    }

    private func resyncStatus() -> MirrorStatus.ResyncStatus? {
        guard !isReadOnly, isResyncNeeded else { return lastResync }
        var slowest = hasUnequal ? Resync.equaliser : -1
        for plex in recovering.members {
            let index = Int(plex.value)
            let isSlower = slowest < 0 || resync.sweeps[index].todo.population > resync.sweeps[slowest].todo.population
            if isSlower { slowest = index }
        }
        let sweep = resync.sweeps[slowest]
        let target = slowest < PlexSet.capacity ? PlexIndex(slowest) : nil
        let total = min(UInt64(max(sweep.total, sweep.todo.population)) * tracking.regionBytes, record.dataBytes)
        // Of the region that is being copied, too: with large regions and a low limit one takes long.
        let region = Int(sweep.position / tracking.regionBytes)
        let begun = region < sweep.todo.count && sweep.todo.contains(region) ? sweep.position % tracking.regionBytes : 0
        let left = UInt64(sweep.todo.population) * tracking.regionBytes
        let done = total - min(total, left - min(left, begun))
        let rate = resync.isPaused || resync.isBehind != nil ? 0 : resync.bytesPerSecond
        return MirrorStatus.ResyncStatus(
            plex: target, done: done, total: total, bytesPerSecond: rate,
            etaSeconds: rate > 0 ? (total - done + rate - 1) / rate : nil,
            isPaused: resync.isPaused || resync.blockedAt != nil || resync.isBehind != nil,
            reason: target.map { plex in
                let next = record[plex].replaces.map { ", which is to replace plex \($0)" } ?? ""
                return "copies \(copyReason(plex)) to plex \(plex)\(next)"
            }
                ?? "in-sync plexes may differ in the dirty regions, after an unclean stop or an error on all of them: these are copied from plex \(record.pinned?.description ?? "?")",
            limit: resync.limit, isVerifying: resync.isVerifying, priority: resync.priority)
    }

    private var lastResync: MirrorStatus.ResyncStatus? {
        resync.last.map {
            MirrorStatus.ResyncStatus(
                plex: $0.plex, done: $0.copied, total: $0.copied, bytesPerSecond: 0, etaSeconds: nil, isPaused: false,
                reason: $0.reason, isRunning: false)
        }
    }

    private func plexStatus(_ plex: PlexIndex) -> MirrorStatus.PlexStatus {
        let member = record[plex]
        let state =
            switch member.role {
            case .absent: "missing"
            case .inSync:
                working.contains(plex) ? "in-sync" : recovering.contains(plex) ? "rebuilding" : "missing"
            case .recovering: recovering.contains(plex) || joining.contains(plex) ? "rebuilding" : "stale"
            case .stale: member.cause.operation == .absence ? "missing" : "stale"
            case .offline: "offline"
            case .failed: member.cause.operation == .absence ? "missing" : "failed"
            case .brokenOff: "offline"
            }
        var reason: String?
        switch member.role {
        case .absent: break
        case .inSync, .recovering:
            reason = state == "rebuilding" ? resyncStatus()?.reason : nil
            if member.cause.operation != .none { reason = describe(member.cause) }
            if let trouble = trouble(plex) { reason = trouble }
        case .stale, .failed: reason = describe(member.cause)
        case .offline: reason = "taken offline by the user"
        case .brokenOff: reason = "broken off as a copy of its own"
        }
        let isAtRisk =
            member.role == .inSync
            && (plexes[Int(plex.value)].flushFailed || member.cause.operation != .none || trouble(plex) != nil)
        return MirrorStatus.PlexStatus(
            index: plex, member: member, state: state, reason: reason,
            isOpen: plexes[Int(plex.value)].attachment != nil,
            isAtRisk: isAtRisk, missedRegions: missedRegions(plex),
            operationsInFlight: plexes[Int(plex.value)].inFlight,
            badRanges: plexes[Int(plex.value)].badBlocks.ranges,
            remapped: plexes[Int(plex.value)].remaps.remaps.count, sparesFree: plexes[Int(plex.value)].remaps.freeSlots,
            isSlow: plexes[Int(plex.value)].isSlow, unanswered: lateness.zombies(of: plex),
            hedgedReads: plexes[Int(plex.value)].hedged)
    }

    /// What its disk does not read, or not for long any more.
    private func trouble(_ plex: PlexIndex) -> String? {
        let blocks = plexes[Int(plex.value)].badBlocks
        if record[plex].role == .inSync, let bad = record.badRanges(of: plex).first {
            return
                "it does not hold \(record.badRanges(of: plex).reduce(0) { $0 + $1.length }) bytes, the first at \(bad.offset): no plex could read them when it was copied to"
        }
        if let first = blocks.offsets.first {
            return
                "\(blocks.offsets.count) blocks of \(Limits.blockBytes) bytes can neither be read nor written anew, the first at \(first)"
        }
        guard blocks.isWearingOut(at: now.unixNanoseconds, limits) else { return nil }
        return
            "\(limits.correctedUntilAtRisk) blocks or more had to be written anew or put elsewhere within \(limits.correctedNanoseconds / 60_000_000_000) minutes"
    }

    /// What is in its map, or will be when intent bits are cleared.
    private func missedRegions(_ plex: PlexIndex) -> Int? {
        if recovering.contains(plex) { return resync.sweeps[Int(plex.value)].todo.population }
        guard let slot = record[plex].missedWriteMap?.slot, var map = tracking.maps[Int(slot)] else { return nil }
        map.formUnion(tracking.intent)
        return map.population
    }

    private func judge(_ status: inout MirrorStatus) {
        let name = record.name
        if isSuspended {
            status.state = .suspended
            status.reason =
                commit.isFailing
                ? "no plex can record state (errno \(suspensionCause.errorNumber)); requests wait"
                : "all plexes fail alike (errno \(suspensionCause.errorNumber)); requests wait"
            status.action = "restore access to the disks; it goes on by itself"
            return
        }
        if let since = lateness.allLateSince {
            status.state = .suspended
            let seconds = (now.nanoseconds - since + limits.writeDeadlineNanoseconds) / 1_000_000_000
            status.reason =
                working.count == 1
                ? "plex \(list(working)), the only good one, has not answered for \(seconds) s; requests wait"
                : "no good plex has answered for \(seconds) s; requests wait"
            status.action = "look at the disks; it goes on by itself when they answer"
            return
        }
        if let last = working.first, working.count == 1, plexes[Int(last.value)].lastFailure.kind == .gone,
            record[last].cause.operation != .none
        {
            status.state = .failed
            status.reason = "plex \(last), the last good one, is gone: \(describe(record[last].cause))"
            status.action = "stop the clients, restore the disk, then start the server again"
            return
        }
        if let plex = status.plexes.first(where: { $0.isAtRisk }) {
            status.state = .degraded
            status.reason = "plex \(plex.index): \(plex.reason ?? "errors")"
            status.action =
                trouble(plex.index) == nil
                ? "check the disk, then restart the server"
                : "replace the disk: plexus replace \(name) \(plex.index) NEWDISK"
        }
        let lost = status.plexes.filter { $0.state != "in-sync" && $0.state != "rebuilding" }
        if let plex = lost.first {
            status.state = .degraded
            status.reason = "plex \(plex.index) \(plex.state): \(plex.reason ?? "unknown")"
            status.action = action(for: plex, name: name)
        } else if isResyncNeeded || !joining.isEmpty, !isReadOnly {
            status.state = .rebuilding
            status.reason = status.resync?.reason ?? "a plex is joining"
            status.action =
                resync.isPaused
                ? "let the resync go on: plexus resync \(name) --resume"
                : resync.isBehind.map { "none; it goes on when the resync of mirror \($0), which comes first, is done" }
                    ?? (resync.blockedAt == nil
                        ? "none; wait: plexus wait \(name)" : "the source has unreadable blocks")
        }
        if status.state == .healthy, let scrub = status.scrub, scrub.mismatches > 0 {
            status.reason = "plexes differ in \(scrub.mismatches) blocks of \(Limits.blockBytes) bytes"
            status.action = "see which: plexus scrub \(name) --report"
        }
        if status.state == .healthy, working.count < 2, record.configured.count < 2 {
            status.reason = "one plex only: no redundancy"
            status.action = "join another disk: plexus join \(name) DISK"
        }
    }

    private func action(for plex: MirrorStatus.PlexStatus, name: String) -> String {
        switch plex.member.role {
        case .offline: "bring it back: plexus online \(name) \(plex.index)"
        case .brokenOff:
            "join it again: plexus join \(name) DISK, or forget it: plexus break \(name) \(plex.index) --nokeep"
        case .absent, .inSync, .recovering, .stale, .failed:
            "when its disk is good again: plexus join \(name) DISK; to give it up: plexus break \(name) \(plex.index) --nokeep"
        }
    }

    func describe(_ cause: FailureCause) -> String {
        let error = cause.errorNumber == 0 ? "" : " \(errorName(cause.errorNumber))"
        return switch cause.operation {
        case .none: "no error"
        case .read: "read error\(error) at \(cause.offset)"
        case .write: "write error\(error) at \(cause.offset)"
        case .flush: "flush error\(error)"
        case .zero: "zeroing error\(error) at \(cause.offset)"
        case .metadata: "its superblock could not be written\(error)"
        case .absence: cause.errorNumber == 0 ? "its disk was absent at start" : "its disk is gone"
        case .user: "taken out by the user"
        case .verification: "what was written at \(cause.offset) could not be read back the same\(error)"
        }
    }

    private func errorName(_ number: Int32) -> String {
        switch number {
        case 5: "EIO"
        case 6: "ENXIO"
        case 9: "EBADF"
        case 19: "ENODEV"
        case 22: "EINVAL"
        case 27: "EFBIG"
        case 28: "ENOSPC"
        case 61: "ENODATA"
        case 84: "EILSEQ"
        case 95: "EOPNOTSUPP"
        case 103: "ECONNABORTED"
        case 107: "ENOTCONN"
        case 110: "(no answer in time)"
        case 121: "EREMOTEIO"
        case 122: "EDQUOT"
        default: "errno \(number)"
        }
    }
}
