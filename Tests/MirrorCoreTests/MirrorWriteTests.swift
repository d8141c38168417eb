import MirrorFormat
import Testing

@testable import MirrorCore

@Suite struct MirrorWriteTests {
    private func dirtyPair() throws -> MirrorBench {
        let bench = try MirrorBench()
        bench.dirty()
        return bench
    }

    @Test func writeToAHealthyMirrorReachesBothPlexesThenReplies() throws {
        let bench = try dirtyPair()
        bench.send(1, .write, 8192, 8192)
        let writes = bench.waiting(.write)
        #expect(writes.map(\.plex) == [0, 1])
        #expect(writes.allSatisfy { $0.offset == 8192 && $0.length == 8192 && $0.bufferOffset == 0 && !$0.isDurable })
        #expect(bench.complete(.write, on: 1))
        #expect(bench.replies[1] == nil)
        #expect(bench.complete(.write, on: 0))
        #expect(bench.replies[1] == .ok && bench.pending.isEmpty)
    }

    @Test func firstWriteWaitsForItsBitAndTheDirtyMarkOnBothPlexes() throws {
        let bench = try MirrorBench()
        bench.send(1, .write)
        bench.send(2, .write, 1 << 20)
        // A page and two copies of the superblock on each.
        let metadata = bench.waiting(.writeMetadata)
        #expect(metadata.count == 6 && metadata.allSatisfy(\.isDurable) && bench.pending.count == 6)
        #expect(metadata.filter(\.isPage).map(\.plex) == [0, 1])
        for (index, block) in metadata.enumerated() {
            #expect(bench.waiting(.write).isEmpty, "data before the \(index + 1)th block is durable")
            #expect(bench.complete(.writeMetadata, on: block.plex, at: block.offset))
        }
        for plex in 0...1 { #expect(bench.recorded(plex)?.isClean == false && bench.intent(plex) == [0]) }
        // The bit of the second came while the page was on its way: it goes out with the next.
        #expect(bench.waiting(.write).map(\.offset) == [0, 0])
        #expect(bench.waiting(.writeMetadata).map(\.isPage) == [true, true])
        bench.complete(.writeMetadata, on: 0)
        #expect(bench.waiting(.write).count == 2)
        bench.complete(.writeMetadata, on: 1)
        #expect(bench.waiting(.write).count == 4 && bench.intent(0) == [0, 1] && bench.intent(1) == [0, 1])
        bench.settle()
        #expect(bench.replies == [1: .ok, 2: .ok])
    }

    @Test func laterWritesNeedNoRecord() throws {
        let bench = try dirtyPair()
        for id in UInt64(1)...20 { bench.send(id, .write, id * 8192) }
        bench.settle()
        #expect(bench.submitted(.writeMetadata).isEmpty && bench.replyOrder.suffix(20) == Array(1...20)[...])
    }

    @Test(arguments: [0, 1], [true, false])
    func failedWriteIsAcknowledgedOnlyWhenTheExpulsionIsOnRecord(bad: Int, failsFirst: Bool) throws {
        let bench = try dirtyPair()
        let good = 1 - bad
        let before = bench.record
        bench.send(1, .write, 12_288)
        for plex in failsFirst ? [bad, good] : [good, bad] {
            #expect(bench.complete(.write, on: plex, failing: plex == bad ? .media : nil))
        }
        #expect(bench.waiting(.writeMetadata).map(\.plex) == [good, good])
        #expect(bench.complete(.writeMetadata, on: good))
        #expect(bench.replies[1] == nil)
        #expect(bench.complete(.writeMetadata, on: good))
        #expect(bench.replies[1] == .ok)

        let recorded = try #require(bench.recorded(good))
        let lost = recorded[PlexIndex(bad)]
        #expect(recorded.generation != before.generation && recorded.epoch > before.epoch)
        #expect(recorded.history.first?.generation == before.generation && recorded.history.first?.reason == .expelled)
        #expect(recorded.history.first?.inSync == set(0, 1) && recorded.inSync == set(good))
        #expect(lost.role == .failed && lost.writeErrors == 1)
        #expect(lost.cause.operation == .write && lost.cause.errorNumber == 5 && lost.cause.offset == 12_288)
        #expect(bench.released == [PlexIndex(bad)] && bench.events.map(\.code) == [.plexFailed])
        // What the other disk says, if it says anything, is an older story.
        #expect(bench.recorded(bad)?.generation == before.generation)
    }

    @Test func thirdPlexMustKnowOfTheExpulsionToo() throws {
        let bench = try MirrorBench(freshRecord([.inSync, .inSync, .inSync]))
        bench.dirty()
        bench.send(1, .write)
        bench.settle(holding: { $0.kind == .writeMetadata && $0.plex == 2 }, failing: { $0.plex == 0 ? .media : nil })
        #expect(bench.recorded(1)?.inSync == set(1, 2) && bench.replies[1] == nil)
        bench.settle()
        #expect(bench.recorded(2)?.inSync == set(1, 2) && bench.replies[1] == .ok)
    }

    @Test func plexThatCannotRecordTheExpulsionIsExpelledToo() throws {
        let bench = try MirrorBench(freshRecord([.inSync, .inSync, .inSync]))
        bench.dirty()
        bench.send(1, .write)
        bench.settle(failing: { operation in
            (operation.plex == 0 && operation.kind == .write)
                || (operation.plex == 1 && operation.kind == .writeMetadata)
                ? .media : nil
        })
        #expect(bench.replies[1] == .ok)
        let recorded = try #require(bench.recorded(2))
        #expect(recorded.inSync == set(2))
        #expect(recorded[PlexIndex(1)].cause.operation == .metadata && recorded[PlexIndex(0)].cause.operation == .write)
    }

    @Test func writeGoesOnDegradedWithoutFurtherRecords() throws {
        let bench = try dirtyPair()
        bench.send(1, .write)
        bench.settle(failing: { $0.plex == 1 ? .gone : nil })
        bench.clearTrace()
        bench.send(2, .write)
        #expect(bench.pending.count == 1)
        bench.settle()
        #expect(bench.replies[2] == .ok && bench.submitted(.writeMetadata).isEmpty)
        #expect(bench.status().state == .degraded)
    }

    @Test func overlappingRequestsRunInOrderWhileOthersRunInParallel() throws {
        let bench = try dirtyPair()
        bench.send(1, .write, 0, 8192)
        bench.send(2, .write, 4096, 8192)
        bench.send(3, .write, 1 << 20)
        bench.send(4, .read, 8192)
        bench.send(5, .read, 2 << 20)
        #expect(Set(bench.waiting(.write).map(\.offset)) == [0, 1 << 20])
        #expect(bench.waiting(.read).map(\.offset) == [2 << 20])
        bench.settle(holding: { $0.offset == 4096 || $0.offset == 0 })
        #expect(bench.replyOrder.suffix(2).sorted() == [3, 5])
        bench.settle(holding: { $0.offset == 4096 })
        #expect(bench.replies[1] == .ok && bench.replies[2] == nil && bench.waiting(.read).isEmpty)
        bench.settle()
        #expect(bench.replyOrder.suffix(3) == [1, 2, 4])
    }

    @Test func readsOfTheSameBytesShare() throws {
        let bench = try dirtyPair()
        for id in UInt64(1)...4 { bench.send(id, .read, 4096) }
        #expect(bench.waiting(.read).count == 4)
        bench.send(5, .write, 4096)
        bench.send(6, .read, 4096)
        #expect(bench.waiting(.read).count == 4 && bench.waiting(.write).isEmpty)
        bench.settle()
        #expect(bench.replyOrder.suffix(2) == [5, 6])
    }

    @Test func forcedUnitAccessIsDurableOnEveryPlexAndInEveryPiece() throws {
        let bench = try dirtyPair()
        bench.send(1, .write, 5000, 1000, fua: true)
        bench.send(2, .zeroes, 1_050_000, 20_000, fua: true)
        bench.send(3, .trim, 2 << 20, 8192, fua: true)
        bench.settle()
        let changes = bench.submitted(.write) + bench.submitted(.deallocate)
        #expect(changes.count == 2 + 6 + 2 && changes.allSatisfy(\.isDurable))
        bench.clearTrace()
        bench.send(4, .write)
        bench.send(5, .zeroes, 8192)
        bench.settle()
        #expect((bench.submitted(.write) + bench.submitted(.deallocate)).allSatisfy { !$0.isDurable })
    }

    @Test func requestOfNothingIsAnsweredWithoutTouchingADisk() throws {
        let bench = try MirrorBench()
        for (id, kind) in [RequestKind.read, .write, .zeroes, .trim, .allocation].enumerated() {
            bench.send(UInt64(id), kind, 4096, 0)
            #expect(bench.replies[UInt64(id)] == .ok)
        }
        #expect(bench.pending.isEmpty)
    }

    @Test func shortWriteIsContinuedWhereItStopped() throws {
        let bench = try dirtyPair()
        bench.send(1, .write, 8192, 16_384)
        #expect(bench.complete(.write, on: 0, transferring: 5000))
        let rest = try #require(bench.waiting(.write).first { $0.plex == 0 })
        // Progress counts in whole blocks.
        #expect(rest.offset == 12_288 && rest.length == 12_288 && rest.bufferOffset == 4096)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.released.isEmpty)
    }

    @Test func writeThatMovesNothingMeansThatTheDeviceIsGone() throws {
        let bench = try dirtyPair()
        bench.send(1, .write)
        bench.complete(.write, on: 0, transferring: 0)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.released == [PlexIndex(0)])
    }

    @Test func transientErrorsAreRetriedAndNotCounted() throws {
        let bench = try dirtyPair()
        bench.send(1, .write)
        for _ in 0..<16 { #expect(bench.complete(.write, on: 0, failing: .busy)) }
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.released.isEmpty && bench.record[PlexIndex(0)].writeErrors == 0)
        bench.send(2, .write)
        for _ in 0..<17 { #expect(bench.complete(.write, on: 0, failing: .busy)) }
        bench.settle()
        #expect(bench.replies[2] == .ok && bench.released == [PlexIndex(0)])
    }
}
