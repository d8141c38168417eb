internal import BasicContainers
internal import Bytes
internal import Glibc
internal import MirrorCore
internal import URing

/// What a scrub asks of disks beyond reading: whether a range is the same as what lies in its buffer, the checksum of a
/// block, where data begin. The bytes go to the buffers that what was written is read back to.
extension Reactor {
    mutating func beginScrubRead(_ index: Int, _ operation: DiskOperation) {
        beginVerifying(index, moved: operation.length)
    }

    /// There is a buffer for it.
    mutating func startScrubRead(_ index: Int, _ operation: DiskOperation, _ channel: DiskChannel) {
        forgetCached(operation, channel)
        readForScrub(index, operation, channel)
    }

    /// What a page cache holds says nothing of the disk. Where the kernel would ask a server that may be silent, it is
    /// left as it is.
    func forgetCached(_ operation: DiskOperation, _ channel: DiskChannel) {
        guard !channel.isMemory, !channel.mayHang else { return }
        _ = posix_fadvise(
            channel.file, off_t(operation.offset - channel.base), off_t(operation.length), POSIX_FADV_DONTNEED)
    }

    private mutating func readForScrub(_ index: Int, _ operation: DiskOperation, _ channel: DiskChannel) {
        guard let buffer = operations[index].readBack else { preconditionFailure("nowhere to read to") }
        operations[index].step = .scrubRead
        let done = operations[index].zeroed
        unsafe ring.prepareRead(
            channel.file, into: verifyPool.pointer(buffer, at: Int(done)), count: Int(operation.length - done),
            offset: operation.offset + done - channel.base, mayHang: channel.mayHang, userData: UInt64(index))
    }

    mutating func scrubReadCompleted(
        _ index: Int, _ operation: DiskOperation, _ channel: DiskChannel, _ result: Int32, _ failure: DiskFailure?
    ) {
        if let failure { return endScrubRead(index, .failed(failure)) }
        guard result > 0 else { return endScrubRead(index, .failed(.truncated)) }
        operations[index].zeroed += UInt64(result)
        if operations[index].zeroed < operation.length { return readForScrub(index, operation, channel) }
        guard let buffer = operations[index].readBack else { preconditionFailure("nothing was read") }
        let count = Int(operation.length)
        if operation.kind == .checksum {
            let bytes = unsafe UnsafeRawBufferPointer(start: verifyPool.pointer(buffer), count: count)
            let checksum = unsafe CRC32C.checksum(of: RawSpan(_unsafeBytes: bytes))
            return endScrubRead(index, .transferred(UInt64(checksum)))
        }
        let isSame = unsafe memcmp(memory(operations[index], operation), verifyPool.pointer(buffer), count) == 0
        endScrubRead(
            index, isSame ? .transferred(operation.length) : .failed(DiskFailure(kind: .differs, errorNumber: 0)))
    }

    private mutating func endScrubRead(_ index: Int, _ result: DiskResult) {
        giveVerifyBuffer(index)
        finishOperation(index, result)
        verifyNext()
    }

    /// How much of the range, from its beginning on, is a hole. Devices do not tell, nor does a file that ends before the
    /// range does: reading there fails.
    func holeBytes(_ channel: DiskChannel, _ operation: DiskOperation) -> UInt64 {
        let start = operation.offset - channel.base
        let end = start + operation.length
        var information = stat()
        guard !channel.isBlockDevice, !channel.mayHang, unsafe fstat(channel.file, &information) == 0,
            UInt64(information.st_size) >= end
        else { return 0 }
        let data = lseek(channel.file, off_t(start), 3)  // SEEK_DATA
        if data < 0 { return errno == ENXIO ? operation.length : 0 }
        return min(UInt64(data), end) - start
    }
}
