internal import MirrorFormat

/// Background copying: onto plexes under rebuild, and after a crash from the pinned plex onto the other
/// in-sync ones. Both are one sweep over the mirror in windows of 1 MiB; each target has a cursor, and
/// those whose cursors meet go on together.
///
/// A window takes its range lock exclusively, reads, writes the targets, and lets go: a client's write comes
/// wholly before it (and is copied) or wholly after (and goes to the targets itself). It can't overwrite
/// a newer write (R13).
struct Resync {
    struct Window: BitwiseCopyable {
        var slot: Int
        var isUsed = false
        var offset: UInt64 = 0
        var targets = PlexSet.empty
        var equalises = false
    }

    /// Where the next window of each plex under rebuild starts.
    var next = InlineArray<8, UInt64>(repeating: 0)
    /// The same for making in-sync plexes equal after a crash.
    var equaliseNext: UInt64 = 0
    var isEqualiseFlushing = false
    /// When the flush at the end of that is tried again.
    var flushRetryAt: UInt64 = 0
    var promoting = PlexSet.empty
    /// Got a window since their last flush was begun.
    var unflushed = PlexSet.empty
    var windows: [Window]
    /// Set while no source can be read: when to try again, and where it failed.
    var retryAt: UInt64 = 0
    var blockedAt: UInt64?
    var isAnnounced = false
    var startedAt: UInt64 = 0
    /// Bytes copied since `startedAt`.
    var copied: UInt64 = 0
    /// Copied in the last whole second, and the running second's start.
    var bytesPerSecond: UInt64 = 0
    var secondStart: UInt64 = 0
    var secondBytes: UInt64 = 0

    init(windows count: Int) { windows = Array(repeating: Window(slot: -1), count: count) }

    var windowsInFlight: Int { windows.reduce(0) { $0 + ($1.isUsed ? 1 : 0) } }

    /// Below this everything is copied to the plex.
    func copiedBelow(_ plex: PlexIndex) -> UInt64 {
        windows.reduce(next[Int(plex.value)]) { $1.isUsed && $1.targets.contains(plex) ? min($0, $1.offset) : $0 }
    }

    var equalisedBelow: UInt64 {
        windows.reduce(equaliseNext) { $1.isUsed && $1.equalises ? min($0, $1.offset) : $0 }
    }

    mutating func count(_ bytes: UInt64, at nanoseconds: UInt64) {
        copied += bytes
        secondBytes += bytes
        let elapsed = nanoseconds - secondStart
        if elapsed >= 1_000_000_000 {
            bytesPerSecond = UInt64(Double(secondBytes) * 1e9 / Double(elapsed))
            secondStart = nanoseconds
            secondBytes = 0
        }
    }
}

extension Mirror {
    /// Work is left for the resync.
    var isResyncNeeded: Bool { equalBelow != nil || !recovering.isEmpty }

    /// A plex's own superblock says "recovering": now data may be written to it.
    mutating func joined(_ plex: PlexIndex) {
        joining.remove(plex)
        recovering.insert(plex)
        let start = record[plex].recoveryOffset & ~(limits.resyncWindowBytes - 1)
        resync.next[Int(plex.value)] = min(start, record.dataBytes)
        if mutant == .joinAtCursor, let other = recovering.subtracting(PlexSet(plex)).first {
            resync.next[Int(plex.value)] = resync.next[Int(other.value)]
        }
        if mutant == .resyncSkipsFirstWindow, start == 0 {
            resync.next[Int(plex.value)] = min(limits.resyncWindowBytes, record.dataBytes)
        }
        resync.isAnnounced = false
        log(.joined, plex: plex, text: "plex \(plex) joined; copied in full from \(start)")
        pumpResync()
    }

    /// A plex under rebuild has something its source lacks: copy from there again.
    mutating func rewindResync(_ plex: PlexIndex, to offset: UInt64) {
        if record[plex].role == .inSync {
            // Its promotion is being recorded already.
            expel(plex, operation: .write, .truncated, offset: offset)
            return
        }
        let start = offset & ~(limits.resyncWindowBytes - 1)
        resync.next[Int(plex.value)] = min(resync.next[Int(plex.value)], start)
    }

    mutating func pumpResync() {
        guard phase == .running, !isReadOnly, !isSuspended, isResyncNeeded else { return }
        if resync.blockedAt != nil {
            guard now.nanoseconds >= resync.retryAt else { return }
            resync.blockedAt = nil
        }
        announceResync()
        let isBusy =
            clientRequestsInFlight > 0 || now.nanoseconds - lastClientAt < limits.clientActiveNanoseconds
        let allowed = isBusy ? limits.resyncWindowsBusy : limits.resyncWindowsIdle
        while resync.windowsInFlight < allowed, let start = nextWindowStart() { startWindow(at: start) }
        finishSweeps()
    }

    private mutating func announceResync() {
        guard !resync.isAnnounced else { return }
        resync.isAnnounced = true
        resync.startedAt = now.nanoseconds
        resync.secondStart = now.nanoseconds
        resync.secondBytes = 0
        resync.copied = 0
        let text =
            equalBelow != nil
            ? "in-sync plexes may differ: plex \(record.pinned?.description ?? "?") is copied over the others"
            : "full copy to plex \(list(recovering))"
        log(.resyncStarted, plex: recovering.first ?? record.pinned, length: record.dataBytes, text: text)
    }

