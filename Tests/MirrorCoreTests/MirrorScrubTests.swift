import MirrorFormat
import Testing

@testable import MirrorCore

extension DataBench {
    /// A cell of the medium changes by itself.
    func rot(_ block: Int, onDisk disk: Int, to value: UInt32) {
        disks[disk].cache[block] = value
        disks[disk].medium[block] = value
    }

    func scrub(_ manner: ScrubManner = ScrubManner()) {
        command(.scrub(.start(manner)))
        settle()
        idle(seconds: 1)
    }

    var status: MirrorStatus.ScrubStatus? { mirror.status().scrub }

    /// Blocks that are on record as different.
    var open: [Int] {
        mirror.scrubLedger.entries.compactMap { $0 }.filter(\.isOpen).map { Int($0.offset / Limits.blockBytes) }
            .sorted()
    }

    func entry(_ block: Int) -> Mismatch? {
        mirror.scrubLedger.entries.compactMap { $0 }.last { $0.offset == UInt64(block) * Limits.blockBytes }
    }

    func events(_ code: EventCode) -> [EventRecord] { events.filter { $0.code == code } }

    /// Nothing is under way, and every slot and every window was given back.
    var isAtRest: Bool {
        waiting.isEmpty && mirror.freeSlots.count == mirror.slots.count && mirror.locks.count == 0
            && mirror.resync.windowsInFlight == 0 && mirror.mutationsInFlight == 0 && mirror.scrub.isIdle
    }

    static let small: UInt64 = 16 << 10
}

/// What scrubs find, and what they leave alone.
@Suite struct MirrorScrubTests {
    private func filled(_ plexes: Int, windowBytes: UInt64 = 1 << 20) throws -> DataBench {
        let bench = try DataBench(plexes: plexes, windowBytes: windowBytes)
        bench.fill()
        return bench
    }

    @Test func equalPlexesCountZero() throws {
        let bench = try filled(2, windowBytes: DataBench.small)
        #expect(bench.status == nil)
        bench.scrub()
        let status = try #require(bench.status)
        #expect(!status.isRunning && status.mismatches == 0 && status.lastFinished > 0 && status.done == status.total)
        #expect(bench.events.suffix(2).map(\.code) == [.scrubStarted, .scrubFinished])
        #expect(bench.events.last?.text.hasPrefix("0 blocks differ") == true)
        #expect(bench.mirror.status().state == .healthy && bench.mirror.status().reason == nil && bench.isAtRest)
    }

    @Test(arguments: [1 << 20, DataBench.small])
    func eachPlexIsDamagedInTurnAndOneScrubFindsAll(windowBytes: UInt64) throws {
        let bench = try filled(3, windowBytes: windowBytes)
        bench.rot(0, onDisk: 0, to: 7)
        bench.rot(31, onDisk: 1, to: 8)
        bench.rot(63, onDisk: 2, to: 9)
        bench.scrub()
        #expect(bench.open == [0, 31, 63] && bench.status?.mismatches == 3)
        #expect([0, 31, 63].map { bench.entry($0)?.odd } == [set(0), set(1), set(2)])
        #expect(bench.entry(31)?.checksums.prefix(3) == [131, 8, 131])
        #expect(bench.events(.scrubMismatch).map(\.offset) == [0, 31, 63].map { $0 * 4096 })
        #expect(bench.events(.scrubMismatch).map(\.plex) == [0, 1, 2].map { PlexIndex($0) })
        // Healthy, for every acknowledged write is there; but told, with what to do.
        let status = bench.mirror.status()
        #expect(status.state == .healthy && status.reason?.contains("3 blocks") == true)
        #expect(status.action?.contains("plexus scrub m --report") == true && bench.isAtRest)
        // The next one says the same, once.
        bench.scrub()
        #expect(bench.open == [0, 31, 63] && bench.events(.scrubMismatch).count == 3)
    }

