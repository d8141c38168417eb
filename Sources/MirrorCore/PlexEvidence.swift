package import MirrorFormat

/// What a disk that comes back shows of the state in which it left, and of what was done to it since. With it the
/// mirror decides whether it is enough to copy what was missed (see `Mirror.objection(toDelta:)`).
package struct PlexEvidence: Sendable {
    /// Of the disk's own record.
    package var epoch: UInt64
    /// The highest page sequence on the disk.
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
        var changes = pages.regions(sheet: 0, nil, isClean: own.isClean)
        if !record.descends(from: own.generation) {
            guard let alone = Self.changesAlone(own, pages, since: record) else {
                self = .everything("nobody counted what it changed while it went on alone")
                return
            }
            changes.formUnion(alone)
        }
        let listsItself = own.index(of: superblock.plex).map { own[$0].role == .inSync } ?? false
        self = .evidence(
            PlexEvidence(
                epoch: own.epoch, sequence: pages.sequence, changes: changes, listsItselfInSync: listsItself))
    }

    /// A copy that was broken off begins with epoch 1, clean; the first write changes both before any data.
    private static func isUnused(_ own: Record) -> Bool { own.epoch == 1 && own.isClean }

    /// After a split: what this side wrote since the two parted. Its map of a plex that left it later counts from a
    /// later moment and would say too little: only those count that begin in the last era that both sides know.
    private static func changesAlone(_ own: Record, _ pages: FoundPages, since record: Record) -> RegionSet? {
        guard let ancestor = own.history.first(where: { record.descends(from: $0.generation) }) else { return nil }
        var changes: RegionSet?
        for plex in record.inSync.members {
            guard let index = own.index(of: record[plex].uuid), let map = own[index].missedWriteMap,
                map.epoch <= ancestor.epoch
            else { continue }
            let regions = pages.regions(sheet: Int(map.slot) + 1, map, isClean: false)
            if changes == nil { changes = regions } else { changes?.formUnion(regions) }
        }
        return changes
    }
}
