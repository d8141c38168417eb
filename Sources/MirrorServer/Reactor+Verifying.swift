internal import BasicContainers
internal import Glibc
internal import MirrorCore
internal import MirrorFormat
internal import URing

/// Reading back what was written, for a resync that trusts no disk: from the disk itself where it is open with O_DIRECT,
/// otherwise after a flush and with the page cache told to forget.
extension Reactor {
    /// Behind the write; its operation is not yet complete.
    mutating func beginVerifying(_ index: Int, moved: UInt64) {
        operations[index].moved = moved
        operations[index].zeroed = 0
        guard waitingToVerify.isEmpty, let buffer = takeVerifyBuffer(Int(moved)) else {
            waitingToVerify.append(index)
            return
        }
        verify(index, buffer)
    }

    private mutating func verify(_ index: Int, _ buffer: PooledBuffer) {
        operations[index].readBack = buffer
        guard let operation = operations[index].operation,
            let channel = mirrors[operations[index].mirror].channel(operation)
        else { preconditionFailure("a write on no disk") }
        if operation.isUncached { return startScrubRead(index, operation, channel) }
        let disk = mirrors[operations[index].mirror].disks[Int(operation.plex.value)]
        // What is to be durable is flushed here, and not by the write: a flush that fails tells of more than this range.
        guard operation.isDurable || disk?.isDirect == false, !channel.isMemory else {
            return readBack(index, operation, channel)
        }
        operations[index].step = .verifySync
        ring.prepareDataSync(channel.file, userData: UInt64(index))
    }

    private mutating func readBack(_ index: Int, _ operation: DiskOperation, _ channel: DiskChannel) {
        guard let buffer = operations[index].readBack else { preconditionFailure("nowhere to read to") }
        operations[index].step = .verifyRead
        let done = operations[index].zeroed
        unsafe ring.prepareRead(
            channel.file, into: verifyPool.pointer(buffer, at: Int(done)), count: Int(operations[index].moved - done),
            offset: operation.offset + done - channel.base, mayHang: channel.mayHang, userData: UInt64(index))
    }

    mutating func verifyingCompleted(
        _ index: Int, _ operation: DiskOperation, _ channel: DiskChannel, _ result: Int32, _ failure: DiskFailure?
    ) {
        if let failure {
            guard failure.kind != .gone, failure.kind != .transient else { return verified(index, failure) }
            let kind: DiskErrorKind = operations[index].step == .verifyRead ? .differs : .lost
            return verified(index, DiskFailure(kind: kind, errorNumber: failure.errorNumber))
        }
        if operations[index].step == .verifySync {
            _ = posix_fadvise(
                channel.file, off_t(operation.offset - channel.base), off_t(operations[index].moved),
                POSIX_FADV_DONTNEED)
            return readBack(index, operation, channel)
        }
        operations[index].zeroed += UInt64(result)
        guard result > 0 else { return verified(index, .truncated) }
        if operations[index].zeroed < operations[index].moved { return readBack(index, operation, channel) }
        guard let buffer = operations[index].readBack else { preconditionFailure("nothing was read") }
        let wanted =
            operation.kind == .write
            ? unsafe memory(operations[index], operation) : unsafe zeroes.pointer(zeroBuffer)
        let isSame = unsafe memcmp(wanted, verifyPool.pointer(buffer), Int(operations[index].moved)) == 0
        verified(index, isSame ? nil : DiskFailure(kind: .differs, errorNumber: 0))
    }

    /// What disks keep that were given up is no reason for others to wait.
    private mutating func takeVerifyBuffer(_ bytes: Int) -> PooledBuffer? {
        guard verifyPool.usedBytes - verifyPinnedBytes + bytes <= limits.verifyBytes else { return nil }
        return verifyPool.take(bytes: bytes)
    }

    /// The buffer of an operation that has ended.
    mutating func giveVerifyBuffer(_ index: Int) {
        guard let buffer = operations[index].readBack else { return }
        if operations[index].isOrphan { verifyPinnedBytes -= buffer.bytes }
        verifyPool.give(buffer)
        operations[index].readBack = nil
    }

    private mutating func verified(_ index: Int, _ failure: DiskFailure?) {
        giveVerifyBuffer(index)
        let moved = operations[index].moved
        finishOperation(index, failure.map { .failed($0) } ?? .transferred(moved))
        verifyNext()
    }

    mutating func verifyNext() {
        // First come, first served: whoever waits holds the lock of its range.
        while let next = waitingToVerify.first, let buffer = takeVerifyBuffer(Int(operations[next].moved)) {
            waitingToVerify.removeFirst()
            verify(next, buffer)
        }
    }
}