    @Test func holesOnAllPlexesAreSkippedAndAHoleBesideDataIsNot() throws {
        let bench = try DataBench(plexes: 2)
        bench.rot(40, onDisk: 1, to: 5)
        var reads: [MirrorBench.Operation] = []
        bench.command(.scrub(.start(ScrubManner())))
        bench.settle(holding: {
            if [.read, .compare].contains($0.kind), !reads.contains($0) { reads.append($0) }
            return false
        })
        #expect(bench.open == [40] && reads.allSatisfy { $0.offset >= 40 * 4096 } && !reads.isEmpty)
        bench.rot(40, onDisk: 1, to: 0)
        reads = []
        bench.command(.scrub(.start(ScrubManner(readsHoles: true))))
        bench.settle(holding: {
            if $0.kind == .read { reads.append($0) }
            return false
        })
        #expect(bench.open.isEmpty && reads.contains { $0.offset == 0 })
    }

    @Test func nobodyGuessesWhichOfTwoIsRight() throws {
        let bench = try filled(2)
        bench.rot(5, onDisk: 1, to: 7)
        bench.scrub()
        #expect(bench.entry(5)?.odd == .empty && bench.entry(5)?.plexes == set(0, 1))
        bench.scrub(ScrubManner(repairs: true))
        guard case .refused(let text) = bench.lastAnswer else {
            Issue.record("\(String(describing: bench.lastAnswer))")
            return
        }
        #expect(text.contains("--prefer PLEX") && bench.copies(of: 5) == [105, 7])
    }

    @Test(arguments: [0, 1])
    func preferredVersionIsGivenToTheOther(plex: Int) throws {
        let bench = try filled(2)
        bench.rot(5, onDisk: 1, to: 7)
        bench.scrub()
        bench.scrub(ScrubManner(repairs: true, preferred: PlexIndex(plex)))
        let right: UInt32 = plex == 0 ? 105 : 7
        #expect(bench.copies(of: 5) == [right, right] && bench.open.isEmpty && bench.status?.mismatches == 0)
        #expect(bench.entry(5)?.source == PlexIndex(plex) && bench.record[PlexIndex(1 - plex)].corrected == 1)
        #expect(bench.disks.allSatisfy { $0.medium[5] == right })
        #expect(bench.record.pinned == nil && bench.isAtRest && bench.mirror.status().reason == nil)
    }

    @Test func majorityRepairsWhatOneHasAndNothingElse() throws {
        let bench = try filled(3)
        bench.rot(5, onDisk: 0, to: 7)
        bench.rot(6, onDisk: 1, to: 8)
        bench.rot(6, onDisk: 2, to: 9)
        bench.scrub(ScrubManner(repairs: true))
        #expect(bench.copies(of: 5) == [105, 105, 105] && bench.entry(5)?.source == PlexIndex(1))
        #expect(bench.copies(of: 6) == [106, 8, 9] && bench.open == [6] && bench.status?.repaired == 1)
        #expect(bench.isAtRest)
    }

    @Test func sourceAndIntentBitAreDurableBeforeARepairWrites() throws {
        let bench = try filled(2)
        bench.rot(5, onDisk: 1, to: 7)
        bench.command(.scrub(.start(ScrubManner(repairs: true, preferred: PlexIndex(1)))))
        bench.settle(holding: { $0.kind == .write })
        #expect(bench.waiting(.write).map(\.plex) == [0] && bench.waiting(.write).first?.isDurable == true)
        for disk in bench.disks {
            #expect(disk.image.found(disk: 0)?.record.pinned == PlexIndex(1))
            #expect(disk.image.regions(sheet: 0).contains(5))
        }
        // Power fails before the block is written: what the user chose is copied over the other, not the other way.
        bench.losePower()
        try bench.start(on: [0, 1])
        bench.settle()
        bench.idle(seconds: 3)
        #expect(bench.copies(of: 5) == [7, 7])
    }

