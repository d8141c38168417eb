internal import BasicContainers
internal import MirrorCore
internal import MirrorFormat
internal import URing

/// From paths to mirrors: open, read the superblocks, group by mirror, ask `assemble`.
struct Opening: ~Copyable {
    var served = UniqueArray<ServedMirror>()
    var refused: [RefusedMirror] = []
    /// What the user should know although it stops nothing.
    var warnings: [String] = []

    struct Options {
        var allowDegraded = false
        var isReadOnly = false
        /// After a split: whose side goes on.
        var keep: PlexUUID?
        /// How long to wait for the locks of a server that was killed.
        var patienceSeconds = 5
    }

    private var spares: [HotSpare] = []

    private struct Candidate {
        var disk: Disk
        var superblock: Superblock
        var pages: FoundPages
        var remaps: RemapTable?
        var superblockCopies: SuperblockCopies
    }

    /// - Throws: `DiskError` if a disk is named twice; whatever else is wrong with one disk leaves the others
    ///   usable and is told in `warnings` and in the verdicts.
    static func open(_ paths: [String], _ options: Options) throws(DiskError) -> Opening {
        var opening = Opening()
        var candidates: [Candidate] = []
        try Disk.checkDistinct(paths)
        do throws(DiskError) {
            for path in paths {
                do throws(DiskError) {
                    let disk = try Disk.open(
                        path, options.isReadOnly ? .readOnly : .readWrite, patienceSeconds: options.patienceSeconds)
                    do throws(DiskError) {
                        if let mark = try opening.mark(disk) {
                            opening.spares.append(HotSpare(disk: disk, mark: mark))
                            continue
                        }
                        let superblock = try disk.superblock()
                        candidates.append(
                            Candidate(
                                disk: disk, superblock: superblock, pages: disk.pages(of: superblock),
                                remaps: disk.remaps(of: superblock),
                                superblockCopies: try disk.superblockCopies()))
                    } catch {
                        disk.shut()
                        throw error
                    }
                } catch {
                    if error.isInUse { throw error }
                    opening.warnings.append(error.description)
                }
            }
        } catch {
            for candidate in candidates { candidate.disk.shut() }
            for spare in opening.spares { spare.disk.shut() }
            throw error
        }
        opening.assembleAll(candidates, options)
        opening.assignSpares(options)
        return opening
    }

    /// Of a disk that carries no superblock.
    private func mark(_ disk: Disk) throws(DiskError) -> SpareMark? {
        guard let mark = try disk.spareMark() else { return nil }
        if let signature = try Signature.foreign(on: disk) {
            throw DiskError(
                "\(disk.path): was a spare of mirror \(mark.name), and holds \(signature) now: not used")
        }
        return mark
    }

    private mutating func assignSpares(_ options: Options) {
        for spare in spares {
            let index = served.indices.first { served[$0].mirror.record.mirror == spare.mark.mirror }
            if let index, !options.isReadOnly {
                served[index].spares.append(spare)
            } else {
                warnings.append(
                    "\(spare.disk.path): is a spare of mirror \(spare.mark.name) (\(spare.mark.mirror)), which is not served here for writing; not used"
                )
                spare.disk.shut()
            }
        }
        spares = []
    }

    private mutating func assembleAll(_ candidates: [Candidate], _ options: Options) {
        var order: [MirrorUUID] = []
        var groups: [MirrorUUID: [Candidate]] = [:]
        for candidate in candidates {
            let mirror = candidate.superblock.record.mirror
            if groups[mirror] == nil { order.append(mirror) }
            groups[mirror, default: []].append(candidate)
        }
        for mirror in order { assembleOne(groups[mirror] ?? [], options) }
    }

    private mutating func assembleOne(_ group: [Candidate], _ options: Options) {
        let found = group.enumerated().map {
            FoundPlex(
                disk: $0.offset, superblock: $0.element.superblock, pages: $0.element.pages,
                remaps: $0.element.remaps, copies: $0.element.superblockCopies)
        }
        var assemblyOptions = AssemblyOptions()
        assemblyOptions.allowDegraded = options.allowDegraded
        assemblyOptions.isReadOnly = options.isReadOnly
        assemblyOptions.keep = options.keep
        switch assemble(found, options: assemblyOptions) {
        case .refused(let refusal):
            refused.append(Self.explain(refusal, group.map(\.disk.path), found))
            for candidate in group { candidate.disk.shut() }
        case .assembled(let assembly):
            if served.indices.contains(where: { served[$0].name == assembly.record.name }) {
                refused.append(
                    RefusedMirror(
                        assembly.record, state: "offline", reason: "another mirror of the same name is served",
                        action: "serve \(group[0].disk.path) with a server of its own"))
                for candidate in group { candidate.disk.shut() }
                return
            }
            start(assembly, group, options)
        }
    }

