import MirrorFormat
import Testing

@testable import MirrorCore

/// Blocks that a plex in sync does not hold: rebuilt around, read around, healed.
@Suite struct MirrorBadRangesTests {
    private let bad: UInt64 = 5 * 4096
    private let block: UInt64 = 4096

    private func hits(_ operation: MirrorBench.Operation, _ bad: [UInt64]) -> Bool {
        bad.contains { operation.offset <= $0 && $0 < operation.offset + operation.length }
    }

    /// Plex 0 can't read these blocks; plex 1 is rebuilt from it.
    private func rebuilt(over bad: [UInt64], ticks: Int = 400, limits: Limits = Limits()) throws -> MirrorBench {
        let bench = try MirrorBench(freshRecord([.inSync, .failed]), present: set(0), limits: limits)
        bench.command(.join(PlexIndex(1), try newDisk()))
        for _ in 0..<ticks {
            bench.settle(failing: { $0.plex == 0 && $0.kind == .read && self.hits($0, bad) ? .media : nil })
            bench.tick()
        }
        bench.settle(failing: { $0.plex == 0 && $0.kind == .read && self.hits($0, bad) ? .media : nil })
        return bench
    }

    private func record(_ ranges: [BadRange], _ roles: [Role] = [.inSync, .inSync]) -> Record {
        freshRecord(roles).changed { $0.badRanges = ranges }
    }

    private func range(_ plex: Int, _ offset: UInt64, _ blocks: UInt32 = 1) -> BadRange {
        BadRange(plex: PlexIndex(plex), offset: offset, blocks: blocks)
    }