    @Test func blockThatWasOverwrittenSinceIsGone() throws {
        let bench = try filled(2)
        bench.rot(5, onDisk: 1, to: 7)
        bench.rot(6, onDisk: 1, to: 7)
        bench.scrub()
        bench.write(5, 55)
        bench.settle()
        #expect(bench.open == [5, 6])
        bench.scrub()
        #expect(bench.open == [6] && bench.entry(5)?.isOpen == false && bench.entry(5)?.source == nil)
        bench.write(6, 66)
        bench.settle()
        bench.scrub(ScrubManner(repairs: true, preferred: PlexIndex(0)))
        #expect(bench.open.isEmpty && bench.copies(of: 6) == [66, 66] && bench.status?.repaired == 0)
    }

    // MARK: who is compared

    @Test func onePlexIsComparedWithNothing() throws {
        let bench = try filled(2)
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        bench.scrub()
        #expect(bench.lastAnswer.map { "\($0)".contains("plexus join m DISK") } == true && bench.status == nil)
    }

    /// ZFS #6103: a scrub cleared what an offline disk had missed.
    @Test func plexThatIsOutKeepsItsMapAndIsBroughtUpToDate() throws {
        let bench = try filled(3)
        bench.command(.takeOffline(PlexIndex(2)))
        bench.settle()
        bench.write(9, 99)
        bench.rest()
        bench.write(10, 1010)
        bench.settle()
        let intent = bench.disks[0].image.regions(sheet: 0)
        bench.scrub()
        #expect(bench.status?.isRunning == false && bench.status?.mismatches == 0)
        #expect(bench.disks[0].image.regions(sheet: 0) == intent && intent.contains(10))
        try bench.join(2, disk: 2)
        bench.rest()
        #expect(bench.record.inSync == set(0, 1, 2))
        #expect(bench.copies(of: 9) == [99, 99, 99] && bench.copies(of: 10) == [1010, 1010, 1010])
        bench.scrub()
        #expect(bench.open.isEmpty)
    }

    /// ZFS #11930: errors of what was not read were charged to a disk.
    @Test func unreadableBlockIsAnErrorOfItsPlexAloneAndIsWrittenAnew() throws {
        let bench = try filled(3)
        bench.rot(20, onDisk: 0, to: 7)
        bench.rot(21, onDisk: 2, to: 8)
        var isBad = true
        bench.command(.scrub(.start(ScrubManner())))
        let failure: (MirrorBench.Operation) -> DiskFailure? = { operation in
            guard operation.plex == 1, operation.offset <= 20 * 4096, 20 * 4096 < operation.offset + operation.length
            else { return nil }
            if operation.kind == .write { isBad = false }
            return isBad && [.read, .compare, .checksum].contains(operation.kind) ? .media : nil
        }
        bench.settle(failing: failure)
        bench.idle(seconds: 2, failing: failure)
        #expect(bench.record[PlexIndex(1)].readErrors == 1 && bench.record[PlexIndex(1)].corrected == 1)
        #expect(bench.record[PlexIndex(0)].readErrors == 0 && bench.record[PlexIndex(2)].readErrors == 0)
        // Its neighbours were compared all the same, and so were the others in that block.
        #expect(bench.open == [20, 21] && bench.entry(20)?.plexes == set(0, 2) && bench.entry(21)?.odd == set(2))
        #expect(bench.status?.unreadable == 1 && !isBad && bench.isAtRest)
    }

    @Test func plexesThatMayDifferAfterACrashAreComparedWhenTheyAreEqual() throws {
        let bench = try DataBench.cutOffInAWrite()
        try bench.start(on: [0, 1])
        bench.settle(holding: { $0.kind == .write })
        bench.command(.scrub(.start(ScrubManner())))
        bench.settle(holding: { $0.kind == .write })
        #expect(bench.status?.isRunning == true && bench.status?.waiting?.contains("resync") == true)
        bench.settle()
        bench.idle(seconds: 2)
        #expect(bench.status?.isRunning == false && bench.status?.mismatches == 0)
    }

