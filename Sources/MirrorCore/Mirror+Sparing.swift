internal import Bytes
internal import MirrorFormat

/// Driving `Sparing`.
extension Mirror {
    /// What failed on some plexes by bad blocks is put elsewhere before anybody is given up for it.
    ///
    /// - Returns: whether the slot waits for that.
    mutating func beginSparing(_ index: Int) -> Bool {
        guard !slots[index].isSpared, !slots[index].isPutBack, phase == .running, !isReadOnly else { return false }
        switch slots[index].transfer.kind {
        case .write, .zero, .deallocate: break
        case .read, .compare, .checksum, .findData, .flush, .writeMetadata, .queryAllocation: return false
        }
        let candidates = slots[index].failed.intersection(slots[index].failedByMedia)
            .intersection(working.union(recovering)).filter { plexes[Int($0.value)].remaps.slotCount > 0 }
        guard !candidates.isEmpty else { return false }
        slots[index].step = .sparing
        for plex in candidates.members { sparing.queue.append(Sparing.Job(slot: index, plex: plex, purpose: .spare)) }
        pumpSparing()
        return true
    }

    /// The block of a repair slot is in its own place again: the table forgets where else it was.
    mutating func withdraw(_ index: Int, _ plex: PlexIndex) {
        slots[index].step = .sparing
        sparing.queue.append(Sparing.Job(slot: index, plex: plex, purpose: .withdraw))
        pumpSparing()
    }

    /// The tick's part: what a torn write left behind in a table is written anew, before it misleads anybody.
    mutating func settleTables() {
        guard phase == .running, !isReadOnly, sparing.job == nil, sparing.queue.isEmpty else { return }
        for plex in working.union(recovering).members where mustSettle(plex) {
            sparing.queue.append(Sparing.Job(slot: -1, plex: plex, purpose: .settle))
        }
        pumpSparing()
    }

    private func mustSettle(_ plex: PlexIndex) -> Bool {
        let index = Int(plex.value)
        return isInUse(plex) && !plexes[index].remaps.unsettled.isEmpty && now.nanoseconds >= plexes[index].settleAt
    }

    mutating func pumpSparing() {
        while sparing.job == nil, let next = sparing.queue.first {
            // A table in doubt is settled before it is changed: otherwise parts of two torn writes to the same copy could
            // make up one that was never finished.
            let isSettledFirst = next.purpose != .settle && mustSettle(next.plex)
            let job = isSettledFirst ? Sparing.Job(slot: -1, plex: next.plex, purpose: .settle) : next
            if !isSettledFirst { sparing.queue.removeFirst() }
            sparing.job = job
            sparing.begunAt = now.nanoseconds
            sparing.lost = []
            sparing.transients = 0
            sparing.shortWrites = 0
            sparing.isWaitTold = false
            sparing.failure = plexes[Int(job.plex.value)].lastFailure
            switch job.purpose {
            case .spare:
                let transfer = slots[job.slot].transfer
                sparing.pieces = []
                pushHalves(Sparing.ByteRange(start: transfer.offset, end: transfer.offset + transfer.length))
                nextPiece()
            case .settle:
                sparing.table = plexes[Int(job.plex.value)].remaps
                // Whoever waits for that goes on without it.
                plexes[Int(job.plex.value)].settleAt = now.nanoseconds + limits.repairRetryNanoseconds
                guard isInUse(job.plex), !sparing.table.unsettled.isEmpty else {
                    endJob(isGood: false)
                    continue
                }
                writeTable([])
            case .withdraw:
                sparing.table = plexes[Int(job.plex.value)].remaps
                let block = slots[job.slot].request.offset / Limits.blockBytes
                guard let slot = sparing.table[block], isInUse(job.plex) else {
                    endJob(isGood: false)
                    continue
                }
                sparing.block = block * Limits.blockBytes
                sparing.table.withdraw(block)
                writeTable([RemapTable.page(ofSlot: slot)])
            }
        }
    }

    private func isInUse(_ plex: PlexIndex) -> Bool { working.contains(plex) || recovering.contains(plex) }

    /// The lower half comes first; a single block is tried as it is.
    private mutating func pushHalves(_ range: Sparing.ByteRange) {
        let blocks = range.length / Limits.blockBytes
        guard blocks > 1 else {
            sparing.pieces.append(range)
            return
        }
        let middle = range.start + blocks / 2 * Limits.blockBytes
        sparing.pieces.append(Sparing.ByteRange(start: middle, end: range.end))
        sparing.pieces.append(Sparing.ByteRange(start: range.start, end: middle))
    }

