import MirrorFormat
import Testing

@testable import MirrorCore

@Suite struct MirrorReadTests {
    @Test func readIsServedByOnePlexInWholeBlocks() throws {
        let bench = try MirrorBench()
        bench.send(1, .read, 5000, 5000)
        let reads = bench.waiting(.read)
        #expect(reads.count == 1 && reads.first?.offset == 4096 && reads.first?.length == 8192)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.submitted(.writeMetadata).isEmpty)
    }

    @Test func readsInFlightAreSpreadOverThePlexes() throws {
        let bench = try MirrorBench()
        for id in UInt64(0)..<8 { bench.send(id, .read, id * 65_536) }
        #expect(bench.waiting(.read).filter { $0.plex == 0 }.count == 4)
    }

    @Test func readErrorFailsOverAndExpelsNobody() throws {
        let bench = try MirrorBench()
        bench.send(1, .read)
        let first = try #require(bench.waiting(.read).first?.plex)
        bench.complete(.read, on: first, failing: .media)
        #expect(bench.waiting(.read).map(\.plex) == [1 - first])
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.released.isEmpty)
        #expect(bench.record[PlexIndex(first)].readErrors == 1 && bench.record.inSync == set(0, 1))
        #expect(bench.events.map(\.code) == [.readError] && bench.events.first?.plex == PlexIndex(first))
    }

    @Test func rangeThatNoPlexCanReadIsAnErrorAndExpelsNobody() throws {
        let bench = try MirrorBench()
        bench.send(1, .read)
        bench.settle(failing: { _ in .media })
        #expect(bench.replies[1] == .ioError && bench.record.inSync == set(0, 1))
        // The mirror goes on.
        bench.send(2, .read)
        bench.settle()
        #expect(bench.replies[2] == .ok)
    }

    @Test func plexWhoseDeviceIsGoneIsExpelledByARead() throws {
        let bench = try MirrorBench()
        bench.send(1, .read)
        let first = try #require(bench.waiting(.read).first?.plex)
        bench.complete(.read, on: first, failing: .gone)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.released == [PlexIndex(first)])
        let recorded = try #require(bench.recorded(1 - first))
        #expect(recorded.inSync == set(1 - first) && recorded.generation != era(1))
    }

    @Test func lastPlexIsNeverExpelled() throws {
        let bench = try MirrorBench(freshRecord([.inSync]))
        for (id, failure) in [DiskFailure.gone, .media, .noSpace].enumerated() {
            bench.send(UInt64(id), .read)
            bench.settle(failing: { _ in failure })
            #expect(bench.replies[UInt64(id)] == .ioError)
        }
        #expect(bench.record.inSync == set(0) && bench.released.isEmpty)
        bench.send(9, .read)
        bench.settle()
        #expect(bench.replies[9] == .ok)
    }

    @Test func answerOfAPlexExpelledMeanwhileIsNotUsed() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.send(1, .read, 0)
        let source = try #require(bench.waiting(.read).first?.plex)
        bench.send(2, .write, 1 << 20)
        bench.settle(holding: { $0.kind == .read }, failing: { $0.plex == source && $0.kind == .write ? .media : nil })
        #expect(bench.replies[2] == .ok && bench.released.isEmpty)
        bench.complete(.read, on: source)
        #expect(bench.replies[1] == nil && bench.waiting(.read).map(\.plex) == [1 - source])
        #expect(bench.released == [PlexIndex(source)])
        bench.settle()
        #expect(bench.replies[1] == .ok)
    }

    @Test func shortReadIsContinued() throws {
        let bench = try MirrorBench()
        bench.send(1, .read, 0, 16_384)
        let source = try #require(bench.waiting(.read).first?.plex)
        bench.complete(.read, on: source, transferring: 8192)
        let rest = try #require(bench.waiting(.read).first)
        #expect(rest.offset == 8192 && rest.length == 8192 && rest.bufferOffset == 8192 && rest.plex == source)
        bench.settle()
        #expect(bench.replies[1] == .ok)
    }

    @Test func allocationIsAskedOfOnePlex() throws {
        let bench = try MirrorBench()
        bench.send(1, .allocation, 0, 1 << 20)
        #expect(bench.waiting(.queryAllocation).count == 1 && bench.pending.count == 1)
        bench.settle()
        #expect(bench.replies[1] == .ok)
    }
}

@Suite struct MirrorFlushTests {
    @Test func flushReachesBothPlexesThenReplies() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.send(1, .flush, 0, 0)
        #expect(bench.waiting(.flush).map(\.plex) == [0, 1])
        bench.complete(.flush, on: 0)
        #expect(bench.replies[1] == nil)
        bench.complete(.flush, on: 1)
        #expect(bench.replies[1] == .ok)
    }

    @Test(arguments: [0, 1]) func flushThatFailsOnOnePlexExpelsItBeforeTheReply(bad: Int) throws {
        let bench = try MirrorBench()
        bench.dirty()
        let before = bench.record.generation
        bench.send(1, .flush, 0, 0)
        bench.settle(holding: { $0.kind == .writeMetadata }, failing: { $0.plex == bad ? .media : nil })
        #expect(bench.replies[1] == nil && bench.waiting(.writeMetadata).count == 2)
        bench.settle()
        let recorded = try #require(bench.recorded(1 - bad))
        #expect(bench.replies[1] == .ok && recorded.inSync == set(1 - bad) && recorded.generation != before)
        #expect(recorded[PlexIndex(bad)].cause.operation == .flush)
    }

    @Test func flushThatFailedEverywhereIsNeverBelievedAgain() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.send(1, .flush, 0, 0)
        bench.settle(failing: { $0.kind == .flush ? .media : nil })
        // The first to fail is expelled at once; the other is then the last, and stays.
        #expect(bench.replies[1] == .ioError && bench.record.inSync.count == 1)
        bench.send(2, .flush, 0, 0)
        bench.settle()
        #expect(bench.replies[2] == .ioError)
    }

    @Test func flushWaitsForTheRecordThatAnEarlierFailureNeeds() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.send(1, .write)
        bench.settle(holding: { $0.kind == .writeMetadata }, failing: { $0.plex == 1 ? .media : nil })
        bench.send(2, .flush, 0, 0)
        bench.settle(holding: { $0.kind == .writeMetadata })
        // The other disk may still list plex 1 in sync: then it would lack what this flush promises.
        #expect(bench.replies[1] == nil && bench.replies[2] == nil)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.replies[2] == .ok)
    }
}
