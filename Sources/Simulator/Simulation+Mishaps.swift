internal import MirrorCore
internal import MirrorFormat

/// What befalls the disks while the server runs, and how its lives end.
extension Simulation {
    func scheduleLife() {
        queue.add(.tick, at: now + profile.tickNanoseconds)
        queue.add(.command, at: now + UInt64(random.below(profile.commandNanoseconds)) + 1)
        queue.add(.mishap, at: now + 10_000_000)
        scheduleClient()
    }

    func mishapTurn() {
        queue.add(.mishap, at: now + UInt64(random.within(1...200)) * 1_000_000 * crawl)
        rot()
        stickSectors()
        unstickSectors()
        noticeVanished()
        guard isHostile, server != nil, random.chance(200) else { return }
        switch random.below(5) {
        case 0 where profile.has(.vanish): vanish(random.below(disks.count), forGood: false)
        case 1 where profile.has(.vanishForGood): vanish(random.below(disks.count), forGood: true)
        case 2 where profile.has(.blip):
            count(.blip)
            blipUntil = now + UInt64(random.within(1...400)) * 1_000_000
            blipError = [5, 6, 19, 28][random.below(4)]
        case 3 where profile.has(.badSectors): spoil(random.below(disks.count))
        default:
            let disk = random.below(disks.count)
            if profile.has(.rollBack), disk != loser {
                disks[disk].takeSnapshot()
                note("snapshot of disk \(disk), \(disks[disk].state)")
            }
        }
    }

    private func vanish(_ disk: Int, forGood: Bool) {
        guard !disks[disk].isAway, !hasLoser(beside: disk) else { return }
        count(forGood ? .vanishForGood : .vanish)
        note("disk \(disk) vanishes")
        if profile.has(.shrink), random.chance(500) {
            count(.shrink)
            disks[disk].truncatedAt = random.below(profile.dataBlocks + 1) * Geometry.blockBytes
        } else {
            // With the power of a disk goes its cache.
            if mayLose(disk), random.chance(500) {
                disks[disk].losePower(.half, random: &random)
                disks[disk].hasLost = true
            }
            disks[disk].isGone = true
        }
        let milliseconds = forGood ? 10_000_000 : random.within(1...5000)
        disks[disk].returnsAt = now + UInt64(milliseconds) * 1_000_000
    }

    /// The driver looks whether the disks are still there, as the server does: one is told of as long as a good one is.
    private func noticeVanished() {
        guard let server, server.mirror.isOpen, !server.isReadOnly else { return }
        let gone = server.disks.indices.filter { server.disks[$0].map { disks[$0].isAway } ?? false }
        guard !gone.isEmpty, additions?.chance(200) ?? false else { return }
        let away = PlexSet(mask: gone.reduce(0) { $0 | 1 << UInt8($1) })
        guard !server.mirror.goodPlexes.isSubset(of: away) else { return }
        count(.noticed)
        for plex in away.members {
            note("plex \(plex) is seen to have vanished")
            handle(.vanished(plex))
        }
    }

    private func spoil(_ disk: Int) {
        count(.badSectors)
        let sectors = disks[disk].bad.count
        var first = random.below(sectors)
        if random.chance(700), let hot = random.pick(profile.hotBlocks) { first = hot * Geometry.sectorsPerBlock }
        for sector in first..<min(sectors, first + random.within(1...4)) where !disks[disk].bad[sector] {
            disks[disk].bad[sector] = true
            disks[disk].badCount += 1
        }
    }

    // MARK: the end of a life

    /// The clients have sent all they had to send.
    func planEnd() {
        isLoaded = false
        queue.add(.end, at: now + UInt64(random.below(3)) * UInt64(random.below(3_000)) * 1_000_000 * crawl + 1)
    }

    func endTurn() {
        guard let server else { return }
        if profile.has(.cleanStop), !server.isStopping, random.chance(600) {
            orderStop()
            queue.add(.end, at: now + 30_000_000_000)
        } else {
            ending = .crash
        }
    }

    func endLife() {
        if let server, !server.mirror.isOpen, ending == nil { count(.crashAtOpen) }
        switch ending {
        case .stopped(let isClean):
            count(.cleanStop)
            note("stopped, clean: \(isClean)")
            if isClean, !(server?.isReadOnly ?? true) {
                finishCleanStop()
            } else {
                crash(powerFails: profile.has(.powerLoss) && random.chance(500) && !isShadow)
            }
        case .crash, nil:
            let mayKill = profile.has(.kill)
            let powerFails = profile.has(.powerLoss) && (!mayKill || random.chance(500)) && !isShadow
            count(powerFails ? .powerLoss : .kill)
            crash(powerFails: powerFails)
        }
    }

    private func finishCleanStop() {
        guard outstanding.isEmpty else { return fail("R16", "stopped with \(outstanding.count) requests unanswered") }
        guard !flights.contains(where: { $0.map { !isGivenUp($0, server) && !isNoPromise($0) } ?? false }) else {
            return fail("R14", "stopped with I/O in flight")
        }
        endGivenUp()
        if !isShadow {
            oracle.crash(powerLost: false)
            oracle.stoppedClean()
            for disk in disks.indices where isTruth(disk) && disks[disk].pages?.intentRegions ?? 0 > 0 {
                fail("R6", "disk \(disk) was stopped clean and has intent bits")
            }
            checkAgreement()
        }
        // What is clean survives any loss.
        if !isShadow { for disk in disks.indices { disks[disk].losePower(.everything, random: &random) } }
        leave()
    }

    func leave() {
        for disk in disks.indices {
            disks[disk].dropForgotten()
            disks[disk].hasLost = false
            disks[disk].hasFailedFlush = false
        }
        flights.removeAll()
        copies.removeAll()
        freeFlights.removeAll()
        outstanding.removeAll()
        commands.removeAll()
        queue.removeAll()
        isClientScheduled = false
        server = nil
    }

    /// The server dies where it stands. What was in flight has happened, or not, or in part.
    func crash(powerFails: Bool) {
        note("crash, power fails: \(powerFails)")
        for index in flights.indices {
            guard let flight = flights[index] else { continue }
            if flight.operation.kind == .writeMetadata {
                guard !disks[flight.disk].isAway else { continue }
                let landing: SimulatedDisk.Landing = [.whole, .torn, .none][random.below(3)]
                disks[flight.disk].writeMetadata(
                    flight.metadata, offset: flight.operation.offset, landing: landing, random: &random)
            } else if !flight.isExecuted, flight.operation.kind != .read, random.chance(500) {
                flights[index]?.plan = .fail(errorNumber: 5, effect: random.chance(500) ? .whole : .torn)
                execute(index)
            }
        }
        let losses = SimulatedDisk.Loss.allCases
        for disk in disks.indices {
            disks[disk].dropForgotten()
            if powerFails { disks[disk].losePower(losses[random.below(losses.count)], random: &random) }
        }
        // A disk that lost its cache behind the engine's back and is still on record as in sync counts as
        // a power loss: nobody had the time to write down what happened.
        let hasLost = disks.indices.contains { disks[$0].hasLost && isTruth($0) }
        if !isShadow { oracle.crash(powerLost: powerFails || hasLost) }
        leave()
    }
}
