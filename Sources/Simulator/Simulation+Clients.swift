internal import MirrorCore
internal import MirrorFormat

/// The clients: what they ask, and what they make of the answers.
extension Simulation {
    func clientTurn() {
        isClientScheduled = false
        guard isLoaded, let server, !server.isStopping else { return }
        guard issuedInStart < profile.requestsPerStart else { return planEnd() }
        if outstanding.count < profile.depth, server.mirror.hasRoom {
            issuedInStart += 1
            issueRandom(server)
        }
        scheduleClient()
    }

    func scheduleClient() {
        guard isLoaded, !isClientScheduled, outstanding.count < profile.depth else { return }
        isClientScheduled = true
        queue.add(.client, at: now + UInt64(random.below(profile.thinkNanoseconds * 2)) * crawl + 1)
    }

    private func issueRandom(_ server: Server) {
        var kind = RequestKind.flush
        var isForced = false
        var mix = profile.mix
        if server.isReadOnly { mix = [0, 0, 10, 2, 0, 0, 1] }
        var ticket = random.below(mix.reduce(0, +))
        for (index, weight) in mix.enumerated() {
            if ticket < weight {
                kind = [.write, .write, .read, .flush, .trim, .zeroes, .allocation][index]
                isForced = index == 1 || (index > 3 && random.chance(300))
                break
            }
            ticket -= weight
        }
        let range = kind == .flush ? 0..<0 : drawRange()
        issue(kind, cells: range, isForced: isForced && (kind == .write || kind == .trim || kind == .zeroes))
    }

    private func drawRange() -> Range<Int> {
        let perBlock = Geometry.sectorsPerBlock * Geometry.cellsPerSector
        let total = oracle.cells.count
        var block = random.below(profile.dataBlocks)
        if random.chance(profile.hotPerMille), let hot = random.pick(profile.hotBlocks) { block = hot }
        let blocks = [1, 1, 1, 2, 3, 8][random.below(6)]
        guard random.chance(profile.unaligned) else {
            return block * perBlock..<min(total, (block + blocks) * perBlock)
        }
        let start = block * perBlock + random.below(perBlock)
        let length = random.chance(500) ? random.within(1...4) : random.within(1...blocks * perBlock)
        return start..<min(total, start + length)
    }

    @discardableResult
    func issue(_ kind: RequestKind, cells: Range<Int>, isForced: Bool) -> Int {
        let offset = Geometry.byte(ofCell: cells.lowerBound)
        let end = Geometry.byte(ofCell: cells.upperBound)
        let index = requests.count
        let request = Request(
            id: RequestID(UInt64(index) + 1), kind: kind, offset: UInt64(kind == .flush ? 0 : offset),
            length: UInt64(kind == .flush ? 0 : end - offset), isForcedUnitAccess: isForced,
            mayDeallocate: random.chance(500), buffer: BufferID(UInt32(index)))
        let plan = BufferPlan(kind, offset: request.offset, length: request.length)
        var entry = ClientRequest(request: request, plan: plan, buffer: [], cells: cells)
        // What a buffer holds before it is filled must never be seen.
        entry.buffer = Array(repeating: 0xFFFF_FFFF, count: max(3, Int(plan.bufferBytes) / Geometry.sectorBytes * 3))
        switch kind {
        case .write:
            writeNumber += 1
            entry.write = writeNumber
            let base = Int(plan.bodyOffset) / Geometry.sectorBytes * 3
            for cell in cells { entry.buffer[cell - base] = Geometry.stamp(write: writeNumber, cell: cell) }
            if !isShadow { entry.issue = oracle.issue(cells, write: writeNumber, isZero: false) }
        case .zeroes:
            if !isShadow { entry.issue = oracle.issue(cells, write: 0, isZero: true) }
        case .trim:
            entry.cells = trimmed(cells)
            if !isShadow { entry.issue = oracle.issue(entry.cells, write: 0, isZero: true) }
        case .flush: entry.issue = oracle.clock
        case .read, .allocation: break
        }
        requests.append(entry)
        outstanding.append(index)
        mix(UInt64(kind.rawValue) << 32 | UInt64(offset))
        note(
            "request \(index + 1) \(kind)\(isForced ? " forced" : "") \(request.offset)+\(request.length) cells \(cells)"
                + " write \(entry.write)")
        handle(.request(request))
        return index
    }

    /// A trim concerns the whole blocks inside it.
    private func trimmed(_ cells: Range<Int>) -> Range<Int> {
        let perBlock = Geometry.sectorsPerBlock * Geometry.cellsPerSector
        let start = (cells.lowerBound + perBlock - 1) / perBlock * perBlock
        return start..<max(start, cells.upperBound / perBlock * perBlock)
    }

    // MARK: replies

    func replied(_ index: Int, _ status: ReplyStatus) {
        guard !requests[index].isAnswered, let position = outstanding.firstIndex(of: index) else {
            return fail("R16", "request \(index + 1) is answered twice")
        }
        outstanding.remove(at: position)
        requests[index].isAnswered = true
        mix(UInt64(index) << 8 | UInt64(status.rawValue))
        note("reply \(index + 1) \(status)")
        settleFlights(of: index)
        judge(requests[index], status)
        requests[index].buffer = []
        scheduleClient()
    }

    private func judge(_ entry: ClientRequest, _ status: ReplyStatus) {
        let isMutation = entry.request.kind == .write || entry.request.kind == .zeroes || entry.request.kind == .trim
        switch status {
        case .ok where isMutation:
            guard !isShadow else { break }
            oracle.acknowledge(entry.cells, issue: entry.issue, isDurable: entry.request.isForcedUnitAccess)
            checkAcknowledgement(entry)
        case .ok where entry.request.kind == .read: judgeRead(entry)
        case .ok where entry.request.kind == .flush:
            guard !isShadow, let server, !server.isReadOnly else { break }
            oracle.flushed(since: entry.issue)
            checkFlushed(since: entry.issue)
        case .ok, .allAllocated: break
        case .ioError, .noSpace, .shuttingDown:
            if isMutation, !isShadow { oracle.fail(entry.cells, issue: entry.issue) }
            checkRefusal(entry, status)
        }
        noteBreakProgress(entry)
    }

    private func judgeRead(_ entry: ClientRequest) {
        guard !isShadow else { return }
        let base = Int(entry.plan.bodyOffset) / Geometry.sectorBytes * 3
        for cell in entry.cells {
            let stamp = entry.buffer[cell - base]
            guard oracle.isLegal(stamp, at: cell) else {
                return fail(
                    "R7",
                    "cell \(cell) reads as write \(stamp >> Geometry.cellBits) (cell \(stamp & 0xFFF)); legal: \(oracle.describe(cell))"
                )
            }
            if let server, !server.isReadOnly { oracle.observe(stamp, at: cell, pins: !server.isOpenedInDoubt) }
        }
    }
}
