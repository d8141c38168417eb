internal import BasicContainers
internal import Glibc
internal import MirrorCore
internal import NBDProtocol
internal import URing

/// Memory for what is read again elsewhere because a disk does not answer, and how much of it, or of the buffers of
/// requests, is still in the hands of disks that were given up.
///
/// All of it is rare: it comes from the heap, and its amount is bounded by the engine (`Limits.pinnedBytes`).
struct LateMemory {
    /// What becomes of memory when the last operation on it has ended.
    enum End {
        /// Its owner still has it.
        case none
        case free
        /// It is the buffer of a request of this reactor, which was answered long ago.
        case unpin(reactor: Int)
    }

    struct Pin {
        /// Operations, and replies that wait to be sent from it.
        var count = 0
        var end = End.none
    }

    /// A copy of a request's buffer that another plex reads into.
    struct Copy {
        var job: Int
        var number: Int
        var address: UInt
        /// Of the slot that the operations belong to.
        var generation: UInt32
    }

    /// By address.
    var pins: [UInt: Pin] = [:]
    var copies: [Copy] = []
    /// Buffers of this reactor's requests that were answered, in the hands of disks.
    var held: [UInt: ClientBuffer] = [:]
    /// Of these, by pool: what clients may use is as much as ever.
    var heldSmallBytes = 0
    var heldLargeBytes = 0
    /// Given up by the disks before the reply that says so was taken.
    var early: Set<UInt> = []

    static func allocate(_ bytes: Int) -> UInt {
        var memory: UnsafeMutableRawPointer?
        guard unsafe posix_memalign(&memory, 4096, max(bytes, 4096)) == 0, let memory = unsafe memory else {
            fatalError("out of memory")
        }
        return UInt(bitPattern: memory)
    }

    static func free(_ address: UInt) { unsafe Glibc.free(UnsafeMutableRawPointer(bitPattern: address)) }
}

extension Reactor {
    /// The job that an operation's bytes belong to; -1: to none.
    static func job(of operation: DiskOperation) -> Int {
        let buffer = operation.buffer
        return buffer == .none || buffer.windowIndex != nil ? -1 : Int(buffer.original.value)
    }

    /// Where the operation's buffer begins, and that it is in use.
    mutating func takeBase(_ operation: DiskOperation, _ mirror: Int) -> UInt {
        if let window = operation.buffer.windowIndex { return mirrors[mirror].windowMemory[window] }
        let job = Self.job(of: operation)
        guard job >= 0 else { return 0 }
        jobs[job].operations += 1
        let number = operation.buffer.copyNumber
        return number == 0 ? jobs[job].memory : copy(job, number, operation.tag.generationOfSlot)
    }

    private mutating func copy(_ job: Int, _ number: Int, _ generation: UInt32) -> UInt {
        if let position = late.copies.firstIndex(where: { $0.job == job && $0.number == number }) {
            let known = late.copies[position]
            if known.generation == generation || orphan(known.address) == 0 {
                late.copies[position].generation = generation
                return known.address
            }
            // Something given up may still land there.
            end(known.address, .free)
            late.copies.remove(at: position)
        }
        let address = LateMemory.allocate(jobs[job].memoryBytes)
        late.copies.append(LateMemory.Copy(job: job, number: number, address: address, generation: generation))
        jobs[job].hasCopies = true
        return address
    }

    /// What is under way on this memory belongs to nobody any more.
    ///
    /// - Returns: how many operations, and replies, have it.
    @discardableResult
    private mutating func orphan(_ address: UInt) -> Int {
        for index in operations.indices where operations[index].base == address && !operations[index].isOrphan {
            guard let operation = operations[index].operation else { continue }
            operations[index].isOrphan = true
            let job = Self.job(of: operation)
            if job >= 0 { jobs[job].operations -= 1 }
            late.pins[address, default: LateMemory.Pin()].count += 1
            if let buffer = operations[index].readBack { verifyPinnedBytes += buffer.bytes }
            if let place = waitingToVerify.firstIndex(of: index) {
                // Nobody needs to know.
                waitingToVerify.remove(at: place)
                localCompletions.append((index, .ended(.failed(.truncated))))
            }
        }
        return late.pins[address]?.count ?? 0
    }

    /// The owner needs the memory no more.
    private mutating func end(_ address: UInt, _ end: LateMemory.End) {
        if late.pins[address] != nil {
            late.pins[address]?.end = end
        } else {
            ended(address, end)
        }
    }

    private mutating func ended(_ address: UInt, _ end: LateMemory.End) {
        switch end {
        case .none: break
        case .free: LateMemory.free(address)
        case .unpin(let reactor): post(.unpinned(address), to: reactor)
        }
    }

    /// An operation on it has ended, or a reply was sent.
    mutating func unpin(_ address: UInt) {
        guard let pin = late.pins[address] else { return }
        if pin.count > 1 {
            late.pins[address]?.count -= 1
        } else {
            late.pins[address] = nil
            ended(address, pin.end)
        }
    }

    // MARK: effects

