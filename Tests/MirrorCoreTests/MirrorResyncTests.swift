import MirrorFormat
import Testing

@testable import MirrorCore

@Suite struct MirrorResyncTests {
    /// Plex 0 alone; plex 1 failed once and its disk is not open.
    private func single(_ limits: Limits = Limits()) throws -> MirrorBench {
        try MirrorBench(freshRecord([.inSync, .failed]), present: set(0), limits: limits)
    }

    private func join(_ bench: MirrorBench) throws -> UInt64 {
        bench.command(.join(PlexIndex(1), try newDisk()))
    }

    @Test func joiningPlexGetsNoDataBeforeItsOwnSuperblockSaysRecovering() throws {
        let bench = try single()
        let id = try join(bench)
        #expect(bench.pending.map { Int($0.plex.value) } == [0, 0])
        bench.settle(holding: { $0.plex == 1 })
        #expect(bench.recorded(0)?[PlexIndex(1)].role == .recovering && bench.answers.isEmpty)
        #expect(bench.waiting(.writeMetadata).map(\.plex) == [1, 1] && bench.pending.count == 2)
        bench.complete(.writeMetadata, on: 1)
        #expect(bench.waiting(.read).isEmpty)
        bench.complete(.writeMetadata, on: 1)
        #expect(
            bench.recorded(1)?[PlexIndex(1)].role == .recovering && bench.recorded(1)?[PlexIndex(1)].uuid == plexUUID(9)
        )
        #expect(bench.waiting(.read).count == 4)
        guard case .done = bench.answers[id] else {
            Issue.record("\(String(describing: bench.answers[id]))")
            return
        }
    }

    @Test func joinCopiesAllWindowsThenFlushesThenRecordsInSync() throws {
        let bench = try single()
        _ = try join(bench)
        bench.settle(holding: { $0.kind == .flush })
        let (reads, writes) = (bench.submitted(.read), bench.submitted(.write))
        #expect(reads.map(\.offset) == [0, 1, 2, 3].map { $0 << 20 } && reads.allSatisfy { $0.plex == 0 })
        #expect(Set(writes.map(\.offset)) == Set([0, 1, 2, 3].map { $0 << 20 }) && writes.allSatisfy { $0.plex == 1 })
        #expect(bench.waiting(.flush).map(\.plex) == [1])
        // Nothing on disk calls it in sync yet.
        for plex in 0...1 { #expect(bench.recorded(plex)?.inSync == set(0)) }
        bench.clearTrace()
        bench.complete(.flush, on: 1)
        // The others first: the newcomer must not claim more than they know.
        #expect(bench.waiting(.writeMetadata).map(\.plex) == [0, 0])
        bench.settle(holding: { $0.plex == 1 })
        #expect(bench.recorded(0)?.inSync == set(0, 1) && bench.recorded(1)?.inSync == set(0))
        #expect(bench.status().state == .rebuilding)
        bench.settle()
        #expect(bench.recorded(1)?.inSync == set(0, 1) && bench.status().state == .healthy)
        #expect(bench.events.map(\.code) == [.joined, .resyncStarted, .resyncFinished])
    }

    @Test func flushOfThePromotionComesAfterTheLastWindow() throws {
        let bench = try single()
        _ = try join(bench)
        bench.settle(holding: { $0.kind == .write && $0.offset == 2 << 20 })
        #expect(bench.waiting(.flush).isEmpty && bench.submitted(.flush).isEmpty)
        bench.settle()
        #expect(bench.record.inSync == set(0, 1))
    }

    @Test func writesReachThePlexUnderRebuildAndReadsDoNot() throws {
        let bench = try single()
        bench.dirty()
        _ = try join(bench)
        bench.settle(holding: { $0.kind == .write && $0.offset >= 1 << 20 })
        bench.clearTrace()
        bench.send(1, .write, 4096)
        #expect(bench.waiting(.write).filter { $0.offset == 4096 }.map(\.plex) == [0, 1])
        bench.complete(.write, on: 0, at: 4096)
        bench.complete(.write, on: 1, at: 4096)
        #expect(bench.replies[1] == .ok)
        for id in UInt64(2)...9 { bench.send(id, .read, id * 4096) }
        #expect(bench.submitted(.read).count == 8 && bench.submitted(.read).allSatisfy { $0.plex == 0 })
    }

    @Test func windowWaitsForAWriteToItsRangeAndTheOtherWayRound() throws {
        let bench = try single()
        bench.dirty()
        bench.tick(afterMilliseconds: 1000)
        _ = try join(bench)
        bench.settle(holding: { $0.kind == .read })
        // Window 0 holds its range.
        bench.send(1, .write, 4096)
        #expect(bench.waiting(.write).isEmpty)
        bench.settle(holding: { $0.kind == .write && $0.length == 1 << 20 })
        #expect(bench.waiting(.write).allSatisfy { $0.length == 1 << 20 } && bench.replies[1] == nil)
        bench.settle()
        #expect(bench.replies[1] == .ok)
    }

    @Test func windowsAreSmallAndOneAtATimeWhileAClientIsActive() throws {
        let bench = try single()
        _ = try join(bench)
        bench.settle(holding: { $0.kind == .write && $0.length == 1 << 20 && $0.offset > 0 })
        bench.tick(afterMilliseconds: 1000)
        bench.send(1, .write, 0)
        #expect(bench.waiting(.write).filter { $0.plex == 1 && $0.length == 1 << 20 }.count == 3)
        bench.clearTrace()
        bench.settle()
        #expect(bench.submitted(.read).isEmpty && bench.record.inSync == set(0, 1))

        // Once more, with the client there first.
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        bench.dirty()
        bench.send(2, .write, 0, 1 << 20)
        bench.settle()
        bench.clearTrace()
        bench.command(.join(PlexIndex(1), try newDisk()))
        bench.settle(holding: { $0.kind == .read })
        #expect(bench.waiting(.read).map(\.length) == [64 << 10])
        bench.complete(.read, on: 0)
        bench.settle(holding: { $0.kind == .read })
        #expect(bench.waiting(.read).map(\.offset) == [64 << 10])
        // The client falls silent.
        bench.tick(afterMilliseconds: 1000)
        bench.settle(holding: { $0.kind == .read && $0.length > 64 << 10 })
        #expect(bench.waiting(.read).contains { $0.length > 64 << 10 } && bench.waiting(.read).count > 1)
        bench.settle()
        #expect(bench.record.inSync == set(0, 1))
    }

    @Test func plexThatJoinsDuringARebuildIsCopiedFromTheBeginning() throws {
        var limits = Limits()
        limits.resyncWindowsIdle = 1
        let bench = try MirrorBench(freshRecord([.inSync, .failed, .failed]), present: set(0), limits: limits)
        _ = try join(bench)
        bench.settle(holding: { $0.kind == .write && $0.offset == 2 << 20 })
        bench.command(.join(PlexIndex(2), try newDisk(plexUUID(2), sequence: 1)))
        bench.settle()
        for plex in 1...2 {
            let copied = bench.submitted(.write).filter { $0.plex == plex }
            #expect(copied.map(\.offset).sorted() == [0, 1, 2, 3].map { $0 << 20 })
        }
        #expect(bench.record.inSync == set(0, 1, 2))
    }

    /// It may be promoted between the reply and a power failure, and must have then what was promised.
    @Test func flushReachesAPlexUnderRebuildToo() throws {
        let bench = try single()
        _ = try join(bench)
        bench.settle(holding: { $0.kind == .read })
        bench.send(1, .flush, 0, 0)
        #expect(bench.waiting(.flush).map(\.plex) == [0, 1])
        bench.complete(.flush, on: 0)
        #expect(bench.replies[1] == nil)
        bench.settle()
        #expect(bench.replies[1] == .ok)
    }

    @Test func busyClientsLeaveOneWindowInFlight() throws {
        let bench = try single()
        bench.send(1, .read)
        bench.settle()
        _ = try join(bench)
        bench.settle(holding: { $0.kind == .read })
        #expect(bench.waiting(.read).count == 1)
        bench.tick()
        #expect(bench.waiting(.read).count == 4)
    }

    @Test func targetThatFailsEndsItsRebuildAndTheMirrorGoesOn() throws {
        let bench = try single()
        _ = try join(bench)
        bench.settle(failing: { $0.kind == .write && $0.offset == 2 << 20 ? .media : nil })
        #expect(bench.record[PlexIndex(1)].role == .failed && bench.released == [PlexIndex(1)])
        #expect(bench.recorded(0)?[PlexIndex(1)].role == .failed && bench.recorded(0)?.inSync == set(0))
        bench.send(1, .write)
        bench.settle()
        #expect(bench.replies[1] == .ok)
    }

    @Test func targetWhoseFlushFailsIsNotPromoted() throws {
        let bench = try single()
        _ = try join(bench)
        bench.settle(failing: { $0.kind == .flush ? .media : nil })
        #expect(bench.record.inSync == set(0) && bench.record[PlexIndex(1)].cause.operation == .flush)
        #expect(bench.recorded(1)?.inSync == set(0))
    }

    @Test func targetThatCannotRecordItsPromotionIsExpelledAgain() throws {
        let bench = try single()
        _ = try join(bench)
        bench.settle(holding: { $0.kind == .flush })
        bench.settle(failing: { $0.kind == .writeMetadata && $0.plex == 1 ? .media : nil })
        #expect(bench.record.inSync == set(0) && bench.recorded(0)?.inSync == set(0))
        #expect(bench.recorded(0)?[PlexIndex(1)].role == .failed)
        // Plex 0 had it in sync on record for a moment: a new era makes its absence explicable.
        #expect(bench.recorded(0)?.generation != era(1))
        bench.send(1, .write)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.isOpen)
    }

    @Test func unreadableSourcePausesTheRebuildAndItIsTriedAgain() throws {
        let bench = try single()
        _ = try join(bench)
        bench.settle(failing: { $0.kind == .read && $0.offset == 1 << 20 ? .media : nil })
        #expect(bench.record.inSync == set(0) && bench.events.contains { $0.code == .resyncPaused })
        #expect(bench.status().resync?.isPaused == true)
        bench.tick(afterMilliseconds: 9000)
        bench.settle()
        #expect(bench.record.inSync == set(0))
        bench.tick(afterMilliseconds: 1000)
        bench.tick()
        bench.settle()
        #expect(bench.record.inSync == set(0, 1))
    }

    @Test func rebuildStoppedInGoodOrderGoesOnWhereItWas() throws {
        var limits = Limits()
        limits.resyncWindowsIdle = 1
        let bench = try single(limits)
        _ = try join(bench)
        bench.settle(holding: { $0.kind == .write && $0.offset == 2 << 20 })
        bench.command(.stop)
        bench.settle()
        #expect(bench.isStopped)
        let recorded = try #require(bench.recorded(0))
        #expect(recorded.isClean && recorded == bench.recorded(1) && bench.missed(1) == [3])
        let restarted = try bench.restarted()
        restarted.settle()
        #expect(restarted.submitted(.read).map(\.offset) == [3 << 20] && restarted.record.inSync == set(0, 1))
    }

    /// What is copied and not yet on record counts for nothing: nobody knows what of it the disk kept.
    @Test func rebuildCutOffByACrashStartsFromTheBeginning() throws {
        var limits = Limits()
        limits.resyncWindowsIdle = 1
        let bench = try single(limits)
        _ = try join(bench)
        bench.settle(holding: { $0.kind == .write && $0.offset == 3 << 20 })
        let restarted = try bench.restarted()
        restarted.settle()
        #expect(restarted.submitted(.write).map(\.offset).sorted() == [0, 1, 2, 3].map { $0 << 20 })
        #expect(restarted.record.inSync == set(0, 1))
    }
}
