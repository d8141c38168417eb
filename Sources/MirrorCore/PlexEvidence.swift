package import MirrorFormat

/// What a disk that comes back shows of the state in which it left, and of what was done to it since. With it the
/// mirror decides whether it is enough to copy what was missed (see `Mirror.objection(toDelta:)`).
package struct PlexEvidence: Sendable {
    /// Of the disk's own record; after a split, of the last that both sides know.
    package var epoch: UInt64
    /// The highest page sequence on the disk; after a split, the last clearing that it had seen by then.
    package var sequence: UInt64
    /// Regions that the disk itself says may have changed on it without this mirror: its own intent bits, and after
    /// a split all that it wrote alone.
    package var changes: RegionSet
    package var listsItselfInSync: Bool

    package init(epoch: UInt64, sequence: UInt64, changes: RegionSet, listsItselfInSync: Bool) {
        self.epoch = epoch
        self.sequence = sequence
        self.changes = changes
        self.listsItselfInSync = listsItselfInSync
    }
}

/// How a disk is made equal to the mirror when it joins.
package enum JoinBasis: Sendable {
    case evidence(PlexEvidence)
    /// Everything is copied, and why.
    case everything(String)

    /// Judges a disk by its superblock and pages.
    ///
    /// - Parameters:
    ///   - superblock: of the disk that comes back; a plex of this mirror, or a copy that was broken off it.
    ///   - pages: nil if they were not read.
    ///   - record: of the mirror that it joins.
    package init(_ superblock: Superblock, _ pages: FoundPages?, joining record: Record) {
        let own = superblock.record
        guard superblock.tracksWrites else {
            self = .everything("it was last used by a version that counted no missed writes")
            return
        }
        let isMember = own.mirror == record.mirror
        guard isMember || own.parent?.mirror == record.mirror else {
            self = .everything("it belonged to another mirror")
            return
        }
        if let index = record.index(of: superblock.plex), record[index].isRemapped, !superblock.isRemapped {
            self = .everything("its superblock is from before its remap table")
            return
        }
        // Before its pages are looked at: those of a copy that was served carry its own name.
        guard isMember || Self.isUnused(own) else {
            self = .everything("it was used as a mirror of its own")
            return
        }
        guard let pages, pages.sequence > 0 else {
            self = .everything("its bitmap can't be read")
            return
        }
        if !isMember, let parent = own.parent {
            // It carries the bitmap of the mirror that it came from, in the state in which it left.
            self = .evidence(
                PlexEvidence(
                    epoch: parent.epoch, sequence: pages.sequence, changes: RegionSet(count: pages.regionCount),
                    listsItselfInSync: true))
            return
        }
        guard let era = pages.generation, own.knows(era) || record.knows(era) else {
            // The newest superblocks are lost, and what they said of a split with them.
            self = .everything("its bitmap was written in a later state than its superblocks show")
            return
        }
        let listsItself = own.index(of: superblock.plex).map { own[$0].role == .inSync } ?? false
        var evidence = PlexEvidence(
            epoch: own.epoch, sequence: pages.sequence, changes: pages.regions(sheet: 0, nil, isClean: own.isClean),
            listsItselfInSync: listsItself)
        if let index = own.index(of: superblock.plex) {
            for range in own.badRanges(of: index) where range.end <= UInt64(evidence.changes.count) * own.regionBytes {
                let last = Int((range.end - 1) / own.regionBytes)
                evidence.changes.insert(Int(range.offset / own.regionBytes)..<last + 1)
            }
        }
        if !record.descends(from: own), !evidence.addWhatWasDoneAlone(own, pages, since: record) {
            self = .everything("nobody counted what it changed while it went on alone")
            return
        }
        self = .evidence(evidence)
    }

    /// A copy that was broken off begins with epoch 1, clean; the first write changes both before any data.
    private static func isUnused(_ own: Record) -> Bool { own.epoch == 1 && own.isClean }
}

extension PlexEvidence {
    /// After a split: what this side wrote since the two parted. Its map of a plex that left it later counts from a
    /// later moment and would say too little: only those count that begin in the last era that both sides know.
    ///
    /// Since then each side counts epochs and sequences on its own, and they can't be compared: what the disk has seen
    /// of the other side's is what it had seen when they parted.
    ///
    /// - Returns: whether anybody counted.
    fileprivate mutating func addWhatWasDoneAlone(_ own: Record, _ pages: FoundPages, since record: Record) -> Bool {
        guard let ancestor = own.history.first(where: { record.knows($0.generation) }) else { return false }
        epoch = ancestor.epoch
        var isCounted = false
        for plex in record.inSync.members {
            guard let index = own.index(of: record[plex].uuid), let map = own[index].missedWriteMap,
                map.epoch <= ancestor.epoch
            else { continue }
            isCounted = true
            sequence = min(sequence, map.lastClear)
            changes.formUnion(pages.regions(sheet: Int(map.slot) + 1, map, isClean: false))
        }
        return isCounted
    }
}
