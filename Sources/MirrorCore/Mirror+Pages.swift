internal import Bytes
internal import MirrorFormat

/// Writing pages of the intent bitmap and the missed-write maps.
///
/// Changes to a page that is on its way, and those of one batch of events, wait and go out together in the next write
/// (group commit). A plex that
/// can't take a page is expelled, and the bits count only when that is on record (R1).
extension Mirror {
    /// At the end of a batch of events, so that bits set together share a page write.
    mutating func pumpPages() {
        guard tracking.hasStalePages, !isReadOnly, phase != .stopped, !working.isEmpty,
            now.nanoseconds >= tracking.retryAt
        else { return }
        let bitmap = tracking.pagesPerSheet
        startPages(0..<bitmap)
        startPages(bitmap..<tracking.pages.count)
    }

    private mutating func startPages(_ range: Range<Int>) {
        let inFlight = tracking.writes.count { $0.isUsed && range.contains($0.page) }
        var room = limits.pageWritesPerKind - inFlight
        while room > 0, let write = tracking.freeWrite, let page = tracking.nextStalePage(range) {
            startPage(page, write)
            room -= 1
        }
    }

    private mutating func startPage(_ page: Int, _ write: Int) {
        let participants = working.union(recovering)
        let stale = tracking.pages[page].staleOn
        let targets = stale.intersection(participants)
        guard !targets.isEmpty else {
            tracking.dropStale(page)
            return
        }
        tracking.begin(
            write, page: page, targets: targets, holders: participants.subtracting(stale),
            generation: durableGeneration)
        tracking.writes[write].encode(mirror: record.mirror)
        if mutant == .intentOnOnePlex {
            tracking.writes[write].pending = PlexSet(targets.first ?? PlexIndex(0))
            tracking.writes[write].holders = participants
        }
        for plex in tracking.writes[write].pending.members { submitPage(write, plex) }
    }

    private mutating func submitPage(_ write: Int, _ plex: PlexIndex) {
        guard let layout = plexes[Int(plex.value)].attachment?.layout else { preconditionFailure("no disk for a page") }
        let header = tracking.writes[write].header
        submitMetadata(
            owner: .bitmap, plex: plex, slot: write, generation: UInt32(truncatingIfNeeded: header.sequence),
            offset: layout.pageOffset(sheet: Int(header.sheet), index: Int(header.index)))
    }

    func encodePage(_ operation: DiskOperation, into bytes: inout MutableRawSpan) {
        let block = tracking.writes[operation.tag.slot].block
        unsafe bytes.storeBytes(block.span.bytes, at: 0)
    }

    mutating func pageCompleted(_ tag: DiskTag, _ result: DiskResult) {
        let write = tag.slot
        let plex = tag.plex
        precondition(tracking.writes[write].pending.contains(plex))
        if tracking.writes[write].departed.contains(plex) {
            // Nothing that it says counts for the disk that is there now.
        } else if case .failed(let failure) = result {
            if failure.kind == .transient, tracking.writes[write].transients < limits.transientRetries,
                working.union(recovering).contains(plex), phase != .stopped
            {
                tracking.writes[write].transients += 1
                submitPage(write, plex)
                return
            }
            plexes[Int(plex.value)].lastFailure = failure
            tracking.writes[write].failed.insert(plex)
        } else {
            tracking.writes[write].holders.insert(plex)
        }
        tracking.writes[write].pending.remove(plex)
        guard tracking.writes[write].pending.isEmpty, phase != .stopped else { return }
        pageAnswered(write)
    }

    private mutating func pageAnswered(_ write: Int) {
        let failed = tracking.writes[write].failed
        let holders = tracking.writes[write].holders
        if working.intersection(holders).isEmpty {
            pageReachedNobody(write)
            return
        }
        for plex in failed.members {
            expel(plex, operation: .metadata, plexes[Int(plex.value)].lastFailure, offset: 0)
        }
        tracking.answered(write)
        tracking.isFailing = false
        if isSuspended { resumeIfNoneFails() }
        settlePages()
    }

    /// Nobody is expelled for what befell all; it is tried again, and nothing more is promised meanwhile.
    private mutating func pageReachedNobody(_ write: Int) {
        let page = tracking.writes[write].page
        tracking.isFailing = true
        tracking.retryAt = now.nanoseconds + limits.commonFailureRetryNanoseconds
        tracking.end(write, isDurable: false)
        tracking.touch(page: page)
        suspend(working.first.map { plexes[Int($0.value)].lastFailure } ?? .truncated)
        giveUpForStop()
    }

    /// A page counts when every plex that a restart may take for current has it. One that failed to take it does not
    /// count any more when the record says so.
    mutating func settlePages() {
        var hasEnded = false
        for write in tracking.writes.indices where tracking.writes[write].isUsed && tracking.writes[write].isAnswered {
            guard possibleInSync.isSubset(of: tracking.writes[write].holders) || mutant == .intentOnOnePlex else {
                commit.needsWake = true
                continue
            }
            tracking.end(write, isDurable: true)
            hasEnded = true
        }
        guard hasEnded else { return }
        openGate()
        pagesSettled()
    }

    /// Whoever waits for pages looks again.
    private mutating func pagesSettled() {
        tryOpen()
        proveJoined()
        cleaningGoesOn()
        if joining.members.contains(where: { isReadyToJoin($0) }) { wantCommit() }
        if !recovering.isEmpty { pumpResync() }
    }
}