    @Test func plexUnderRebuildIsNotCompared() throws {
        let bench = try DataBench.rejoining()
        bench.settle(holding: { $0.kind == .write })
        bench.scrub()
        #expect(bench.status == nil, "one plex is in sync")
        let three = try filled(3)
        three.command(.takeOffline(PlexIndex(2)))
        three.settle()
        three.write(9, 99)
        three.rest()
        three.command(.resync(.pause))
        try three.join(2, disk: 2)
        three.settle()
        three.scrub()
        #expect(three.status?.isRunning == false && three.status?.mismatches == 0)
    }

    // MARK: beside others

    @Test func clientsWriteWaitsForTheWindowAndAReadDoesNot() throws {
        let bench = try filled(2)
        bench.command(.scrub(.start(ScrubManner())))
        bench.settle(holding: { $0.kind == .compare })
        let write = bench.write(5, 55)
        let read = bench.read(5)
        let other = bench.read(6)
        bench.settle(holding: { $0.kind == .compare })
        #expect(bench.replies[write] == nil && bench.replies[read] == nil && bench.value(of: other) == 106)
        bench.settle()
        #expect(bench.replies[write] == .ok && bench.value(of: read) == 55)
        #expect(bench.status?.mismatches == 0 && bench.status?.isRunning == false && bench.isAtRest)
    }

    @Test func windowWaitsForAWriteThatOnlyOnePlexHas() throws {
        let bench = try filled(2)
        bench.write(5, 55)
        bench.settle(holding: { $0.kind == .write })
        bench.complete(.write, on: 0)
        bench.command(.scrub(.start(ScrubManner())))
        #expect(bench.waiting(.read).isEmpty && bench.waiting(.findData).isEmpty)
        bench.settle()
        bench.idle(seconds: 1)
        #expect(bench.status?.mismatches == 0 && bench.status?.isRunning == false)
    }

    @Test func repairLeavesAClientsWriteAlone() throws {
        let bench = try filled(2)
        bench.rot(5, onDisk: 1, to: 7)
        bench.command(.scrub(.start(ScrubManner(repairs: true, preferred: PlexIndex(0)))))
        bench.settle(holding: { $0.kind == .write })
        let write = bench.write(5, 55)
        #expect(bench.waiting(.write).count == 1)
        bench.settle()
        #expect(bench.replies[write] == .ok && bench.copies(of: 5) == [55, 55] && bench.isAtRest)
    }

    /// At each step of a scrub that finds and repairs something.
    @Test(arguments: 0..<40)
    func whateverIsOrderedMeanwhileNothingLeaks(step: Int) throws {
        let orders: [(DataBench) throws -> Void] = [
            { $0.command(.takeOffline(PlexIndex(1))) }, { $0.command(.breakOff(PlexIndex(1), name: "copy")) },
            { $0.command(.remove(PlexIndex(1))) }, { $0.command(.scrub(.stop)) }, { $0.command(.stop) },
            { $0.command(.takeOffline(PlexIndex(0))) }, { try $0.join(3, disk: 3) },
        ]
        for (number, order) in orders.enumerated() {
            let bench = try DataBench(plexes: 3, spares: 1, windowBytes: DataBench.small)
            bench.fill()
            bench.rot(5, onDisk: 1, to: 7)
            bench.rot(50, onDisk: 0, to: 8)
            bench.command(.scrub(.start(ScrubManner(repairs: true))))
            for _ in 0..<step { bench.step() }
            try order(bench)
            bench.settle()
            bench.idle(seconds: 12)
            #expect(bench.isStopped == (number == 4), "order \(number)")
            #expect(
                bench.mirror.freeSlots.count == bench.mirror.slots.count && bench.waiting.isEmpty, "order \(number)")
            guard !bench.isStopped else { continue }
            #expect(bench.isAtRest && bench.status?.isRunning == false, "order \(number)")
            if ![3].contains(number) { #expect(bench.open.allSatisfy { $0 == 5 || $0 == 50 }, "order \(number)") }
        }
    }