    private func nextWindowStart() -> UInt64? {
        var lowest = UInt64.max
        recovering.forEach { lowest = min(lowest, resync.next[Int($0.value)]) }
        if equalBelow != nil { lowest = min(lowest, resync.equaliseNext) }
        return lowest < record.dataBytes ? lowest : nil
    }

    private mutating func startWindow(at start: UInt64) {
        guard let free = resync.windows.firstIndex(where: { !$0.isUsed }) else { return }
        let length = min(limits.resyncWindowBytes, record.dataBytes - start)
        var targets = PlexSet.empty
        for plex in recovering.members where resync.next[Int(plex.value)] == start {
            targets.insert(plex)
            resync.next[Int(plex.value)] = start + length
        }
        resync.unflushed = resync.unflushed.union(targets)
        let equalises = equalBelow != nil && resync.equaliseNext == start
        if equalises { resync.equaliseNext = start + length }
        let index = takeSlot(.resyncWindow)
        slots[index].request = Request(
            id: RequestID(0), kind: .read, offset: start, length: length, buffer: .window(free))
        slots[index].windowTargets = targets
        slots[index].windowEqualises = equalises
        resync.windows[free] = Resync.Window(
            slot: index, isUsed: true, offset: start, targets: targets, equalises: equalises)
        acquire(index, isExclusive: true)
    }

    /// The window's bytes are in the buffer.
    mutating func windowRead(_ index: Int, from source: PlexIndex) {
        var targets = slots[index].windowTargets.intersection(recovering)
        if slots[index].windowEqualises { targets = targets.union(working.subtracting(PlexSet(source))) }
        slots[index].transfer.kind = .write
        // What clients may read right after this must not vanish with the power (R7).
        slots[index].transfer.isDurable = slots[index].windowEqualises
        slots[index].good = targets
        fanOut(index, to: targets)
    }

    mutating func windowWritten(_ index: Int) {
        expelAll(slots[index].failed, for: index)
        resync.count(slots[index].request.length, at: now.nanoseconds)
        endWindow(index)
    }

    /// No plex can read the window. Promoting the target without it would be a lie: it stays unfinished, and
    /// is tried again later.
    mutating func windowSourceFailed(_ index: Int) {
        let start = slots[index].request.offset
        for plex in slots[index].windowTargets.intersection(recovering).members {
            resync.next[Int(plex.value)] = min(resync.next[Int(plex.value)], start)
        }
        if slots[index].windowEqualises { resync.equaliseNext = min(resync.equaliseNext, start) }
        resync.blockedAt = start
        resync.retryAt = now.nanoseconds + limits.resyncRetryNanoseconds
        log(.resyncPaused, offset: start, length: slots[index].request.length, text: "source can't be read")
        endWindow(index)
    }

    private mutating func endWindow(_ index: Int) {
        if let position = resync.windows.firstIndex(where: { $0.isUsed && $0.slot == index }) {
            resync.windows[position].isUsed = false
        }
        if equalBelow != nil { equalBelow = resync.equalisedBelow }
        freeSlot(index)
        pumpResync()
        drained()
    }

    private mutating func finishSweeps() {
        let size = record.dataBytes
        if equalBelow != nil, resync.equalisedBelow == size, !resync.isEqualiseFlushing,
            now.nanoseconds >= resync.flushRetryAt
        {
            resync.isEqualiseFlushing = true
            startInternalFlush(.equalised, working)
        }
        for plex in recovering.members
        where resync.copiedBelow(plex) == size && !resync.promoting.contains(plex) {
            resync.promoting.insert(plex)
            resync.unflushed.remove(plex)
            if mutant == .promoteWithoutFlush {
                promoteFlushed(plex, succeeded: true)
            } else {
                startInternalFlush(.promote, PlexSet(plex), plex: plex)
            }
        }
    }

    mutating func equalisedFlushed(everywhere: Bool) {
        resync.isEqualiseFlushing = false
        guard everywhere else {
            // A flush that failed on all plexes alike fails again at once, without I/O: wait, or this never
            // returns.
            resync.flushRetryAt = now.nanoseconds + limits.resyncRetryNanoseconds
            return
        }
        guard equalBelow == record.dataBytes else {
            pumpResync()
            return
        }
        equalBelow = nil
        record.pinned = nil
        log(.resyncFinished, length: record.dataBytes, text: "all in-sync plexes are equal again")
        wantCommit()
    }

    /// R10: all copied, then flushed, then on record; only then it may serve.
    mutating func promoteFlushed(_ plex: PlexIndex, succeeded: Bool) {
        resync.promoting.remove(plex)
        guard succeeded, recovering.contains(plex), phase == .running, !resync.unflushed.contains(plex),
            resync.copiedBelow(plex) == record.dataBytes
        else {
            pumpResync()
            return
        }
        resync.promoting.insert(plex)
        record[plex].role = .inSync
        record[plex].cause = .none
        record[plex].recoveryOffset = 0
        wantCommit()
    }

    /// The record that lists the plex as in sync is durable everywhere.
    mutating func promoted(_ plex: PlexIndex) {
        resync.promoting.remove(plex)
        recovering.remove(plex)
        working.insert(plex)
        log(.resyncFinished, plex: plex, length: resync.copied, text: "plex \(plex) is in sync")
    }
}
