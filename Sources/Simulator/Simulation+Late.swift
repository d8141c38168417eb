internal import MirrorCore
internal import MirrorFormat

/// What a read of another plex has put into a copy of a request's buffer.
struct BufferCopy {
    var cells: [UInt32]
    /// Part of the tag of the operations that fill it.
    var generation: UInt32
}

/// Disks that do not answer, for an engine that waits only so long.
extension Simulation {
    func hedgeReads() {
        guard late != nil, let server else { return }
        server.mirror.hedgeReads(now: instant)
        pump(server)
    }

    /// How long an operation takes on a disk that falls silent now and then, for all that comes meanwhile.
    func drawSilence(_ disk: Int) -> UInt64? {
        guard isHostile, late != nil else { return nil }
        if disks[disk].silentUntil > now {
            return disks[disk].silentUntil - now + UInt64(disks[disk].number + 1) * 1000
        }
        guard late?.chance(3) ?? false else { return nil }
        count(.hang)
        disks[disk].silentUntil = now + UInt64(late?.within(100...20_000) ?? 100) * 1_000_000
        return disks[disk].silentUntil - now
    }

    // MARK: buffers

    /// Zeroes, for an operation that reads into a copy: what the engine does not fill must not look right.
    func copy(for operation: DiskOperation) -> [UInt32]? {
        guard operation.buffer.copyNumber > 0 else { return nil }
        if let known = copies[operation.buffer], known.generation == operation.tag.generationOfSlot {
            return known.cells
        }
        let index = Int(operation.buffer.original.value)
        guard index < requests.count, !requests[index].buffer.isEmpty else {
            fail("R14", "a copy of buffer \(index), whose request was answered")
            return []
        }
        return Array(repeating: 0xBAD, count: requests[index].buffer.count)
    }

    /// The operation has ended: the engine may adopt what it has read.
    func keepCopy(_ flight: Flight) {
        guard flight.operation.buffer.copyNumber > 0, !flight.isZombie, let cells = flight.memory else { return }
        copies[flight.operation.buffer] = BufferCopy(
            cells: cells, generation: flight.operation.tag.generationOfSlot)
    }

    func adopt(_ buffer: BufferID, _ offset: Int, _ length: Int) {
        let index = Int(buffer.original.value)
        guard let copy = copies.removeValue(forKey: buffer), index < requests.count,
            requests[index].buffer.count == copy.cells.count
        else { return fail("R14", "adopts a copy of buffer \(index) that there is not") }
        detach(buffer.original)
        let cells = offset / Geometry.sectorBytes * 3..<(offset + length) / Geometry.sectorBytes * 3
        requests[index].buffer.replaceSubrange(cells, with: copy.cells[cells])
    }

    /// What is under way on it keeps what it has; the engine goes on with the same bytes elsewhere.
    func detach(_ buffer: BufferID) {
        for index in flights.indices where flights[index]?.memory == nil && flights[index]?.operation.buffer == buffer {
            changeBuffer(buffer) { flights[index]?.memory = $0 }
            flights[index]?.isZombie = true
        }
    }

    /// A request is answered. What is still under way for it was given up: nothing may land in what the client is sent,
    /// and nobody who counts may lack what it was told.
    func settleFlights(of index: Int) {
        let request = requests[index].request
        guard let server else { return }
        for position in flights.indices {
            guard let flight = flights[position], flight.operation.request == request.id,
                flight.operation.buffer.original == request.buffer, !flight.isZombie
            else { continue }
            if flight.memory == nil {
                let isRead = flight.operation.kind == .read || flight.operation.kind == .queryAllocation
                if isRead || !isOut(flight.operation.plex, server) {
                    return fail("R14", "request \(index + 1) is answered with I/O in flight")
                }
                flights[position]?.memory = requests[index].buffer
            }
            flights[position]?.isZombie = true
        }
        copies = copies.filter { Int($0.key.original.value) != index }
    }

    /// Gets nothing more, and is read by nobody.
    private func isOut(_ plex: PlexIndex, _ server: Server) -> Bool {
        let role = server.mirror.record[plex].role
        return role != .inSync && role != .recovering
    }

    func isGivenUp(_ flight: Flight, _ server: Server?) -> Bool {
        guard late != nil, let server else { return false }
        switch flight.operation.kind {
        case .read, .compare, .checksum, .queryAllocation, .findData:
            return flight.isZombie || flight.memory != nil || isOut(flight.operation.plex, server)
        case .write, .deallocate, .zero, .flush, .writeMetadata: return isOut(flight.operation.plex, server)
        }
    }

    /// Of the event log or the scrub's ledger: nobody waits for these when the server leaves.
    func isNoPromise(_ flight: Flight) -> Bool {
        guard late != nil, flight.operation.kind == .writeMetadata else { return false }
        let offset = flight.operation.offset
        let isCopy = (0..<Layout.superblockCopies).contains {
            Layout.superblockOffset(copy: $0, diskBytes: layout.diskBytes) == offset
        }
        let log = layout.area(.eventLog)
        let start = Layout.usableBytes(ofDisk: layout.diskBytes) - Layout.superblockAreaBytes
        return !isCopy && (offset >= start || log.map { offset >= $0.offset && offset < $0.end } ?? false)
    }

    /// The server has left: what it had given up happens, or does not.
    func endGivenUp() {
        for index in flights.indices {
            guard let flight = flights[index] else { continue }
            if flight.operation.kind == .writeMetadata {
                guard !disks[flight.disk].isAway, random.chance(500) else { continue }
                disks[flight.disk].writeMetadata(
                    flight.metadata, offset: flight.operation.offset, landing: .whole, random: &random)
            } else if !flight.isExecuted, flight.operation.kind != .read, random.chance(500) {
                execute(index)
            }
        }
    }
}

extension Random {
    /// From hasty to as patient as the server is.
    mutating func drawPatience(_ limits: inout Limits) {
        limits.writeDeadlineNanoseconds = [100_000_000, 400_000_000, 2_000_000_000][below(3)]
        limits.patienceFactor = [2, 5][below(2)]
        limits.hedgeNanoseconds = [1_000_000, 20_000_000, 50_000_000][below(3)]
        limits.pinnedBytes = [16 << 10, 1 << 20, 64 << 20][below(3)]
        limits.slowJudgeNanoseconds = [50_000_000, 500_000_000][below(2)]
        limits.slowJudgements = within(1...3)
        limits.slowProbes = within(1...4)
        limits.slowLosses = within(1...4)
    }
}

extension Mutant {
    /// Found only where disks that do not answer are given up.
    var isOfLate: Bool {
        switch self {
        case .lateBufferReused, .hedgeNotAdopted, .zombieForgotten: true
        default: false
        }
    }
}
