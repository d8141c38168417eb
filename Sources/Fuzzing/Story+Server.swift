internal import MirrorCore
internal import MirrorFormat

/// What one server knows while it runs.
struct StoryServer {
    var record: Record
    var working: PlexSet
    /// Rebuilt, and on record as such.
    var recovering = PlexSet.empty
    /// To be rebuilt once their own superblock says so.
    var joining = PlexSet.empty

    var newcomers: PlexSet { recovering.union(joining) }
    var isOut: PlexSet { PlexSet(mask: .max).subtracting(working).subtracting(newcomers) }
}

extension Story {
    /// One server from its start until it is stopped or killed.
    mutating func serve(_ assembly: Assembly, _ input: inout Input) {
        var server = StoryServer(record: assembly.record, working: assembly.current)
        for plex in assembly.participants.members {
            goOn(Int(plex.value), from: assembly.found[plex]?.superblock.sequence ?? 0, &input)
        }
        server.joining = assembly.behind.union(assembly.recovering)
        for plex in assembly.missing.members { server.record[plex].role = .stale }
        for plex in assembly.behind.members { server.record[plex].role = .recovering }
        for plex in server.record.plexes(in: .recovering).subtracting(server.joining).members {
            server.record[plex].role = .stale
        }
        let hasShrunk = !assembly.missing.union(assembly.behind).isEmpty
        if hasShrunk { begin(&server, .startedDegraded, &input) }
        if hasShrunk || !server.joining.isEmpty {
            guard commit(&server, &input) else { return }
        }
        for _ in 0..<input.within(1...6) {
            guard act(&server, &input) else { return }
            if !input.oneIn(4) { acknowledgeWrites(server) }
        }
        if input.oneIn(2) {
            server.record.isClean = true
            _ = commit(&server, &input)
        }
    }

    /// The last server may have been cut off in the middle of the next update: its number is not used again. It
    /// would be by the third server if each took the same next number, so each leaves out some, always an even
    /// number, for the next update has to go to the other pair of copies.
    private mutating func goOn(_ disk: Int, from sequence: UInt64, _ input: inout Input) {
        disks[disk].sequence = sequence + 2 * input.take(3)
    }

    /// Clients hear "written" for something that only those plexes have that take part.
    private mutating func acknowledgeWrites(_ server: StoryServer) {
        for disk in disks.indices where server.isOut.contains(PlexIndex(disk)) { disks[disk].lacks = true }
    }

    /// - Returns: false if the server is gone.
    private mutating func act(_ server: inout StoryServer, _ input: inout Input) -> Bool {
        switch input.below(10) {
        case 0: return leave(&server, .failed, .expelled, &input)
        case 1: return leave(&server, .offline, .takenOffline, &input)
        case 2: return breakOff(&server, &input)
        case 3: return remove(&server, &input)
        case 4, 5: return join(&server, &input)
        case 6, 7: return promote(&server, &input)
        case 8:
            server.record.pinned = input.oneIn(2) ? server.working.first : nil
            server.record.members[input.below(disks.count)].readErrors += 1
        default: server.record.isClean.toggle()
        }
        return commit(&server, &input)
    }

    mutating func begin(_ server: inout StoryServer, _ reason: GenerationReason, _ input: inout Input) {
        generations += 1
        server.record.begin(
            Generation(input.uuid()), because: reason, inSync: server.record.inSync, time: UInt64(serial))
    }

    private mutating func leave(
        _ server: inout StoryServer, _ role: Role, _ reason: GenerationReason, _ input: inout Input
    ) -> Bool {
        guard server.working.count > 1 else { return true }
        let plex = input.pick(server.working.members)
        server.working.remove(plex)
        server.record[plex].role = role
        begin(&server, reason, &input)
        return commit(&server, &input)
    }

    /// The plex becomes a mirror of its own: one pair of copies after the other.
    private mutating func breakOff(_ server: inout StoryServer, _ input: inout Input) -> Bool {
        let before = server.working
        guard leave(&server, .brokenOff, .brokenOff, &input) else { return false }
        guard let plex = before.subtracting(server.working).first, server.record[plex].role == .brokenOff
        else { return true }
        let disk = Int(plex.value)
        var own = Record(
            mirror: MirrorUUID(input.uuid()), name: "copy", dataBytes: server.record.dataBytes,
            regionBytes: server.record.regionBytes, generation: Generation(input.uuid()),
            members: [Member(uuid: disks[disk].plex, role: .inSync)], time: 1)
        own.parent = Record.Ancestry(
            mirror: mirror, generation: server.record.generation, epoch: server.record.epoch)
        for _ in 0..<2 {
            write(own, disk: disk, sequence: disks[disk].sequence + 1)
            if input.oneIn(16) { return false }
        }
        return true
    }

    /// The plex is forgotten and its superblocks wiped, the older pair first.
    private mutating func remove(_ server: inout StoryServer, _ input: inout Input) -> Bool {
        let before = server.working
        guard leave(&server, .failed, .removed, &input) else { return false }
        guard let plex = before.subtracting(server.working).first else { return true }
        server.record[plex] = .absent
        guard commit(&server, &input) else { return false }
        let disk = Int(plex.value)
        let newest = Superblock.copies(ofSequence: disks[disk].sequence)
        let older = Superblock.copies(ofSequence: disks[disk].sequence + 1)
        for copy in [older.0, older.1, newest.0, newest.1] {
            if input.oneIn(16) { return false }
            disks[disk].copies[copy] = .blank
        }
        return true
    }

    /// A plex that is out comes back: under its own name, or as a new one into a free place.
    private mutating func join(_ server: inout StoryServer, _ input: inout Input) -> Bool {
        let out = server.isOut.members.filter { Int($0.value) < disks.count }
        guard !out.isEmpty else { return true }
        let plex = input.pick(out)
        let disk = Int(plex.value)
        if let newest = disks[disk].newest, server.record.index(of: newest.superblock.plex) == plex {
            goOn(disk, from: newest.superblock.sequence, &input)
        } else {
            guard server.record[plex].role == .absent else { return true }
            disks[disk].plex = PlexUUID(input.uuid())
            disks[disk].sequence = 0
        }
        disks[disk].lacks = true
        server.record[plex] = Member(uuid: disks[disk].plex, role: .recovering)
        server.joining.insert(plex)
        return commit(&server, &input)
    }

    private mutating func promote(_ server: inout StoryServer, _ input: inout Input) -> Bool {
        guard !server.recovering.isEmpty else { return true }
        let plex = input.pick(server.recovering.members)
        disks[Int(plex.value)].lacks = false
        server.record[plex].role = .inSync
        return commit(&server, &input)
    }
}
