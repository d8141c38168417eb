internal import MirrorCore
internal import MirrorFormat

/// From an effect to its completion: when it happens, what it does, how it fails.
extension Simulation {
    func submit(_ operation: DiskOperation, _ server: Server) {
        guard let disk = server.disks[Int(operation.plex.value)] else {
            return fail("R12", "\(operation.kind) on plex \(operation.plex), which has no open disk")
        }
        var flight = Flight(operation: operation, disk: disk, plan: .succeed)
        if operation.kind == .writeMetadata { flight.metadata = encode(operation, server) }
        flight.memory = copy(for: operation)
        flight.plan = drawPlan(operation, disk)
        flight.mark = disks[disk].order
        checkSubmission(flight, server)
        if operation.request.value > 0 { requests[Int(operation.request.value) - 1].operations += 1 }
        let index = place(flight)
        let delay = drawDelay(operation, disk)
        let start = operation.kind == .flush ? 0 : pilot.map { _ in delay - 1 } ?? UInt64(random.below(Int(delay)))
        queue.add(.execute(index), at: now + start)
        queue.add(.complete(index), at: now + delay)
        note(
            "submit #\(index) \(operation.kind)\(operation.isDurable ? " durable" : "") plex \(operation.plex) "
                + "\(operation.offset)+\(operation.length) request \(operation.request.value)")
    }

    private func place(_ flight: Flight) -> Int {
        if let index = freeFlights.popLast() {
            flights[index] = flight
            return index
        }
        flights.append(flight)
        return flights.count - 1
    }

