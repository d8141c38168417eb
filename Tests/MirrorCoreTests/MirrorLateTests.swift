import MirrorFormat
import Testing

@testable import MirrorCore

/// Disks that do not answer.
@Suite struct MirrorLateTests {
    private func codes(_ bench: MirrorBench) -> [EventCode] { bench.events.map(\.code) }

    /// A write that plex 0 has done and plex 1 has not.
    private func hangingWrite(_ bench: MirrorBench) {
        bench.dirty()
        bench.clearTrace()
        bench.send(7, .write)
        bench.settle(holding: { $0.plex == 1 })
    }

    @Test func plexThatOwesAWriteIsExpelledAtTheDeadline() throws {
        let bench = try MirrorBench()
        hangingWrite(bench)
        bench.wait(milliseconds: 1900)
        #expect(bench.replies[7] == nil && bench.record.inSync == set(0, 1))
        bench.wait(milliseconds: 200)
        bench.settle(holding: { $0.plex == 1 && $0.kind == .write })
        #expect(bench.replies[7] == .ok)
        let recorded = try #require(bench.recorded(0))
        #expect(recorded.inSync == set(0) && recorded[PlexIndex(1)].cause.errorNumber == 110)
        #expect(codes(bench).contains(.plexFailed))
        // R2: the record came before the reply.
        let recording = try #require(
            bench.position { if case .submit(let one) = $0 { one.isSuperblock } else { false } })
        let reply = try #require(bench.position { $0 == .reply(7, .ok) })
        #expect(recording < reply)
    }

    @Test func diskStaysOpenUntilItHasAnswered() throws {
        let bench = try MirrorBench()
        hangingWrite(bench)
        bench.wait(milliseconds: 2500)
        bench.settle(holding: { $0.plex == 1 && $0.kind == .write })
        #expect(bench.released.isEmpty && bench.mirror.plexesThatMayReturn.isEmpty)
        #expect(bench.waiting(.write).map(\.plex) == [1])
        #expect(bench.status().plexes[1].operationsInFlight == 1)
        // It is no answer to anything any more.
        bench.complete(.write, on: 1)
        #expect(bench.released == [PlexIndex(1)] && bench.mirror.plexesThatMayReturn == set(1))
        bench.send(8, .write)
        bench.settle()
        #expect(bench.replies[8] == .ok)
    }

    @Test func onlyGoodPlexIsNeverExpelledForBeingLate() throws {
        let bench = try MirrorBench(freshRecord([.inSync]))
        bench.dirty()
        bench.send(7, .write)
        bench.wait(milliseconds: 60_000)
        #expect(bench.replies[7] == nil && bench.record.inSync == set(0))
        #expect(bench.status().state == .suspended && codes(bench).last == .suspended)
        bench.settle()
        bench.tick()
        #expect(bench.replies[7] == .ok && bench.status().state == .healthy && codes(bench).last == .resumed)
    }

    @Test func allLateTogetherAreWaitedFor() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.send(7, .write)
        bench.wait(milliseconds: 30_000)
        #expect(bench.replies[7] == nil && bench.record.inSync == set(0, 1) && bench.status().state == .suspended)
        #expect(codes(bench).filter { $0 == .suspended }.count == 1)
        bench.settle()
        #expect(bench.replies[7] == .ok && bench.record.inSync == set(0, 1))
    }

    @Test func pauseOfTheProcessBlamesNobody() throws {
        let bench = try MirrorBench()
        hangingWrite(bench)
        bench.tick(afterMilliseconds: 10_000)
        bench.wait(milliseconds: 1800)
        #expect(bench.record.inSync == set(0, 1))
        bench.settle()
        #expect(bench.replies[7] == .ok && bench.record.inSync == set(0, 1))
    }

    @Test func slowDiskThatGoesOnWritingHasMoreTime() throws {
        let bench = try MirrorBench()
        bench.dirty()
        for id in UInt64(0)..<8 { bench.send(id, .write, id * 4096) }
        bench.settle(holding: { $0.plex == 1 })
        for id in UInt64(0)..<8 {
            bench.wait(milliseconds: 1000)
            #expect(bench.record.inSync == set(0, 1), "after \(id + 1) s")
            bench.complete(.write, on: 1)
            bench.settle(holding: { $0.plex == 1 })
        }
        #expect(bench.replies.count == 9 && bench.record.inSync == set(0, 1))
    }

    @Test func flushMayTakeItsTime() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.send(7, .flush)
        let isHeld: (MirrorBench.Operation) -> Bool = { $0.plex == 1 && $0.kind == .flush }
        bench.settle(holding: isHeld)
        bench.wait(milliseconds: 9000, holding: isHeld)
        #expect(bench.replies[7] == nil && bench.record.inSync == set(0, 1))
        bench.wait(milliseconds: 1500, holding: isHeld)
        #expect(bench.replies[7] == .ok && bench.record.inSync == set(0))
        // It failed no flush: what it missed since it left is counted.
        #expect(bench.record[PlexIndex(1)].missedWriteMap != nil)
    }

    @Test func recordThatAPlexDoesNotTakeEndsWithoutIt() throws {
        let bench = try MirrorBench()
        bench.send(7, .write)
        bench.settle(holding: { $0.plex == 1 && $0.kind == .writeMetadata })
        #expect(bench.replies[7] == nil)
        bench.wait(milliseconds: 2500)
        bench.settle(holding: { $0.plex == 1 && $0.kind == .writeMetadata })
        #expect(bench.replies[7] == .ok && bench.record.inSync == set(0))
        bench.command(.stop)
        bench.settle(holding: { $0.plex == 1 })
        bench.wait(milliseconds: 500)
        bench.settle(holding: { $0.plex == 1 })
        // Nobody waits for what was given up, but it is still under way.
        #expect(bench.isStopped && bench.recorded(0)?.isClean == true)
        bench.settle()
        #expect(bench.released.contains(PlexIndex(1)))
    }

    @Test func targetOfAResyncThatIsLateLeavesAndItsWindowGetsOtherMemory() throws {
        let bench = try MirrorBench(freshRecord([.inSync, .stale]), present: set(0, 1))
        let isHeld: (MirrorBench.Operation) -> Bool = { $0.plex == 1 && $0.kind == .write }
        bench.settle(holding: isHeld)
        #expect(bench.record[PlexIndex(1)].role == .recovering)
        bench.wait(milliseconds: 3000, holding: isHeld)
        #expect(bench.record[PlexIndex(1)].role == .failed)
        #expect(bench.position { if case .detach(window: .some) = $0 { true } else { false } } != nil)
    }

    @Test func trimHoldsNoMemoryAndIsAlwaysLetGo() throws {
        var limits = Limits()
        limits.pinnedBytes = 4096
        let bench = try MirrorBench(limits: limits)
        bench.dirty()
        bench.send(7, .trim, 0, 65_536)
        bench.settle(holding: { $0.plex == 1 })
        bench.wait(milliseconds: 11_000, holding: { $0.plex == 1 && $0.kind == .deallocate })
        #expect(bench.replies[7] == .ok && bench.record.inSync == set(0))
    }

    @Test func flushThatFailsWhenNobodyWaitsForItIsBelieved() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.send(7, .flush)
        let isHeld: (MirrorBench.Operation) -> Bool = { $0.plex == 1 && $0.kind == .flush }
        bench.settle(holding: isHeld)
        bench.wait(milliseconds: 11_000, holding: isHeld)
        #expect(bench.record[PlexIndex(1)].missedWriteMap != nil)
        bench.complete(.flush, on: 1, failing: .media)
        bench.settle()
        #expect(bench.recorded(0)?[PlexIndex(1)].missedWriteMap == nil && bench.released == [PlexIndex(1)])
    }

    @Test func stopEndsThoughALogIsNeverWritten() throws {
        let bench = try MirrorBench()
        bench.send(7, .write)
        bench.settle(holding: { $0.plex == 1 && $0.isEventBlock })
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle(holding: { $0.plex == 1 && $0.isEventBlock })
        bench.tick()
        bench.command(.stop)
        bench.settle(holding: { $0.plex == 1 && $0.isEventBlock })
        bench.wait(milliseconds: 3000, holding: { $0.plex == 1 && $0.isEventBlock })
        #expect(bench.isStopped)
    }

    // MARK: hedged reads

    /// A read that one plex was asked for, and which.
    private func hangingRead(_ bench: MirrorBench, _ id: UInt64 = 1) throws -> Int {
        bench.send(id, .read, 0, 8192)
        return try #require(bench.waiting(.read).last?.plex)
    }

    @Test func secondPlexIsAskedAndItsAnswerAdopted() throws {
        let bench = try MirrorBench()
        let first = try hangingRead(bench)
        bench.hedge(afterMilliseconds: 40)
        #expect(bench.waiting(.read).count == 1)
        bench.hedge(afterMilliseconds: 20)
        #expect(bench.waiting(.read).map(\.plex) == [first, 1 - first])
        bench.complete(.read, on: 1 - first)
        #expect(bench.replies[1] == .ok)
        let adopted = try #require(bench.position { $0 == .adopt(1 - first, offset: 0, length: 8192) })
        #expect(adopted < (bench.position { $0 == .reply(1, .ok) } ?? 0))
        // Nobody is worse off for it; what comes late is nobody's.
        bench.complete(.read, on: first)
        #expect(bench.record.inSync == set(0, 1) && bench.record[PlexIndex(first)].readErrors == 0)
        bench.send(2, .read)
        bench.settle()
        #expect(bench.replies[2] == .ok)
    }

    @Test func firstAnswerWinsEvenIfItIsLate() throws {
        let bench = try MirrorBench()
        let first = try hangingRead(bench)
        bench.hedge(afterMilliseconds: 60)
        bench.complete(.read, on: first)
        #expect(bench.replies[1] == .ok)
        #expect(bench.position { if case .adopt = $0 { true } else { false } } == nil)
        bench.settle()
    }

    @Test func failureOfOneIsNoFailureWhileTheOtherMayAnswer() throws {
        let bench = try MirrorBench()
        let first = try hangingRead(bench)
        bench.hedge(afterMilliseconds: 60)
        bench.complete(.read, on: 1 - first, failing: .media)
        #expect(bench.replies[1] == nil)
        bench.hedge(afterMilliseconds: 60)
        bench.complete(.read, on: first)
        #expect(bench.replies[1] == .ok)
        bench.settle()
    }

    @Test func bothThatWereAskedFailing() throws {
        let bench = try MirrorBench()
        let first = try hangingRead(bench)
        bench.hedge(afterMilliseconds: 60)
        bench.complete(.read, on: first, failing: .media)
        #expect(bench.replies[1] == nil)
        bench.complete(.read, on: 1 - first, failing: .media)
        bench.settle(failing: { $0.kind == .read ? .media : nil })
        #expect(bench.replies[1] == .ioError)
    }

    @Test func cutWriteIsHedgedWhereItReadsTheRestOfABlock() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.send(1, .write, 512, 1024)
        let first = try #require(bench.waiting(.read).first?.plex)
        bench.hedge(afterMilliseconds: 60)
        bench.complete(.read, on: 1 - first)
        // The read that nobody waits for and the write are under way together, and are told apart.
        #expect(bench.waiting(.write).count == 2 && bench.waiting(.read).map(\.plex) == [first])
        bench.complete(.read, on: first)
        #expect(bench.replies[1] == nil)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.record.inSync == set(0, 1))
    }

    @Test func whatIsPinnedIsBounded() throws {
        var limits = Limits()
        limits.pinnedBytes = 8192
        let bench = try MirrorBench(limits: limits)
        let first = try hangingRead(bench)
        bench.hedge(afterMilliseconds: 60)
        bench.complete(.read, on: 1 - first)
        #expect(bench.replies[1] == .ok)
        bench.send(2, .read, 0, 4096)
        bench.settle(holding: { $0.plex == first })
        bench.send(3, .read, 65536, 4096)
        bench.settle(holding: { _ in true })
        bench.hedge(afterMilliseconds: 500)
        #expect(bench.waiting(.read).count(where: { $0.offset == 65536 }) <= 1)
        bench.settle()
        #expect(bench.replies[2] == .ok && bench.replies[3] == .ok)
    }

    // MARK: slow plexes

    @Test func plexThatIsAlwaysSlowerIsReadInNeedOnlyAndReturns() throws {
        let bench = try MirrorBench()
        func read(_ round: UInt64, slow: UInt64) {
            for id in UInt64(0)..<20 {
                // Nobody goes on where the one before has ended.
                bench.send(round * 100 + id, .read, id * 7 % 20 * 8192)
                if let plex = bench.waiting(.read).first?.plex, plex == 1 { bench.hedge(afterMilliseconds: slow) }
                bench.settle()
                bench.tick(afterMilliseconds: 5)
            }
        }
        for round in UInt64(1)..<120 where !codes(bench).contains(.slow) { read(round, slow: 30) }
        #expect(codes(bench).contains(.slow) && bench.events.last { $0.code == .slow }?.plex == PlexIndex(1))
        #expect(bench.status().plexes[1].isSlow)
        for round in UInt64(200)..<500 where !codes(bench).contains(.slowEnded) { read(round, slow: 0) }
        #expect(codes(bench).contains(.slowEnded) && !bench.status().plexes[1].isSlow)
    }

    @Test func writeMostlyPlexIsReadInNeedOnly() throws {
        var record = freshRecord()
        record[PlexIndex(1)].isWriteMostly = true
        let bench = try MirrorBench(record)
        for id in UInt64(0)..<8 { bench.send(id, .read, id * 65_536) }
        #expect(Set(bench.waiting(.read).map(\.plex)) == [0])
        bench.complete(.read, on: 0, failing: .media)
        #expect(bench.waiting(.read).contains { $0.plex == 1 })
        bench.settle()
        #expect(bench.replies.values.allSatisfy { $0 == .ok })
    }

    @Test func percentilesOfReadTimes() {
        var times = ReadTimes()
        #expect(times.within(990) == nil)
        for index in UInt64(1)...1000 { times.count(index * 1_000_000) }
        let half = times.within(500) ?? 0
        let most = times.within(990) ?? 0
        #expect((500_000_000...640_000_000).contains(half) && (990_000_000...1_250_000_000).contains(most))
        for _ in 0..<100_000 { times.count(1_000) }
        #expect((times.within(990) ?? .max) < 10_000)
        times.count(.max)
        times.count(0)
    }
}
