internal import Bytes
internal import MirrorFormat

/// `break`: a plex leaves with a superblock of its own, or with none.
///
/// A copy must hold every acknowledged write and no half of any other: what lies in the spare pool is put back, new writes
/// wait, those in flight end, the plex is flushed, and from then on it gets nothing more.
extension Mirror {
    private func isUsable(name: String) -> Bool {
        !name.isEmpty && name.utf8.count <= Superblock.maximumNameBytes && !name.utf8.contains(0)
    }

    mutating func beginBreak(_ plex: PlexIndex, name: String) {
        if let objection = objection(toLosing: plex) {
            answer(.refused(objection))
            return
        }
        guard isUsable(name: name) else {
            answer(
                .refused("\(name): a mirror's name has 1 to \(Superblock.maximumNameBytes) bytes, none of them zero"))
            return
        }
        guard working.contains(plex), !hasUnequal else {
            let state = !hasUnequal ? "is not in sync" : "may differ until the running resync is finished"
            answer(
                .refused(
                    "plex \(plex) \(state), so it is no usable copy; wait for it (plexus wait \(record.name)), or forget it with --nokeep"
                ))
            return
        }
        if let bad = record.badRanges(of: plex).first {
            answer(
                .refused(
                    "plex \(plex) does not hold everything (at \(bad.offset) it lacks \(bad.length) bytes), so it is no usable copy; write there, or forget it with --nokeep"
                ))
            return
        }
        running?.step = .puttingBack
        beginPuttingBack(plex)
    }

    /// What could be put back is. The rest is told, or is too much.
    mutating func breakPutBack(_ plex: PlexIndex, mustBeWhole: Bool) {
        let left = remaps(of: plex)
        if working.contains(plex), mustBeWhole, let first = left.first {
            answer(
                .refused(
                    "\(left.count) blocks of plex \(plex) lie in its spare pool and can't be put back, the first at \(first.block * Limits.blockBytes): natively it would not be read right there; without --materialise it is broken off nevertheless"
                ))
            return
        }
        running?.step = .draining
        holdsMutations = mutant != .breakWithoutDrain
        breakDrained()
    }

    mutating func breakDrained() {
        guard case .breakOff(let plex, _, _) = running?.command, case .draining = running?.step else { return }
        guard mutationsInFlight == 0 || mutant == .breakWithoutDrain else { return }
        guard working.contains(plex), working.count > 1 else {
            // Expelled while the writes ended: its disk may be closed already. The step is over before writes
            // go on, for one of them may end at once and come by here again.
            running?.step = .ending
            letMutationsGo()
            answer(.failed("plex \(plex) failed meanwhile; it is not a consistent copy and was not broken off"))
            return
        }
        running?.step = .flushing
        startInternalFlush(.breakOff, PlexSet(plex), plex: plex)
    }

    mutating func breakFlushed(_ plex: PlexIndex, succeeded: Bool) {
        guard case .breakOff(let wanted, let name, _) = running?.command, wanted == plex, case .flushing = running?.step
        else { return }
        running?.step = .ending
        if working.contains(plex), let objection = objectionToCopy(plex) {
            letMutationsGo()
            answer(.failed("plex \(plex) \(objection) meanwhile, and was not broken off"))
            return
        }
        guard succeeded, working.contains(plex), working.count > 1 else {
            letMutationsGo()
            answer(.failed("plex \(plex) could not be flushed; it is not a consistent copy and was not broken off"))
            return
        }
        prepareDetached(plex, name: name)
        working.remove(plex)
        countMissed(plex, wasWorking: true, wasJoining: false)
        repin()
        record[plex].role = .brokenOff
        record[plex].replaces = nil
        forgetReplacing(plex)
        record[plex].cause = FailureCause(operation: .user, time: now.unixNanoseconds)
        commit.beginGeneration(.brokenOff)
        awaitRecord()
        letMutationsGo()
    }

    /// What the last writes may have brought about.
    private func objectionToCopy(_ plex: PlexIndex) -> String? {
        if !record.badRanges(of: plex).isEmpty { return "could not take a write" }
        if hasUnequal { return "may have begun to differ from the others" }
        if let range = onlyPossibleHolding(of: plex) {
            return "came to be the only one with \(range.length) bytes at \(range.offset)"
        }
        if objection(toLosing: plex) != nil { return "came to be the last good one" }
        if case .breakOff(_, _, true) = running?.command, !remaps(of: plex).isEmpty {
            return "had to put blocks into its spare pool"
        }
        return nil
    }

    private mutating func letMutationsGo() {
        holdsMutations = false
        releaseHeld()
    }

