internal import MirrorFormat

/// Driving the resync: windows, their ends, and what follows when a sweep is done.
extension Mirror {
    /// Work is left for the resync.
    var isResyncNeeded: Bool { hasUnequal || !recovering.isEmpty }

    /// A plex under rebuild has something its source lacks: copy from there again.
    mutating func rewindResync(_ plex: PlexIndex, _ regions: Range<Int>) {
        guard record[plex].role != .inSync else {
            // Its promotion is being recorded already.
            expel(plex, operation: .write, .truncated, offset: UInt64(regions.lowerBound) * tracking.regionBytes)
            return
        }
        if let slot = record[plex].missedWriteMap?.slot {
            var set = RegionSet(count: tracking.regionCount)
            set.insert(regions)
            tracking.insertMissed(set, slot: slot)
        }
        cleaner.checkpoints[Int(plex.value)]?.insert(regions)
        resync.again(Int(plex.value), regions, regionBytes: tracking.regionBytes)
    }

    /// What the lone source may have lost, or has in another version, is copied again to all that are being rebuilt.
    mutating func rewindResync(_ regions: RegionSet) {
        var position = 0
        while let first = regions.next(from: position) {
            position = regions.endOfRun(from: first, limit: regions.count)
            for plex in recovering.members where record[plex].role == .recovering {
                rewindResync(plex, first..<position)
            }
        }
    }

    mutating func pumpResync() {
        guard phase == .running, !isReadOnly, !isSuspended, isResyncNeeded else { return }
        if !resync.isPaused, resync.isBehind == nil {
            announceResync()
            startWindows()
            startNextRound()
        }
        finishSweeps()
    }

    private mutating func startWindows() {
        let isBusy =
            clientRequestsInFlight > 0 || now.nanoseconds - lastClientAt < limits.clientActiveNanoseconds
        let allowed = isBusy ? limits.resyncWindowsBusy : limits.resyncWindowsIdle
        let bytes = isBusy ? limits.resyncWindowBytesBusy : limits.resyncWindowBytes
        // What a repair uses is not counted, and one that waits finds a buffer.
        let ofRepair = repairs.slot == nil ? 0 : 1
        let room = max(1, min(allowed, resync.windows.count - (repairs.areWaiting || ofRepair > 0 ? 1 : 0)))
        while resync.windowsInFlight - ofRepair < room, resync.mayCopy(at: now.nanoseconds) {
            let taken = startWindow(atMost: min(bytes, resync.largestWindow))
            if taken == 0 { break }
            resync.spend(taken)
        }
    }

    private mutating func announceResync() {
        guard !resync.isAnnounced else { return }
        resync.isAnnounced = true
        resync.beginCounting(at: now.nanoseconds)
        let regions = activeSweeps.reduce(0) { max($0, resync.sweeps[$1].todo.population) }
        let bytes = min(UInt64(regions) * tracking.regionBytes, record.dataBytes)
        let text =
            hasUnequal
            ? "in-sync plexes may differ in \(regions) dirty regions: plex \(record.pinned?.description ?? "?") is copied over the others"
            : "\(regions) regions are copied to plex \(list(recovering)): \(copyReasons)"
        log(.resyncStarted, plex: recovering.first ?? record.pinned, length: bytes, text: text)
    }

    private var activeSweeps: [Int] {
        recovering.members.map { Int($0.value) } + (hasUnequal ? [Resync.equaliser] : [])
    }

    /// Takes the lowest stretch that any target needs, for all that need it.
    ///
    /// - Returns: its length; 0 if there is nothing to be begun.
    private mutating func startWindow(atMost bytes: UInt64) -> UInt64 {
        guard let free = resync.windows.firstIndex(where: { !$0.isUsed }) else { return 0 }
        var start = UInt64.max
        var end = UInt64.max
        var takers: [Int] = []
        for sweep in activeSweeps {
            guard let range = nextRange(sweep, atMost: bytes) else { continue }
            if range.lowerBound < start {
                (start, end, takers) = (range.lowerBound, range.upperBound, [sweep])
            } else if range.lowerBound == start {
                end = min(end, range.upperBound)
                takers.append(sweep)
            }
        }
        guard start < end, !takers.isEmpty else { return 0 }
        for sweep in takers { resync.sweeps[sweep].position = end }
        let plexes = PlexSet(mask: takers.reduce(0) { $1 == Resync.equaliser ? $0 : $0 | 1 << UInt8($1) })
        let equalises = takers.contains(Resync.equaliser)
        // Its bits must not be cleared before it has ended, even if the plexes count as equal by then.
        if equalises { tracking.touch(tracking.regions(start, end - start)) }
        resync.unflushed = resync.unflushed.union(plexes)
        let index = takeSlot(.resyncWindow)
        slots[index].request = Request(
            id: RequestID(0), kind: .read, offset: start, length: end - start, buffer: .window(free))
        slots[index].windowTargets = plexes
        slots[index].windowEqualises = equalises
        resync.windows[free] = Resync.Window(
            slot: index, isUsed: true, start: start, end: end, targets: plexes, equalises: equalises)
        acquire(index, isExclusive: true)
        return end - start
    }

