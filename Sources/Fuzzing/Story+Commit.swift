internal import MirrorFormat

/// The two phases of an update of the record, and what can go wrong in them.
extension Story {
    /// What becomes of a round.
    private struct Round {
        /// Power fails at this write.
        var cut = Int.max
        var writes = 0
        var failed = PlexSet.empty
        var isCut: Bool { writes > cut }
    }

    /// Writes the record to the plexes that work, then to those that are new, and expels whoever can't take it, until
    /// what is on disk is what is true (R3).
    ///
    /// - Returns: false if the server is gone.
    mutating func commit(_ server: inout StoryServer, _ input: inout Input) -> Bool {
        // Each round but the last loses a plex.
        for _ in 0...2 * disks.count {
            server.record.epoch += 1
            serial += 1
            var round = Round()
            if input.oneIn(10) { round.cut = input.below(2 * disks.count) }
            write(server.record, to: server.working, &round, &input)
            // Where no plex takes the record nothing goes on.
            if round.isCut || round.failed == server.working { return false }
            if !round.failed.isEmpty {
                expel(round.failed, &server, &input)
                continue
            }
            let newcomers = server.newcomers
            write(server.record, to: newcomers, &round, &input)
            if round.isCut { return false }
            settle(newcomers.subtracting(round.failed), &server)
            if round.failed.isEmpty { return true }
            expel(round.failed, &server, &input)
        }
        return false
    }

    /// Who has the record is what it calls him.
    private func settle(_ written: PlexSet, _ server: inout StoryServer) {
        for plex in written.members {
            server.joining.remove(plex)
            if server.record[plex].role == .inSync {
                server.recovering.remove(plex)
                server.working.insert(plex)
            } else {
                server.recovering.insert(plex)
            }
        }
    }

    private mutating func expel(_ plexes: PlexSet, _ server: inout StoryServer, _ input: inout Input) {
        for plex in plexes.members {
            server.working.remove(plex)
            server.recovering.remove(plex)
            server.joining.remove(plex)
            server.record[plex].role = .failed
        }
        begin(&server, .expelled, &input)
    }

    /// Two copies on each plex, in any order, torn where power or the disk fails.
    private mutating func write(
        _ record: Record, to plexes: PlexSet, _ round: inout Round, _ input: inout Input
    ) {
        var places: [(disk: Int, copy: Int)] = []
        for plex in plexes.members {
            let disk = Int(plex.value)
            disks[disk].sequence += 1
            let copies = Superblock.copies(ofSequence: disks[disk].sequence)
            places += [(disk, copies.0), (disk, copies.1)]
        }
        input.shuffle(&places)
        for (disk, copy) in places {
            let superblock = superblock(record, disk: disk)
            if round.writes >= round.cut {
                // All of these were under way; any sectors of any of them may have landed.
                disks[disk].write(superblock, serial: serial, copy: copy, sectors: input.oneIn(2) ? 0 : input.byte())
            } else if input.oneIn(40) {
                round.failed.insert(PlexIndex(disk))
                disks[disk].write(superblock, serial: serial, copy: copy, sectors: input.byte())
            } else {
                disks[disk].write(superblock, serial: serial, copy: copy)
            }
            round.writes += 1
        }
    }
}
