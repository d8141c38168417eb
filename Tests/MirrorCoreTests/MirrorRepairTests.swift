import MirrorFormat
import Testing

@testable import MirrorCore

/// Blocks that one plex can't read: found, written anew in place, or listed.
@Suite struct MirrorRepairTests {
    private let bad: UInt64 = 5 * 4096

    /// Reads of the bad block fail on plex 1, and writes to it if it is beyond repair.
    private func fate(
        _ operation: MirrorBench.Operation, bad: [UInt64], write: DiskFailure? = nil
    ) -> DiskFailure? {
        let hits = bad.contains { operation.offset <= $0 && $0 < operation.offset + operation.length }
        guard operation.plex == 1, hits else { return nil }
        return operation.kind == .read ? .media : operation.kind == .write ? write : nil
    }

    /// A client has read the block, plex 1 first.
    private func bench(_ bad: [UInt64], length: UInt64 = 64 << 10, write: DiskFailure? = nil) throws -> MirrorBench {
        let bench = try MirrorBench(freshRecord([.inSync, .inSync]))
        bench.settle()
        try read(bench, bad, length: length, write: write)
        return bench
    }

    private func read(
        _ bench: MirrorBench, _ bad: [UInt64], length: UInt64 = 64 << 10, write: DiskFailure? = nil
    ) throws {
        var id: UInt64 = 100
        // Plexes take turns.
        repeat {
            bench.send(id, .read, bad[0] & ~(length - 1), length)
            id += 1
        } while bench.waiting(.read).last?.plex != 1
        bench.settle(failing: { self.fate($0, bad: bad, write: write) })
        for sent in 100..<id { #expect(bench.replies[sent] == .ok) }
    }

    private func tick(_ bench: MirrorBench, _ bad: [UInt64], write: DiskFailure? = nil, seconds: UInt64 = 0) {
        bench.tick(afterMilliseconds: 100 + seconds * 1000)
        bench.settle(failing: { self.fate($0, bad: bad, write: write) })
    }

    @Test func blockIsNarrowedDownAndWrittenAnewWhereItLies() throws {
        let bench = try bench([bad])
        bench.clearTrace()
        tick(bench, [bad])
        let writes = bench.submitted(.write)
        #expect(writes.count == 1 && writes.first?.plex == 1 && writes.first?.isDurable == true)
        #expect(writes.first?.offset == bad && writes.first?.length == 4096)
        // R1: the bit of the region first.
        let marked = bench.position { if case .complete(let operation) = $0 { operation.isPage } else { false } }
        let wrote = bench.position { if case .submit(let operation) = $0 { operation.kind == .write } else { false } }
        #expect(try #require(marked) < #require(wrote))
        // 64 KiB are five halvings; the source is read once.
        #expect(bench.submitted(.read).count == 9)
        #expect(bench.record[PlexIndex(1)].corrected == 1 && bench.record.inSync == set(0, 1))
        #expect(bench.events.suffix(2).map(\.code) == [.readError, .corrected])
        #expect(bench.events.last?.offset == bad && bench.status().state == .healthy)
    }

    @Test func repairIsVerifiedAndADiskThatGivesBackSomethingElseIsFailed() throws {
        let bench = try bench([bad], length: 4096)
        bench.tick()
        bench.settle(holding: { $0.kind == .write })
        #expect(bench.pending.contains { $0.kind == .write && $0.isVerified })
        bench.complete(.write, on: 1, failing: DiskFailure(kind: .differs, errorNumber: 0))
        bench.settle()
        #expect(bench.record[PlexIndex(1)].role == .failed && bench.record[PlexIndex(1)].corrected == 0)
        #expect(bench.record[PlexIndex(1)].cause.operation == .verification)
    }

    @Test func blockThatCanNotBeWrittenIsListedAndThePlexStays() throws {
        let bench = try bench([bad, bad + 4096], write: .media)
        tick(bench, [bad, bad + 4096], write: .media)
        #expect(bench.record.inSync == set(0, 1) && bench.record[PlexIndex(1)].corrected == 0)
        #expect(bench.events.filter { $0.code == .badBlock }.map(\.offset) == [bad, bad + 4096])
        let status = bench.status()
        #expect(status.state == .degraded && status.action?.contains("plexus replace m 1") == true)
        #expect(status.plexes[1].isAtRisk && status.plexes[1].badRanges.map(\.length) == [8192])
        // It is asked last for that range, and as ever for others.
        bench.clearTrace()
        for id in UInt64(1)...8 {
            bench.send(id, .read, bad)
            bench.send(id + 10, .read, 1 << 20)
        }
        bench.settle()
        #expect(bench.submitted(.read).filter { $0.offset == bad }.allSatisfy { $0.plex == 0 })
        #expect(bench.submitted(.read).contains { $0.offset == 1 << 20 && $0.plex == 1 })
        // Whoever writes over it heals it.
        bench.send(30, .write, bad, 8192)
        bench.settle()
        #expect(bench.replies[30] == .ok && bench.status().state == .healthy)
        #expect(bench.status().plexes[1].badRanges.isEmpty)
    }

    @Test func listedBlockIsTriedAgainAfterTenMinutes() throws {
        let bench = try bench([bad], length: 4096, write: .media)
        tick(bench, [bad], write: .media)
        bench.clearTrace()
        tick(bench, [bad], seconds: 300)
        #expect(bench.submitted(.write).isEmpty && bench.status().state == .degraded)
        tick(bench, [bad], seconds: 301)
        #expect(bench.submitted(.write).count == 1 && bench.status().state == .healthy)
        #expect(bench.record[PlexIndex(1)].corrected == 1)
    }

    @Test func blockThatReadsAgainIsNoLongerListed() throws {
        let bench = try bench([bad], length: 4096, write: .media)
        tick(bench, [bad], write: .media)
        #expect(bench.status().state == .degraded)
        bench.clearTrace()
        tick(bench, [], seconds: 601)
        #expect(bench.submitted(.write).isEmpty && bench.status().state == .healthy)
    }

    @Test func whatNobodyCanReadIsAnErrorAndListed() throws {
        let bench = try MirrorBench()
        bench.settle()
        bench.send(1, .read, bad)
        bench.settle(failing: { $0.kind == .read ? .media : nil })
        #expect(bench.replies[1] == .ioError)
        bench.tick()
        bench.settle(failing: { $0.kind == .read ? .media : nil })
        #expect(bench.submitted(.write).isEmpty && bench.record.inSync == set(0, 1))
        #expect(bench.events.contains { $0.code == .badBlock && $0.text.contains("no other plex") })
        bench.send(2, .write, bad)
        bench.settle()
        bench.send(3, .read, bad)
        bench.settle()
        #expect(bench.replies[3] == .ok && bench.status().state == .healthy)
    }

    @Test func manyCorrectedBlocksPutAPlexAtRiskForAWhile() throws {
        let bench = try MirrorBench()
        bench.settle()
        for block in UInt64(0)..<10 {
            #expect(bench.status().state == .healthy)
            try read(bench, [block * 4096], length: 4096)
            tick(bench, [block * 4096], seconds: 5)
        }
        #expect(bench.status().state == .degraded && bench.status().plexes[1].isAtRisk)
        #expect(bench.status().reason?.contains("10 blocks or more") == true)
        tick(bench, [], seconds: 600)
        #expect(bench.status().state == .healthy && bench.record[PlexIndex(1)].corrected == 10)
    }

    @Test func clientsWriteWaitsForTheRepairOfItsBlockAndIsNotOverwritten() throws {
        let bench = try bench([bad], length: 4096)
        bench.tick()
        bench.settle(holding: { $0.kind == .write })
        #expect(bench.waiting(.write).count == 1)
        bench.send(1, .write, bad)
        bench.send(2, .write, 2 << 20)
        bench.settle(holding: { $0.kind == .write && $0.offset == bad })
        #expect(bench.replies[2] == .ok && bench.waiting(.write).count == 1)
        bench.settle()
        #expect(bench.replies[1] == .ok)
        let writes = bench.trace.compactMap { step -> MirrorBench.Operation? in
            if case .complete(let operation) = step, operation.kind == .write, operation.offset == bad {
                operation
            } else {
                nil
            }
        }
        #expect(writes.map(\.plex) == [1, 0, 1])
    }

    @Test func nothingIsWrittenThatMayNotBe() throws {
        // Served read-only; the other plex fails before; a stop.
        let readOnly = try MirrorBench(freshRecord([.inSync, .inSync]), isReadOnly: true)
        readOnly.send(1, .read)
        readOnly.settle(failing: { $0.plex == 0 ? .media : nil })
        readOnly.tick()
        readOnly.settle()
        #expect(readOnly.submitted(.write).isEmpty)
        let bench = try bench([bad], length: 4096)
        bench.send(1, .write, 1 << 20)
        bench.settle(failing: { $0.plex == 0 && $0.kind == .write ? .media : nil })
        #expect(bench.record.inSync == set(1))
        bench.clearTrace()
        tick(bench, [bad])
        #expect(!bench.submitted(.write).contains { $0.offset == bad })
    }

    @Test func stopWaitsForTheRepairUnderWay() throws {
        let bench = try bench([bad], length: 4096)
        bench.tick()
        bench.settle(holding: { $0.kind == .write })
        let id = bench.command(.stop)
        bench.settle(holding: { $0.kind == .write })
        #expect(bench.answers[id] == nil)
        bench.settle()
        #expect(bench.answers[id]?.isDone == true && bench.isStopped && bench.recorded(1)?.isClean == true)
    }

    @Test func breakTakesItsCopyWithoutARepairUnderWay() throws {
        let bench = try bench([bad], length: 4096)
        bench.tick()
        bench.settle(holding: { $0.kind == .write })
        let id = bench.command(.breakOff(PlexIndex(1), name: "copy"))
        bench.settle(holding: { $0.kind == .write })
        #expect(bench.answers[id] == nil && bench.waiting(.flush).isEmpty)
        bench.settle()
        #expect(bench.answers[id]?.isDone == true)
    }
}