    // MARK: pieces

    private mutating func nextPiece() {
        guard let job = sparing.job else { return }
        guard isInUse(job.plex), !isTooLate(job) else { return endJob(isGood: false) }
        guard let piece = sparing.pieces.popLast() else { return piecesWritten(job) }
        let operation = mapped(operation(job, piece))
        sparing.step = .piece(Sparing.ByteRange(start: piece.start, end: piece.start + operation.length))
        if operation.length < piece.length {
            sparing.pieces.append(Sparing.ByteRange(start: piece.start + operation.length, end: piece.end))
        }
        submitSparing(operation)
    }

    /// A disk that takes seconds for each bad block would keep clients waiting longer than they may.
    private func isTooLate(_ job: Sparing.Job) -> Bool {
        now.nanoseconds - sparing.begunAt > limits.sparingNanoseconds && isCovered(job)
    }

    /// Others have what this plex has not.
    private func isCovered(_ job: Sparing.Job) -> Bool {
        !slots[job.slot].good.intersection(working).subtracting(PlexSet(job.plex)).isEmpty
            || slots[job.slot].kind != .client && (working.count > 1 || recovering.contains(job.plex))
    }

    private func operation(_ job: Sparing.Job, _ piece: Sparing.ByteRange) -> DiskOperation {
        let transfer = slots[job.slot].transfer
        return DiskOperation(
            tag: DiskTag(owner: .sparing, plex: job.plex, slot: job.slot, generation: sparing.serial), plex: job.plex,
            kind: transfer.kind, isDurable: transfer.isDurable,
            isVerified: transfer.kind == .write && isVerified(slots[job.slot].kind),
            buffer: slots[job.slot].request.buffer,
            bufferOffset: transfer.bufferOffset + piece.start - transfer.offset, offset: piece.start,
            length: piece.length, request: slots[job.slot].request.id)
    }

    private mutating func submitSparing(_ operation: DiskOperation) {
        sparing.serial &+= 1
        sparing.isInFlight = true
        var operation = operation
        operation.tag = DiskTag(
            owner: .sparing, plex: operation.plex, slot: operation.tag.slot, generation: sparing.serial)
        submit(operation)
    }

    mutating func sparingCompleted(_ tag: DiskTag, _ result: DiskResult) {
        guard let job = sparing.job, tag.generation == sparing.serial, sparing.isInFlight else {
            preconditionFailure("an operation of no job")
        }
        sparing.isInFlight = false
        if case .failed(let failure) = result, failure.kind == .transient, isInUse(job.plex),
            sparing.transients < limits.transientRetries
        {
            sparing.transients += 1
            repeatStep(job)
            return
        }
        sparing.transients = 0
        switch sparing.step {
        case .piece(let piece): pieceWritten(job, piece, result)
        case .clearing(let page, let copy): cleared(job, page, copy, result)
        case .filling(let slot): filled(job, slot, result)
        case .table(let copy): tableWritten(job, copy, result)
        case .announcing, .tableWait, .listing: preconditionFailure("no operation can be in flight in this step")
        }
    }

    private mutating func repeatStep(_ job: Sparing.Job) {
        switch sparing.step {
        case .piece(let piece):
            sparing.pieces.append(piece)
            nextPiece()
        case .clearing(let page, let copy): clear(job, page, copy)
        case .filling(let slot): fill(job, slot)
        case .table(let copy): writeTable(job, copy)
        case .announcing, .tableWait, .listing: break
        }
    }

    private mutating func pieceWritten(_ job: Sparing.Job, _ piece: Sparing.ByteRange, _ result: DiskResult) {
        switch result {
        case .transferred(let bytes):
            if slots[job.slot].transfer.kind == .write, bytes < piece.length {
                let whole = bytes & ~(Limits.blockBytes - 1)
                // A block that is written in part is written again; one of which nothing is written has no place.
                if whole == 0 { sparing.shortWrites += 1 }
                guard bytes > 0, sparing.shortWrites <= limits.transientRetries else {
                    return endJob(isGood: false, .truncated)
                }
                sparing.pieces.append(Sparing.ByteRange(start: piece.start + whole, end: piece.end))
            }
            nextPiece()
        case .failed(let failure):
            sparing.failure = failure
            switch failure.kind {
            case .media where piece.length > Limits.blockBytes:
                pushHalves(piece)
                nextPiece()
            case .media: spare(job, piece.start)
            // It was written, and does not read.
            case .differs where failure.errorNumber != 0: spare(job, piece.start)
            case .differs, .gone, .noSpace, .transient, .unsupported, .lost, .late: endJob(isGood: false, failure)
            }
        }
    }

