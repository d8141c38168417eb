package import MirrorFormat

/// Where a plex's blocks lie. Each operation on data passes by here: without remaps that costs one comparison.
extension Mirror {
    mutating func lookForRemaps() { hasRemaps = plexes.contains { !$0.remaps.isEmpty } }

    /// The operation, or the beginning of it that lies in one piece: whoever submits it goes on from there.
    func mapped(_ operation: DiskOperation) -> DiskOperation {
        let index = Int(operation.plex.value)
        guard operation.kind != .flush, operation.kind != .queryAllocation, operation.kind != .findData,
            let remap = plexes[index].remaps.first(from: operation.offset / Limits.blockBytes)
        else { return operation }
        let start = remap.block * Limits.blockBytes
        guard start < operation.offset + operation.length else { return operation }
        var piece = operation
        if start > operation.offset {
            piece.length = start - operation.offset
            return piece
        }
        return inSlot(remap.slot, piece)
    }

    /// One block of it goes to a slot of the spare pool: always durable, for the pool of a disk without room at its end
    /// lies in another file, which a flush does not reach.
    func inSlot(_ slot: Int, _ operation: DiskOperation) -> DiskOperation {
        guard let layout = plexes[Int(operation.plex.value)].attachment?.layout else {
            preconditionFailure("a remap of no disk")
        }
        var piece = operation
        piece.offset = layout.spareOffset(slot: slot)
        piece.length = Limits.blockBytes
        piece.isSparse = false
        switch operation.kind {
        case .write: piece.isDurable = true
        case .zero, .deallocate:
            // The pool keeps its space: it must never meet ENOSPC.
            piece.kind = .zero
            piece.isDurable = true
        case .read, .compare, .checksum, .findData, .flush, .writeMetadata, .queryAllocation: break
        }
        return piece
    }

    /// Whether some block of the range lies elsewhere: what the disk says of holes there is not about it.
    func hasRemap(_ plex: PlexIndex, offset: UInt64, length: UInt64) -> Bool {
        guard hasRemaps, let remap = plexes[Int(plex.value)].remaps.first(from: offset / Limits.blockBytes) else {
            return false
        }
        return remap.block * Limits.blockBytes < offset + length
    }

    /// The blocks of a plex that lie in its spare pool, by data block, ascending.
    package func remaps(of plex: PlexIndex) -> [RemapTable.Remap] { plexes[Int(plex.value)].remaps.remaps }
}
