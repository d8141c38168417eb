internal import MirrorFormat

/// Comparing the plexes (`Scrub`). Nothing is written but by `Mirror+ScrubRepair`: intent bits, missed-write maps and the
/// record of who is in sync stay as they are, whoever is away.
extension Mirror {
    // MARK: orders

    mutating func obey(_ order: ScrubOrder) -> Answer {
        switch order {
        case .start(let manner):
            if let refusal = refusal(to: manner) { return .refused(refusal) }
            let isRunning = scrub.state.isRunning
            guard isRunning || scrub.isIdle else { return .refused("the last scrub is just ending; try again") }
            if isRunning { scrub.follow(manner) } else { beginScrub(manner) }
            scrub.record()
            pumpScrub()
            let work = manner.repairs ? "is being scrubbed and repaired" : "is being scrubbed"
            return .done(
                "mirror \(record.name) \(work)\(isRunning ? ", from where the scrub was" : ""); see plexus status \(record.name)"
            )
        case .stop:
            guard scrub.state.isRunning else { return .refused("no scrub of mirror \(record.name) is running") }
            endScrub("stopped by the user at \(scrub.state.position) of \(record.dataBytes) bytes")
            return .done("the scrub of mirror \(record.name) is stopped; the next one begins at the beginning")
        case .limit(let rate):
            limitScrub(rate)
            let subject = "the scrub of mirror \(record.name)"
            let pace = rate.map { "reads at most \($0) bytes per second of each plex" }
            return .done("\(subject) \(pace ?? "has no limit")")
        }
    }

    private func refusal(to manner: ScrubManner) -> String? {
        let name = record.name
        guard phase == .running else { return "the mirror \(name) is still being opened; try again" }
        guard !manner.repairs || !isReadOnly else {
            return "the mirror \(name) is served read-only: it can be scrubbed, and not be repaired"
        }
        guard working.count > 1 else {
            let next = recovering.isEmpty ? "join another: plexus join \(name) DISK" : "wait: plexus wait \(name)"
            return "mirror \(name) has one plex in sync, and nothing to compare it with; \(next)"
        }
        if let preferred = manner.preferred, !working.contains(preferred) {
            return "plex \(preferred) is not in sync; see plexus status \(name)"
        }
        guard !manner.repairs || manner.preferred != nil || working.count > 2 else {
            return
                "nobody can tell which of two plexes is right where they differ; look at them (plexus scrub \(name) --report) and choose: plexus scrub \(name) --repair --prefer PLEX"
        }
        return nil
    }

    package mutating func limitScrub(_ rate: UInt64?) {
        guard rate != scrub.pace.limit else { return }
        scrub.pace.limit(to: rate, at: now.nanoseconds)
        pumpScrub()
    }

    /// - Parameter nanoseconds: nil: never by itself.
    package mutating func scheduleScrub(every nanoseconds: UInt64?) { scrub.interval = nanoseconds }

    /// One that was stopped, or never came to its end, is as good as one that did: it is not begun again at once.
    private mutating func beginScrubIfDue() {
        guard let interval = scrub.interval, !scrub.state.isRunning, scrub.isIdle, phase == .running, !isReadOnly else {
            return
        }
        let last = max(scrub.state.lastFinished, scrub.state.started, record.createdTime)
        guard now.unixNanoseconds > last, now.unixNanoseconds - last >= interval,
            refusal(to: ScrubManner()) == nil
        else { return }
        beginScrub(ScrubManner())
    }

    private mutating func beginScrub(_ manner: ScrubManner) {
        scrub.begin(manner, at: now.unixNanoseconds)
        scrub.pace.begin(at: now.nanoseconds)
        scrub.record()
        log(
            .scrubStarted, length: record.dataBytes,
            text: "plexes \(list(working)) are compared\(manner.repairs ? ", and repaired where they differ" : "")")
    }

    private mutating func endScrub(_ text: String) {
        if mutant == .scrubForgetsMissed { forgetMissed() }
        scrub.state.isRunning = false
        scrub.repairs = []
        unpinRepaired()
        scrub.record()
        log(.scrubFinished, length: scrub.state.position, text: text)
    }

    private mutating func forgetMissed() {
        for slot in 0..<UInt8(tracking.maps.count) where tracking.maps[Int(slot)] != nil {
            tracking.keepMissed(RegionSet(count: tracking.regionCount), slot: slot, witness: tracking.witness)
        }
    }