    private mutating func piecesWritten(_ job: Sparing.Job) {
        guard !sparing.lost.isEmpty else { return endJob(isGood: true) }
        guard list(job) else { return endJob(isGood: false, sparing.failure) }
        sparing.step = .listing(ticket: wantCommit())
    }

    /// Blocks that could be put nowhere come on record, if others have them.
    private mutating func list(_ job: Sparing.Job) -> Bool {
        let others = working.subtracting(PlexSet(job.plex))
        let holders = slots[job.slot].kind == .client ? others.intersection(slots[job.slot].good) : others
        let isHeld = sparing.lost.allSatisfy { block in
            !holders.filter { !record.isBad($0, offset: block, length: Limits.blockBytes) }.isEmpty
        }
        guard working.contains(job.plex), isHeld else { return false }
        return goOnWithout(sparing.lost, job.plex)
    }

    // MARK: one block

    private mutating func spare(_ job: Sparing.Job, _ block: UInt64) {
        guard isInUse(job.plex) else { return endJob(isGood: false) }
        let position = Int(job.plex.value)
        sparing.block = block
        sparing.blockBegunAt = now.nanoseconds
        sparing.tries = 0
        record[job.plex].writeErrors += 1
        hasNewCounters = true
        log(
            .badBlock, plex: job.plex, errorNumber: sparing.failure.errorNumber, offset: block,
            length: Limits.blockBytes, text: "plex \(job.plex) does not take this block")
        if record[job.plex].isRemapped { return take(job) }
        sparing.table = RemapTable(slotCount: plexes[position].remaps.slotCount)
        sparing.table.countPageWrite()
        clear(job, 0, 0)
    }

    /// Whatever lay in the table's place is from another life.
    private mutating func clear(_ job: Sparing.Job, _ page: Int, _ copy: Int) {
        guard isInUse(job.plex) else { return endJob(isGood: false) }
        sparing.step = .clearing(page: page, copy: copy)
        submitTable(job, page, copy)
    }

    private mutating func cleared(_ job: Sparing.Job, _ page: Int, _ copy: Int, _ result: DiskResult) {
        if case .failed(let failure) = result {
            return spareFailed(job, failure, "its remap table can't be written")
        }
        if copy == 0 { return clear(job, page, 1) }
        if page + 1 < sparing.table.pageCount { return clear(job, page + 1, 0) }
        guard isInUse(job.plex) else { return endJob(isGood: false) }
        plexes[Int(job.plex.value)].remaps = sparing.table
        record[job.plex].isRemapped = true
        if mutant == .remapUnannounced { return take(job) }
        sparing.step = .announcing(ticket: wantCommit())
    }

    private mutating func take(_ job: Sparing.Job) {
        // One that left and is back has a table of its own, or none.
        guard isInUse(job.plex), record[job.plex].isRemapped else { return endJob(isGood: false) }
        let table = plexes[Int(job.plex.value)].remaps
        let block = sparing.block / Limits.blockBytes
        // If power fails between two pages of the table, the higher slot counts.
        guard sparing.tries < Sparing.mostTries, let slot = table.freeSlot(above: table[block]) else {
            let text = sparing.tries < Sparing.mostTries ? "its spare pool is used up" : "its spare pool takes nothing"
            return spareFailed(job, sparing.failure, text)
        }
        if sparing.tries == 0 {
            log(
                .sparing, plex: job.plex, offset: sparing.block, length: Limits.blockBytes,
                text: "is put into the spare pool of plex \(job.plex)")
        }
        sparing.tries += 1
        fill(job, slot)
    }

    private mutating func fill(_ job: Sparing.Job, _ slot: Int) {
        sparing.step = .filling(slot: slot)
        var operation = inSlot(
            slot, operation(job, Sparing.ByteRange(start: sparing.block, end: sparing.block + Limits.blockBytes)))
        operation.isVerified = true
        submitSparing(operation)
    }

