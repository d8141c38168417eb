import MirrorFormat
import Testing

@testable import MirrorCore

/// Blocks that a disk does not take: put into its spare pool, found there again, put back.
@Suite struct MirrorSparingTests {
    private typealias Operation = MirrorBench.Operation
    private let bad: UInt64 = 5 * 4096
    private let plexOne = PlexIndex(1)

    private func bench(
        _ roles: [Role] = [.inSync, .inSync], spares: Int = 8, limits: Limits = Limits()
    ) throws -> MirrorBench {
        let bench = try MirrorBench(freshRecord(roles), limits: limits, spares: spares)
        bench.settle()
        return bench
    }

    private func slot(_ bench: MirrorBench, _ slot: Int) -> UInt64 {
        bench.disks[1]?.layout.spareOffset(slot: slot) ?? 0
    }

    private func isTable(_ bench: MirrorBench, _ operation: Operation) -> Bool {
        guard operation.kind == .writeMetadata, let layout = bench.disks[operation.plex]?.layout else { return false }
        return [layout.remapPageOffset(copy: 0, page: 0), layout.remapPageOffset(copy: 1, page: 0)]
            .contains(operation.offset)
    }

    /// What plex 1 does not take: blocks by their places on the disk, of data or of the pool.
    private func fails(_ places: [UInt64], _ kinds: [DiskOperation.Kind] = [.write, .zero, .deallocate])
        -> (Operation) -> DiskFailure?
    {
        { operation in
            let hits = places.contains { operation.offset <= $0 && $0 < operation.offset + operation.length }
            return operation.plex == 1 && kinds.contains(operation.kind) && hits ? .media : nil
        }
    }

    /// A client has written 64 KiB, and plex 1 did not take the block.
    private func spared(_ bench: MirrorBench, failing places: [UInt64]? = nil) {
        bench.send(1, .write, 0, 64 << 10)
        bench.settle(failing: fails(places ?? [bad]))
    }

    @Test func writeIsCutDownAndTheBadBlockGoesToASlot() throws {
        let bench = try bench()
        spared(bench)
        #expect(bench.replies[1] == .ok && bench.record.inSync == set(0, 1))
        #expect(bench.mirror.remaps(of: plexOne) == [RemapTable.Remap(block: 5, slot: 0)])
        #expect(bench.record[plexOne].spared == 1 && bench.record[plexOne].writeErrors == 1)
        #expect(bench.events.suffix(3).map(\.code) == [.badBlock, .sparing, .spared])
        for event in bench.events.suffix(3) {
            #expect(event.offset == bad && event.length == 4096 && event.plex == plexOne)
        }
        let status = bench.status()
        #expect(status.state == .healthy && status.plexes[1].remapped == 1 && status.plexes[1].sparesFree == 7)
        // All 16 blocks, four times two halves of what failed, and the slot.
        let written = bench.submitted(.write).filter { $0.plex == 1 }
        #expect(written.last?.offset != bad && written.contains { $0.offset == slot(bench, 0) && $0.isDurable })
        #expect(written.count == 1 + 4 * 2 + 1)
    }

    @Test func orderIsTableClearedFlagRecordedDataTableReply() throws {
        let bench = try bench()
        spared(bench)
        let trace = bench.trace
        /// Where such an operation was completed, behind another place.
        func completed(behind place: Int, _ isWanted: (Operation) -> Bool) throws -> Int {
            let found = trace.indices.dropFirst(place + 1).first { index in
                if case .complete(let operation) = trace[index] { isWanted(operation) } else { false }
            }
            guard let found else { throw Missing() }
            return found
        }
        let cleared = try completed(behind: -1) { isTable(bench, $0) }
        let flagged = try completed(behind: cleared) { $0.isSuperblock }
        let filled = try completed(behind: flagged) { $0.offset == slot(bench, 0) }
        let first = try completed(behind: filled) { isTable(bench, $0) }
        let second = try completed(behind: first) { isTable(bench, $0) }
        let replied = try #require(trace.firstIndex(of: .reply(1, .ok)))
        #expect(second < replied)
        #expect(bench.recorded(0)?[plexOne].isRemapped == true && bench.recorded(1)?[plexOne].isRemapped == true)
    }