    /// At the start: one that was under way goes on.
    mutating func adoptScrub() {
        guard scrub.state.isRunning else { return }
        scrub.pace.begin(at: now.nanoseconds)
        let state = scrub.state
        scrub.follow(
            ScrubManner(
                readsHoles: state.readsHoles, repairs: state.repairs && !isReadOnly, preferred: state.preferred))
    }

    // MARK: going on

    /// Why nothing is begun at present; nil: the scrub goes on.
    var scrubObstacle: String? {
        if isSuspended { return "requests are held: no plex can be relied on" }
        if working.count < 2 { return "fewer than two plexes are in sync" }
        if hasUnequal { return "plexes may differ, until the resync has made them equal" }
        if let mute = working.filter({ lateness.zombies(of: $0) > 0 }).first { return "plex \(mute) does not answer" }
        if reliable(working) != working { return "no plex could be flushed: what they hold may differ" }
        let copies = isResyncNeeded && !resync.isPaused && resync.isBehind == nil && resync.blockedAt == nil
        return copies ? "the resync comes first" : nil
    }

    /// The tick's part.
    mutating func tickScrub() {
        beginScrubIfDue()
        pumpScrub()
        recordScrub()
        pumpScrubLedger()
    }

    mutating func pumpScrub() {
        guard scrub.state.isRunning, !scrub.isPumping, phase == .running else { return }
        scrub.isPumping = true
        if scrubObstacle == nil {
            pumpScrubRepairs()
            if scrub.repairs.isEmpty, repairingWindow == nil { startScrubWindows() }
        }
        finishScrub()
        scrub.isPumping = false
    }

    private mutating func startScrubWindows() {
        let isBusy =
            clientRequestsInFlight > 0 || now.nanoseconds - lastClientAt < limits.clientActiveNanoseconds
        let allowed = isBusy ? limits.resyncWindowsBusy : limits.resyncWindowsIdle
        let bytes = min(isBusy ? limits.resyncWindowBytesBusy : limits.resyncWindowBytes, scrub.pace.largestWindow)
        let areRepairsWaiting = repairs.areWaiting || repairs.slot != nil
        let room = max(1, min(allowed, resync.windows.count - (areRepairsWaiting ? 1 : 0)))
        while resync.windowsInFlight < room, let free = resync.windows.firstIndex(where: { !$0.isUsed }),
            scrub.pace.mayGoOn(at: now.nanoseconds), let range = scrub.next(atMost: bytes, record.dataBytes)
        {
            scrub.pace.spend(range.upperBound - range.lowerBound)
            let index = takeScrubSlot(.scrub, range, window: free)
            acquire(index, isExclusive: false)
        }
    }

    /// A slot with a buffer of the resync's.
    mutating func takeScrubSlot(_ kind: Slot.Kind, _ range: Range<UInt64>, window: Int) -> Int {
        let index = takeSlot(kind)
        slots[index].request = Request(
            id: RequestID(0), kind: .read, offset: range.lowerBound, length: range.upperBound - range.lowerBound,
            buffer: .window(window))
        resync.windows[window] = Resync.Window(slot: index, isUsed: true)
        scrub.jobs[window] = Scrub.Job(slot: index, range)
        return index
    }

    func scrubWindow(_ index: Int) -> Int {
        guard let window = slots[index].request.buffer.windowIndex, scrub.jobs[window] != nil else {
            preconditionFailure("a scrub without a buffer")
        }
        return window
    }

    private mutating func finishScrub() {
        guard scrub.state.isRunning, scrub.state.position >= record.dataBytes, scrub.repairs.isEmpty, scrub.isIdle
        else { return }
        scrub.state.lastFinished = now.unixNanoseconds
        let state = scrub.state
        endScrub(
            "\(state.found) blocks differ, \(state.repaired) repaired, \(state.unreadable) unreadable; \(scrub.mismatches) open"
        )
    }

    // MARK: a window

    /// The range is locked: no write is in flight in it.
    mutating func startScrub(_ index: Int) {
        let request = slots[index].request
        guard mayCompare(request.offset, request.length) else { return endScrubWindow(index, isDone: false) }
        let range = request.offset..<request.offset + request.length
        // What a disk says of holes is not about what lies in its spare pool.
        if scrub.state.readsHoles || hasRemap(working, range) { return nextPiece(index) }
        scrub.jobs[scrubWindow(index)]?.compared = working
        ask(index, working, .findData, request.offset..<request.offset + request.length)
    }

