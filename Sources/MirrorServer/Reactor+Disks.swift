internal import BasicContainers
internal import Bytes
internal import Glibc
internal import MirrorCore
internal import MirrorFormat
internal import NBDProtocol
internal import URing

/// An operation of the core on its way through the kernel; it may take several steps there.
struct DiskJob {
    enum Step {
        /// The operation itself.
        case main
        case punch, zeroRange, zeroWrite
        /// A stretch of data, or of zeroes, of a write that is sparse.
        case sparseData, sparseHole
        /// fdatasync behind it, where durability needs one.
        case sync
        /// Before it is read back, and that.
        case verifySync, verifyRead
        /// What a scrub compares with its buffer, or takes the checksum of.
        case scrubRead

        /// One that moves nothing has met the end of the disk.
        func moves(_ kind: DiskOperation.Kind) -> Bool {
            switch (self, kind) {
            case (.main, .read), (.main, .write), (.main, .writeMetadata): true
            case (.zeroWrite, _), (.sparseData, _), (.verifyRead, _), (.scrubRead, _): true
            case (.main, _), (.punch, _), (.zeroRange, _), (.sparseHole, _), (.sync, _), (.verifySync, _): false
            }
        }
    }

    var mirror = 0
    var operation: DiskOperation?
    var step = Step.main
    var metadata: PooledBuffer?
    var readBack: PooledBuffer?
    /// Where the operation's buffer begins; 0: it has none.
    var base: UInt = 0
    /// The engine waits for it no more, see `LateMemory`.
    var isOrphan = false
    /// Of zeroing, or of reading back: how far it got.
    var zeroed: UInt64 = 0
    var moved: UInt64 = 0
    /// Length of the hole that is being punched.
    var hole: UInt64 = 0
    /// Monotonic nanoseconds.
    var begunAt: UInt64 = 0
}

/// How an operation ended that did not go through the ring.
enum LocalOutcome {
    /// As the ring would have reported it.
    case reported(Int32)
    case ended(DiskResult)
}

extension Reactor {
    /// Hands an event to a mirror and does what it wants.
    mutating func deliver(_ event: Event, to index: Int) {
        mirrors[index].mirror.handle(event, now: now)
        drain(index)
        guard !mirrors[index].isInBatch else { return }
        mirrors[index].isInBatch = true
        batches.append(index)
    }

    /// What the mirrors were told of since the last time was all there is for now.
    mutating func endBatches() {
        var next = 0
        while next < batches.count {
            let index = batches[next]
            next += 1
            mirrors[index].isInBatch = false
            mirrors[index].mirror.endBatch(now: now)
            drain(index)
        }
        batches.removeAll(keepingCapacity: true)
    }

    mutating func drain(_ index: Int) {
        while let effect = mirrors[index].mirror.nextEffect() {
            switch effect {
            case .submit(let operation): submit(operation, index)
            case .reply(let id, let status): reply(id, status)
            case .copyBytes(let buffer, let from, let to, let count):
                let memory = unsafe jobMemory(buffer)
                unsafe (memory + Int(to)).copyMemory(from: memory + Int(from), byteCount: Int(count))
            case .fillZeroes(let buffer, let offset, let count):
                unsafe memset(jobMemory(buffer) + Int(offset), 0, Int(count))
            case .adopt(let buffer, let offset, let length): adopt(buffer, offset: Int(offset), length: Int(length))
            case .detach(let buffer): detach(buffer, index)
            case .answer: answerCommands(of: index)
            case .events: publishEvents(of: index)
            case .release(let plex):
                mirrors[index].disks[Int(plex.value)]?.stampIfBrokenOff()
                if let disk = mirrors[index].disks[Int(plex.value)] {
                    dissolve(index, plex, disk)
                    if mirrors[index].mirror.record[plex].role == .absent { disk.removeUnusedMetadataFile() }
                    group.giveUp(disk.path)
                    disk.shut()
                }
                mirrors[index].setDisk(nil, of: plex)
            case .stopped: mirrorStopped(index)
            }
        }
    }

    func jobMemory(_ buffer: BufferID) -> UnsafeMutableRawPointer {
        guard let memory = unsafe UnsafeMutableRawPointer(bitPattern: jobs[Int(buffer.value)].memory) else {
            preconditionFailure("the request has no buffer")
        }
        return unsafe memory
    }

    func memory(_ job: DiskJob, _ operation: DiskOperation) -> UnsafeMutableRawPointer {
        if let metadata = job.metadata { return unsafe metadataPool.pointer(metadata) }
        guard let memory = unsafe UnsafeMutableRawPointer(bitPattern: job.base) else {
            preconditionFailure("the operation has no buffer")
        }
        return unsafe memory + Int(operation.bufferOffset)
    }

