internal import MirrorCore
internal import MirrorFormat

/// Both sides of a split brain, with the evidence that a user needs to choose.
struct SplitReport {
    struct Side {
        var paths: [String]
        var plexes: [(index: Int, uuid: PlexUUID)]
        var epoch: UInt64
        var updatedTime: UInt64
        /// What it wrote since the sides parted; nil: nobody counted.
        var changedBytes: UInt64?

        var text: String {
            let changed =
                changedBytes.map { "\($0) bytes in regions written alone" } ?? "an unknown amount written alone"
            return "\(paths.joined(separator: ", ")) (epoch \(epoch), last change \(isoTime(updatedTime)), \(changed))"
        }
    }

    var sides: [Side]

    init(_ sides: [Refusal.Side], _ paths: [String], _ found: [FoundPlex]) {
        self.sides = sides.map { side in
            let own = found.filter { side.disks.contains($0.disk) }
            let others = found.filter { !side.disks.contains($0.disk) }
            let plexes = own.compactMap { plex in
                plex.superblock.record.index(of: plex.superblock.plex).map {
                    (index: Int($0.value), uuid: plex.superblock.plex)
                }
            }
            return Side(
                paths: side.disks.map { paths[$0] }, plexes: plexes, epoch: side.epoch, updatedTime: side.updatedTime,
                changedBytes: Self.changedBytes(own, others))
        }
    }

    private static func changedBytes(_ own: [FoundPlex], _ others: [FoundPlex]) -> UInt64? {
        guard let one = own.first, let other = others.first,
            case .evidence(let evidence) = JoinBasis(one.superblock, one.pages, joining: other.superblock.record)
        else { return nil }
        let record = one.superblock.record
        return min(UInt64(evidence.changes.population) * record.regionBytes, record.dataBytes)
    }

    var text: String { sides.map(\.text).joined(separator: " against ") }

    /// The side that a user means by a plex number, UUID or path; nil if that names none, or more than one.
    func side(of text: String) -> (side: Side, plex: PlexUUID)? {
        let hits = sides.flatMap { side in
            side.plexes.enumerated().compactMap { position, plex -> (side: Side, plex: PlexUUID)? in
                let isMeant =
                    String(plex.index) == text || plex.uuid.description == text.lowercased()
                    || (side.plexes.count == side.paths.count && side.paths[position] == text)
                return isMeant ? (side, plex.uuid) : nil
            }
        }
        return hits.count == 1 ? hits[0] : nil
    }

    var paths: [String] { sides.flatMap(\.paths) }
}