    /// Nothing has happened that makes plexes differ, or that makes differences meaningless.
    func mayCompare(_ offset: UInt64, _ length: UInt64) -> Bool {
        phase == .running && scrub.state.isRunning && !isSuspended && working.count > 1
            && isEqual(offset: offset, length: length) && reliable(working) == working
    }

    mutating func nextPiece(_ index: Int) {
        let window = scrubWindow(index)
        while let piece = scrub.jobs[window]?.pieces.popLast() {
            let length = piece.upperBound - piece.lowerBound
            guard mayCompare(piece.lowerBound, length) else { return endScrubWindow(index, isDone: false) }
            let holders = working.filter { !record.isBad($0, offset: piece.lowerBound, length: length) }
            if holders != working || hasRemap(holders, piece), length > Limits.blockBytes {
                halve(piece, window)
                continue
            }
            guard holders.count > 1 else { continue }
            return readPiece(index, piece, holders)
        }
        endScrubWindow(index, isDone: true)
    }

    private func hasRemap(_ plexes: PlexSet, _ range: Range<UInt64>) -> Bool {
        hasRemaps
            && !plexes.filter {
                hasRemap($0, offset: range.lowerBound, length: range.upperBound - range.lowerBound)
            }.isEmpty
    }

    private mutating func halve(_ piece: Range<UInt64>, _ window: Int) {
        let blocks = (piece.upperBound - piece.lowerBound) / Limits.blockBytes
        let middle = piece.lowerBound + (blocks + 1) / 2 * Limits.blockBytes
        scrub.jobs[window]?.pieces += [middle..<piece.upperBound, piece.lowerBound..<middle]
    }

    private mutating func readPiece(_ index: Int, _ piece: Range<UInt64>, _ holders: PlexSet) {
        let window = scrubWindow(index)
        scrub.jobs[window]?.piece = piece
        scrub.jobs[window]?.compared = holders
        scrub.jobs[window]?.differing = .empty
        scrub.jobs[window]?.unreadable = .empty
        scrub.turn &+= 1
        let members = Array(holders.members)
        readForScrub(index, piece, from: members[scrub.turn % members.count])
    }

    mutating func readForScrub(_ index: Int, _ piece: Range<UInt64>, from source: PlexIndex) {
        slots[index].source = source
        ask(index, PlexSet(source), .read, piece)
    }

    // MARK: operations

    mutating func ask(_ index: Int, _ plexes: PlexSet, _ kind: DiskOperation.Kind, _ range: Range<UInt64>) {
        slots[index].step = .reading
        slots[index].transients = 0
        slots[index].transfer = Slot.Transfer(
            kind: kind, offset: range.lowerBound, length: range.upperBound - range.lowerBound)
        slots[index].pending = plexes
        for plex in plexes.members {
            slots[index].progress[Int(plex.value)] = 0
            self.plexes[Int(plex.value)].readsInFlight += 1
            submit(operation(index, plex))
        }
    }

    /// Of a window or of the reading part of a repair.
    mutating func scrubCompleted(_ tag: DiskTag, _ result: DiskResult) {
        let index = tag.slot
        let plex = tag.plex
        precondition(slots[index].generation == tag.generation && slots[index].pending.contains(plex))
        var result = result
        if working.contains(plex), goesOn(index, plex, &result) { return }
        slots[index].pending.remove(plex)
        plexes[Int(plex.value)].readsInFlight -= 1
        take(index, plex, result)
        guard slots[index].pending.isEmpty else { return }
        let window = scrubWindow(index)
        guard let job = scrub.jobs[window], !job.isLate,
            mayCompare(slots[index].transfer.offset, slots[index].transfer.length)
        else { return abandonScrub(index) }
        scrub.jobs[window]?.compared = job.compared.intersection(working)
        scrub.jobs[window]?.differing = job.differing.intersection(working)
        if slots[index].kind == .scrubRepair { return repairAnswered(index) }
        switch slots[index].transfer.kind {
        case .findData: dataFound(index)
        case .read: pieceRead(index)
        case .compare: pieceCompared(index)
        case .checksum: blockChecked(index)
        case .write, .deallocate, .zero, .flush, .writeMetadata, .queryAllocation:
            preconditionFailure("a window asks for nothing of the kind")
        }
    }

