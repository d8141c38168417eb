internal import Bytes

/// The partition table of UEFI: a header in the second block, its twin in the last, and before or behind each of them the
/// entries.
///
/// A plex alone, as a plain disk, is longer than its table thinks: behind the twin lie Plexus' own areas. Firmware and kernels
/// look for a twin at the end of the disk only when the first header is bad, and would not find it there: both have to be good.
enum GPT {
    /// One header and its entries, both with good checksums.
    struct Copy {
        var header: GPTHeader
        var entries: [UInt8]
    }

    /// As far as it could be read with one size of blocks.
    private struct Reading {
        var blockBytes: UInt64
        var primary: Result<Copy, GPTFault>
        var backup: Result<Copy, GPTFault>

        /// How much speaks for that size: a header that is good, or at least begins like one.
        var weight: Int {
            [primary, backup].reduce(0) { sum, copy in
                switch copy {
                case .success: sum + 10
                case .failure(let fault): sum + (fault.isAbsence ? 0 : 1)
                }
            }
        }
    }

    /// - Returns: nil if nothing speaks for a GPT. Of one with two bad headers only the faults.
    static func find(in disk: DiskBytes) throws(Unreadable) -> PartitionTable? {
        let isProtected = try MBR.entries(in: disk, at: 0)?.contains { $0.type == MBR.protective } ?? false
        var best: Reading?
        for blockBytes: UInt64 in [512, 4096] where disk.count >= 3 * blockBytes {
            let reading = try read(disk, blockBytes)
            if reading.weight > best?.weight ?? 0 { best = reading }
        }
        guard let best else {
            guard isProtected else { return nil }
            var table = PartitionTable(kind: .gpt, blockBytes: 512)
            table.faults = ["there is its protective MBR, and neither the first header nor the backup header"]
            return table
        }
        var table = judge(best, disk)
        if case .failure = best.primary { table.isRemains = !isProtected }
        if !isProtected {
            table.faults.append("the protective MBR in block 0 is missing: firmware may pass the disk over")
        }
        return table
    }

    private static func read(_ disk: DiskBytes, _ blockBytes: UInt64) throws(Unreadable) -> Reading {
        let last = disk.count / blockBytes - 1
        let primary = try copy(disk, at: 1, blockBytes)
        var place = last
        if case .success(let first) = primary { place = first.header.alternateBlock }
        return Reading(blockBytes: blockBytes, primary: primary, backup: try copy(disk, at: place, blockBytes))
    }

    private static func copy(
        _ disk: DiskBytes, at block: UInt64, _ blockBytes: UInt64
    ) throws(Unreadable) -> Result<Copy, GPTFault> {
        let blocks = disk.count / blockBytes
        guard block < blocks else {
            return .failure(GPTFault("it should lie in block \(block), and the mirror has only \(blocks)"))
        }
        let bytes = try disk.read(at: block * blockBytes, count: Int(blockBytes))
        let header: GPTHeader
        do throws(GPTFault) {
            header = try GPTHeader(unsafe bytes.span.bytes, at: block, blocks: blocks)
        } catch {
            return .failure(error)
        }
        let entries = try disk.read(at: header.entriesBlock * blockBytes, count: header.entriesBytes)
        guard CRC32.checksum(of: entries) == header.entriesChecksum else {
            return .failure(GPTFault("the checksum of its entries in block \(header.entriesBlock) is wrong"))
        }
        return .success(Copy(header: header, entries: entries))
    }

    private static func judge(_ reading: Reading, _ disk: DiskBytes) -> PartitionTable {
        var table = PartitionTable(kind: .gpt, blockBytes: reading.blockBytes)
        let last = disk.count / reading.blockBytes - 1
        var good: Copy?
        switch reading.backup {
        case .success(let copy): good = copy
        case .failure(let fault): table.faults.append("the backup header is bad: \(fault)")
        }
        switch reading.primary {
        case .success(let copy): good = copy
        case .failure(let fault): table.faults.insert("the first header is bad: \(fault)", at: 0)
        }
        guard let good else { return table }
        if case .success(let first) = reading.primary, case .success(let second) = reading.backup {
            if first.header.identity != second.header.identity || first.entries != second.entries {
                table.faults.append("the first and the backup header say different things")
            } else if first.header.alternateBlock != last {
                table.notes.append(
                    "the backup header lies in block \(first.header.alternateBlock), the mirror has \(last + 1)")
            }
        }
        table.add(partitions(good, reading.blockBytes, &table), of: disk.count)
        return table
    }

    /// Of an entry: type (16 bytes), own GUID (16), first and last block (8 each), attributes (8), name (72).
    private static func partitions(_ copy: Copy, _ blockBytes: UInt64, _ table: inout PartitionTable) -> [Partition] {
        let span = unsafe copy.entries.span.bytes
        var found: [Partition] = []
        for index in 0..<copy.header.entryCount {
            let base = index * copy.header.entryBytes
            let type = GUID(span, at: base)
            guard !type.isZero else { continue }
            let first: UInt64 = span.loadLittleEndian(at: base + 32)
            let last: UInt64 = span.loadLittleEndian(at: base + 40)
            guard first <= last, first >= copy.header.firstUsable, last <= copy.header.lastUsable else {
                table.faults.append(
                    "partition \(index + 1) has the blocks \(first) to \(last), outside of \(copy.header.firstUsable) to \(copy.header.lastUsable)"
                )
                continue
            }
            // Blocks up to the last usable one lie on the disk: no overflow.
            found.append(
                Partition(
                    number: index + 1, offset: first * blockBytes, count: (last - first + 1) * blockBytes,
                    type: type.description, isSystemPartition: type.description == systemPartition))
        }
        return found
    }

    private static let systemPartition = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
}
