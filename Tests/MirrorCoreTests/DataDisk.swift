@testable import MirrorCore

/// A disk with its data, one number per block.
struct DataDisk {
    var image: DiskImage
    /// What a read gets.
    var cache = [UInt32](repeating: 0, count: DataBench.blocks)
    /// What survives a power failure.
    var medium = [UInt32](repeating: 0, count: DataBench.blocks)

    init(image: DiskImage) { self.image = image }

    /// All of the cache reaches the medium.
    mutating func writeBack() { medium = cache }

    /// Write-back failed: these blocks read as they did before it.
    mutating func dropCache(ofBlocks blocks: some Sequence<Int>) {
        for block in blocks { cache[block] = medium[block] }
    }

    /// Does what a disk does to complete an operation.
    ///
    /// - Parameters:
    ///   - buffer: of the request; what is read is put there.
    ///   - metadata: the block of a metadata write.
    mutating func carryOut(_ operation: DiskOperation, buffer: inout [UInt32], metadata: [UInt8]?) {
        let first = Int(operation.offset / Limits.blockBytes)
        let count = Int(operation.length / Limits.blockBytes)
        let start = Int(operation.bufferOffset / Limits.blockBytes)
        buffer += Array(repeating: 0, count: max(0, start + count - buffer.count))
        switch operation.kind {
        case .read: buffer.replaceSubrange(start..<start + count, with: cache[first..<first + count])
        case .write: write(buffer[start..<start + count], at: first, isDurable: operation.isDurable)
        case .deallocate, .zero: write(repeatElement(0, count: count), at: first, isDurable: operation.isDurable)
        case .flush: writeBack()
        case .writeMetadata: image.blocks[operation.offset] = metadata
        case .queryAllocation, .compare, .checksum, .findData: break
        }
    }

    /// What it answers to an operation that was carried out. Zeroes are holes, and the number is its own checksum.
    func answer(_ operation: DiskOperation, buffer: [UInt32]) -> DiskResult {
        let first = Int(operation.offset / Limits.blockBytes)
        let contents = cache[
            min(first, cache.count)..<min(first + Int(operation.length / Limits.blockBytes), cache.count)]
        switch operation.kind {
        case .compare:
            let start = Int(operation.bufferOffset / Limits.blockBytes)
            return buffer[start..<start + contents.count] == contents
                ? .transferred(operation.length) : .failed(DiskFailure(kind: .differs, errorNumber: 0))
        case .checksum: return .transferred(UInt64(contents.first ?? 0))
        case .findData:
            return .transferred(UInt64(contents.prefix { $0 == 0 }.count) * Limits.blockBytes)
        case .read, .write, .deallocate, .zero, .flush, .writeMetadata, .queryAllocation:
            return .transferred(operation.length)
        }
    }

    private mutating func write(_ data: some Collection<UInt32>, at first: Int, isDurable: Bool) {
        cache.replaceSubrange(first..<first + data.count, with: data)
        if isDurable { medium.replaceSubrange(first..<first + data.count, with: data) }
    }
}
