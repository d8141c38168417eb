import MirrorFormat
import Testing

@testable import MirrorCore

/// R1: an intent bit is on every plex before any data is sent to its region. 64 regions of 64 KiB.
@Suite struct MirrorIntentTests {
    private static let region: UInt64 = 64 << 10

    /// The record says dirty already; of the bits only that of the last region is set.
    private func running(_ plexes: Int = 2, limits: Limits = Limits()) throws -> MirrorBench {
        let bench = try MirrorBench(
            freshRecord(Array(repeating: .inSync, count: plexes), regionBytes: Self.region), limits: limits)
        bench.send(999_999, .write, 63 * Self.region)
        bench.settle()
        bench.clearTrace()
        return bench
    }

    private func write(_ bench: MirrorBench, _ id: UInt64, region: UInt64) {
        bench.send(id, .write, region * Self.region)
    }

    private func fill(_ bench: MirrorBench, _ id: UInt64, region: UInt64) {
        bench.send(id, .write, region * Self.region, Self.region)
    }

    private func pages(_ bench: MirrorBench) -> [MirrorBench.Operation] { bench.waiting(.writeMetadata) }

    @Test(arguments: [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
    func bitIsOnEveryPlexBeforeDataIsSentToAny(order: [Int]) throws {
        let bench = try running(3)
        write(bench, 1, region: 5)
        #expect(pages(bench).map(\.plex) == [0, 1, 2] && pages(bench).allSatisfy { $0.isPage && $0.isDurable })
        for plex in order {
            #expect(bench.waiting(.write).isEmpty)
            bench.complete(.writeMetadata, on: plex)
            #expect(bench.intent(plex) == [5, 63])
        }
        #expect(bench.waiting(.write).map(\.plex) == [0, 1, 2])
        bench.settle()
        #expect(bench.replies[1] == .ok)
    }

    @Test(arguments: [RequestKind.write, .zeroes, .trim]) func everyChangeNeedsTheBitsOfAllItsRegions(
        kind: RequestKind
    ) throws {
        let bench = try running()
        // The last block of region 4 through the first of region 6.
        bench.send(1, kind, 5 * Self.region - 4096, Self.region + 8192)
        #expect(bench.pending.count == 2 && pages(bench).allSatisfy(\.isPage))
        bench.settle(holding: { $0.kind != .writeMetadata })
        #expect(bench.intent(0) == [4, 5, 6, 63] && bench.intent(1) == [4, 5, 6, 63] && bench.pending.count == 2)
    }

    @Test func readsAndFlushesNeedNoBit() throws {
        let bench = try running()
        bench.send(1, .read, 0)
        bench.send(2, .flush, 0, 0)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.replies[2] == .ok && bench.submitted(.writeMetadata).isEmpty)
    }

    @Test func writersThatComeMeanwhileShareTheNextPageWrite() throws {
        let bench = try running()
        write(bench, 1, region: 1)
        for id in UInt64(2)...12 { write(bench, id, region: id * 4) }
        #expect(bench.pending.count == 2, "one write of the page at a time on each plex")
        bench.complete(.writeMetadata, on: 0)
        bench.complete(.writeMetadata, on: 1)
        #expect(bench.waiting(.write).count == 2 && pages(bench).count == 2)
        bench.settle(holding: { $0.kind == .write })
        #expect(bench.waiting(.write).count == 24)
        #expect(bench.intent(1) == [1] + stride(from: 8, through: 48, by: 4) + [63])
        #expect(bench.submitted(.writeMetadata).count == 4)
        bench.settle()
        #expect(bench.replyOrder.suffix(12) == Array(1...12)[...])
    }

    @Test func hotRegionPaysNoPageWrite() throws {
        let bench = try running()
        write(bench, 1, region: 20)
        bench.settle()
        bench.clearTrace()
        for id in UInt64(2)...200 {
            bench.send(id, .write, 20 * Self.region + id % 16 * 4096)
            #expect(bench.waiting(.write).count == 2)
            bench.settle()
        }
        #expect(bench.submitted(.writeMetadata).isEmpty)
    }

    /// The worked example at `setAhead`.
    @Test func sequentialWriterWaitsForItsFirstThreeRegionsOnly() throws {
        let bench = try running()
        var waited: [UInt64] = []
        for region in UInt64(0)..<63 {
            fill(bench, region, region: region)
            if bench.waiting(.write).isEmpty { waited.append(region) }
            if region == 2 {
                bench.settle(holding: { $0.kind == .write })
                #expect(bench.intent(0) == Array(0...10) + [63])
            }
            bench.settle()
        }
        #expect(waited == [0, 1, 2] && bench.replies.count == 64)
        // Of regions 0, 1, 2 with 3 through 10, then up to 18, 30, 48, and the rest, on both plexes.
        #expect(bench.submitted(.writeMetadata).count == 14 && bench.intent(0) == Array(0..<64))
    }

    @Test func writerThatJumpsAboutSetsNothingAhead() throws {
        let bench = try running()
        for (id, region) in [30, 10, 32, 11, 50, 0, 1, 34].enumerated() {
            write(bench, UInt64(id), region: UInt64(region))
            bench.settle()
        }
        #expect(bench.intent(0) == [0, 1, 10, 11, 30, 32, 34, 50, 63])
    }

    /// One that fills regions in turn, but each block with a chance of its own, is none that goes on.
    @Test func randomWritesInASmallAreaSetNothingBesideIt() throws {
        let bench = try running()
        var random = Entropy(7, 8, 9, 10)
        for id in UInt64(1)...3000 {
            bench.send(id, .write, 10 * Self.region + random.next() % 320 * 4096)
            if id % 8 == 0 { bench.settle() }
            // The cleaner looks, and forgets who came by.
            if id % 200 == 0 {
                bench.tick(afterMilliseconds: 5000)
                bench.settle()
            }
        }
        bench.settle()
        #expect(bench.intent(0) == Array(10..<30))
    }

    /// Regions begun in turn, but not written through.
    @Test func writerThatTouchesEachRegionOnceSetsNothingAhead() throws {
        let bench = try running()
        for region in UInt64(0)..<20 {
            write(bench, region, region: region)
            bench.settle()
        }
        #expect(bench.intent(0) == Array(0..<20) + [63])
    }

    @Test func orderOfRequestsThatFollowEachOtherMayChangeALittle() throws {
        let bench = try running()
        for block in UInt64(0)..<4 * 16 {
            bench.send(block, .write, (block ^ 1) * 4096)
            bench.settle()
        }
        // Entering region 2 was noticed, and region 3 found its bit set.
        #expect(bench.intent(0) == Array(0...10) + [63])
    }

    @Test func writersSideBySideAreToldApart() throws {
        let bench = try running()
        for block in UInt64(0)..<3 * 16 {
            for writer in UInt64(0)..<4 {
                bench.send(block * 4 + writer, .write, writer * 16 * Self.region + block * 4096)
            }
            bench.settle()
        }
        let expected: [Int] = (0..<4).flatMap { writer in Array(writer * 16...writer * 16 + 10) } + [63]
        #expect(bench.intent(0) == expected)
    }

    @Test func regionsAheadAreLimitedByTheirNumberAndTheirBytes() throws {
        for (regions, bytes, expected) in [(4, 64 << 20, 4), (32, 128 << 10, 2), (32, 1, 1)] as [(Int, UInt64, Int)] {
            var limits = Limits()
            limits.setAheadRegions = regions
            limits.setAheadBytes = bytes
            let bench = try running(limits: limits)
            for region in UInt64(0)...2 {
                fill(bench, region, region: region)
                bench.settle()
            }
            #expect(bench.intent(0) == Array(0..<3 + expected) + [63])
        }
    }

    @Test func writerAtTheEndSetsNothingBehindIt() throws {
        let bench = try running()
        for region in UInt64(58)..<64 {
            fill(bench, region, region: region)
            bench.settle()
        }
        #expect(bench.intent(0) == Array(58..<64))
    }

    /// 256 regions in four pages of 64.
    @Test func changeThatSpansPagesWaitsForAllOfThem() throws {
        var limits = Limits()
        limits.bitsPerPage = 64
        let bench = try MirrorBench(freshRecord(regionBytes: 16 << 10), limits: limits)
        bench.send(1, .write, 0)
        bench.settle()
        bench.send(2, .trim, 100 * (16 << 10), 100 * (16 << 10))
        #expect(bench.pending.count == 6 && pages(bench).allSatisfy(\.isPage))
        while let page = pages(bench).first {
            #expect(bench.waiting(.deallocate).isEmpty)
            bench.complete(.writeMetadata, on: page.plex, at: page.offset)
        }
        #expect(bench.waiting(.deallocate).count == 2 && bench.intent(1) == [0] + Array(100..<200))
    }

    @Test func pagesInFlightAreLimited() throws {
        var limits = Limits()
        limits.bitsPerPage = 64
        limits.pageWritesPerKind = 2
        let bench = try MirrorBench(freshRecord(regionBytes: 16 << 10), limits: limits)
        bench.send(1, .trim, 0, Disk.dataBytes)
        #expect(pages(bench).filter(\.isPage).count == 4)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.intent(0) == Array(0..<256))
    }
}