    private func encode(_ operation: DiskOperation, _ server: Server) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: Geometry.blockBytes)
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        server.mirror.encodeMetadata(operation, into: &raw)
        return bytes
    }

    private func drawDelay(_ operation: DiskOperation, _ disk: Int) -> UInt64 {
        if let pilot { return pilot.delay(disk) }
        if isHostile, profile.has(.hang), random.chance(profile.rate / 4 + 1) {
            count(.hang)
            return UInt64(random.within(200...20_000)) * 1_000_000
        }
        if let delay = drawSilence(disk) { return delay }
        if let delay = drawZombie() { return delay }
        let delay = random.delay(1_000, profile.maximumDelay) + 1
        let slowness = isHostile ? slowness(operation, disk) : 0
        guard slowness > 0, random.chance(slowness) else { return delay }
        return delay * UInt64(random.within(2...60))
    }

    private func slowness(_ operation: DiskOperation, _ disk: Int) -> Int {
        switch operation.kind {
        case .flush: profile.slowFlush
        case .writeMetadata: disks[disk].page(at: operation.offset) == nil ? profile.slowRecord : profile.slowPage
        case .read, .write, .deallocate, .zero, .queryAllocation, .compare, .checksum, .findData: 0
        }
    }

    func chance(_ fault: Fault, _ disk: Int, divisor: Int = 1) -> Bool {
        guard isHostile, profile.has(fault) else { return false }
        var rate = profile.rate
        if profile.sickDisk >= 0 { rate = profile.sickDisk == disk ? rate * 3 : rate / 3 }
        guard random.chance(max(1, rate / divisor)) else { return false }
        count(fault)
        return true
    }

    private func drawPlan(_ operation: DiskOperation, _ disk: Int) -> Flight.Plan {
        if let trouble = pilot?.draw(operation, disk, now: now) {
            if trouble.vanishes { disks[disk].isGone = true }
            return trouble.plan
        }
        // The fault budget: what one disk has lost must be expelled before the next may fail.
        if hasLoser(beside: disk) { return .succeed }
        if let lie = drawLie(operation, disk) { return lie }
        if isHostile, now < blipUntil {
            // The link broke: what was on its way may have arrived, or not.
            let isRecord = operation.kind == .writeMetadata && random.chance(500)
            return .fail(errorNumber: blipError, effect: isRecord ? drawLanding() : .none)
        }
        if chance(.transient, disk) {
            return .fail(errorNumber: [11, 4, 12, 16][random.below(4)], effect: .none)
        }
        switch operation.kind {
        case .read, .queryAllocation, .compare, .checksum, .findData:
            if chance(.readError, disk) { return .fail(errorNumber: [5, 61, 84, 121][random.below(4)], effect: .none) }
            if chance(.unsupported, disk, divisor: 4) { return .fail(errorNumber: 22, effect: .none) }
            return shortPlan(operation, disk)
        case .write:
            if losesBehindWrite(operation, disk) { return .loseFlush(errorNumber: 5) }
            if operation.isVerified, operation.isDurable, chance(.flushError, disk), mayLose(disk) {
                return .loseFlush(errorNumber: 5)
            }
            if chance(.writeError, disk) { return .fail(errorNumber: [5, 61][random.below(2)], effect: drawLanding()) }
            if chance(.noSpace, disk) {
                return .fail(errorNumber: [28, 122, 27][random.below(3)], effect: drawLanding())
            }
            if chance(.unsupported, disk, divisor: 4) { return .fail(errorNumber: 22, effect: .none) }
            return shortPlan(operation, disk)
        case .deallocate, .zero:
            if losesBehindWrite(operation, disk) { return .loseFlush(errorNumber: 5) }
            if chance(.writeError, disk) { return .fail(errorNumber: 5, effect: drawLanding()) }
            if chance(.unsupported, disk, divisor: 4) { return .fail(errorNumber: 95, effect: .none) }
            return .succeed
        case .flush:
            guard chance(.flushError, disk) else { return .succeed }
            let error: Int32 = [5, 28][random.below(2)]
            return mayLose(disk) ? .loseFlush(errorNumber: error) : .fail(errorNumber: error, effect: .none)
        case .writeMetadata:
            if chance(.metadataError, disk) { return .fail(errorNumber: 5, effect: drawLanding()) }
            return .succeed
        }
    }

    /// The flush behind a forced write fails.
    private func losesBehindWrite(_ operation: DiskOperation, _ disk: Int) -> Bool {
        guard operation.isDurable, isHostile, spares?.chance(4) ?? false, mayLose(disk) else { return false }
        count(.flushError)
        return true
    }

    private func drawLanding() -> SimulatedDisk.Landing {
        [.whole, .torn, .none][random.below(3)]
    }

    private func shortPlan(_ operation: DiskOperation, _ disk: Int) -> Flight.Plan {
        guard operation.kind == .read || operation.kind == .write else { return .succeed }
        if chance(.zeroTransfer, disk, divisor: 8) { return .short(0) }
        guard chance(.shortTransfer, disk) else { return .succeed }
        return .short(UInt64(random.below(Int(operation.length) / Geometry.sectorBytes) * Geometry.sectorBytes))
    }

    /// The fault budget: a disk may lose what it acknowledged only while another one that is in sync, and
    /// on record as such, has lost nothing.
    func mayLose(_ disk: Int) -> Bool {
        disks.indices.contains { other in
            other != disk && !disks[other].hasLost && !disks[other].hasFailedFlush && !disks[other].isAway
                && isTruth(other)
                && (server.map { isInUse(other, by: $0) } ?? true)
        }
    }

    /// The engine counts on it; an order to take it out may have come already that is not on record yet.
    private func isInUse(_ disk: Int, by server: Server) -> Bool {
        server.disks.contains(disk) && server.mirror.record[PlexIndex(disk)].role == .inSync
    }

    func hasLoser(beside disk: Int) -> Bool {
        disks.indices.contains { $0 != disk && disks[$0].hasLost && (server?.disks.contains($0) ?? false) }
    }

    /// Whether another disk has an error under way that the engine has yet to see.
    private func isTroubled(beside disk: Int) -> Bool {
        flights.contains { flight in
            guard let flight, flight.disk != disk else { return false }
            switch flight.plan {
            case .succeed, .drop, .misdirect: return false
            case .short, .fail, .loseFlush: return true
            }
        }
    }

    // MARK: execution

    /// The moment at which the disk's cache changes, or is looked at.
    func execute(_ index: Int) {
        guard var flight = flights[index], !flight.isExecuted else { return }
        flight.isExecuted = true
        let disk = flight.disk
        if disks[disk].isGone { flight.plan = .fail(errorNumber: 6, effect: .none) }
        let operation = flight.operation
        if let plan = planBeyondTheEnd(operation, disk) { flight.plan = plan }
        let first = disks[disk].sector(at: operation.offset)
        var count = Int(operation.length) / Geometry.sectorBytes
        var tears = false
        switch flight.plan {
        case .succeed, .loseFlush: break
        case .drop, .misdirect: return lie(index)
        case .short(let bytes): count = Int(bytes) / Geometry.sectorBytes
        case .fail(_, let effect):
            if effect == .none { count = 0 }
            tears = effect == .torn
        }
        if operation.kind == .write || operation.kind == .zero || operation.kind == .deallocate,
            disks[disk].hasStuck(sector: first, count: count)
        {
            // The sectors before the first that can't be written may have changed.
            flight.plan = .fail(errorNumber: 5, effect: .none)
            count = 0
        }
        switch operation.kind {
        case .read:
            if disks[disk].hasBad(sector: first, count: count) {
                flight.plan = .fail(errorNumber: 5, effect: .none)
            } else {
                fill(&flight, disk, first, count)
            }
        case .write:
            for run in runs(first, count, tears: tears) {
                let cell = Int(operation.bufferOffset) / Geometry.sectorBytes * 3 + (run.lowerBound - first) * 3
                withBuffer(flight) {
                    disks[disk].write(sector: run.lowerBound, count: run.count, from: $0, cell: cell)
                }
            }
            flight.mark = disks[disk].order
        case .deallocate, .zero:
            for run in runs(first, count, tears: tears) { disks[disk].zero(sector: run.lowerBound, count: run.count) }
            flight.mark = disks[disk].order
        case .compare, .checksum, .findData:
            if disks[disk].hasBad(sector: first, count: count), operation.kind != .findData {
                flight.plan = .fail(errorNumber: 5, effect: .none)
            }
        case .flush, .writeMetadata, .queryAllocation: break
        }
        flights[index] = flight
    }

    /// The sectors that a write moves: all, or for one that tears a subset.
    private func runs(_ first: Int, _ count: Int, tears: Bool) -> [Range<Int>] {
        guard count > 0 else { return [] }
        guard tears else { return [first..<first + count] }
        return (first..<first + count).filter { _ in random.chance(500) }.map { $0..<$0 + 1 }
    }

    private func fill(_ flight: inout Flight, _ disk: Int, _ first: Int, _ count: Int) {
        let base = Int(flight.operation.bufferOffset) / Geometry.sectorBytes * 3
        let cells = disks[disk].cached.cells[first * 3..<first * 3 + count * 3]
        guard flight.memory == nil else {
            flight.memory?.replaceSubrange(base..<base + cells.count, with: cells)
            return
        }
        changeBuffer(flight.operation.buffer) { $0.replaceSubrange(base..<base + cells.count, with: cells) }
    }

    // MARK: completion

    func complete(_ index: Int) {
        execute(index)
        guard let flight = flights[index], let server else { return }
        flights[index] = nil
        freeFlights.append(index)
        keepCopy(flight)
        let result = land(flight)
        if case .failed(let failure) = result, flight.operation.kind == .flush || failure.kind == .lost {
            disks[flight.disk].hasFailedFlush = true
        }
        mix(flight.operation.tag.raw)
        note("complete #\(index) \(flight.operation.kind) plex \(flight.operation.plex): \(result)")
        if case .failed = result, flight.operation.kind == .flush, !server.mirror.isOpen {
            server.openFlushFailed.insert(flight.operation.plex)
        }
        if case .failed = result, flight.operation.request.value > 0 {
            requests[Int(flight.operation.request.value) - 1].failed.insert(flight.operation.plex)
        }
        if case .transferred(let moved) = result, moved < flight.operation.length, flight.operation.request.value > 0 {
            requests[Int(flight.operation.request.value) - 1].failed.insert(flight.operation.plex)
        }
        handle(.completion(flight.operation.tag, result), server)
    }

    /// The lasting effect, and what the engine is told.
    private func land(_ flight: Flight) -> DiskResult {
        let operation = flight.operation
        let disk = flight.disk
        if disks[disk].isGone {
            let error: Int32 = [6, 19, 9][random.below(3)]
            // The driver looks for the disk when a flush fails; now and then the error comes before the disk is gone.
            guard operation.kind == .flush else {
                return .failed(DiskFailure(errorNumber: error, isBlockDevice: isBlockDevice))
            }
            return .failed(error == 9 ? DiskFailure(kind: .media, errorNumber: 5) : .absent)
        }
        switch flight.plan {
        case .succeed:
            landDurably(flight)
            return scrubResult(flight) ?? .transferred(operation.length)
        case .drop, .misdirect:
            return isFoundOut(flight)
                ? .failed(DiskFailure(kind: .differs, errorNumber: 0)) : .transferred(operation.length)
        case .short(let bytes):
            // What a short forced write did move is durable.
            var moved = flight
            moved.operation.length = bytes
            if bytes > 0 { landDurably(moved) }
            return .transferred(bytes)
        case .loseFlush(let error):
            // The disk that was to keep the data may have failed since.
            if mayLose(disk), !isTroubled(beside: disk) { disks[disk].failFlush(through: flight.mark, random: &random) }
            if operation.kind != .flush { return .failed(DiskFailure(kind: .lost, errorNumber: error)) }
            return .failed(DiskFailure(errorNumber: error, isBlockDevice: isBlockDevice))
        case .fail(let error, let effect):
            if operation.kind == .writeMetadata {
                disks[disk].writeMetadata(flight.metadata, offset: operation.offset, landing: effect, random: &random)
                agreementIsDue = true
            }
            // A disk that is there: whatever its flush says, it is no absence.
            if operation.kind == .flush, error == 19 { return .failed(DiskFailure(kind: .media, errorNumber: error)) }
            return .failed(DiskFailure(errorNumber: error, isBlockDevice: isBlockDevice))
        }
    }

    private func landDurably(_ flight: Flight) {
        let operation = flight.operation
        let first = disks[flight.disk].sector(at: operation.offset)
        let last = first + Int(operation.length) / Geometry.sectorBytes
        switch operation.kind {
        case .flush: disks[flight.disk].flush(through: flight.mark)
        case .write, .deallocate, .zero:
            if operation.isDurable { disks[flight.disk].flush(sectors: first..<last, through: flight.mark) }
        case .writeMetadata: landMetadata(flight)
        case .read, .queryAllocation, .compare, .checksum, .findData: break
        }
    }

    private func landMetadata(_ flight: Flight) {
        let before = disks[flight.disk].summary
        disks[flight.disk].writeMetadata(
            flight.metadata, offset: flight.operation.offset, landing: .whole, random: &random)
        agreementIsDue = true
        // Wiping, copy by copy, lets older ones show through.
        guard flight.metadata.contains(where: { $0 != 0 }) else { return }
        if let before, let after = disks[flight.disk].summary, before.mirror == after.mirror,
            after.epoch < before.epoch,
            !lostSides.contains(before.generation)
        {
            fail("R5", "disk \(flight.disk): epoch \(before.epoch) becomes \(after.epoch)")
        }
    }

    // MARK: buffers

    func withBuffer(_ flight: Flight, _ body: ([UInt32]) -> Void) {
        if let memory = flight.memory { body(memory) } else { withBuffer(flight.operation.buffer, body) }
    }

    private func withBuffer(_ id: BufferID, _ body: ([UInt32]) -> Void) {
        if let window = id.windowIndex {
            if let server { body(server.windows[window]) }
        } else if Int(id.value) < requests.count, !requests[Int(id.value)].buffer.isEmpty {
            body(requests[Int(id.value)].buffer)
        } else {
            fail("R14", "buffer \(id.value) is used after its request was answered")
        }
    }

    func changeBuffer(_ id: BufferID, _ body: (inout [UInt32]) -> Void) {
        if let window = id.windowIndex {
            if let server { body(&server.windows[window]) }
        } else if Int(id.value) < requests.count, !requests[Int(id.value)].buffer.isEmpty {
            body(&requests[Int(id.value)].buffer)
        } else {
            fail("R14", "buffer \(id.value) is used after its request was answered")
        }
    }

    func copyBytes(_ buffer: BufferID, _ from: Int, _ to: Int, _ count: Int) {
        guard let source = Geometry.cell(atByte: from), let end = Geometry.cell(atByte: from + count),
            let target = Geometry.cell(atByte: to), from % Geometry.sectorBytes == to % Geometry.sectorBytes
        else { return fail("R13", "copies \(count) bytes from \(from) to \(to): no border of the request") }
        changeBuffer(buffer) { bytes in
            for cell in 0..<end - source { bytes[target + cell] = bytes[source + cell] }
        }
    }

    func fillZeroes(_ buffer: BufferID, _ at: Int, _ count: Int) {
        guard let start = Geometry.cell(atByte: at), let end = Geometry.cell(atByte: at + count) else {
            return fail("R13", "zeroes \(count) bytes at \(at): no border of the request")
        }
        changeBuffer(buffer) { bytes in
            for cell in start..<end { bytes[cell] = 0 }
        }
    }
}