    private func nextRange(_ sweep: Int, atMost bytes: UInt64) -> Range<UInt64>? {
        resync.sweeps[sweep].next(tracking.regionBytes, bytes, record.dataBytes)
    }

    /// What was left out, because its source could not be read, comes again after a while.
    private mutating func startNextRound() {
        for sweep in activeSweeps
        where !resync.sweeps[sweep].isDone && nextRange(sweep, atMost: limits.resyncWindowBytes) == nil {
            guard !resync.hasWindow(sweep, in: 0..<record.dataBytes), now.nanoseconds >= resync.retryAt else {
                continue
            }
            resync.sweeps[sweep].position = 0
            resync.sweeps[sweep].skipped = RegionSet(count: tracking.regionCount)
            resync.blockedAt = nil
        }
    }

    /// The window's bytes are in the buffer.
    mutating func windowRead(_ index: Int, from source: PlexIndex) {
        var targets = slots[index].windowTargets.intersection(recovering)
        // Those under rebuild, too: they may have it from a plex that was pinned before.
        if slots[index].windowEqualises { targets = working.union(recovering).subtracting(PlexSet(source)) }
        slots[index].transfer.kind = .write
        // What clients may read right after this must not vanish with the power (R7).
        slots[index].transfer.isDurable = slots[index].windowEqualises
        slots[index].good = targets
        fanOut(index, to: targets)
    }

    mutating func windowWritten(_ index: Int) {
        expelAll(slots[index].failed, for: index)
        heal(
            slots[index].windowTargets.union(slots[index].good).subtracting(slots[index].failed).subtracting(
                slots[index].lacking),
            slots[index].transfer)
        resync.count(slots[index].request.length, at: now.nanoseconds)
        endWindow(index, isCopied: true)
    }

    /// No plex can read the window. Promoting the target without it would be a lie: it stays unfinished, and
    /// is tried again later; the rest goes on.
    mutating func windowSourceFailed(_ index: Int) {
        let request = slots[index].request
        let targets = slots[index].windowTargets.intersection(recovering)
        if mayGoWithout(index, targets), targets.isEmpty || goWithout(request.offset, targets) {
            endWindow(index, isCopied: true)
            return
        }
        let regions = tracking.regions(request.offset, request.length)
        for plex in targets.members { resync.sweeps[Int(plex.value)].suspect(regions) }
        if slots[index].windowEqualises { resync.sweeps[Resync.equaliser].suspect(regions) }
        resync.blockedAt = request.offset
        resync.retryAt = now.nanoseconds + limits.resyncRetryNanoseconds
        log(.resyncPaused, offset: request.offset, length: request.length, text: "source can't be read")
        endWindow(index, isCopied: false)
    }

    /// It is a single block, it failed before, and it is the block's fault.
    private func mayGoWithout(_ index: Int, _ targets: PlexSet) -> Bool {
        let request = slots[index].request
        guard request.length == Limits.blockBytes, !slots[index].failedOtherwise else { return false }
        let region = Int(request.offset / tracking.regionBytes)
        let sweeps = targets.members.map { Int($0.value) } + (slots[index].windowEqualises ? [Resync.equaliser] : [])
        let isKnown = sweeps.allSatisfy {
            region < resync.sweeps[$0].suspect.count && resync.sweeps[$0].suspect.contains(region)
        }
        // Where all but one hold nothing on record nobody differs.
        return isKnown
            && (!slots[index].windowEqualises
                || working.filter { !record.isBad($0, offset: request.offset, length: request.length) }.count <= 1)
    }

    /// The mirror is being stopped, and the window waits for a record that can't be written.
    mutating func giveUpWindow(_ index: Int) { endWindow(index, isCopied: false) }

    private mutating func endWindow(_ index: Int, isCopied: Bool) {
        if let position = resync.windows.firstIndex(where: { $0.isUsed && $0.slot == index }) {
            resync.windows[position].isUsed = false
        }
        let request = slots[index].request
        let range = request.offset..<request.offset + request.length
        for plex in slots[index].windowTargets.intersection(recovering).members {
            resync.ended(
                Int(plex.value), range, isCopied: isCopied, regionBytes: tracking.regionBytes,
                dataBytes: record.dataBytes)
        }
        if slots[index].windowEqualises, hasUnequal {
            resync.ended(
                Resync.equaliser, range, isCopied: isCopied, regionBytes: tracking.regionBytes,
                dataBytes: record.dataBytes)
        }
        freeSlot(index)
        pumpResync()
        drained()
    }

    private mutating func finishSweeps() {
        if hasUnequal, resync.unequal.isEmpty, !resync.isEqualiseFlushing, now.nanoseconds >= resync.flushRetryAt {
            resync.isEqualiseFlushing = true
            startInternalFlush(.equalised, working)
        }
        for plex in recovering.members where isCopied(plex) && !resync.promoting.contains(plex) {
            resync.promoting.insert(plex)
            resync.unflushed.remove(plex)
            if mutant == .promoteWithoutFlush {
                promoteFlushed(plex, succeeded: true)
            } else {
                startInternalFlush(.promote, PlexSet(plex), plex: plex)
            }
        }
    }