    private mutating func filled(_ job: Sparing.Job, _ slot: Int, _ result: DiskResult) {
        switch result {
        case .transferred(let bytes):
            guard slots[job.slot].transfer.kind != .write || bytes >= Limits.blockBytes else {
                return endJob(isGood: false, .truncated)
            }
            sparing.table = plexes[Int(job.plex.value)].remaps
            let block = sparing.block / Limits.blockBytes
            let old = sparing.table[block]
            sparing.table.put(block, into: slot)
            let page = RemapTable.page(ofSlot: slot)
            let oldPage = old.map { RemapTable.page(ofSlot: $0) } ?? page
            if mutant == .remapNotWritten { return tableIsDurable(job) }
            writeTable(page == oldPage ? [page] : [page, oldPage])
        case .failed(let failure):
            let isBadSlot = failure.kind == .media || failure.kind == .differs && failure.errorNumber != 0
            guard isBadSlot else { return endJob(isGood: false, failure) }
            plexes[Int(job.plex.value)].remaps.kill(slot)
            sparing.failure = failure
            guard !isTooLate(job) else { return endJob(isGood: false, failure) }
            take(job)
        }
    }

    private mutating func spareFailed(_ job: Sparing.Job, _ failure: DiskFailure, _ text: String) {
        log(
            .spareFailed, plex: job.plex, errorNumber: failure.errorNumber, offset: sparing.block,
            length: Limits.blockBytes, text: "plex \(job.plex): \(text)")
        sparing.lost.append(sparing.block)
        guard sparing.lost.count <= limits.blocksToGoWithout else { return endJob(isGood: false, sparing.failure) }
        nextPiece()
    }

    // MARK: the table

    /// The page of a slot that gets a block comes first: no other may stop to name the slot that had it before that. Then
    /// those that say something else than the table does, or only once, before what outvotes them is taken out.
    private mutating func writeTable(_ pages: [Int]) {
        guard let job = sparing.job else { return }
        let unsettled = sparing.table.unsettled
        let order = (job.purpose == .spare ? pages.prefix(1) : []) + unsettled.map(\.page) + pages
        sparing.pages = []
        for page in order where !sparing.pages.contains(where: { $0.page == page }) {
            let known = unsettled.first { $0.page == page }
            sparing.pages.append(known ?? RemapTable.Unsettled(page: page))
        }
        sparing.table.countPageWrite()
        writeTable(job, 0)
    }

    private mutating func writeTable(_ job: Sparing.Job, _ copy: Int) {
        guard isInUse(job.plex), let page = sparing.pages.first else { return endJob(isGood: false) }
        sparing.step = .table(copy: copy)
        // The copy that was believed is overwritten last.
        submitTable(job, page.page, page.good == 0 ? 1 - copy : copy)
    }

    private mutating func submitTable(_ job: Sparing.Job, _ page: Int, _ copy: Int) {
        guard let layout = plexes[Int(job.plex.value)].attachment?.layout else { return endJob(isGood: false) }
        submitSparing(
            DiskOperation(
                tag: DiskTag(owner: .sparing, plex: job.plex, slot: page, generation: 0), plex: job.plex,
                kind: .writeMetadata, isDurable: true, buffer: .none, bufferOffset: 0,
                offset: layout.remapPageOffset(copy: copy, page: page), length: Limits.blockBytes,
                request: RequestID(0)))
    }

    /// The page that the operation writes.
    func encodeRemapPage(_ operation: DiskOperation, into bytes: inout MutableRawSpan) {
        guard let uuid = plexes[Int(operation.plex.value)].attachment?.uuid else {
            preconditionFailure("a remap table of no disk")
        }
        sparing.table.encode(page: operation.tag.slot, plex: uuid, into: &bytes)
    }