    @Test func rebuildGoesOnOverWhatNobodyCanRead() throws {
        let bench = try rebuilt(over: [bad, bad + block, 1 << 20])
        #expect(bench.record.inSync == set(0, 1))
        #expect(bench.record.badRanges == [range(1, bad, 2), range(1, 1 << 20)])
        for plex in 0...1 { #expect(bench.recorded(plex)?.badRanges == bench.record.badRanges) }
        #expect(bench.events.filter { $0.code == .badBlock && $0.plex == PlexIndex(1) }.count >= 3)
        let status = bench.status()
        #expect(status.state == .degraded && status.plexes[1].isAtRisk && status.plexes[1].badRanges.count == 2)
        #expect(status.plexes[1].reason?.contains("does not hold 12288 bytes") == true)
    }

    @Test func moreThanALittleIsNotGoneWithout() throws {
        var limits = Limits()
        limits.blocksToGoWithout = 2
        let bench = try rebuilt(over: [bad, bad + 2 * block, bad + 4 * block], limits: limits)
        #expect(bench.record.inSync == set(0) && bench.record[PlexIndex(1)].role == .recovering)
        #expect(bench.record.badRanges.isEmpty && bench.status().state == .rebuilding)
        #expect(bench.status().action?.contains("unreadable") == true)
    }

    @Test func blockThatIsReadLaterIsCopiedAfterAll() throws {
        let bench = try rebuilt(over: [bad], ticks: 50)
        #expect(bench.record[PlexIndex(1)].role == .recovering)
        for _ in 0..<300 {
            bench.tick()
            bench.settle()
        }
        #expect(bench.record.inSync == set(0, 1) && bench.record.badRanges.isEmpty)
        #expect(bench.status().state == .healthy)
    }

    @Test func clientsWriteDuringTheRebuildMakesTheBlockGood() throws {
        let bench = try rebuilt(over: [bad, 3 << 20], ticks: 120)
        #expect(bench.mirror.resync.hasUncopied || bench.record.inSync == set(0, 1))
        bench.send(1, .write, bad)
        #expect(bench.waiting(.write).allSatisfy { $0.isDurable })
        for _ in 0..<400 {
            bench.settle(failing: { $0.plex == 0 && $0.kind == .read && self.hits($0, [3 << 20]) ? .media : nil })
            bench.tick()
        }
        #expect(bench.replies[1] == .ok && bench.record.badRanges == [range(1, 3 << 20)])
    }

    @Test func nothingIsReadFromWhereNothingIsHeld() throws {
        let bench = try MirrorBench(record([range(1, bad)], [.failed, .inSync]), present: set(1))
        bench.settle()
        bench.clearTrace()
        bench.send(1, .read, bad)
        bench.send(2, .read, bad - block)
        bench.send(3, .read, bad - block, 3 * block)
        bench.settle()
        #expect(bench.replies[1] == .ioError && bench.replies[2] == .ok && bench.replies[3] == .ioError)
        #expect(!bench.submitted(.read).contains { self.hits($0, [bad]) })
        // A block that is cut can't be completed; a whole one can.
        bench.send(4, .write, bad + 512, 512)
        bench.settle()
        #expect(bench.replies[4] == .ioError)
        bench.send(5, .write, bad)
        bench.settle()
        bench.send(6, .read, bad)
        bench.settle()
        #expect(bench.replies[5] == .ok && bench.replies[6] == .ok && bench.recorded(1)?.badRanges.isEmpty == true)
    }

    @Test func readIsPutTogetherFromWhatEachPlexHolds() throws {
        let bench = try MirrorBench(record([range(0, block), range(1, 3 * block, 2)]))
        bench.settle()
        bench.clearTrace()
        bench.send(1, .read, 0, 8 * block)
        bench.settle()
        #expect(bench.replies[1] == .ok)
        let reads = bench.submitted(.read)
        #expect(reads.reduce(0) { $0 + $1.length } == 8 * block)
        #expect(reads.allSatisfy { $0.bufferOffset == $0.offset })
        for read in reads {
            #expect(!bench.record.isBad(PlexIndex(read.plex), offset: read.offset, length: read.length))
        }
    }

    @Test func writeThatHealsIsDurableAndAnsweredWhenItIsOnRecord() throws {
        let bench = try MirrorBench(record([range(1, bad, 3)]))
        bench.settle()
        bench.send(90, .write, 0)
        bench.settle()
        bench.clearTrace()
        bench.send(1, .write, bad + block)
        bench.settle(holding: { $0.isSuperblock })
        #expect(bench.submitted(.write).count == 2 && bench.submitted(.write).allSatisfy(\.isDurable))
        #expect(bench.replies[1] == nil)
        // Another one to the same block is as little safe, one elsewhere is.
        bench.send(2, .write, bad + block)
        bench.settle(holding: { $0.isSuperblock })
        #expect(bench.replies[2] == nil)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.replies[2] == .ok)
        #expect(bench.recorded(0)?.badRanges == [range(1, bad), range(1, bad + 2 * block)])
    }

    @Test func blockIsHealedFromAPlexThatHoldsIt() throws {
        let bench = try MirrorBench(record([range(1, bad, 2)]))
        bench.settle()
        #expect(bench.status().state == .degraded)
        bench.clearTrace()
        for _ in 0..<3 {
            bench.tick(afterMilliseconds: 11_000)
            bench.settle()
        }
        #expect(bench.submitted(.write).map(\.offset) == [bad, bad + block])
        #expect(bench.submitted(.write).allSatisfy { $0.plex == 1 && $0.isDurable })
        #expect(bench.recorded(0)?.badRanges.isEmpty == true && bench.status().state == .healthy)
        #expect(bench.events.filter { $0.code == .corrected }.count == 2)
    }

    @Test func plexThatComesBackGetsWhatItDoesNotHold() throws {
        let bench = try MirrorBench(record([range(1, 3 << 20)]))
        bench.settle()
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        #expect(bench.record.badRanges == [range(1, 3 << 20)])
        var disk = try newDisk(plexUUID(1))
        disk.basis = .evidence(
            PlexEvidence(
                epoch: .max >> 2, sequence: .max >> 2, changes: RegionSet(count: 4), listsItselfInSync: true))
        bench.clearTrace()
        bench.command(.join(PlexIndex(1), disk))
        bench.settle()
        for _ in 0..<100 {
            bench.tick()
            bench.settle()
        }
        #expect(bench.submitted(.write).contains { $0.plex == 1 && self.hits($0, [3 << 20]) })
        #expect(bench.record.inSync == set(0, 1) && bench.record.badRanges.isEmpty)
    }

    /// It missed nothing there, so it is not copied over, and the others get the block from it.
    @Test func plexThatWasAwayLendsWhatItStillHolds() throws {
        let bench = try MirrorBench(freshRecord([.inSync, .inSync]))
        bench.settle()
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        bench.send(1, .write, 3 << 20)
        bench.settle()
        var disk = try newDisk(plexUUID(1))
        disk.basis = .evidence(
            PlexEvidence(
                epoch: .max >> 2, sequence: .max >> 2, changes: RegionSet(count: 4), listsItselfInSync: true))
        bench.command(.join(PlexIndex(1), disk))
        var isHealed = false
        func fate(_ operation: MirrorBench.Operation) -> DiskFailure? {
            guard operation.plex == 0, hits(operation, [bad]), !isHealed else { return nil }
            if operation.kind == .write { isHealed = true }
            return operation.kind == .read ? .media : nil
        }
        for id in UInt64(10)..<200 {
            bench.settle(failing: fate)
            bench.tick()
            if bench.record.inSync == set(0, 1), id % 4 == 0 { bench.send(id, .read, bad) }
        }
        bench.settle(failing: fate)
        #expect(bench.record.inSync == set(0, 1) && bench.record.badRanges.isEmpty && isHealed)
        #expect(bench.record[PlexIndex(0)].corrected == 1 && bench.status().state == .healthy)
        #expect(bench.replies.values.allSatisfy { $0 == .ok })
    }

    /// The one that is to be replaced may be able to read it yet: it is not forgotten for one that lacks it.
    @Test func replacedPlexStaysUntilItsSuccessorHoldsEverything() throws {
        let bench = try MirrorBench(freshRecord([.inSync]))
        bench.settle()
        bench.command(.join(PlexIndex(1), try newDisk(), replacing: PlexIndex(0)))
        func fate(_ operation: MirrorBench.Operation) -> DiskFailure? {
            operation.plex == 0 && operation.kind == .read && hits(operation, [bad]) ? .media : nil
        }
        for _ in 0..<400 {
            bench.settle(failing: fate)
            bench.tick()
        }
        #expect(bench.record.inSync == set(0, 1) && bench.record.badRanges == [range(1, bad)])
        // It reads again.
        for _ in 0..<20 {
            bench.tick(afterMilliseconds: 60_000)
            bench.settle()
        }
        #expect(bench.record.inSync == set(1) && bench.record.badRanges.isEmpty)
        #expect(bench.record[PlexIndex(0)].role == .absent && bench.status().state == .healthy)
    }

    @Test func onlyPlexThatMayHoldABlockIsKeptUntilItIsKnownNotTo() throws {
        let bench = try MirrorBench(record([range(1, bad)]))
        bench.settle()
        for command in [Command.remove(PlexIndex(0)), .takeOffline(PlexIndex(0)), .breakOff(PlexIndex(0), name: "c")] {
            let id = bench.command(command)
            #expect(bench.answers[id]?.isRefused == true)
        }
        func fate(_ operation: MirrorBench.Operation) -> DiskFailure? {
            operation.plex == 0 && operation.kind == .read && hits(operation, [bad]) ? .media : nil
        }
        for _ in 0..<5 {
            bench.tick(afterMilliseconds: 11_000)
            bench.settle(failing: fate)
        }
        let id = bench.command(.remove(PlexIndex(0)))
        bench.settle()
        #expect(bench.answers[id]?.isDone == true && bench.record.badRanges == [range(1, bad)])
    }

    /// Writing to every other block must never need more room than there is.
    @Test func fragmentsOfWhatIsLackedAlwaysFitTheRecord() throws {
        let all = (0..<UInt64(300)).map { $0 * 4096 }
        let bench = try MirrorBench(freshRecord([.inSync, .failed]), present: set(0))
        bench.command(.join(PlexIndex(1), try newDisk()))
        func fate(_ operation: MirrorBench.Operation) -> DiskFailure? {
            operation.plex == 0 && operation.kind == .read && hits(operation, all) ? .media : nil
        }
        for _ in 0..<400 {
            bench.settle(failing: fate)
            bench.tick()
        }
        #expect(bench.record.inSync == set(0))
        for block in UInt64(0)..<300 where block % 2 == 0 { bench.send(block, .write, block * 4096) }
        let left = all.filter { $0 / 4096 % 2 == 1 }
        for _ in 0..<1000 {
            bench.settle(failing: { operation in
                operation.plex == 0 && operation.kind == .read && self.hits(operation, left) ? .media : nil
            })
            bench.tick()
        }
        for block in UInt64(0)..<300 where block % 2 == 0 { #expect(bench.replies[block] == .ok) }
        #expect(bench.record.badRanges.count <= Record.badRangeCapacity)
    }

    @Test func plexThatLacksSomethingIsNoCopyToBeBrokenOffAndIsForgottenWithIt() throws {
        let bench = try MirrorBench(record([range(1, bad)]))
        bench.settle()
        let kept = bench.command(.breakOff(PlexIndex(1), name: "copy"))
        bench.settle()
        guard case .refused(let text)? = bench.answers[kept] else {
            Issue.record("\(bench.answers[kept].debugDescription)")
            return
        }
        #expect(text.contains("lacks 4096 bytes"))
        let removed = bench.command(.remove(PlexIndex(1)))
        bench.settle()
        #expect(bench.answers[removed]?.isDone == true && bench.recorded(0)?.badRanges.isEmpty == true)
    }

    @Test func pinnedPlexThatDoesNotHoldItLetsAnotherAnswer() throws {
        // After a crash; plex 1 answers for all.
        let torn = record([range(1, bad)]).changed {
            $0.isClean = false
            $0.pinned = PlexIndex(1)
        }
        let bench = try MirrorBench(torn, dirty: [0])
        bench.send(1, .read, bad - block, 3 * block)
        bench.settle()
        for _ in 0..<100 {
            bench.tick()
            bench.settle()
        }
        #expect(bench.replies[1] == .ok && bench.status().state == .healthy)
        #expect(bench.recorded(0)?.badRanges.isEmpty == true)
    }
}
