package import MirrorFormat

/// A superblock and the number of the disk that it was read from.
package struct FoundPlex: Sendable {
    package var disk: Int
    package var superblock: Superblock
    /// The verdict does not depend on them, but how much is copied does. Nil: not read.
    package var pages: FoundPages?
    /// Nil: not read, or its superblock says that there is none.
    package var remaps: RemapTable?
    package var copies: SuperblockCopies

    package init(
        disk: Int, superblock: Superblock, pages: FoundPages? = nil, remaps: RemapTable? = nil,
        copies: SuperblockCopies = SuperblockCopies()
    ) {
        self.disk = disk
        self.superblock = superblock
        self.pages = pages
        self.remaps = remaps
        self.copies = copies
    }

    var record: Record { superblock.record }

    /// Nobody knows which blocks of its data lie elsewhere.
    package var lacksRemaps: Bool { superblock.isRemapped && remaps?.isDamaged ?? true }
}

/// A mirror that can be started, and who takes part.
package struct Assembly: Sendable {
    /// The freshest record found.
    package var record: Record
    /// Every plex found that the record knows, by index.
    package var found: [PlexIndex: FoundPlex]
    /// In sync, and holding exactly the freshest record.
    package var current: PlexSet
    /// Listed in sync by the freshest record, but their own superblock is older, or their remap table can't be read: they
    /// may lack something, and are rebuilt (R4).
    package var behind: PlexSet
    /// Present and in the middle of a rebuild.
    package var recovering: PlexSet
    /// Was absent when the mirror was started the last time, and is here again: gets what it missed.
    package var returning: PlexSet
    /// Went on without the side that was chosen to be kept: what it wrote alone is overwritten.
    package var losers: PlexSet
    /// Listed in sync and not found. Not empty only if that was allowed.
    package var missing: PlexSet
}

extension Assembly {
    /// Regions in which current plexes may differ: the union of their intent bitmaps.
    package var dirtyRegions: Int {
        var union: RegionSet?
        for plex in current.members {
            guard let pages = found[plex]?.pages else { continue }
            let regions = pages.regions(sheet: 0, nil, isClean: record.isClean)
            if union == nil { union = regions } else { union?.formUnion(regions) }
        }
        return union?.population ?? 0
    }
}

/// Why a mirror is not started. Disks are the numbers of `FoundPlex.disk`.
package enum Refusal: Sendable, Equatable {
    /// Two disks carry the same plex: one is a clone of the other.
    case clonedPlex(PlexUUID, disks: [Int])
    /// Each side went on without the other. `related`: they share an ancestor.
    case split(sides: [Side], related: Bool)
    /// In-sync plexes are absent; a start without them must be asked for.
    case incomplete(missing: PlexSet, present: PlexSet, record: Record)
    /// None of the plexes found holds every acknowledged write.
    case noCurrentPlex(needed: PlexSet, record: Record)
    /// A feature that this version does not know allows reading only.
    case mustStayReadOnly(disks: [Int])

    package struct Side: Sendable, Equatable {
        package var disks: [Int]
        package var generation: Generation
        package var epoch: UInt64
        package var updatedTime: UInt64
    }
}

package enum Verdict: Sendable {
    case assembled(Assembly)
    case refused(Refusal)
}

package struct AssemblyOptions: Sendable {
    /// Start although in-sync plexes are absent.
    package var allowDegraded = false
    package var isReadOnly = false
    /// After a split: the side of this plex goes on, what the others wrote alone is lost.
    package var keep: PlexUUID?
    package var mutant = Mutant.none
    package init() {}
}

/// The one place that decides what a set of superblocks means (R11): a pure function, the order of `found`
/// does not matter.
///
/// - The freshest record is the one that no other descends from; all others must be its ancestors. If two
///   records descend from neither, the mirror is split.
/// - Only plexes that the freshest record lists in sync *and* that hold exactly that record are current.
///   Whoever is behind, by however little, is rebuilt: absence of proof is not proof (R4).
/// - A start without a listed plex must be asked for: it may hold writes that nobody else has.
///
/// - Parameter found: all superblocks of one mirror.
package func assemble(_ found: [FoundPlex], options: AssemblyOptions = AssemblyOptions()) -> Verdict {
    let plexes = found.sorted { ($0.superblock.plex.bits, $0.disk) < ($1.superblock.plex.bits, $1.disk) }
    if let cloned = clonedPlex(plexes) { return .refused(cloned) }
    let readOnlyDisks = plexes.filter(\.superblock.mustStayReadOnly).map(\.disk)
    if !readOnlyDisks.isEmpty, !options.isReadOnly { return .refused(.mustStayReadOnly(disks: readOnlyDisks)) }
    guard let leader = leader(of: plexes, options) else { preconditionFailure("no plexes") }
    let strangers = strangers(plexes, leader: leader)
    let isChosen = plexes.contains { $0.superblock.plex == options.keep }
    if options.mutant != .lowestIndexLeads, !isChosen, !strangers.isEmpty {
        return .refused(split(plexes, strangers, leader: leader))
    }

    let record = leader.record
    var assembly = Assembly(
        record: record, found: [:], current: .empty, behind: .empty, recovering: .empty, returning: .empty,
        losers: .empty, missing: .empty)
    for plex in plexes {
        // A disk laid out for another mirror of the same name can't take this one's blocks.
        guard let index = record.index(of: plex.superblock.plex), plex.superblock.layout.fits(record),
            plex.record.dataBytes == record.dataBytes, plex.record.regionBytes == record.regionBytes
        else { continue }
        assembly.found[index] = plex
        if strangers.contains(where: { $0.disk == plex.disk }) {
            assembly.losers.insert(index)
            continue
        }
        switch record[index].role {
        case .inSync:
            if isCurrent(plex.record, leader: record, mutant: options.mutant), !plex.lacksRemaps {
                assembly.current.insert(index)
            } else {
                assembly.behind.insert(index)
            }
        case .recovering:
            if options.mutant == .interruptedMeansFinished {
                assembly.current.insert(index)
            } else {
                assembly.recovering.insert(index)
            }
        case .failed where options.mutant == .failedReturnsInSync: assembly.current.insert(index)
        case .stale: assembly.returning.insert(index)
        case .absent, .offline, .failed, .brokenOff: break
        }
    }
    // A loser that is still on record as in sync is out from now on, whether its disk is here or not.
    assembly.missing = record.inSync.subtracting(assembly.current).subtracting(assembly.behind)
        .subtracting(assembly.losers)
    if assembly.current.isEmpty { return .refused(.noCurrentPlex(needed: record.inSync, record: record)) }
    if !assembly.missing.isEmpty, !options.allowDegraded, !options.isReadOnly {
        return .refused(
            .incomplete(missing: assembly.missing, present: assembly.current, record: record))
    }
    return .assembled(assembly)
}

