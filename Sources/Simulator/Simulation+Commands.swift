internal import MirrorCore
internal import MirrorFormat

/// The administrator: breaks plexes off, takes them out, brings them back.
extension Simulation {
    func commandTurn() {
        queue.add(.command, at: now + UInt64(random.below(profile.commandNanoseconds * 2)) * crawl + 1)
        guard isHostile, let server, !server.isStopping, !server.isReadOnly else { return }
        if additions?.chance(60) ?? false { orderResync() }
        orderSparing()
        scrubTurn()
        let plex = PlexIndex(random.below(disks.count))
        switch random.below(8) {
        case 0 where profile.has(.offline):
            count(.offline)
            give(.takeOffline, plex, .takeOffline(plex))
        case 1 where profile.has(.breakOff):
            count(.breakOff)
            breakOff(plex)
        case 2 where profile.has(.remove):
            count(.remove)
            give(.remove, plex, .remove(plex))
        case 3, 4, 5, 6:
            if profile.has(.join) { joinSomeone() }
        case 7 where profile.has(.swappedPaths): joinInAnothersPlace()
        default: break
        }
    }

    private func orderResync() {
        let orders: [ResyncOrder] = [
            .pause, .resume, .resume, .limit(1 << 20), .limit(nil), .verify(true), .verify(true), .verify(false),
        ]
        guard let drawn = additions?.below(orders.count) else { return }
        count(.resyncOrder)
        give(.resync, PlexIndex(0), .resync(orders[drawn]))
    }

    func give(
        _ kind: PendingCommand.Kind, _ plex: PlexIndex, _ command: Command,
        _ change: (inout PendingCommand) -> Void = { _ in }
    ) {
        commandNumber += 1
        var pending = PendingCommand(id: commandNumber, kind: kind, plex: plex, disk: Int(plex.value))
        change(&pending)
        commands.append(pending)
        note("command \(commandNumber): \(kind) plex \(plex)")
        mix(commandNumber)
        handle(.command(CommandID(commandNumber), command))
    }

    func orderStop() {
        guard let server, !server.isStopping else { return }
        server.isStopping = true
        give(.stop, PlexIndex(0), .stop)
    }

    /// Neither a command of ours nor one of the engine's own is under way.
    var isUncommanded: Bool { commands.isEmpty && !(server?.mirror.isCommanded ?? false) }

    func breakOff(_ plex: PlexIndex) {
        // While blocks are put back into their places clients go on writing: the copy is of a later moment.
        let isExact =
            isUncommanded && (server?.mirror.isOpen ?? false) && server?.mirror.remaps(of: plex).isEmpty ?? true
        let awaited = outstanding.filter { [.write, .zeroes, .trim].contains(requests[$0].request.kind) }
        let cut = oracle.clock
        give(.breakOff, plex, .breakOff(plex, name: "copy")) { pending in
            pending.isExact = isExact
            pending.awaited = awaited
            pending.cut = cut
            if awaited.isEmpty { pending.copy = oracle.legal(through: cut) }
        }
    }

    /// When the last write that was under way at a break is answered, the copy's contents are fixed.
    func noteBreakProgress(_ entry: ClientRequest) {
        let index = Int(entry.request.id.value) - 1
        for position in commands.indices where commands[position].kind == .breakOff {
            guard let place = commands[position].awaited.firstIndex(of: index) else { continue }
            commands[position].awaited.remove(at: place)
            if commands[position].awaited.isEmpty {
                commands[position].copy = oracle.legal(through: commands[position].cut)
            }
        }
    }

    /// A disk that is present and not in use is given back to the mirror.
    func joinSomeone() {
        // What the driver reads from a disk holds only while no other command can change it.
        guard let server, isUncommanded else { return }
        let candidates = disks.indices.filter { disks[$0].returnsAt <= now && mayJoin($0, server) }
        guard let disk = random.pick(candidates) else { return }
        join(disk)
    }

    /// The driver never lets a fresher plex, or one of another branch, be overwritten.
    func mayJoin(_ disk: Int, _ server: Server) -> Bool {
        let record = server.mirror.record
        guard let head = disks[disk].head, head.record.mirror == mirrorUUID else { return true }
        return record.descends(from: head.record)
            && (head.record.generation != record.generation || head.record.epoch <= record.epoch)
    }

    /// - Parameter replaced: the plex whose place it is to take; nil: drawn.
    func join(_ disk: Int, replacing replaced: PlexIndex? = nil) {
        guard let server else { return }
        count(.join)
        let plex = PlexIndex(disk)
        // What can't be read must not come to light again behind a new superblock with a lower sequence.
        if disks[disk].head == nil { disks[disk].wipeSuperblocks() }
        let head = disks[disk].head
        var uuid = newPlex()
        let isKnown = head?.record.mirror == mirrorUUID || head?.record.parent?.mirror == mirrorUUID
        var basis = JoinBasis.everything("it is new")
        if let head, isKnown, head.plex == server.mirror.record[plex].uuid, pilot != nil || random.chance(900) {
            uuid = head.plex
            // What a real driver sees from the time of the file's last change.
            basis =
                disks[disk].isScribbled
                ? .everything("it was written to") : JoinBasis(head, disks[disk].pages, joining: server.mirror.record)
        }
        let isFree = server.disks[disk] == nil
        if isFree {
            disks[disk].isGone = false
            disks[disk].truncatedAt = nil
            server.disks[disk] = disk
        }
        var attachment = Attachment(
            uuid: uuid, layout: layout, sequence: head?.sequence ?? 0, basis: basis,
            copies: disks[disk].superblockCopies)
        if let head, uuid == head.plex, head.isRemapped { attachment = attached(head, disk, attachment.basis) }
        let successorOf = replaced ?? drawReplaced(by: plex, server)
        give(.join, plex, .join(plex, attachment, replacing: successorOf)) { $0.isExact = isFree }
    }