    /// Tries again what may go better, and reads on behind a short read.
    private mutating func goesOn(_ index: Int, _ plex: PlexIndex, _ result: inout DiskResult) -> Bool {
        switch result {
        case .failed(let failure):
            guard failure.kind == .transient, retryTransient(index) else { return false }
        case .transferred(let bytes):
            let left = slots[index].transfer.length - slots[index].progress[Int(plex.value)]
            guard slots[index].transfer.kind == .read, bytes < left else { return false }
            let whole = bytes & ~(Limits.blockBytes - 1)
            guard whole > 0 || (bytes > 0 && retryTransient(index)) else {
                result = .failed(.truncated)
                return false
            }
            slots[index].progress[Int(plex.value)] += whole
        }
        submit(operation(index, plex))
        return true
    }

    private mutating func take(_ index: Int, _ plex: PlexIndex, _ result: DiskResult) {
        let window = scrubWindow(index)
        // One that left is compared no more.
        guard working.contains(plex) else { return }
        let kind = slots[index].transfer.kind
        switch result {
        case .transferred(let value):
            if kind == .findData {
                let known = scrub.jobs[window]?.holeBytes ?? 0
                scrub.jobs[window]?.holeBytes = min(known, value)
            }
            if kind == .checksum { scrub.jobs[window]?.checksums[Int(plex.value)] = UInt32(truncatingIfNeeded: value) }
        case .failed(let failure):
            switch failure.kind {
            case .differs: scrub.jobs[window]?.differing.insert(plex)
            case .gone: expel(plex, operation: .read, failure, offset: slots[index].transfer.offset)
            case .late: scrub.jobs[window]?.isLate = true
            case .media, .noSpace, .transient, .unsupported, .lost:
                // Who can't tell where data begin is read.
                if kind == .findData { scrub.jobs[window]?.holeBytes = 0 }
                plexes[Int(plex.value)].lastFailure = failure
                scrub.jobs[window]?.unreadable.insert(plex)
            }
        }
    }

    private mutating func abandonScrub(_ index: Int) {
        if slots[index].kind == .scrubRepair {
            putRepairOff(index)
        } else {
            endScrubWindow(index, isDone: false)
        }
    }

    // MARK: what came of it

    private mutating func dataFound(_ index: Int) {
        let window = scrubWindow(index)
        guard let job = scrub.jobs[window] else { return }
        let hole = min(job.holeBytes, job.end - job.start) & ~(Limits.blockBytes - 1)
        if hole > 0 {
            let asked = job.compared.filter { !record.isBad($0, offset: job.start, length: hole) }
            agree(job.start..<job.start + hole, asked)
            scrub.pace.giveBack(hole)
        }
        scrub.jobs[window]?.pieces = hole < job.end - job.start ? [job.start + hole..<job.end] : []
        nextPiece(index)
    }

    private mutating func pieceRead(_ index: Int) {
        guard let job = scrub.jobs[scrubWindow(index)], let source = slots[index].source else { return }
        guard job.compared.contains(source) else { return repeatPiece(index) }
        guard job.unreadable.isEmpty else { return pieceCompared(index) }
        let others = job.compared.subtracting(PlexSet(source))
        if others.isEmpty || mutant == .scrubReadsOnePlex { return nextPiece(index) }
        ask(index, others, .compare, job.piece)
    }

    /// What lies in the buffer is of a plex that is no longer in sync.
    private mutating func repeatPiece(_ index: Int) {
        let window = scrubWindow(index)
        if let piece = scrub.jobs[window]?.piece { scrub.jobs[window]?.pieces.append(piece) }
        nextPiece(index)
    }

    private mutating func pieceCompared(_ index: Int) {
        let window = scrubWindow(index)
        guard let job = scrub.jobs[window], let source = slots[index].source else { return }
        guard job.compared.contains(source) else { return repeatPiece(index) }
        guard !job.differing.isEmpty || !job.unreadable.isEmpty else {
            agree(job.piece, job.compared)
            return nextPiece(index)
        }
        if job.piece.upperBound - job.piece.lowerBound > Limits.blockBytes {
            halve(job.piece, window)
            return nextPiece(index)
        }
        leaveOutUnreadable(index)
        guard let rest = scrub.jobs[window], rest.compared.count > 1, let next = rest.compared.first else {
            return nextPiece(index)
        }
        if !rest.differing.isEmpty {
            ask(index, rest.compared, .checksum, rest.piece)
        } else if rest.compared.contains(source) {
            agree(rest.piece, rest.compared)
            nextPiece(index)
        } else {
            readForScrub(index, rest.piece, from: next)
        }
    }

