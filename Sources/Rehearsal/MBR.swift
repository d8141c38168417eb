internal import Bytes

/// The partition table of PCs before GPT, with logical partitions; also the one that protects a GPT.
///
/// | offset | bytes | of the first block |
/// |---|---|---|
/// | 446 | 4 x 16 | entries: +0 active (0x80) or not (0), +4 type, +8 first block (4), +12 blocks (4) |
/// | 510 | 2 | 0x55 0xAA |
///
/// Source: UEFI 2.10, section 5.2. Blocks are counted as 512 bytes, which is what nearly all disks with such a table have.
enum MBR {
    private static let blockBytes: UInt64 = 512
    private static let extended: Set<UInt8> = [0x05, 0x0F, 0x85]
    private static let systemPartition: UInt8 = 0xEF
    static let protective: UInt8 = 0xEE
    /// Linux knows 60; a chain that leads in a circle ends here.
    private static let mostLogicalPartitions = 64

    struct Entry {
        var type: UInt8
        var first: UInt64
        var blocks: UInt64
    }

    /// - Returns: nil if there is none; a boot sector that only looks like one is none.
    static func find(in disk: DiskBytes) throws(Unreadable) -> PartitionTable? {
        guard let entries = try entries(in: disk, at: 0) else { return nil }
        guard entries.contains(where: { $0.type != 0 }) else { return nil }
        var table = PartitionTable(kind: .mbr, blockBytes: blockBytes)
        var found: [Partition] = []
        for (index, entry) in entries.enumerated() where entry.type != 0 {
            if extended.contains(entry.type) {
                found += try logical(in: disk, from: entry.first, &table)
            } else {
                found.append(partition(index + 1, entry))
            }
        }
        table.add(found, of: disk.count)
        return table
    }

    /// The four entries of a boot record; nil if there is none at that block.
    static func entries(in disk: DiskBytes, at block: UInt64) throws(Unreadable) -> [Entry]? {
        guard block < disk.count / blockBytes else { return nil }
        let bytes = try disk.read(at: block * blockBytes, count: 512)
        let span = unsafe bytes.span.bytes
        guard span.loadLittleEndian(at: 510, as: UInt16.self) == 0xAA55 else { return nil }
        var entries: [Entry] = []
        for base in stride(from: 446, to: 510, by: 16) {
            // Where it is neither active nor inactive this is the code or the text of a boot sector.
            guard span.loadLittleEndian(at: base, as: UInt8.self) & 0x7F == 0 else { return nil }
            entries.append(
                Entry(
                    type: span.loadLittleEndian(at: base + 4),
                    first: UInt64(span.loadLittleEndian(at: base + 8, as: UInt32.self)),
                    blocks: UInt64(span.loadLittleEndian(at: base + 12, as: UInt32.self))))
        }
        return entries
    }

    /// Each record of the chain has one partition, counted from the record, and the next record, counted from the first.
    private static func logical(
        in disk: DiskBytes, from start: UInt64, _ table: inout PartitionTable
    ) throws(Unreadable) -> [Partition] {
        var found: [Partition] = []
        var record = start
        for number in 5..<5 + mostLogicalPartitions {
            guard let entries = try entries(in: disk, at: record) else {
                table.faults.append("the chain of logical partitions breaks off at block \(record)")
                return found
            }
            if var entry = entries.first, entry.type != 0, !extended.contains(entry.type) {
                entry.first += record
                found.append(partition(number, entry))
            }
            guard let next = entries.dropFirst().first, extended.contains(next.type), next.first > 0 else {
                return found
            }
            record = start + next.first
        }
        table.faults.append("the chain of logical partitions has no end")
        return found
    }

    /// 32 bits of blocks in 512 bytes do not overflow.
    private static func partition(_ number: Int, _ entry: Entry) -> Partition {
        let digits = String(entry.type, radix: 16, uppercase: true)
        return Partition(
            number: number, offset: entry.first * blockBytes, count: entry.blocks * blockBytes,
            type: digits.count == 1 ? "0\(digits)" : digits, isSystemPartition: entry.type == systemPartition)
    }
}