    private mutating func start(_ assembly: Assembly, _ group: [Candidate], _ options: Options) {
        var disks: [Disk?] = Array(repeating: nil, count: PlexSet.capacity)
        var paths: [String?] = Array(repeating: nil, count: PlexSet.capacity)
        for (position, candidate) in group.enumerated() {
            let index = PlexSet(mask: 0xFF).members.first { assembly.found[$0]?.disk == position }
            guard let index else {
                warnings.append("\(candidate.disk.path): was removed from mirror \(assembly.record.name); not used")
                candidate.disk.shut()
                continue
            }
            paths[Int(index.value)] = candidate.disk.path
            if assembly.participants.contains(index), !options.isReadOnly || assembly.current.contains(index) {
                disks[Int(index.value)] = candidate.disk
            } else {
                let role = assembly.record[index].role
                warnings.append(
                    "\(candidate.disk.path): is plex \(index) of \(assembly.record.name), state \(role): not used until it is joined (plexus join)"
                )
                candidate.disk.shut()
            }
        }
        let events = recentEvents(group, assembly)
        let mirror = Mirror(
            assembly: assembly, writer: systemWriter(), entropy: systemEntropy(), isReadOnly: options.isReadOnly,
            recentEvents: events, scrubLedger: scrubLedger(group, assembly), now: currentInstant())
        do throws(SystemError) {
            var one = try ServedMirror(
                mirror: mirror, disks: disks, events: events, limits: Limits()
            )
            one.paths = paths
            served.append(one)
        } catch {
            refused.append(
                RefusedMirror(assembly.record, state: "offline", reason: "\(error)", action: "free some memory"))
            for candidate in group { candidate.disk.shut() }
        }
    }

    /// The union over the plexes: one that was away has missed some.
    private func recentEvents(_ group: [Candidate], _ assembly: Assembly) -> [EventRecord] {
        var bySequence: [UInt64: EventRecord] = [:]
        for plex in assembly.current.members {
            guard let position = assembly.found[plex]?.disk,
                let events = try? group[position].disk.events(of: group[position].superblock)
            else { continue }
            for event in events { bySequence[event.sequence] = event }
        }
        return bySequence.values.sorted { $0.sequence < $1.sequence }
    }

    private func scrubLedger(_ group: [Candidate], _ assembly: Assembly) -> ScrubLedger {
        var ledger = ScrubLedger()
        for plex in assembly.current.members {
            guard let position = assembly.found[plex]?.disk else { continue }
            ledger.merge(group[position].disk.scrubLedger(of: group[position].superblock))
        }
        return ledger
    }

    /// - Parameters:
    ///   - paths: of the disks that `FoundPlex.disk` numbers.
    static func explain(_ refusal: Refusal, _ paths: [String], _ found: [FoundPlex]) -> RefusedMirror {
        var result = RefusedMirror(found[0].superblock.record, state: "offline", reason: "", action: "")
        switch refusal {
        case .clonedPlex(let uuid, let disks):
            result.reason =
                "\(disks.map { paths[$0] }.joined(separator: " and ")) carry the same plex \(uuid): one is a clone of the other"
            result.action = "name only the original"
        case .split(let sides, let related):
            result.state = "split"
            result.split = SplitReport(sides, paths, found)
            result.reason =
                (related ? "split brain: each went on without the other: " : "no common history: ")
                + (result.split?.text ?? "")
            result.action =
                "nothing was written; look at each side with plexus serve DISK --read-only, then choose: plexus resolve \(result.name) --keep DISK"
        case .incomplete(let missing, let present, let record):
            let names = missing.members.map { "plex \($0) (\(record[$0].uuid))" }.joined(separator: ", ")
            result.reason =
                "\(names) is absent and may hold newer data; present: \(present.members.map { "plex \($0)" }.joined(separator: ", "))"
            result.action = "name its disk too; or start without it: --degraded, or only look: --read-only"
        case .noCurrentPlex(let needed, let record):
            result.state = "failed"
            let names = needed.members.map { "plex \($0) (\(record[$0].uuid))" }.joined(separator: ", ")
            result.reason =
                "none of the disks named (\(paths.joined(separator: ", "))) holds every acknowledged write; needed: \(names)"
            result.action = "name the disk of a plex that was in sync"
            if let lost = found.first(where: \.lacksRemaps) {
                result.reason =
                    "\(paths[lost.disk]): its remap table can't be read, so nobody knows which of its blocks lie in the spare pool"
                result.action =
                    "name the disk of another plex that was in sync; all other blocks of this one lie in their own places, from its first byte on: a plain disk to whatever reads it"
            }
        case .mustStayReadOnly(let disks):
            result.reason =
                "\(disks.map { paths[$0] }.joined(separator: ", ")) uses a feature that this version can only read"
            result.action = "use --read-only, or a newer Plexus"
        }
        return result
    }
}