    /// Each is an error of the plex that was read, and of no other; the block is written anew from another.
    mutating func leaveOutUnreadable(_ index: Int) {
        let window = scrubWindow(index)
        guard let job = scrub.jobs[window], !job.unreadable.isEmpty else { return }
        scrub.jobs[window]?.part.unreadable += 1
        scrub.jobs[window]?.compared = job.compared.subtracting(job.unreadable)
        scrub.jobs[window]?.differing = job.differing.subtracting(job.unreadable)
        scrub.jobs[window]?.unreadable = .empty
        for plex in job.unreadable.intersection(working).members {
            let failure = plexes[Int(plex.value)].lastFailure
            record[plex].readErrors += 1
            hasNewCounters = true
            log(
                .readError, plex: plex, errorNumber: failure.errorNumber, offset: job.piece.lowerBound,
                length: Limits.blockBytes, text: "scrub: read failed on plex \(plex)")
            suspect(plex, failure, offset: job.piece.lowerBound, length: Limits.blockBytes)
        }
    }

    private mutating func agree(_ range: Range<UInt64>, _ plexes: PlexSet) {
        scrub.close(range, same: plexes, of: record.configured, at: now.unixNanoseconds)
    }

    /// The checksums of a block that differs are known.
    private mutating func blockChecked(_ index: Int) {
        let window = scrubWindow(index)
        guard let asked = scrub.jobs[window], let source = slots[index].source else { return }
        guard asked.compared.contains(source) else { return repeatPiece(index) }
        leaveOutUnreadable(index)
        // Those that differ from the source, and it, must all still be there: or what is left may be the same.
        if let job = scrub.jobs[window], job.compared.contains(source), !job.differing.isEmpty {
            noteMismatch(window, job)
        }
        nextPiece(index)
    }

    private mutating func noteMismatch(_ window: Int, _ job: Scrub.Job) {
        let offset = job.piece.lowerBound
        let checksums = PlexSet(mask: .max).members.map { job.compared.contains($0) ? job.checksums[Int($0.value)] : 0 }
        let odd = Self.outvoted(job.compared, checksums)
        scrub.jobs[window]?.part.found += 1
        let isNew = scrub.note(
            Mismatch(offset: offset, plexes: job.compared, odd: odd, checksums: checksums, time: now.unixNanoseconds))
        if isNew == nil { scrub.jobs[window]?.part.unrecorded += 1 }
        if isNew ?? true { tell(offset, job.compared, odd, isRecorded: isNew != nil) }
        if scrub.state.repairs { scrub.repairs.append(offset) }
    }

    /// Those without the version of a strict majority of three or more; empty: there is none.
    private static func outvoted(_ plexes: PlexSet, _ checksums: [UInt32]) -> PlexSet {
        guard plexes.count > 2 else { return .empty }
        for plex in plexes.members {
            let same = plexes.filter { checksums[Int($0.value)] == checksums[Int(plex.value)] }
            if same.count * 2 > plexes.count { return plexes.subtracting(same) }
        }
        return .empty
    }

    private mutating func tell(_ offset: UInt64, _ plexes: PlexSet, _ odd: PlexSet, isRecorded: Bool) {
        // One line says it for all that have no room.
        guard isRecorded || scrub.state.unrecorded == 0 else { return }
        let text =
            odd.isEmpty
            ? "plexes \(list(plexes)) differ" : "plex \(list(odd)) differs from the majority of plexes \(list(plexes))"
        log(
            .scrubMismatch, plex: odd.count == 1 ? odd.first : nil, offset: offset, length: Limits.blockBytes,
            text: isRecorded ? text : "\(text); the ledger is full: this and what follows is only counted")
    }

    /// - Parameter isDone: false: it comes again.
    private mutating func endScrubWindow(_ index: Int, isDone: Bool) {
        let window = scrubWindow(index)
        if let job = scrub.jobs[window] {
            if isDone {
                scrub.compared(job.part)
                scrub.pace.count(job.end - job.start, at: now.nanoseconds)
            } else {
                scrub.cursor = min(scrub.cursor, job.start)
            }
        }
        freeScrubSlot(index, window)
    }

    mutating func freeScrubSlot(_ index: Int, _ window: Int) {
        if slots[index].countsAsMutation { mutationsInFlight -= 1 }
        scrub.jobs[window] = nil
        resync.windows[window].isUsed = false
        freeSlot(index)
        if !scrub.state.isRunning { unpinRepaired() }
        pumpRepairs()
        pumpResync()
        pumpScrub()
        drained()
    }
}