    private func attached(_ head: Superblock, _ disk: Int, _ basis: JoinBasis) -> Attachment {
        Attachment(head, basis: basis, remaps: disks[disk].spares.table, copies: disks[disk].superblockCopies)
    }

    /// A disk in a free place may be there to replace another one.
    private func drawReplaced(by plex: PlexIndex, _ server: Server) -> PlexIndex? {
        let record = server.mirror.record
        guard isHostile, record[plex].role == .absent, additions?.chance(500) ?? false else { return nil }
        let others = Array(record.configured.members)
        guard !others.isEmpty, let drawn = additions?.below(others.count) else { return nil }
        count(.replace)
        return others[drawn]
    }

    /// Two disks' paths were swapped, or a hand slipped: a disk is given in another's place.
    private func joinInAnothersPlace() {
        guard let server, isUncommanded else { return }
        let free = disks.indices.filter { server.disks[$0] == nil && disks[$0].returnsAt <= now }
        let record = server.mirror.record
        let strays = free.filter { disk in
            disks[disk].head.map { $0.record.mirror == mirrorUUID && record.index(of: $0.plex) == PlexIndex(disk) }
                ?? false
        }
        guard let stray = random.pick(strays), let place = random.pick(free.filter { $0 != stray }),
            let head = disks[stray].head
        else { return }
        count(.swappedPaths)
        server.disks[place] = stray
        let basis = JoinBasis(head, disks[stray].pages, joining: record)
        let attachment = attached(head, stray, basis)
        give(.join, PlexIndex(place), .join(PlexIndex(place), attachment)) { pending in
            pending.disk = stray
            pending.isExact = true
        }
    }

    // MARK: answers

    func answered(_ id: UInt64, _ answer: Answer) {
        if CommandID(id) == .own { return note("answer to its own order: \(answer)") }
        guard let server, let position = commands.firstIndex(where: { $0.id == id }) else {
            return fail("R16", "command \(id) is answered twice")
        }
        let command = commands.remove(at: position)
        note("answer \(id): \(answer)")
        let isDone: Bool
        let isRefused: Bool
        switch answer {
        case .done: (isDone, isRefused) = (true, false)
        case .refused: (isDone, isRefused) = (false, true)
        case .failed: (isDone, isRefused) = (false, false)
        }
        mix(isDone ? 3 : isRefused ? 5 : 7)
        switch command.kind {
        case .join:
            if isRefused, command.isExact { server.disks[Int(command.plex.value)] = nil }
            if !isRefused { checkJoin(command) }
        case .breakOff:
            if isDone { checkCopy(command) }
        case .stop: stopAnswer = isDone
        case .remove, .takeOffline, .resync, .scrub, .other: break
        }
    }

    /// A plex goes by the engine's own order only when the one that replaces it is in sync and on record as such.
    func checkReplaced(_ server: Server) {
        guard additions != nil else { return }
        let record = server.mirror.record
        let gone = server.members.subtracting(record.configured)
        for plex in gone.members where !commands.contains(where: { $0.kind == .remove && $0.plex == plex }) {
            let successor = record.inSync.members.first { server.replacing[Int($0.value)] == plex }
            let disk = successor.flatMap { server.disks[Int($0.value)] }
            if let successor, let disk, disks[disk].head?.record.inSync.contains(successor) ?? false { continue }
            fail("R10", "plex \(plex) is forgotten before another one has taken its place")
        }
        server.members = record.configured
        server.replacing = record.members.map(\.replaces)
    }

    /// A disk is taken only in its own place, and not while a write that was given up may still land on it.
    private func checkJoin(_ command: PendingCommand) {
        if command.disk != Int(command.plex.value) {
            fail("R11", "disk \(command.disk) is accepted as plex \(command.plex), which it is not")
        } else if !command.isExact {
            fail("R14", "plex \(command.plex) is joined again while its disk has I/O outstanding")
        }
    }

    /// A plex that was broken off is a mirror of its own and holds every acknowledged write, whole.
    private func checkCopy(_ command: PendingCommand) {
        guard case .found(let own) = disks[command.disk].scanResult(), own.record.mirror != mirrorUUID,
            own.record.inSync.count == 1, own.record.name == "copy"
        else { return fail("break", "plex \(command.plex) is broken off without a superblock of its own") }
        if case .refused(let why) = assemble([
            FoundPlex(disk: 0, superblock: own, remaps: disks[command.disk].spares.table)
        ]) {
            return fail("break", "plex \(command.plex) is broken off and does not start: \(why)")
        }
        guard command.isExact, let copy = command.copy, !isShadow else { return }
        for cell in copy.indices
        where !copy[cell].contains(disks[command.disk].medium[cell]) && !oracle.isHaunted(cell) {
            return fail(
                "break",
                "the copy of plex \(command.plex) has write \(disks[command.disk].medium[cell] >> Geometry.cellBits) at cell \(cell); legal: \(oracle.describe(cell))"
            )
        }
        if pilot == nil, random.chance(300) { disks[command.disk].scribble(random: &random) }
    }
}
