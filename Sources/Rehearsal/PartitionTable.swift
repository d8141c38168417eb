/// A stretch of the mirror that a partition table names.
package struct Partition: Equatable, Sendable {
    /// As in its table, from 1 on; logical partitions of an MBR begin at 5.
    package var number: Int
    package var offset: UInt64
    package var count: UInt64
    /// A GUID, or two hexadecimal digits.
    package var type: String
    package var isSystemPartition: Bool
}

/// What says where on a disk the file systems lie, and all that is wrong with it.
package struct PartitionTable: Equatable, Sendable {
    package enum Kind: String, Sendable {
        case gpt = "GPT"
        case mbr = "MBR"
    }

    package var kind: Kind
    /// What the table counts in.
    package var blockBytes: UInt64
    /// Only its end is left, as where a file system was made over the beginning.
    package var isRemains = false
    /// Those that lie inside the mirror.
    package var partitions: [Partition] = []
    package var faults: [String] = []
    /// What is unusual and does no harm.
    package var notes: [String] = []

    package var systemPartition: Partition? { partitions.first { $0.isSystemPartition } }

    /// - Returns: nil if there is none.
    package static func find(in disk: DiskBytes) throws(Unreadable) -> PartitionTable? {
        if let table = try GPT.find(in: disk) { return table }
        return try MBR.find(in: disk)
    }

    /// Leaves out, and names, what reaches beyond the mirror or into another partition.
    mutating func add(_ found: [Partition], of bytes: UInt64) {
        var end: (offset: UInt64, number: Int)?
        for partition in found.sorted(by: { ($0.offset, $0.number) < ($1.offset, $1.number) }) {
            guard partition.count > 0, partition.offset < bytes, partition.count <= bytes - partition.offset else {
                faults.append(
                    "partition \(partition.number) reaches beyond the mirror, which ends at byte \(bytes)")
                continue
            }
            if let end, partition.offset < end.offset {
                faults.append("partitions \(end.number) and \(partition.number) overlap")
            }
            let own = partition.offset + partition.count
            if own > end?.offset ?? 0 { end = (own, partition.number) }
            partitions.append(partition)
        }
        partitions.sort { $0.number < $1.number }
    }
}
