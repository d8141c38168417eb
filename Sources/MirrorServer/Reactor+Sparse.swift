internal import BasicContainers
internal import Glibc
internal import MirrorCore
internal import MirrorFormat
internal import URing

/// Copying without filling up what was thin: stretches of zeroes become holes where the disk can have holes.
extension Reactor {
    /// Shorter ones are written: a system call for each would cost more than the space is worth.
    private static let smallestHoleBytes: UInt64 = 32 << 10
    private static let unitBytes: UInt64 = 4096

    /// Begins the next stretch of the operation, all of which lies behind `DiskJob.moved`.
    mutating func writeSparse(_ index: Int, _ operation: DiskOperation, _ disk: DiskChannel) {
        let left = operation.length - operations[index].moved
        let bytes = unsafe memory(operations[index], operation) + Int(operations[index].moved)
        let offset = operation.offset + operations[index].moved
        let zeroes = disk.canPunch ? unsafe stretch(bytes, left, ofZeroes: true) : 0
        if zeroes >= min(Self.smallestHoleBytes, operation.length) {
            operations[index].step = .sparseHole
            operations[index].hole = zeroes
            // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
            ring.prepareAllocate(disk.file, mode: 3, offset: offset, length: zeroes, userData: UInt64(index))
            return
        }
        unsafe writeData(index, operation, disk, count: disk.canPunch ? dataLength(bytes, left) : left)
    }

    private mutating func writeData(_ index: Int, _ operation: DiskOperation, _ disk: DiskChannel, count: UInt64) {
        let bytes = unsafe memory(operations[index], operation) + Int(operations[index].moved)
        let offset = operation.offset + operations[index].moved
        operations[index].step = .sparseData
        if disk.isMemory, count <= UInt64(limits.largestCopyBytes) {
            let moved = unsafe pwrite(disk.file, bytes, Int(count), off_t(offset))
            localCompletions.append((index, .reported(moved < 0 ? -errno : Int32(moved))))
            return
        }
        unsafe ring.prepareWrite(
            disk.file, from: bytes, count: Int(count), offset: offset,
            isDurable: operation.isDurable && disk.honoursDataSync, mayHang: disk.mayHang, userData: UInt64(index))
    }

    mutating func sparseCompleted(
        _ index: Int, _ operation: DiskOperation, _ disk: DiskChannel, _ result: Int32, _ failure: DiskFailure?
    ) {
        let isHole = operations[index].step == .sparseHole
        if let failure {
            guard isHole else { return completeOperation(index, .failed(failure)) }
            // A hole is a favour: where there can be none the zeroes are written.
            if failure.kind == .unsupported {
                mirrors[operations[index].mirror].channels[Int(operation.plex.value)]?.canPunch = false
            }
            return writeData(index, operation, disk, count: operations[index].hole)
        }
        operations[index].moved += isHole ? operations[index].hole : UInt64(result)
        // A write that moved nothing: the core knows what that means.
        if !isHole, result == 0 { return completeOperation(index, .transferred(operations[index].moved)) }
        if operations[index].moved < operation.length { return writeSparse(index, operation, disk) }
        // Holes are made without a promise of durability.
        if operation.isDurable { return startSync(index, disk) }
        completeOperation(index, .transferred(operations[index].moved))
    }

    /// How many of the bytes, from the first on, in whole units, are zero.
    private func stretch(_ bytes: UnsafeMutableRawPointer, _ count: UInt64, ofZeroes wanted: Bool) -> UInt64 {
        var length: UInt64 = 0
        while length < count, unsafe isZero(bytes + Int(length), min(Self.unitBytes, count - length)) == wanted {
            length += min(Self.unitBytes, count - length)
        }
        return length
    }

    /// Up to the next hole that is worth it.
    private func dataLength(_ bytes: UnsafeMutableRawPointer, _ count: UInt64) -> UInt64 {
        var length: UInt64 = 0
        while length < count {
            let zeroes = unsafe stretch(bytes + Int(length), count - length, ofZeroes: true)
            if length > 0, zeroes >= Self.smallestHoleBytes { break }
            length += zeroes
            length += unsafe stretch(bytes + Int(length), count - length, ofZeroes: false)
        }
        return length
    }

    private func isZero(_ bytes: UnsafeMutableRawPointer, _ count: UInt64) -> Bool {
        precondition(Int(count) <= zeroBuffer.bytes)
        return unsafe memcmp(bytes, zeroes.pointer(zeroBuffer), Int(count)) == 0
    }
}