    @Test func scrubWaitsWhileOnePlexIsLeftAndGoesOn() throws {
        let bench = try filled(2, windowBytes: DataBench.small)
        bench.rot(60, onDisk: 1, to: 7)
        bench.command(.scrub(.limit(64 << 10)))
        bench.command(.scrub(.start(ScrubManner())))
        bench.idle(seconds: 1)
        let done = try #require(bench.status).done
        #expect(done > 0 && done < 60 * 4096)
        bench.command(.takeOffline(PlexIndex(1)))
        bench.idle(seconds: 5)
        #expect(bench.status?.waiting?.contains("two plexes") == true && bench.status?.isRunning == true)
        try bench.join(1, disk: 1)
        bench.idle(seconds: 20)
        #expect(bench.status?.isRunning == false && bench.open == [60] && bench.isAtRest)
    }

    @Test func limitIsKept() throws {
        let bench = try filled(2)
        bench.command(.scrub(.limit(32 << 10)))
        bench.command(.scrub(.start(ScrubManner())))
        bench.idle(seconds: 4)
        let done = try #require(bench.status).done
        #expect(done >= 96 << 10 && done <= 160 << 10)
        #expect(bench.status?.bytesPerSecond ?? 0 > 0 && bench.status?.etaSeconds ?? 0 > 0)
        bench.command(.scrub(.limit(nil)))
        bench.idle(seconds: 1)
        #expect(bench.status?.isRunning == false)
    }

    @Test func whatIsOnRecordAsBadIsNotComparedOnThatPlex() throws {
        let record = freshRecord([.inSync, .inSync, .inSync]).changed {
            $0.setBad(PlexIndex(1), blocks: [5 * 4096])
        }
        let bench = try MirrorBench(record)
        bench.settle()
        bench.command(.scrub(.start(ScrubManner(readsHoles: true))))
        bench.settle()
        let asked = bench.submitted(.read) + bench.submitted(.compare)
        #expect(!asked.contains { $0.plex == 1 && $0.offset <= 5 * 4096 && 5 * 4096 < $0.offset + $0.length })
        #expect(asked.contains { $0.plex == 1 && $0.offset == 6 * 4096 })
        #expect(asked.contains { $0.plex == 2 && $0.offset == 5 * 4096 })
        #expect(bench.status().scrub?.isRunning == false)
    }

    @Test func readOnlyMirrorIsScrubbedAndNotRepaired() throws {
        let bench = try MirrorBench(isReadOnly: true)
        let repair = bench.command(.scrub(.start(ScrubManner(repairs: true, preferred: PlexIndex(0)))))
        #expect(bench.answers[repair].map { "\($0)".contains("read-only") } == true)
        bench.command(.scrub(.start(ScrubManner())))
        bench.settle()
        bench.tick()
        bench.settle()
        #expect(bench.status().scrub?.lastFinished ?? 0 > 0 && bench.submitted(.writeMetadata).isEmpty)
    }

    // MARK: what is remembered

    @Test func whatWasFoundIsOnEveryPlexAndSurvives() throws {
        let bench = try filled(2)
        bench.rot(5, onDisk: 1, to: 7)
        bench.scrub()
        bench.idle(seconds: 6)
        for disk in bench.disks {
            let ledger = disk.image.scrubLedger(of: bench.record.mirror)
            #expect(ledger == bench.mirror.scrubLedger && ledger.entries[0]?.offset == 5 * 4096)
        }
        bench.kill()
        try bench.start(on: [0, 1])
        bench.settle()
        #expect(bench.open == [5] && bench.status?.mismatches == 1 && bench.status?.isRunning == false)
        #expect(bench.status?.lastFinished ?? 0 > 0)
        // A plex that was away for it gets it when it is back, and is not asked before.
        bench.idle(seconds: 2)
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        bench.write(5, 55)
        bench.rest()
        try bench.join(1, disk: 1)
        bench.rest()
        bench.scrub()
        bench.idle(seconds: 1)
        #expect(bench.open.isEmpty)
        #expect(bench.disks[1].image.scrubLedger(of: bench.record.mirror) == bench.mirror.scrubLedger)
    }