    private mutating func submit(_ operation: DiskOperation, _ mirror: Int) {
        let index =
            freeOperations.popLast()
            ?? {
                operations.append(DiskJob())
                return operations.count - 1
            }()
        operations[index] = DiskJob(mirror: mirror, operation: operation, begunAt: now.nanoseconds)
        operations[index].base = takeBase(operation, mirror)
        guard let disk = mirrors[mirror].channel(operation) else {
            localCompletions.append((index, .ended(.failed(DiskFailure(kind: .gone, errorNumber: EBADF)))))
            return
        }
        switch operation.kind {
        case .write where operation.isSparse: writeSparse(index, operation, disk)
        case .read, .write, .writeMetadata: prepareTransfer(index, operation, disk, mirror)
        case .flush: sync(index, disk)
        case .deallocate:
            startZeroing(index, disk, disk.canPunch ? .punch : disk.canZeroRange ? .zeroRange : .zeroWrite)
        case .zero: startZeroing(index, disk, disk.canZeroRange ? .zeroRange : .zeroWrite)
        case .queryAllocation:
            findExtents(disk, operation)
            localCompletions.append((index, .ended(.transferred(operation.length))))
        case .compare, .checksum: beginScrubRead(index, operation)
        case .findData: localCompletions.append((index, .ended(.transferred(holeBytes(disk, operation)))))
        }
    }

    private mutating func prepareTransfer(
        _ index: Int, _ operation: DiskOperation, _ disk: DiskChannel, _ mirror: Int
    ) {
        if case .writeMetadata = operation.kind { fillMetadata(index, operation, mirror) }
        if operation.isUncached { forgetCached(operation, disk) }
        let bytes = unsafe memory(operations[index], operation)
        let count = Int(operation.length)
        let offset = operation.offset - disk.base
        if disk.isMemory, count <= limits.largestCopyBytes {
            let moved: Int
            if case .read = operation.kind {
                moved = unsafe pread(disk.file, bytes, count, off_t(offset))
            } else {
                moved = unsafe pwrite(disk.file, bytes, count, off_t(offset))
            }
            localCompletions.append((index, .reported(moved < 0 ? -errno : Int32(moved))))
            return
        }
        if case .read = operation.kind {
            unsafe ring.prepareRead(
                disk.file, into: bytes, count: count, offset: offset, mayHang: disk.mayHang,
                userData: UInt64(index))
        } else {
            unsafe ring.prepareWrite(
                disk.file, from: bytes, count: count, offset: offset,
                isDurable: operation.isDurable && disk.honoursDataSync && !operation.isVerified,
                mayHang: disk.mayHang, userData: UInt64(index))
        }
    }

    private mutating func fillMetadata(_ index: Int, _ operation: DiskOperation, _ mirror: Int) {
        guard let buffer = metadataPool.take(bytes: Superblock.byteCount) else {
            preconditionFailure("more metadata writes in flight than mirrors and plexes allow")
        }
        operations[index].metadata = buffer
        let target = unsafe UnsafeMutableRawBufferPointer(
            start: metadataPool.pointer(buffer), count: Superblock.byteCount)
        var span = unsafe MutableRawSpan(_unsafeBytes: target)
        mirrors[mirror].mirror.encodeMetadata(operation, into: &span)
    }

    mutating func diskCompleted(_ index: Int, _ result: Int32) {
        guard let operation = operations[index].operation,
            let disk = mirrors[operations[index].mirror].channel(operation)
        else { preconditionFailure("a completion without an operation") }
        let failure = Self.failure(result, disk, operation, operations[index].step)
        switch operations[index].step {
        case .main:
            if let failure { return completeOperation(index, .failed(cause(of: failure, index, operation))) }
            operations[index].moved = UInt64(result)
            let isWrite =
                switch operation.kind {
                case .write, .writeMetadata: true
                case .read, .deallocate, .zero, .flush, .queryAllocation, .compare, .checksum, .findData: false
                }
            if case .writeMetadata = operation.kind, UInt64(result) < operation.length {
                return completeOperation(index, .failed(DiskFailure(errorNumber: EIO, isBlockDevice: true)))
            }
            if isWrite, operation.isDurable, !disk.honoursDataSync, !operation.isVerified {
                return startSync(index, disk)
            }
            completeOperation(index, .transferred(UInt64(result)))
        case .sync:
            if let failure {
                return completeOperation(index, .failed(operation.kind == .flush ? failure : Self.lost(failure)))
            }
            completeOperation(index, .transferred(operations[index].moved))
        case .punch, .zeroRange, .zeroWrite: zeroingCompleted(index, operation, disk, result, failure)
        case .sparseData, .sparseHole: sparseCompleted(index, operation, disk, result, failure)
        case .verifySync, .verifyRead: verifyingCompleted(index, operation, disk, result, failure)
        case .scrubRead: scrubReadCompleted(index, operation, disk, result, failure)
        }
    }

