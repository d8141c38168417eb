internal import MirrorCore
internal import MirrorFormat

/// All that outlasts the server: the disks, and what clients were told.
struct World {
    var disks: [SimulatedDisk]
    var oracle: Oracle
    var writeNumber: UInt32 = 0
    var now: UInt64 = 1_000_000_000

    static let mirrorUUID = MirrorUUID(UUID128(high: 1, low: 1))

    /// A mirror that has just been made.
    ///
    /// - Parameter spares: slots of each disk's spare pool.
    static func fresh(plexes: Int, blocks: Int, spares: Int = 0) -> World {
        let dataBytes = UInt64(blocks * Geometry.blockBytes)
        guard
            let layout = try? Layout(
                tinyDisk: dataBytes + (512 << 10), dataBytes: dataBytes, regionBytes: UInt64(Geometry.blockBytes),
                spareBytes: UInt64(spares * Geometry.blockBytes), bitsPerPage: UInt64(Geometry.bitsPerPage))
        else { preconditionFailure("the layout of a simulated disk") }
        let members = (0..<plexes).map { index in
            Member(uuid: PlexUUID(UUID128(high: 2, low: UInt64(index))), role: .inSync)
        }
        let record = Record(
            mirror: mirrorUUID, name: "vault", dataBytes: dataBytes, regionBytes: layout.regionBytes,
            generation: Generation(UUID128(high: 3, low: 3)), members: members, time: 1)
        let disks = (0..<plexes).map { index in
            var disk = SimulatedDisk(number: index, layout: layout)
            disk.format(
                Superblock(record: record, plex: members[index].uuid, sequence: 1, layout: layout, writer: .none))
            return disk
        }
        return World(
            disks: disks,
            oracle: Oracle(cellCount: blocks * Geometry.sectorsPerBlock * Geometry.cellsPerSector))
    }
}
