/// The partition table of a disk, and what lies in each partition; without a table, what lies on the disk as a whole.
package struct DiskLayout {
    struct Stretch {
        /// 0: the whole mirror.
        var number: Int
        var offset: UInt64
        var count: UInt64
        var content: Content?

        var name: String { number == 0 ? "whole disk" : "partition \(number)" }
    }

    package var table: PartitionTable?
    var stretches: [Stretch]

    package init(_ disk: DiskFile, _ bytes: DiskBytes) throws(Unreadable) {
        let whole = Stretch(
            number: 0, offset: 0, count: bytes.count, content: Content.find(on: disk, offset: 0, count: bytes.count))
        table = try PartitionTable.find(in: bytes)
        stretches = (table?.partitions ?? []).map {
            Stretch(
                number: $0.number, offset: $0.offset, count: $0.count,
                content: Content.find(on: disk, offset: $0.offset, count: $0.count))
        }
        guard let found = table else {
            stretches = [whole]
            return
        }
        // The boot sector of a FAT file system may look like an MBR, and behind a file system may lie an old backup GPT.
        let isDoubtful = found.isRemains || found.kind == .mbr && stretches.allSatisfy { $0.content == nil }
        if whole.content != nil, isDoubtful {
            table = nil
            stretches = [whole]
        }
    }

    func tableCheck(_ disk: DiskFile, repair: String) -> DrillReport.Check {
        let name = Drill.tableCheck
        guard let table else { return DrillReport.Check(name, .info, "none") }
        if let fault = table.faults.first {
            let others = table.faults.dropFirst().map { "; \($0)" }.joined()
            return DrillReport.Check(
                name, .fail, "\(table.kind.rawValue): \(fault)\(others)",
                action: "if all plexes fail alike, repair it on the mirror (gdisk, sgdisk -e); \(repair)")
        }
        if let bytes = disk.logicalBlockBytes, table.kind == .gpt, bytes != table.blockBytes {
            return DrillReport.Check(
                name, .fail,
                "GPT: it counts in blocks of \(table.blockBytes) bytes, and the disk alone has blocks of \(bytes): nobody would find it",
                action: "partition the mirror anew, attached with blocks of \(bytes) bytes (nbd-client -b \(bytes))")
        }
        let count = "\(table.partitions.count) partition\(table.partitions.count == 1 ? "" : "s")"
        let headers = table.kind == .gpt ? ", both headers" : ""
        let blocks = table.blockBytes == 512 ? "" : ", blocks of \(table.blockBytes) bytes"
        let notes = table.notes.map { "; \($0)" }.joined()
        return DrillReport.Check(name, .pass, "\(table.kind.rawValue)\(headers), \(count)\(blocks)\(notes)")
    }

    /// A plex that lost the first bytes of a file system looks like one that never had any, if looked at alone.
    ///
    /// - Returns: nil if there is no other.
    func comparison(with others: [(plex: Int, layout: DiskLayout)]) -> DrillReport.Check? {
        guard !others.isEmpty else { return nil }
        let name = Drill.sameCheck
        for other in others {
            if let difference = difference(from: other.layout, "plex \(other.plex)") {
                return DrillReport.Check(
                    name, .fail, difference,
                    action: "plexus scrub finds what differs; see also what the other checks say")
            }
        }
        return DrillReport.Check(name, .pass, "partitions and kinds of file systems are those of the other plexes")
    }

    /// - Returns: nil if they are alike, or if only the other one lacks something.
    private func difference(from other: DiskLayout, _ name: String) -> String? {
        guard let table else {
            return other.table.map { "\(name) has a \($0.kind.rawValue) partition table" } ?? contents(other, name)
        }
        guard let others = other.table else { return nil }
        if table.kind != others.kind { return "\(name) has a partition table of another kind" }
        if table.partitions != others.partitions {
            // A table whose headers are both bad has no partitions to be compared.
            if others.partitions.isEmpty { return nil }
            return "\(name) has other partitions"
        }
        return contents(other, name)
    }

    private func contents(_ other: DiskLayout, _ name: String) -> String? {
        for (own, its) in zip(stretches, other.stretches) where own.content?.type != its.content?.type {
            guard let found = its.content else { continue }
            return
                "\(own.name): \(name) has \(found.type) there, this one \(own.content?.type ?? "nothing that is known")"
        }
        return nil
    }
}