    /// The error alone does not tell a disk that is broken from one that was pulled out, so the disk is looked at first.
    private static func failure(
        _ result: Int32, _ disk: DiskChannel, _ operation: DiskOperation, _ step: DiskJob.Step
    ) -> DiskFailure? {
        guard result < 0 || result == 0 && step.moves(operation.kind) else { return nil }
        if disk.isPulled { return .absent }
        guard result < 0 else { return nil }
        let failure = DiskFailure(errorNumber: -result, isBlockDevice: disk.isBlockDevice)
        // Whatever a flush says of a disk that is there, what was not flushed may be lost (R8).
        let isOfFlush = operation.kind == .flush || step == .sync
        return isOfFlush && failure == .absent ? DiskFailure(kind: .media, errorNumber: -result) : failure
    }

    /// A flush behind a write tells of more than what was written.
    private static func lost(_ failure: DiskFailure) -> DiskFailure {
        failure.kind == .media ? DiskFailure(kind: .lost, errorNumber: failure.errorNumber) : failure
    }

    /// Where a write goes through the page cache, and is durable, its error may be the flush's.
    private func cause(of failure: DiskFailure, _ index: Int, _ operation: DiskOperation) -> DiskFailure {
        guard operation.kind == .write || operation.kind == .writeMetadata, operation.isDurable, !operation.isVerified,
            mirrors[operations[index].mirror].channel(operation)?.honoursDataSync == true,
            mirrors[operations[index].mirror].disks[Int(operation.plex.value)]?.isDirect == false
        else { return failure }
        return Self.lost(failure)
    }

    mutating func startSync(_ index: Int, _ disk: DiskChannel) {
        operations[index].step = .sync
        sync(index, disk)
    }

    private mutating func sync(_ index: Int, _ disk: DiskChannel) {
        guard disk.isMemory else { return ring.prepareDataSync(disk.file, userData: UInt64(index)) }
        // Nothing is written there; the ring would wake a thread of the kernel for it.
        localCompletions.append((index, .reported(fdatasync(disk.file) < 0 ? -errno : 0)))
    }

    mutating func completeOperation(_ index: Int, _ result: DiskResult) {
        guard let operation = operations[index].operation else { return }
        // What nobody waits for need not be read back.
        if operation.isVerified, !operations[index].isOrphan, case .transferred(let moved) = result, moved > 0 {
            return beginVerifying(index, moved: moved)
        }
        finishOperation(index, result)
    }

    mutating func finishOperation(_ index: Int, _ result: DiskResult) {
        guard let operation = operations[index].operation else { return }
        let mirror = operations[index].mirror
        if let kind = IOMeter.Kind(operation.kind) {
            mirrors[mirror].plexMeters[Int(operation.plex.value)].count(
                kind, bytes: operation.length, nanoseconds: now.nanoseconds - operations[index].begunAt)
        }
        if let metadata = operations[index].metadata { metadataPool.give(metadata) }
        if operations[index].isOrphan {
            unpin(operations[index].base)
        } else {
            let job = Self.job(of: operation)
            if job >= 0 { jobs[job].operations -= 1 }
        }
        operations[index].operation = nil
        operations[index].metadata = nil
        freeOperations.append(index)
        deliver(.completion(operation.tag, result), to: mirror)
    }

    /// Two rounds, enough for a request that does one thing after another; a resync would go on for ever, and the
    /// sockets would wait.
    mutating func completeLocally() {
        for _ in 0..<2 where !localCompletions.isEmpty {
            swap(&localCompletions, &localCompletionsAtWork)
            for (index, outcome) in localCompletionsAtWork {
                switch outcome {
                case .reported(let result): diskCompleted(index, result)
                case .ended(let result): completeOperation(index, result)
                }
            }
            localCompletionsAtWork.removeAll(keepingCapacity: true)
        }
    }

    // MARK: zeroing