extension Layout {
    func fits(_ record: Record) -> Bool { dataBytes == record.dataBytes && regionBytes == record.regionBytes }
}

private func isCurrent(_ record: Record, leader: Record, mutant: Mutant) -> Bool {
    if mutant == .acceptOneEpochBehind, record.epoch + 1 >= leader.epoch { return true }
    if mutant == .lowestIndexLeads { return true }
    return record.generation == leader.generation && record.epoch == leader.epoch
}

private func clonedPlex(_ plexes: [FoundPlex]) -> Refusal? {
    for (first, second) in zip(plexes, plexes.dropFirst()) where first.superblock.plex == second.superblock.plex {
        let uuid = first.superblock.plex
        return .clonedPlex(uuid, disks: plexes.filter { $0.superblock.plex == uuid }.map(\.disk))
    }
    return nil
}

/// The plex whose record descends from all others; where that is not unique, any: `strangers` tells. With a plex to
/// keep it is the freshest of its side.
private func leader(of plexes: [FoundPlex], _ options: AssemblyOptions) -> FoundPlex? {
    guard var leader = plexes.first else { return nil }
    if options.mutant == .lowestIndexLeads {
        return plexes.min { index(of: $0) < index(of: $1) }
    }
    if let keep = options.keep, let kept = plexes.first(where: { $0.superblock.plex == keep }) { leader = kept }
    // Beyond the reach of the histories only neighbours can be compared, so one round may stop short of the end.
    for _ in plexes {
        guard let next = plexes.first(where: { supersedes($0, leader) }) else { break }
        leader = next
    }
    return leader
}

private func index(of plex: FoundPlex) -> UInt8 { plex.record.index(of: plex.superblock.plex)?.value ?? 255 }

/// Whether one knows all that the other does, and more.
///
/// The history tells, as far as it reaches back. Beyond that: a plex whose own record still lists another as in
/// sync never went on without it, so if the other's record has it out of the set, the other is fresher; unless its
/// epoch is lower: then it is a disk in an earlier state, from a time when the first was out.
private func supersedes(_ plex: FoundPlex, _ other: FoundPlex) -> Bool {
    let record = plex.record
    if record.generation == other.record.generation { return record.epoch > other.record.epoch }
    if record.history.contains(where: { $0.generation == other.record.generation }) {
        return record.descends(from: other.record)
    }
    if other.record.history.contains(where: { $0.generation == record.generation }) { return false }
    return record.epoch >= other.record.epoch && lists(other.record, plex)
        && record.index(of: other.superblock.plex) != nil && !lists(record, other)
}

private func lists(_ record: Record, _ plex: FoundPlex) -> Bool {
    record.index(of: plex.superblock.plex).map { record[$0].role == .inSync } ?? false
}

/// Those whose records are no ancestors of the leader's, nor of its ancestors'.
private func strangers(_ plexes: [FoundPlex], leader: FoundPlex) -> [FoundPlex] {
    var strangers = plexes.filter { isFork($0, leader) || $0.record.generation != leader.record.generation }
    var family = plexes.filter { plex in !strangers.contains { $0.disk == plex.disk } }
    while let found = strangers.first(where: { plex in
        !isFork(plex, leader) && family.contains { supersedes($0, plex) }
    }) {
        strangers.removeAll { $0.disk == found.disk }
        family.append(found)
    }
    return strangers
}

private func split(_ plexes: [FoundPlex], _ strangers: [FoundPlex], leader: FoundPlex) -> Refusal {
    var sides: [Refusal.Side] = []
    for plex in plexes {
        let record = plex.record
        if let index = sides.firstIndex(where: { $0.generation == record.generation }) {
            sides[index].disks.append(plex.disk)
            sides[index].epoch = max(sides[index].epoch, record.epoch)
            sides[index].updatedTime = max(sides[index].updatedTime, record.updatedTime)
        } else {
            sides.append(
                Refusal.Side(
                    disks: [plex.disk], generation: record.generation, epoch: record.epoch,
                    updatedTime: record.updatedTime))
        }
    }
    let known = Set([leader.record.generation] + leader.record.history.map(\.generation))
    let related = strangers.allSatisfy { plex in
        plex.record.history.contains { known.contains($0.generation) } || known.contains(plex.record.generation)
    }
    return .split(sides: sides, related: related)
}

/// Same generation, same epoch, and yet another story: two servers wrote at once, or a disk was rolled back.
private func isFork(_ plex: FoundPlex, _ leader: FoundPlex) -> Bool {
    plex.record.generation == leader.record.generation && plex.record.epoch == leader.record.epoch
        && plex.record != leader.record
}