    /// The identity that the plex gets: a mirror of its own with one plex, that remembers where it comes from.
    private mutating func prepareDetached(_ plex: PlexIndex, name: String) {
        var own = Record(
            mirror: MirrorUUID(entropy.nextUUID()), name: name, dataBytes: record.dataBytes,
            regionBytes: record.regionBytes, generation: Generation(entropy.nextUUID()),
            members: [Member(uuid: record[plex].uuid, role: .inSync)], time: now.unixNanoseconds)
        own.members[0].isRemapped = !remaps(of: plex).isEmpty
        let left = remaps(of: plex)
        running?.remaps = left
        record[plex].isRemapped = !left.isEmpty
        own.parent = Record.Ancestry(mirror: record.mirror, generation: record.generation, epoch: record.epoch)
        running?.detached = own
    }

    /// All four copies are overwritten: none may remain that calls this disk a member.
    mutating func beginDetach(_ plex: PlexIndex) {
        let index = Int(plex.value)
        guard plexes[index].attachment != nil, !plexes[index].isReleasing else {
            finishDetach(plex)
            return
        }
        running?.step = .detaching
        if running?.detached != nil {
            // One pair after the other: power may fail in between, and one pair has to be whole.
            plexes[index].attachment?.sequence += 1
            let older = Superblock.copies(ofSequence: plexes[index].attachment?.sequence ?? 0)
            writeDetached(plex, copies: [older.0, older.1])
            running?.detachNext = (0..<Layout.superblockCopies).filter { $0 != older.0 && $0 != older.1 }
        } else {
            // The older pair goes first, the newest only when that is gone: if the wiping is cut short, what
            // remains is the newest, never an older state in which the plex was the only one in sync and
            // would start by itself (R4).
            let newest = Superblock.copies(ofSequence: plexes[index].attachment?.sequence ?? 0)
            writeDetached(plex, copies: (0..<Layout.superblockCopies).filter { $0 != newest.0 && $0 != newest.1 })
            running?.detachNext = [newest.0, newest.1]
        }
    }

    private mutating func writeDetached(_ plex: PlexIndex, copies: [Int]) {
        running?.detachOutstanding = copies.count
        let diskBytes = plexes[Int(plex.value)].attachment?.layout.diskBytes ?? 0
        for copy in copies {
            submitMetadata(
                owner: .detach, plex: plex, slot: copy, generation: 0,
                offset: Layout.superblockOffset(copy: copy, diskBytes: diskBytes))
        }
    }

    func encodeDetached(_ operation: DiskOperation, into bytes: inout MutableRawSpan) {
        guard let attachment = plexes[Int(operation.plex.value)].attachment, let own = running?.detached else {
            // `break --nokeep`: nothing may remain.
            return bytes.clear()
        }
        let superblock = Superblock(
            record: own, plex: attachment.uuid, sequence: attachment.sequence, layout: attachment.layout,
            writer: writer)
        superblock.encode(copy: operation.tag.slot, into: &bytes)
    }

    mutating func detachCompleted(_ tag: DiskTag, _ result: DiskResult) {
        if case .failed = result { running?.detachFailed = true }
        running?.detachOutstanding -= 1
        guard running?.detachOutstanding == 0 else { return }
        if let next = running?.detachNext, !next.isEmpty, running?.detachFailed == false {
            running?.detachNext = []
            if running?.detached != nil { plexes[Int(tag.plex.value)].attachment?.sequence += 1 }
            writeDetached(tag.plex, copies: next)
        } else {
            finishDetach(tag.plex)
        }
    }

    /// What lies in the spare pool of a copy, for whoever mounts it without this program.
    private func remapWarning(_ remaps: [RemapTable.Remap]) -> String {
        guard !remaps.isEmpty else { return "" }
        let places = remaps.prefix(16).map { "\($0.block * Limits.blockBytes)" }.joined(separator: ", ")
        let more = remaps.count > 16 ? " and \(remaps.count - 16) more (plexus examine lists them)" : ""
        return
            "; serve it with Plexus, do not mount it as it is: blocks of \(Limits.blockBytes) bytes at \(places)\(more) lie in its spare pool"
    }

    private mutating func finishDetach(_ plex: PlexIndex) {
        guard let command = running?.command, let failed = running?.detachFailed else { return }
        release(plex)
        switch command {
        case .breakOff(_, let name, _):
            let warning = remapWarning(running?.remaps ?? [])
            log(.brokenOff, plex: plex, text: failed ? "not writable any more" : "is now the disk \(name)")
            if failed {
                answer(
                    .failed(
                        "plex \(plex) is out of mirror \(record.name), but its own superblock could not be written; its data is complete"
                    ))
            } else {
                answer(.done("plex \(plex) is broken off: a consistent copy under the name \(name)\(warning)"))
            }
        case .remove:
            if failed {
                answer(.done("plex \(plex) is forgotten; its metadata could not be wiped"))
            } else {
                answer(.done("plex \(plex) is forgotten"))
            }
        case .takeOffline, .join, .resync, .scrub, .clear, .writeMostly, .reactivate, .stop: break
        }
    }
}