    private mutating func startZeroing(_ index: Int, _ disk: DiskChannel, _ step: DiskJob.Step) {
        guard let operation = operations[index].operation else { return }
        operations[index].step = step
        switch step {
        case .punch:
            // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
            ring.prepareAllocate(
                disk.file, mode: 3, offset: operation.offset - disk.base, length: operation.length,
                userData: UInt64(index))
        case .zeroRange:
            // FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
            ring.prepareAllocate(
                disk.file, mode: 17, offset: operation.offset - disk.base, length: operation.length,
                userData: UInt64(index))
        case .zeroWrite:
            let done = operations[index].zeroed
            let count = min(operation.length - done, UInt64(zeroBuffer.bytes))
            unsafe ring.prepareWrite(
                disk.file, from: zeroes.pointer(zeroBuffer), count: Int(count),
                offset: operation.offset + done - disk.base,
                isDurable: false, mayHang: disk.mayHang, userData: UInt64(index))
        case .main, .sync, .sparseData, .sparseHole, .verifySync, .verifyRead, .scrubRead:
            preconditionFailure("no zeroing")
        }
    }

    /// What the disk can't do by itself is done by the next slower way, down to writing zeroes.
    private mutating func zeroingCompleted(
        _ index: Int, _ operation: DiskOperation, _ disk: DiskChannel, _ result: Int32, _ failure: DiskFailure?
    ) {
        let mirror = operations[index].mirror
        let step = operations[index].step
        if let failure, failure.kind == .unsupported, step != .zeroWrite {
            mirrors[mirror].canNot(punch: step == .punch, operation)
            startZeroing(index, disk, step == .punch && disk.canZeroRange ? .zeroRange : .zeroWrite)
            return
        }
        // It may only mean that the disk does not like to be asked that way: a block is bad if it can't be written.
        if failure?.kind == .media, step != .zeroWrite { return startZeroing(index, disk, .zeroWrite) }
        if let failure { return completeOperation(index, .failed(failure)) }
        if step == .zeroWrite {
            if result == 0 { return completeOperation(index, .failed(.truncated)) }
            operations[index].zeroed += UInt64(result)
            if operations[index].zeroed < operation.length { return startZeroing(index, disk, .zeroWrite) }
        }
        operations[index].moved = operation.length
        if operation.isDurable { return startSync(index, disk) }
        completeOperation(index, .transferred(operation.length))
    }

    // MARK: holes

    /// Encodes the allocation of the range into the request's buffer, at most as many extents as fit.
    private mutating func findExtents(_ disk: DiskChannel, _ operation: DiskOperation) {
        let job = Int(operation.request.value & 0xFFFF_FFFF)
        let end = operation.offset + operation.length
        let capacity = 4096 / ReplyEncoder.extentBytes - 8
        extents.removeAll(keepingCapacity: true)
        var position = operation.offset
        var information = stat()
        // Behind the end of a file that was cut off lies no hole: reading there fails.
        guard unsafe fstat(disk.file, &information) == 0,
            disk.isBlockDevice || UInt64(information.st_size) >= end
        else { return encodeExtents(job) }
        while position < end, extents.count < capacity, !disk.isBlockDevice {
            let data = lseek(disk.file, off_t(position), 3)  // SEEK_DATA
            if data < 0, errno != ENXIO { break }
            let dataStart = data < 0 ? end : min(UInt64(data), end)
            if dataStart > position {
                extents.append(
                    AllocationExtent(lengthBytes: dataStart - position, flags: BlockStatus.hole | BlockStatus.zero))
            }
            guard dataStart < end else {
                position = end
                break
            }
            let hole = lseek(disk.file, off_t(dataStart), 4)  // SEEK_HOLE
            let dataEnd = hole < 0 ? end : min(UInt64(hole), end)
            extents.append(AllocationExtent(lengthBytes: dataEnd - dataStart, flags: 0))
            position = dataEnd
        }
        encodeExtents(job)
    }

    /// No extents: one that says "allocated" for the whole range.
    mutating func encodeExtents(_ job: Int) {
        let request = jobs[job].request
        let capacity = 4096 / ReplyEncoder.extentBytes - 8
        var reply: [Extent] = []
        swap(&reply, &replyExtents)
        defer { swap(&reply, &replyExtents) }
        reply.removeAll(keepingCapacity: true)
        BlockStatus.reduce(
            extents.span, requestBytes: request.length, reqOne: request.flags.contains(.reqOne),
            maximumExtents: capacity, into: &reply)
        guard jobs[job].memory != 0 else { return }
        let target = unsafe UnsafeMutableRawBufferPointer(
            start: jobMemory(BufferID(UInt32(job))), count: jobs[job].memoryBytes)
        var span = unsafe MutableRawSpan(_unsafeBytes: target)
        var offset = 0
        for extent in reply { offset += ReplyEncoder.extent(extent, into: &span, at: offset) }
        jobs[job].extentCount = reply.count
    }
}