    @Test func dataIsReadBackFromTheSlotAndALyingDiskIsFailed() throws {
        let bench = try bench()
        bench.send(1, .write, bad)
        bench.settle(holding: { $0.offset == self.slot(bench, 0) }, failing: fails([bad]))
        #expect(bench.pending.contains { $0.offset == slot(bench, 0) && $0.isVerified })
        bench.complete(.write, on: 1, at: slot(bench, 0), failing: DiskFailure(kind: .differs, errorNumber: 0))
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.record[plexOne].role == .failed)
        #expect(bench.record[plexOne].cause.operation == .verification)
    }

    @Test func readsAndWritesGoToTheSlotInPieces() throws {
        let bench = try bench()
        spared(bench)
        bench.clearTrace()
        bench.send(2, .write, 4 * 4096, 4 * 4096)
        bench.settle(failing: fails([bad]))
        let pieces = bench.submitted(.write).filter { $0.plex == 1 }
        let places: [UInt64] = [4 * 4096, slot(bench, 0), 6 * 4096]
        let lengths: [UInt64] = [4096, 4096, 8192]
        let inBuffer: [UInt64] = [0, 4096, 8192]
        #expect(pieces.map(\.offset) == places)
        #expect(pieces.map(\.length) == lengths)
        #expect(pieces.map(\.bufferOffset) == inBuffer)
        // Where the pool lies in another file a flush would not reach it.
        #expect(pieces.map(\.isDurable) == [false, true, false])
        bench.clearTrace()
        var id: UInt64 = 10
        repeat {
            bench.send(id, .read, 4 * 4096, 4 * 4096)
            bench.settle()
            id += 1
        } while !bench.submitted(.read).contains { $0.plex == 1 }
        #expect(bench.submitted(.read).filter { $0.plex == 1 }.map(\.offset) == pieces.map(\.offset))
        #expect((10..<id).allSatisfy { bench.replies[$0] == .ok })
    }

    @Test func zeroesInTheSlotKeepTheirSpaceAndHolesAreNotAsked() throws {
        let bench = try bench()
        spared(bench)
        bench.clearTrace()
        bench.send(2, .zeroes, 4 * 4096, 2 * 4096)
        bench.settle()
        let ones = bench.trace.compactMap { step -> Operation? in
            if case .submit(let operation) = step, operation.plex == 1, operation.kind != .writeMetadata {
                operation
            } else {
                nil
            }
        }
        let places: [UInt64] = [4 * 4096, slot(bench, 0)]
        #expect(ones.map(\.kind) == [.deallocate, .zero])
        #expect(ones.map(\.offset) == places)
        for id in UInt64(10)..<16 { bench.send(id, .allocation, 0, 64 << 10) }
        bench.settle()
        #expect((10..<16).contains { bench.replies[$0] == .allAllocated })
        #expect(bench.submitted(.queryAllocation).allSatisfy { $0.plex == 0 })
    }

    @Test func zeroingThatFailsIsSparedToo() throws {
        let bench = try bench()
        bench.send(1, .zeroes, 0, 64 << 10)
        bench.settle(failing: fails([bad]))
        #expect(bench.replies[1] == .ok && bench.mirror.remaps(of: plexOne).map(\.block) == [5])
        #expect(bench.submitted(.zero).contains { $0.offset == slot(bench, 0) && $0.isDurable })
    }

    @Test func unreadableBlockThatTakesNothingIsSparedByTheRepair() throws {
        let bench = try bench()
        var id: UInt64 = 100
        repeat {
            bench.send(id, .read, 0, 64 << 10)
            id += 1
        } while bench.waiting(.read).last?.plex != 1
        let failing = fails([bad], [.read, .write])
        bench.settle(failing: failing)
        bench.tick()
        bench.settle(failing: failing)
        #expect(bench.mirror.remaps(of: plexOne).map(\.block) == [5] && bench.status().state == .healthy)
        #expect(bench.record[plexOne].corrected == 0 && bench.record[plexOne].spared == 1)
        #expect(bench.events.map(\.code).suffix(4) == [.readError, .badBlock, .sparing, .spared])
        #expect(bench.status().plexes[1].badRanges.isEmpty)
    }

    @Test func remapsAreThereAfterARestart() throws {
        let bench = try bench()
        spared(bench)
        let next = try bench.restarted()
        next.settle()
        #expect(next.mirror.remaps(of: plexOne) == [RemapTable.Remap(block: 5, slot: 0)])
        next.clearTrace()
        next.send(1, .write, bad)
        next.settle()
        #expect(next.submitted(.write).filter { $0.plex == 1 }.map(\.offset) == [slot(next, 0)])
        #expect(next.record[plexOne].spared == 1)
    }

    /// Power fails behind each operation in turn.
    @Test func tornAtEveryStepTheBlockIsInOnePlaceOrTheOther() throws {
        for steps in 0..<60 {
            let bench = try bench()
            bench.send(1, .write, bad)
            for _ in 0..<steps where !bench.pending.isEmpty {
                let operation = bench.pending[0]
                let failure = fails([bad])(Operation(operation))
                bench.complete(operation.kind, on: Int(operation.plex.value), at: operation.offset, failing: failure)
            }
            let isAnswered = bench.replies[1] == .ok
            guard case .assembled(let assembly) = assemble(bench.foundPlexes()) else {
                Issue.record("does not start after \(steps) steps")
                continue
            }
            let next = MirrorBench(assembly, seed: 77)
            let remaps = next.mirror.remaps(of: plexOne)
            if isAnswered, assembly.current.contains(plexOne) { #expect(remaps.map(\.block) == [5], "\(steps) steps") }
            #expect(remaps.isEmpty || remaps == [RemapTable.Remap(block: 5, slot: 0)])
            // Old software is told before.
            if !remaps.isEmpty { #expect(bench.recorded(0)?[plexOne].isRemapped == true) }
        }
    }

    @Test func slotThatGoesBadIsFollowedByAHigherOne() throws {
        let bench = try bench()
        spared(bench)
        bench.send(2, .write, bad)
        bench.settle(failing: fails([bad, slot(bench, 0), slot(bench, 1)]))
        #expect(bench.replies[2] == .ok && bench.mirror.remaps(of: plexOne).map(\.slot) == [2])
        #expect(bench.status().plexes[1].sparesFree == 5 && bench.record[plexOne].spared == 2)
        let next = try bench.restarted()
        #expect(next.mirror.remaps(of: plexOne).map(\.slot) == [2] && next.status().plexes[1].sparesFree == 5)
    }

    @Test func blockThatFindsNoRoomIsListedAndHealedByTheNextWrite() throws {
        let bench = try bench(spares: 1)
        bench.send(1, .write, 0, 64 << 10)
        bench.settle(failing: fails([bad, bad + 4096]))
        #expect(bench.replies[1] == .ok && bench.record.inSync == set(0, 1))
        #expect(bench.record.badRanges == [BadRange(plex: plexOne, offset: bad + 4096, blocks: 1)])
        #expect(bench.recorded(0)?.badRanges.count == 1 && bench.recorded(1)?.badRanges.count == 1)
        #expect(bench.events.contains { $0.code == .spareFailed && $0.text.contains("used up") })
        let status = bench.status()
        #expect(status.state == .degraded && status.plexes[1].isAtRisk)
        #expect(status.plexes[1].badRanges.map(\.offset) == [bad + 4096])
        bench.clearTrace()
        for id in UInt64(10)..<18 { bench.send(id, .read, bad + 4096) }
        bench.settle()
        #expect(bench.submitted(.read).allSatisfy { $0.plex == 0 })
        bench.send(2, .write, bad + 4096)
        bench.settle()
        #expect(bench.replies[2] == .ok && bench.record.badRanges.isEmpty && bench.status().state == .healthy)
    }

    @Test func writeIsNotAcknowledgedBeforeWhatOnePlexLacksIsOnRecord() throws {
        let bench = try bench(spares: 1)
        spared(bench)
        bench.send(2, .write, 8 * 4096)
        bench.settle(holding: { $0.isSuperblock }, failing: fails([8 * 4096, slot(bench, 0)]))
        #expect(bench.replies[2] == nil && bench.record.badRanges.map(\.offset) == [8 * 4096])
        bench.settle()
        #expect(bench.replies[2] == .ok)
    }

    @Test func whatOnlyAPlexHadThatLeftIsNotAcknowledged() throws {
        let bench = try bench(spares: 1)
        spared(bench)
        bench.send(2, .write, 8 * 4096)
        bench.settle(holding: { $0.isSuperblock }, failing: fails([8 * 4096, slot(bench, 0)]))
        // The other one is pulled before it is on record that it alone has the block.
        bench.settle(failing: { $0.plex == 0 ? .gone : nil })
        #expect(bench.record.inSync == set(1) && bench.replies[2] == .ioError)
        bench.send(3, .read, 8 * 4096)
        bench.settle()
        #expect(bench.replies[3] == .ioError)
        bench.send(4, .write, 8 * 4096)
        bench.settle()
        bench.send(5, .read, 8 * 4096)
        bench.settle()
        #expect(bench.replies[4] == .ok && bench.replies[5] == .ok)
    }

    @Test func lastPlexSparesToo() throws {
        let bench = try bench([.inSync])
        bench.send(1, .write, bad)
        bench.settle(failing: { $0.kind == .write && $0.offset == self.bad ? .media : nil })
        #expect(bench.replies[1] == .ok && bench.mirror.remaps(of: PlexIndex(0)).map(\.block) == [5])
    }

    @Test func lastPlexWithoutRoomFailsThatRangeOnly() throws {
        let bench = try bench([.inSync], spares: 1)
        let pool = try #require(bench.disks[0]?.layout.spareOffset(slot: 0))
        bench.send(1, .write, bad)
        bench.settle(failing: { $0.kind == .write && [self.bad, pool].contains($0.offset) ? .media : nil })
        #expect(bench.replies[1] == .ioError && bench.record.inSync == set(0) && bench.record.badRanges.isEmpty)
        bench.send(2, .write, 0)
        bench.settle()
        #expect(bench.replies[2] == .ok)
    }

    @Test func lastPlexWaitsUntilItsTableIsWritten() throws {
        let bench = try bench([.inSync])
        bench.send(1, .write, bad)
        bench.settle(failing: { $0.kind == .write && $0.offset == self.bad ? .media : nil })
        bench.send(2, .write, bad + 4096)
        bench.settle(failing: { operation in
            operation.kind == .write && operation.offset == bad + 4096 || isTable(bench, operation) ? .media : nil
        })
        #expect(bench.replies[2] == nil)
        bench.send(3, .write, 0)
        bench.settle()
        #expect(bench.replies[3] == .ok && bench.replies[2] == nil)
        bench.tick(afterMilliseconds: 1100)
        bench.settle()
        #expect(bench.replies[2] == .ok && bench.mirror.remaps(of: PlexIndex(0)).map(\.block) == [5, 6])
    }

    @Test func plexWhoseTableCanNotBeWrittenIsFailedBesideAnother() throws {
        for (first, second) in [(true, false), (false, true), (true, true)] {
            let bench = try bench()
            spared(bench)
            bench.send(2, .write, bad + 4096)
            let layout = try #require(bench.disks[1]?.layout)
            bench.settle(failing: { operation in
                if operation.plex == 1, operation.kind == .writeMetadata {
                    if first, operation.offset == layout.remapPageOffset(copy: 0, page: 0) { return .media }
                    if second, operation.offset == layout.remapPageOffset(copy: 1, page: 0) { return .media }
                }
                return self.fails([self.bad + 4096])(operation)
            })
            #expect(bench.replies[2] == .ok && bench.record[plexOne].role == .failed)
        }
    }

    /// One copy of the table names the slot, and memory does not: later writes would be found in neither.
    @Test func plexWhoseTableIsInDoubtAfterARepairIsFailed() throws {
        for copy in 0...1 {
            let bench = try bench()
            spared(bench)
            let layout = try #require(bench.disks[1]?.layout)
            let page = layout.remapPageOffset(copy: copy, page: 0)
            let other = bad + 4096
            var id: UInt64 = 100
            repeat {
                bench.send(id, .read, other)
                id += 1
            } while bench.waiting(.read).last?.plex != 1
            let failing: (Operation) -> DiskFailure? = { operation in
                operation.plex == 1 && operation.kind == .writeMetadata && operation.offset == page
                    ? .media : self.fails([other], [.read, .write])(operation)
            }
            bench.settle(failing: failing)
            bench.tick()
            bench.settle(failing: failing)
            #expect(bench.record[plexOne].role == .failed, "copy \(copy)")
        }
    }

    @Test func flushThatFailsBehindASpareBlockIsNotForgottenOnTheLastPlex() throws {
        let bench = try bench([.inSync])
        bench.send(1, .write, bad)
        let slot = try #require(bench.disks[0]?.layout.spareOffset(slot: 0))
        bench.settle(failing: { operation in
            guard operation.kind == .write else { return nil }
            if operation.offset == self.bad { return .media }
            return operation.offset == slot ? DiskFailure(kind: .lost, errorNumber: 5) : nil
        })
        #expect(bench.replies[1] == .ioError)
        bench.send(2, .flush)
        bench.settle()
        #expect(bench.replies[2] == .ioError)
    }

    @Test func onlyHolderOfABlockIsNotBrokenOffEvenIfItBecameThatMeanwhile() throws {
        let bench = try bench(spares: 1)
        spared(bench)
        // A write to plex 1, whose pool is used up, is under way when plex 0 is to be broken off.
        bench.send(2, .write, 8 * 4096)
        bench.settle(holding: { $0.kind == .write && $0.plex == 1 })
        let command = bench.command(.breakOff(PlexIndex(0), name: "copy"))
        bench.settle(failing: fails([8 * 4096, slot(bench, 0)]))
        guard case .failed(let text) = bench.answers[command] else { throw Missing() }
        #expect(text.contains("the only one") && bench.record.inSync == set(0, 1) && bench.replies[2] == .ok)
    }

    @Test func stopDoesNotWaitForATableThatCanNotBeWritten() throws {
        let bench = try bench([.inSync])
        bench.send(1, .write, bad)
        bench.settle(failing: { $0.kind == .write && $0.offset == self.bad ? .media : nil })
        bench.command(.reactivate(PlexIndex(0)))
        bench.settle(failing: { isTable(bench, $0) ? .media : nil })
        bench.command(.stop)
        for _ in 0..<5 {
            bench.tick(afterMilliseconds: 1100)
            bench.settle(failing: { isTable(bench, $0) ? .media : nil })
        }
        #expect(bench.isStopped)
    }

    @Test func pageOfWhichOneCopyIsOldIsWrittenAnewAfterTheStart() throws {
        let bench = try bench()
        spared(bench)
        var image = try #require(bench.disks[1])
        let second = image.layout.remapPageOffset(copy: 1, page: 0)
        let first = image.layout.remapPageOffset(copy: 0, page: 0)
        image.blocks[second]?[70] ^= 1
        bench.replaceDisk(1, with: image)
        let next = try bench.restarted()
        next.settle()
        next.tick()
        next.settle()
        #expect(next.block(1, at: first) != nil && next.block(1, at: first) == next.block(1, at: second))
        #expect(next.mirror.remaps(of: plexOne).map(\.block) == [5])
        // The copy that was believed came last: power may fail in this write, too.
        let order = next.trace.compactMap { step -> UInt64? in
            if case .submit(let operation) = step, operation.plex == 1, isTable(next, operation) {
                operation.offset
            } else {
                nil
            }
        }
        #expect(order == [second, first])
    }

    /// A block moves to the next page, and the page that it leaves is in doubt: power fails behind each operation in turn.
    @Test func blockThatMovesFromAPageInDoubtIsFoundInOneSlotOrTheOther() throws {
        for hasBadPlace in [false, true] {
            var isMoved = false
            for steps in 0..<40 {
                let bench = try benchInDoubt(hasBadPlace ? [.inSync] : [.inSync, .inSync])
                let plex = hasBadPlace ? 0 : 1
                let layout = try #require(bench.disks[plex]?.layout)
                let failing: (Operation) -> DiskFailure? = { operation in
                    let places =
                        [layout.spareOffset(slot: 503)]
                        + (hasBadPlace ? [layout.remapPageOffset(copy: 1, page: 0)] : [])
                    return operation.plex == plex && places.contains(operation.offset) ? .media : nil
                }
                bench.send(1, .write, bad)
                for _ in 0..<steps where !bench.pending.isEmpty {
                    let operation = bench.pending[0]
                    bench.complete(
                        operation.kind, on: Int(operation.plex.value), at: operation.offset,
                        failing: failing(Operation(operation)))
                }
                let found = try #require(bench.foundPlexes().last?.remaps?[5], "nowhere after \(steps) steps")
                #expect(found == 503 || found == 504)
                isMoved = isMoved || found == 504
            }
            #expect(isMoved)
        }
    }

    /// The last plex has block 5 in the last slot of a page of which the second copy is damaged.
    private func benchInDoubt(_ roles: [Role]) throws -> MirrorBench {
        let plex = roles.count - 1
        let first = try bench(roles, spares: 600)
        first.send(1, .write, bad)
        first.settle(failing: { $0.plex == plex && $0.kind == .write && $0.offset == self.bad ? .media : nil })
        var image = try #require(first.disks[plex])
        let layout = image.layout
        var table = RemapTable(layout)
        table.countPageWrite()
        table.put(5, into: 503)
        var pages: [UInt64: [UInt8]] = [:]
        for page in 0...1 {
            let bytes = image.block { table.encode(page: page, plex: plexUUID(plex), into: &$0) }
            for copy in 0...1 { pages[layout.remapPageOffset(copy: copy, page: page)] = bytes }
        }
        pages[layout.remapPageOffset(copy: 1, page: 0)]?[70] ^= 1
        image.blocks.merge(pages) { $1 }
        first.replaceDisk(plex, with: image)
        let next = try first.restarted()
        next.settle()
        // What the new mirror was told of, it finds there.
        var again = try #require(next.disks[plex])
        again.blocks.merge(pages) { $1 }
        next.replaceDisk(plex, with: again)
        return next
    }

    @Test func badPlaceInOneCopyOfTheTableCostsNobodyAPlex() throws {
        let bench = try bench()
        spared(bench)
        var image = try #require(bench.disks[1])
        let first = image.layout.remapPageOffset(copy: 0, page: 0)
        image.blocks[first] = nil
        bench.replaceDisk(1, with: image)
        let next = try bench.restarted()
        next.settle()
        for _ in 0..<20 {
            next.tick()
            next.settle(failing: { $0.plex == 1 && $0.offset == first ? .media : nil })
        }
        #expect(next.record.inSync == set(0, 1) && next.mirror.remaps(of: plexOne).map(\.block) == [5])
        #expect(next.submitted(.writeMetadata).filter { isTable(next, $0) }.count == 1)
    }

    @Test func flushThatFailsBehindMetadataFailsThePlex() throws {
        let bench = try bench()
        bench.send(1, .write, 0)
        bench.settle()
        bench.tick()
        bench.settle(failing: { operation in
            operation.plex == 1 && operation.isEventBlock ? DiskFailure(kind: .lost, errorNumber: 5) : nil
        })
        bench.mirror.log(.cleared, text: "something to be written")
        for _ in 0..<3 {
            bench.tick()
            bench.settle(failing: { operation in
                operation.plex == 1 && operation.isEventBlock ? DiskFailure(kind: .lost, errorNumber: 5) : nil
            })
        }
        #expect(bench.record[plexOne].role == .failed && bench.record[plexOne].cause.operation == .flush)
    }

    @Test func diskWithoutAPoolIsFailedAsEver() throws {
        let bench = try bench(spares: 0)
        spared(bench)
        #expect(bench.replies[1] == .ok && bench.record[plexOne].role == .failed)
        #expect(!bench.record[plexOne].isRemapped)
    }

    @Test func diskThatTakesNothingIsFailed() throws {
        let bench = try bench()
        bench.send(1, .write, 0, 64 << 10)
        bench.settle(failing: { $0.plex == 1 ? .media : nil })
        #expect(bench.replies[1] == .ok && bench.record[plexOne].role == .failed)
    }

    @Test func sparingThatTakesTooLongCostsThePlexAndNotTheClient() throws {
        var limits = Limits()
        limits.sparingNanoseconds = 1_000_000_000
        let bench = try bench(limits: limits)
        bench.send(1, .write, 0, 64 << 10)
        bench.settle(holding: { $0.plex == 1 && $0.kind == .write })
        for _ in 0..<8 where bench.replies[1] == nil {
            bench.complete(.write, on: 1, failing: .media)
            bench.tick(afterMilliseconds: 400)
            bench.settle(holding: { $0.plex == 1 && $0.kind == .write })
        }
        #expect(bench.replies[1] == .ok && bench.record[plexOne].role == .failed)
    }

    @Test func damagedTableMakesAPlexStale() throws {
        let bench = try bench()
        spared(bench)
        for copy in 0...1 {
            let layout = try #require(bench.disks[1]?.layout)
            var image = try #require(bench.disks[1])
            image.blocks[layout.remapPageOffset(copy: copy, page: 0)]?[70] ^= 1
            bench.replaceDisk(1, with: image)
            let next = try bench.restarted()
            next.settle()
            if copy == 0 {
                #expect(next.record.inSync == set(0, 1) && next.mirror.remaps(of: plexOne).count == 1)
            } else {
                #expect(next.events.contains { $0.text.contains("remap table can't be read") })
                next.tick()
                next.settle()
                #expect(next.regionsCopied(to: 1) == Disk.allRegions && next.mirror.remaps(of: plexOne).isEmpty)
            }
        }
        // Alone it is not to be trusted.
        guard case .refused(.noCurrentPlex) = assemble(bench.foundPlexes(without: set(0))) else {
            Issue.record("a plex that nobody knows the blocks of is started")
            return
        }
    }

    // MARK: putting back

    @Test func reactivatedPlexHasItsBlocksBack() throws {
        let bench = try bench()
        spared(bench, failing: [bad, bad + 4096])
        bench.clearTrace()
        let command = bench.command(.reactivate(plexOne))
        bench.settle(failing: fails([bad + 4096]))
        #expect(bench.mirror.remaps(of: plexOne).map(\.block) == [6])
        let written = bench.submitted(.write).filter { $0.plex == 1 }
        #expect(written.map(\.offset) == [bad, bad + 4096] && written.allSatisfy(\.isDurable))
        guard case .done(let text) = bench.answers[command] else { throw Missing() }
        #expect(text.contains("1 blocks are back") && text.contains("1 stay"))
        let next = try bench.restarted()
        #expect(next.mirror.remaps(of: plexOne).map(\.block) == [6])
    }

    @Test func brokenOffPlexIsWholeInItsOwnPlaces() throws {
        let bench = try bench()
        spared(bench)
        let command = bench.command(.breakOff(plexOne, name: "copy", mustBeWhole: true))
        bench.settle()
        guard case .done(let text) = bench.answers[command] else { throw Missing() }
        #expect(!text.contains("do not mount"))
        guard case .found(let own) = bench.disks[1]?.scan() else { throw Missing() }
        #expect(own.record.name == "copy" && !own.isRemapped)
    }

    @Test func blocksThatStayInThePoolAreToldOrRefused() throws {
        let bench = try bench()
        spared(bench)
        let strict = bench.command(.breakOff(plexOne, name: "copy", mustBeWhole: true))
        bench.settle(failing: fails([bad]))
        guard case .refused(let why) = bench.answers[strict] else { throw Missing() }
        #expect(why.contains("\(bad)") && bench.record.inSync == set(0, 1))
        let lenient = bench.command(.breakOff(plexOne, name: "copy"))
        bench.settle(failing: fails([bad]))
        guard case .done(let text) = bench.answers[lenient] else { throw Missing() }
        #expect(text.contains("\(bad)") && text.contains("do not mount"))
        // It knows its table, and takes it along when it is joined again.
        guard case .found(let own) = bench.disks[1]?.scan() else { throw Missing() }
        #expect(own.isRemapped && bench.disks[1]?.remaps(of: own)?.remaps.map(\.block) == [5])
        try bench.rejoin(1)
        bench.settle()
        #expect(bench.mirror.remaps(of: plexOne).map(\.block) == [5] && bench.record[plexOne].isRemapped)
    }

    @Test func clientsWritesWaitForTheBlockThatIsPutBackAndNoOther() throws {
        let bench = try bench()
        spared(bench)
        bench.command(.reactivate(plexOne))
        bench.settle(holding: { $0.kind == .write || isTable(bench, $0) })
        bench.send(5, .write, bad)
        bench.send(6, .write, bad + 4096)
        bench.settle(holding: { isTable(bench, $0) })
        #expect(bench.replies[6] == .ok && bench.replies[5] == nil)
        bench.clearTrace()
        bench.settle()
        #expect(bench.replies[5] == .ok)
        #expect(bench.submitted(.write).filter { $0.plex == 1 }.map(\.offset) == [bad])
    }

    // MARK: counters

    @Test func clearedCountersBeginAnew() throws {
        let bench = try bench()
        spared(bench)
        bench.command(.clear(plexOne))
        bench.settle()
        #expect(bench.record[plexOne].spared == 0 && bench.record[plexOne].writeErrors == 0)
        #expect(bench.recorded(0)?[plexOne].spared == 0 && bench.mirror.remaps(of: plexOne).count == 1)
    }

    @Test func manySparedBlocksPutAPlexAtRiskAndAfterARestartToo() throws {
        let bench = try bench(spares: 32)
        let blocks = (0..<10).map { UInt64($0) * 4096 }
        var id: UInt64 = 100
        repeat {
            bench.send(id, .read, 0, 64 << 10)
            id += 1
        } while bench.waiting(.read).last?.plex != 1
        let failing = fails(blocks, [.read, .write])
        bench.settle(failing: failing)
        for _ in 0..<40 {
            bench.tick()
            bench.settle(failing: failing)
        }
        #expect(bench.record[plexOne].spared == 10 && bench.status().plexes[1].isAtRisk)
        #expect(bench.status().reason?.contains("put elsewhere") == true)
        bench.command(.clear(plexOne))
        bench.settle()
        #expect(bench.status().state == .healthy)
    }
}