    @Test func whatADiskTellsOfAnotherLifeIsForgottenWhenItJoins() throws {
        let bench = try filled(3)
        bench.command(.takeOffline(PlexIndex(2)))
        bench.settle()
        bench.scrub()
        var other = ScrubLedger()
        for number in UInt64(1)...99 {
            other[200] = Mismatch(offset: 4096, plexes: set(0, 2), odd: .empty, checksums: [], time: number)
        }
        let page = 1 + 200 / ScrubLedger.entriesPerPage
        var bytes = [UInt8](repeating: 0, count: ScrubLedger.pageBytes)
        do {
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            other.encode(page: page, mirror: bench.record.mirror, into: &raw)
        }
        let offset = ScrubLedger.pageOffset(page, diskBytes: Disk.bytes)
        bench.disks[2].image.blocks[offset] = bytes
        #expect(bench.disks[2].image.scrubLedger(of: bench.record.mirror).entries[200] != nil)
        try bench.join(2, disk: 2)
        bench.rest()
        bench.kill()
        try bench.start(on: [0, 1, 2])
        bench.settle()
        #expect(bench.record.inSync == set(0, 1, 2) && bench.open.isEmpty && bench.status?.mismatches == 0)
    }

    @Test func scrubGoesOnFromWhereItWasAfterAKill() throws {
        let bench = try filled(2, windowBytes: DataBench.small)
        bench.rot(1, onDisk: 1, to: 7)
        bench.rot(62, onDisk: 1, to: 7)
        bench.command(.scrub(.limit(16 << 10)))
        bench.command(.scrub(.start(ScrubManner())))
        bench.idle(seconds: 11)
        let before = try #require(bench.status)
        #expect(before.isRunning && before.done > 64 << 10)
        bench.kill()
        try bench.start(on: [0, 1])
        var first: UInt64?
        bench.idle(
            seconds: 3,
            holding: {
                if $0.kind == .findData, first == nil { first = $0.offset }
                return false
            })
        #expect(try #require(first) > 32 << 10 && first ?? 0 <= before.done)
        #expect(bench.open == [1, 62] && bench.status?.isRunning == false && bench.status?.mismatches == 2)
        #expect(bench.events(.scrubStarted).count == 1 && bench.events(.scrubFinished).count == 1)
    }

    @Test func whatHasNoRoomIsCountedAndRepaired() throws {
        let record = freshRecord()
        let bench = try MirrorBench(record)
        bench.settle()
        // All of 2 MiB, 512 blocks: 448 have room.
        let differs: (MirrorBench.Operation) -> DiskFailure? = {
            $0.kind == .compare && $0.offset < 2 << 20 ? DiskFailure(kind: .differs, errorNumber: 0) : nil
        }
        bench.command(.scrub(.start(ScrubManner(readsHoles: true))))
        bench.settle(failing: differs)
        let status = try #require(bench.status().scrub)
        #expect(status.mismatches == 512 && status.unrecorded == 64 && !status.isRunning)
        #expect(bench.events.filter { $0.code == .scrubMismatch && $0.text.contains("ledger is full") }.count >= 1)
        bench.command(.scrub(.start(ScrubManner(readsHoles: true))))
        bench.settle()
        #expect(bench.status().scrub?.mismatches == 0)
    }

    @Test func scrubBeginsByItselfWhenItIsTime() throws {
        let bench = try DataBench(plexes: 2)
        bench.schedule(everySeconds: 3600)
        bench.tick(afterMilliseconds: 3_500_000)
        bench.settle()
        #expect(bench.status == nil)
        bench.tick(afterMilliseconds: 200_000)
        bench.settle()
        bench.idle(seconds: 1)
        #expect(bench.status?.isRunning == false && bench.events(.scrubFinished).count == 1)
        bench.tick(afterMilliseconds: 3_500_000)
        bench.idle(seconds: 1)
        #expect(bench.events(.scrubStarted).count == 1)
        bench.tick(afterMilliseconds: 200_000)
        bench.settle()
        #expect(bench.events(.scrubStarted).count == 2)
        // One that was stopped is not begun again at once.
        bench.command(.scrub(.stop))
        bench.idle(seconds: 2)
        #expect(bench.events(.scrubStarted).count == 2)
    }
}
