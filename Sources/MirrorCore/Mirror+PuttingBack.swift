internal import MirrorFormat

/// Blocks out of the spare pool, back into their own places: before a plex is broken off, for natively it would not be
/// read right there, and when its owner says that the disk is good again.
///
/// Each is a repair: locked, its region's intent bit set, read from whoever has it, written where it belongs, durably, and
/// read back. Then the table forgets it. If its place takes it no more, it stays where it is.
struct PuttingBack: BitwiseCopyable {
    var plex: PlexIndex
    /// Byte offset: everything below was tried.
    var position: UInt64 = 0
    var done = 0
}

extension Mirror {
    /// A command waits for the end: `commandAfterPuttingBack`.
    mutating func beginPuttingBack(_ plex: PlexIndex) {
        repairs.puttingBack = PuttingBack(plex: plex)
        putNextBack()
    }

    mutating func putNextBack() {
        guard let putting = repairs.puttingBack else { return }
        let next = plexes[Int(putting.plex.value)].remaps.first(from: putting.position / Limits.blockBytes)
        guard let remap = next, working.contains(putting.plex), phase == .running, !isStopWaiting else {
            repairs.puttingBack = nil
            commandAfterPuttingBack(putting)
            return
        }
        let start = remap.block * Limits.blockBytes
        repairs.puttingBack?.position = start + Limits.blockBytes
        repairs.push(
            Repairs.Suspect(
                plex: putting.plex, start: start, end: start + Limits.blockBytes, isBad: true, isPutBack: true))
        pumpRepairs()
    }

    /// It is written in its own place, or could not be.
    mutating func puttingBackWritten(_ index: Int, _ plex: PlexIndex) {
        guard working.contains(plex), slots[index].failed.isEmpty else {
            let failure = plexes[Int(plex.value)].lastFailure
            if working.contains(plex), slots[index].failed.contains(plex) { judgePuttingBack(index, plex, failure) }
            return endRepair(index)
        }
        withdraw(index, plex)
    }

    private mutating func judgePuttingBack(_ index: Int, _ plex: PlexIndex, _ failure: DiskFailure) {
        let offset = slots[index].request.offset
        switch failure.kind {
        case .media, .transient, .unsupported: break
        case .differs where failure.errorNumber != 0: break
        case .differs: expel(plex, operation: .verification, failure, offset: offset)
        case .lost: flushFailed(plex, failure)
        case .gone, .noSpace, .late: expel(plex, operation: .write, failure, offset: offset)
        }
    }

    /// The table says so, or can't be written.
    mutating func withdrawn(_ index: Int) {
        let plex = slots[index].windowTargets.first
        let block = slots[index].request.offset / Limits.blockBytes
        if let plex, working.contains(plex) {
            if plexes[Int(plex.value)].remaps[block] == nil {
                repairs.puttingBack?.done += 1
            } else {
                // Its place has it, and so has the slot, which counts; a table that can't be written is no good.
                expel(
                    plex, operation: .metadata, plexes[Int(plex.value)].lastFailure, offset: block * Limits.blockBytes)
            }
        }
        endRepair(index)
    }
}