    /// All that it missed is copied, and it has the bitmap (R10).
    private func isCopied(_ plex: PlexIndex) -> Bool {
        let index = Int(plex.value)
        return resync.sweeps[index].isDone && !resync.hasWindow(index, in: 0..<record.dataBytes)
            && tracking.isInitialised(plex) && tracking.pages[0].durableSequence > plexes[index].joinMark
    }

    mutating func equalisedFlushed(everywhere: Bool) {
        resync.isEqualiseFlushing = false
        guard everywhere else {
            // A flush that failed on all plexes alike fails again at once, without I/O: wait, or this never
            // returns.
            resync.flushRetryAt = now.nanoseconds + limits.resyncRetryNanoseconds
            return
        }
        guard hasUnequal, resync.unequal.isEmpty else {
            pumpResync()
            return
        }
        endUnequal()
        resync.last = Resync.Finished(
            plex: nil, copied: resync.copied, reason: "dirty regions after an unclean stop or an error")
        log(
            .resyncFinished, length: resync.copied,
            text: "\(resync.copied) bytes copied; all in-sync plexes are equal again")
        wantCommit()
    }

    /// R10: all copied, then flushed, then on record; only then it may serve.
    mutating func promoteFlushed(_ plex: PlexIndex, succeeded: Bool) {
        resync.promoting.remove(plex)
        guard succeeded, recovering.contains(plex), phase == .running, !resync.unflushed.contains(plex),
            isCopied(plex)
        else {
            pumpResync()
            return
        }
        resync.promoting.insert(plex)
        record[plex].role = .inSync
        record[plex].cause = .none
        record[plex].missedWriteMap = nil
        recordUncopied(plex)
        wantCommit()
    }

    /// The record that lists the plex as in sync is durable everywhere.
    mutating func promoted(_ plex: PlexIndex) {
        resync.promoting.remove(plex)
        recovering.remove(plex)
        working.insert(plex)
        if mutant != .hideFlushError {
            // They were kept while there was no better one. What others got from them meanwhile is copied again.
            let doubtful = working.subtracting(reliable(working))
            for failed in doubtful.members {
                expel(failed, operation: .flush, plexes[Int(failed.value)].lastFailure, offset: 0)
            }
            if !doubtful.isEmpty { rewindResync(tracking.intent) }
        }
        log(
            .resyncFinished, plex: plex, length: resync.copied,
            text: "\(resync.copied) bytes copied; plex \(plex) is in sync")
        resync.last = Resync.Finished(plex: plex, copied: resync.copied, reason: copyReason(plex))
        resync.sweeps[Int(plex.value)] = Sweep()
    }

    /// - Returns: what is told to whoever ordered it.
    mutating func obey(_ order: ResyncOrder) -> String {
        let subject = "the resync of mirror \(record.name)"
        switch order {
        case .pause:
            guard !resync.isPaused else { return "\(subject) is paused already" }
            resync.isPaused = true
            if isResyncNeeded { log(.resyncPaused, text: "by the user") }
            return "\(subject) is paused until it is resumed or the server is started again"
        case .resume:
            guard resync.isPaused else { return "\(subject) is not paused" }
            resync.isPaused = false
            resync.isAnnounced = false
            pumpResync()
            return "\(subject) goes on"
        case .limit(let rate):
            resync.limit(to: rate, at: now.nanoseconds)
            pumpResync()
            return rate.map { "\(subject) copies at most \($0) bytes per second" } ?? "\(subject) has no limit"
        case .verify(let isWanted):
            resync.isVerifying = isWanted
            return isWanted
                ? "\(subject) reads back and compares what it has copied, from now on"
                : "\(subject) believes the disks what they say they have written"
        case .priority(let priority):
            resync.priority = priority
            return "\(subject) has \(priority.text) priority"
        }
    }

    // MARK: several mirrors

    package var resyncPriority: ResyncPriority { resync.priority }

    /// It copies, or would but for one that comes first.
    package var wantsToCopy: Bool {
        phase == .running && !isReadOnly && !isSuspended && isResyncNeeded && !resync.isPaused
            && resync.blockedAt == nil
    }

    /// - Parameter other: the mirror whose copying comes first; nil: none.
    package mutating func copy(behind other: String?) { resync.isBehind = other }

    // MARK: plexes that may differ

    /// From here on working plexes may differ in these regions.
    mutating func beginUnequal(_ regions: RegionSet) {
        if hasUnequal {
            resync.sweeps[Resync.equaliser].todo.formUnion(regions)
            resync.sweeps[Resync.equaliser].position = 0
            resync.sweeps[Resync.equaliser].total = resync.unequal.population
        } else {
            resync.sweeps[Resync.equaliser] = Sweep(regions)
            resync.isAnnounced = false
        }
        hasUnequal = true
        if record.pinned.map({ !working.contains($0) }) ?? true { record.pinned = working.first }
    }

    mutating func endUnequal() {
        hasUnequal = false
        resync.sweeps[Resync.equaliser] = Sweep()
        record.pinned = nil
    }
}
