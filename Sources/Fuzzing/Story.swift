internal import MirrorCore
internal import MirrorFormat

/// The life of one mirror, as far as its superblocks tell it: one server at a time, plexes that are expelled, taken
/// offline, broken off, removed, joined and promoted, disks that are absent, power that fails in the middle of an update.
///
/// Written from the rules and not from the engine, so that the two can be held against each other. The history is
/// linear: every start has at least one of the plexes that know the latest record. So there is one truth, and `serial`
/// numbers it.
struct Story {
    let mirror: MirrorUUID
    private let mutant: Mutant
    var disks: [StoryDisk] = []
    /// The disks as they were when earlier servers ended.
    var past: [[StoryDisk]] = []
    /// Of the last record that anyone began to write.
    var serial = 1
    var generations = 1

    init(_ input: inout Input, _ mutant: Mutant) {
        self.mutant = mutant
        mirror = MirrorUUID(input.uuid())
        let dataBytes = Layout.minimumDataBytes
        let count = input.within(2...3)
        var layouts: [Layout] = []
        for _ in 0..<count {
            // Often of one size: only then can a copy that strays to another disk look as if it belonged there.
            let diskBytes = (8 << 20) + UInt64(input.oneIn(4) ? input.below(1 << 15) : 0)
            let layout = try? Layout(diskBytes: diskBytes, dataBytes: dataBytes, regionBytes: nil, spareBytes: nil)
            guard let layout else { preconditionFailure("8 MiB hold the private area of 1 MiB") }
            layouts.append(layout)
        }
        let uuids = (0..<count).map { _ in PlexUUID(input.uuid()) }
        let record = Record(
            mirror: mirror, name: "data", dataBytes: dataBytes, regionBytes: layouts[0].regionBytes,
            generation: Generation(input.uuid()), members: uuids.map { Member(uuid: $0, role: .inSync) }, time: 1)
        for (uuid, layout) in zip(uuids, layouts) { disks.append(StoryDisk(plex: uuid, layout: layout)) }
        for index in disks.indices {
            for sequence in UInt64(1)...2 { write(record, disk: index, sequence: sequence) }
        }
    }

    /// One whole update, as `plexus create` and `break` write them.
    mutating func write(_ record: Record, disk: Int, sequence: UInt64) {
        let copies = Superblock.copies(ofSequence: sequence)
        disks[disk].sequence = sequence
        for copy in [copies.0, copies.1] {
            disks[disk].write(superblock(record, disk: disk), serial: serial, copy: copy)
        }
    }

    func superblock(_ record: Record, disk: Int) -> Superblock {
        Superblock(
            record: record, plex: disks[disk].plex, sequence: disks[disk].sequence, layout: disks[disk].layout,
            writer: .none)
    }

    /// Some servers, one after the other.
    mutating func live(_ input: inout Input) throws(Finding) {
        for _ in 0..<input.within(1...4) {
            past.append(disks)
            guard try start(&input) else { return }
        }
    }

    /// - Returns: false if there is nothing more to tell.
    private mutating func start(_ input: inout Input) throws(Finding) -> Bool {
        var options = AssemblyOptions()
        options.allowDegraded = true
        options.mutant = mutant
        let all = candidates
        let whole = assemble(all.map(\.found), options: options)
        _ = try Truth(all).check(whole, options)
        guard case .assembled(let everyone) = whole else { return false }
        // Some disks are absent this time, but never all those that know the latest.
        var present = all.filter { candidate in
            everyone.current.contains(PlexIndex(candidate.found.disk)) || !input.oneIn(3)
        }
        if everyone.current.count > 1, input.oneIn(3) {
            let absent = Int(input.pick(everyone.current.members).value)
            present.removeAll { $0.found.disk == absent }
        }
        let verdict = assemble(present.map(\.found), options: options)
        _ = try Truth(present).check(verdict, options)
        guard case .assembled(let assembly) = verdict else { return false }
        serve(assembly, &input)
        return true
    }

    /// The disks that say that they belong to this mirror.
    var candidates: [Candidate] {
        disks.indices.compactMap { disk in
            guard let newest = disks[disk].newest, newest.superblock.record.mirror == mirror else { return nil }
            return Candidate(
                found: FoundPlex(disk: disk, superblock: newest.superblock), serial: newest.serial,
                lacks: disks[disk].lacks)
        }
    }
}

/// A disk as it appears at a start, and what is known of it beyond what it says.
struct Candidate {
    var found: FoundPlex
    var serial: Int
    var lacks: Bool
}

/// What a verdict must be, from the true order of all records that were ever written.
struct Truth {
    let candidates: [Candidate]
    let latest: Candidate
    /// In sync by the latest record, and holding it.
    private(set) var holders = PlexSet.empty
    /// In sync by the latest record, with an older one of their own.
    private(set) var behind = PlexSet.empty

    /// - Parameter candidates: at least one.
    init(_ candidates: [Candidate]) {
        guard let latest = candidates.max(by: { $0.serial < $1.serial }) else { preconditionFailure("no candidates") }
        self.candidates = candidates
        self.latest = latest
        for candidate in candidates {
            guard let index = record.index(of: candidate.found.superblock.plex), record[index].role == .inSync
            else { continue }
            if candidate.serial == latest.serial { holders.insert(index) } else { behind.insert(index) }
        }
    }

    var record: Record { latest.found.superblock.record }
    private var missing: PlexSet { record.inSync.subtracting(holders).subtracting(behind) }

    /// - Returns: a word for the verdict.
    func check(_ verdict: Verdict, _ options: AssemblyOptions) throws(Finding) -> String {
        switch verdict {
        case .assembled(let assembly):
            try check(assembly)
            let isWhole = missing.isEmpty || options.allowDegraded || options.isReadOnly
            try require(isWhole, "a start without \(missing.members) that nobody asked for")
            return missing.isEmpty ? "assembled" : "degraded"
        case .refused(let refusal):
            try check(refusal, options)
            return refusal.word
        }
    }

    private func check(_ assembly: Assembly) throws(Finding) {
        try require(assembly.record == record, "a record leads that is not the latest")
        try require(
            assembly.current == holders, "current are \(assembly.current.members), and should be \(holders.members)")
        try require(
            assembly.behind == behind && assembly.missing == missing,
            "behind are \(assembly.behind.members), missing \(assembly.missing.members)")
        for (index, found) in assembly.found {
            try require(record[index].uuid == found.superblock.plex, "plex \(index) is taken for another")
        }
    }

    private func check(_ refusal: Refusal, _ options: AssemblyOptions) throws(Finding) {
        switch refusal {
        case .clonedPlex:
            let plexes = Set(candidates.map(\.found.superblock.plex))
            try require(plexes.count < candidates.count, "a clone is seen where there is none")
        case .split:
            // The history reaches back only so far: whoever was away longer looks like a stranger.
            let hasStranger = candidates.contains { !record.descends(from: $0.found.superblock.record) }
            try require(hasStranger, "a split is seen in a history without one: \(refusal)")
        case .incomplete:
            let isAsked = options.allowDegraded || options.isReadOnly
            try require(!missing.isEmpty && !isAsked, "nothing is missing, or it was allowed to be")
        case .noCurrentPlex: try require(holders.isEmpty, "current plexes \(holders.members) are not seen")
        case .mustStayReadOnly: throw Finding("a feature is imagined")
        }
    }
}

extension Refusal {
    var word: String {
        switch self {
        case .clonedPlex: "cloned"
        case .split: "split"
        case .incomplete: "incomplete"
        case .noCurrentPlex: "no current"
        case .mustStayReadOnly: "read-only"
        }
    }
}