    private mutating func tableWritten(_ job: Sparing.Job, _ copy: Int, _ result: DiskResult) {
        guard isInUse(job.plex) else { return endJob(isGood: false) }
        var isGood = true
        if case .failed(let failure) = result {
            isGood = false
            sparing.failure = failure
        }
        if !isGood, copy == 0, job.purpose == .settle {
            // What was believed still lies in the other copy. A bad place in the table alone costs nobody a plex.
            return endJob(isGood: false)
        }
        if !isGood, !working.subtracting(PlexSet(job.plex)).isEmpty {
            // What lies there now nobody knows. With another plex at hand this one is not worth the risk.
            expel(job.plex, operation: .metadata, sparing.failure, offset: sparing.block)
            return endJob(isGood: false, sparing.failure)
        }
        if copy == 0 {
            sparing.isFirstCopyGood = isGood
            return writeTable(job, 1)
        }
        guard isGood || sparing.isFirstCopyGood else {
            // The last plex: it may or may not have it. Nothing else can be done before that is certain.
            if !sparing.isWaitTold {
                sparing.isWaitTold = true
                log(
                    .spareFailed, plex: job.plex, errorNumber: sparing.failure.errorNumber, offset: sparing.block,
                    length: Limits.blockBytes,
                    text: "plex \(job.plex): its remap table can't be written; the request waits")
            }
            sparing.step = .tableWait(until: now.nanoseconds + limits.commonFailureRetryNanoseconds)
            return giveTableUp()
        }
        sparing.pages.removeFirst()
        guard sparing.pages.isEmpty else {
            sparing.table.countPageWrite()
            return writeTable(job, 0)
        }
        tableIsDurable(job)
    }

    private mutating func tableIsDurable(_ job: Sparing.Job) {
        let position = Int(job.plex.value)
        sparing.table.settle()
        plexes[position].remaps = sparing.table
        lookForRemaps()
        guard job.purpose == .spare else { return endJob(isGood: true) }
        plexes[position].badBlocks.remove(sparing.block..<sparing.block + Limits.blockBytes)
        plexes[position].badBlocks.countCorrected(at: now.unixNanoseconds, limits)
        record[job.plex].spared += 1
        wantCommit()
        let slot = sparing.table[sparing.block / Limits.blockBytes] ?? 0
        let milliseconds = (now.nanoseconds - sparing.blockBegunAt) / 1_000_000
        log(
            .spared, plex: job.plex, offset: sparing.block, length: Limits.blockBytes,
            text: "lies in spare block \(slot) of plex \(job.plex) from now on; took \(milliseconds) ms")
        nextPiece()
    }

    // MARK: waiting

    /// The tick's part.
    mutating func retrySparing() {
        guard let job = sparing.job, case .tableWait(let until) = sparing.step, now.nanoseconds >= until else { return }
        sparing.table.countPageWrite()
        writeTable(job, 0)
    }

    /// Nobody waits for ever: a stop goes on, but nothing more is written, for the table may say one thing or the other.
    private mutating func giveTableUp() {
        if phase == .stopping {
            sparing.isTableDoubtful = true
            endJob(isGood: false)
        } else if isStopWaiting {
            giveUpForStop()
        }
    }

    /// A record became durable.
    mutating func sparingAfterCommit(round: UInt64) {
        guard let job = sparing.job else { return }
        switch sparing.step {
        case .announcing(let ticket) where ticket <= round: take(job)
        case .listing(let ticket) where ticket <= round:
            slots[job.slot].lacking.insert(job.plex)
            endJob(isGood: isInUse(job.plex))
        case .announcing, .listing, .piece, .clearing, .filling, .table, .tableWait: break
        }
    }

    /// The mirror is being stopped and the record can't be written: nothing is waited for any more.
    mutating func abandonSparing() {
        guard let job = sparing.job, !sparing.isInFlight else { return }
        if case .tableWait = sparing.step { sparing.isTableDoubtful = true }
        sparing.queue.removeAll { $0.slot == job.slot }
        endJob(isGood: false)
    }

    /// - Parameter failure: what the plex is given up for, if it is.
    private mutating func endJob(isGood: Bool, _ failure: DiskFailure? = nil) {
        guard let job = sparing.job else { return }
        sparing.job = nil
        if let failure {
            plexes[Int(job.plex.value)].lastFailure = failure
            if failure.kind == .lost { flushBehindWriteFailed(job.plex, failure) }
        }
        if job.purpose == .settle { return pumpSparing() }
        if isGood, isInUse(job.plex) {
            slots[job.slot].failed.remove(job.plex)
            slots[job.slot].good.insert(job.plex)
        }
        if !sparing.has(slot: job.slot) {
            slots[job.slot].isSpared = true
            slots[job.slot].step = .fanOut
            switch job.purpose {
            case .spare: fanOutFinished(job.slot)
            case .withdraw: withdrawn(job.slot)
            case .settle: break
            }
        }
        pumpSparing()
    }
}