    /// The copy takes the place of the job's memory.
    mutating func adopt(_ buffer: BufferID, offset: Int, length: Int) {
        let job = Int(buffer.original.value)
        guard let position = late.copies.firstIndex(where: { $0.job == job && $0.number == buffer.copyNumber }) else {
            preconditionFailure("a copy that was never made")
        }
        let address = late.copies.remove(at: position).address
        moveBytes(jobs[job].memory, address, 0..<offset)
        moveBytes(jobs[job].memory, address, offset + length..<jobs[job].memoryBytes)
        replaceMemory(of: job, address)
    }

    /// The bytes move to memory that no disk has in its hands.
    mutating func detach(_ buffer: BufferID, _ mirror: Int) {
        if let window = buffer.windowIndex {
            let old = mirrors[mirror].windowMemory[window]
            guard orphan(old) > 0 else { return }
            let address = LateMemory.allocate(mirrors[mirror].windowBytes)
            moveBytes(old, address, 0..<mirrors[mirror].windowBytes)
            mirrors[mirror].windowMemory[window] = address
            end(old, .free)
            return
        }
        let job = Int(buffer.value)
        guard jobs[job].memory != 0, orphan(jobs[job].memory) > 0 else { return }
        let address = LateMemory.allocate(jobs[job].memoryBytes)
        moveBytes(jobs[job].memory, address, 0..<jobs[job].memoryBytes)
        replaceMemory(of: job, address)
    }

    private mutating func replaceMemory(of job: Int, _ address: UInt) {
        let old = jobs[job].memory
        orphan(old)
        jobs[job].memory = address
        jobs[job].hasCopies = true
        if old != jobs[job].ownMemory { end(old, .free) }
    }

    private func moveBytes(_ from: UInt, _ to: UInt, _ range: Range<Int>) {
        guard !range.isEmpty, let source = unsafe UnsafeRawPointer(bitPattern: from),
            let target = unsafe UnsafeMutableRawPointer(bitPattern: to)
        else { return }
        unsafe (target + range.lowerBound).copyMemory(from: source + range.lowerBound, byteCount: range.count)
    }

    // MARK: the end of a request

    /// The job ends while operations on its memory are under way, or after its memory was replaced.
    mutating func settleMemory(of job: Int) {
        let own = jobs[job].ownMemory
        for index in operations.indices where !operations[index].isOrphan {
            guard let operation = operations[index].operation, Self.job(of: operation) == job else { continue }
            if operations[index].base == 0 {
                // A flush, say: it has no memory.
                operations[index].isOrphan = true
                jobs[job].operations -= 1
            } else {
                orphan(operations[index].base)
            }
        }
        for copy in late.copies where copy.job == job { end(copy.address, .free) }
        late.copies.removeAll { $0.job == job }
        if late.pins[own] != nil, jobs[job].memory == own, own != 0, jobs[job].request.command.hasReplyPayload {
            // It is sent when its disks may long have been told to go on, or never.
            jobs[job].memory = LateMemory.allocate(jobs[job].memoryBytes)
            moveBytes(own, jobs[job].memory, 0..<jobs[job].memoryBytes)
        }
        if jobs[job].memory != own {
            // The reply is sent from there.
            late.pins[jobs[job].memory, default: LateMemory.Pin()].count += 1
            late.pins[jobs[job].memory]?.end = .free
            jobs[job].late = LateBuffer(address: jobs[job].memory, reactor: place)
        }
        if late.pins[own] != nil {
            jobs[job].isOwnPinned = true
            let origin = jobs[job].origin
            late.pins[own]?.end = .unpin(reactor: origin < 0 ? place : origin)
        }
    }

    /// A buffer of an answered request stays with the disks that have it.
    mutating func hold(_ buffer: ClientBuffer, at address: UInt) {
        if late.early.remove(address) != nil {
            giveBuffer(buffer.buffer, isLarge: buffer.isLarge)
        } else {
            late.held[address] = buffer
            countHeld(buffer, 1)
        }
    }

    /// No disk has it any more.
    mutating func unpinned(_ address: UInt) {
        if let buffer = late.held.removeValue(forKey: address) {
            countHeld(buffer, -1)
            giveBuffer(buffer.buffer, isLarge: buffer.isLarge)
        } else {
            late.early.insert(address)
        }
    }

    private mutating func countHeld(_ buffer: ClientBuffer, _ sign: Int) {
        if buffer.isLarge {
            late.heldLargeBytes += sign * buffer.buffer.pieceBytes
        } else {
            late.heldSmallBytes += sign * buffer.buffer.pieceBytes
        }
    }

    /// The reply is sent, or never will be.
    mutating func giveBack(_ memory: LateBuffer) { post(.unpin(memory.address), to: memory.reactor) }
}

/// Of the pool that it came from.
struct ClientBuffer: BitwiseCopyable {
    var buffer: PooledBuffer
    var isLarge: Bool
}

/// What a reply is sent from instead of the request's own buffer.
struct LateBuffer: BitwiseCopyable {
    var address: UInt
    /// Which is told when it is sent.
    var reactor: Int
}

extension NBDProtocol.Command {
    /// Its reply is sent from the request's buffer.
    var hasReplyPayload: Bool {
        switch self {
        case .read, .blockStatus: true
        case .write, .flush, .trim, .cache, .writeZeroes: false
        }
    }
}
