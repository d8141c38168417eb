import MirrorFormat
import Testing

@testable import MirrorCore

extension Answer {
    var isDone: Bool { if case .done = self { true } else { false } }
    var isRefused: Bool { if case .refused = self { true } else { false } }
    var isFailed: Bool { if case .failed = self { true } else { false } }
}

@Suite struct MirrorCommandTests {
    @Test func breakDrainsFlushesAndGivesThePlexAnIdentityOfItsOwn() throws {
        let bench = try MirrorBench()
        bench.dirty()
        let before = bench.record
        bench.send(1, .write, 0)
        let id = bench.command(.breakOff(PlexIndex(1), name: "copy"))
        bench.send(2, .write, 8192)
        bench.send(3, .read, 1 << 20)
        // The write under way ends, the new one waits, reads go on.
        #expect(bench.waiting(.write).allSatisfy { $0.offset == 0 } && bench.waiting(.flush).isEmpty)
        #expect(bench.waiting(.read).count == 1)
        bench.complete(.write, on: 0)
        bench.complete(.write, on: 1)
        #expect(bench.replies[1] == .ok && bench.waiting(.flush).map(\.plex) == [1] && bench.waiting(.write).isEmpty)
        bench.complete(.flush, on: 1)
        // The record that it left comes first, then its own; the write goes on without it.
        #expect(Set(bench.waiting(.writeMetadata).map(\.plex)) == [0])
        #expect(bench.waiting(.write).map(\.plex) == [0])
        bench.settle(holding: { $0.plex == 1 && $0.kind == .writeMetadata })
        let left = try #require(bench.recorded(0))
        #expect(left[PlexIndex(1)].role == .brokenOff && left.inSync == set(0) && left.generation != before.generation)
        #expect(left.history.first?.reason == .brokenOff && bench.replies[2] == .ok)
        // One pair of copies after the other: power may fail in between.
        #expect(bench.waiting(.writeMetadata).count == 2 && bench.answers[id] == nil)
        bench.settle()
        #expect(bench.answers[id]?.isDone == true && bench.released == [PlexIndex(1)])
        try checkCopies(bench, parent: before)
    }

    /// All four copies, for any of them may be the one that survives.
    private func checkCopies(_ bench: MirrorBench, parent: Record) throws {
        guard case .found(let newest) = bench.scan(1) else {
            Issue.record("no superblock on the broken-off plex")
            return
        }
        let own = newest.record
        #expect(own.mirror != parent.mirror && own.name == "copy" && own.generation != parent.generation)
        #expect(
            own.inSync == set(0) && own.configured == set(0) && own.isClean && own[PlexIndex(0)].uuid == plexUUID(1))
        #expect(own.parent?.mirror == parent.mirror && own.parent?.generation == parent.generation)
        #expect(own.parent?.epoch == parent.epoch && own.dataBytes == parent.dataBytes)
        for copy in 0..<4 {
            let offset = Layout.superblockOffset(copy: copy, diskBytes: Disk.bytes)
            let block = try #require(bench.block(1, at: offset))
            let decoded = try unsafe Superblock(decoding: block.span.bytes, copy: copy, diskBytes: Disk.bytes)
            #expect(decoded.record == own && decoded.plex == plexUUID(1))
        }
        // It starts alone, unasked, and is no member of the mirror that it left.
        #expect(assemble([FoundPlex(disk: 1, superblock: newest)]).assembly?.current == set(0))
    }

    @Test func breakOfTheLastGoodPlexIsRefusedAndChangesNothing() throws {
        let bench = try MirrorBench(freshRecord([.inSync, .failed]), present: set(0))
        for command in [Command.breakOff(PlexIndex(0), name: "c"), .remove(PlexIndex(0)), .takeOffline(PlexIndex(0))] {
            let id = bench.command(command)
            #expect(bench.answers[id]?.isRefused == true && bench.pending.isEmpty)
        }
        #expect(bench.record.inSync == set(0))
    }

    @Test func breakOfAPlexThatIsNotInSyncIsRefused() throws {
        let bench = try MirrorBench(freshRecord([.inSync, .recovering]))
        bench.settle(holding: { $0.kind == .write })
        for plex in [1, 5] {
            let id = bench.command(.breakOff(PlexIndex(plex), name: "c"))
            #expect(bench.answers[id]?.isRefused == true)
        }
        let unequal = try MirrorBench(freshRecord().changed { $0.isClean = false }, dirty: Disk.allRegions)
        unequal.settle(holding: { $0.kind == .read })
        let id = unequal.command(.breakOff(PlexIndex(1), name: "c"))
        #expect(unequal.answers[id]?.isRefused == true)
    }

    @Test func breakWhoseFlushFailsIsNoCopyAndHeldWritesGoOn() throws {
        let bench = try MirrorBench()
        bench.dirty()
        let id = bench.command(.breakOff(PlexIndex(1), name: "c"))
        bench.send(1, .write)
        bench.settle(failing: { $0.kind == .flush ? .media : nil })
        #expect(bench.answers[id]?.isFailed == true && bench.replies[1] == .ok)
        if case .found(let superblock) = bench.scan(1) { #expect(superblock.record.mirror == bench.record.mirror) }
    }

    @Test func offlinePlexIsReleasedWhenItIsOnRecord() throws {
        let bench = try MirrorBench()
        let id = bench.command(.takeOffline(PlexIndex(0)))
        #expect(bench.waiting(.writeMetadata).map(\.plex) == [1, 1] && bench.answers.isEmpty && bench.released.isEmpty)
        bench.settle()
        let recorded = try #require(bench.recorded(1))
        #expect(recorded[PlexIndex(0)].role == .offline && recorded.inSync == set(1) && recorded.generation != era(1))
        #expect(recorded.history.first?.reason == .takenOffline)
        #expect(bench.answers[id]?.isDone == true && bench.released == [PlexIndex(0)])
        #expect(bench.status().plexes.first?.state == "offline")
    }

    @Test func missingPlexCanBeForgotten() throws {
        let bench = try MirrorBench(freshRecord([.inSync, .failed]), present: set(0))
        let id = bench.command(.remove(PlexIndex(1)))
        bench.settle()
        #expect(bench.answers[id]?.isDone == true && bench.recorded(0)?[PlexIndex(1)] == .absent)
        #expect(bench.recorded(0)?.inSync == set(0) && bench.status().state == .healthy)
        let again = bench.command(.remove(PlexIndex(1)))
        #expect(bench.answers[again]?.isRefused == true)
    }

    @Test func forgottenPlexIsWipedAfterItLeftTheRecord() throws {
        let bench = try MirrorBench()
        bench.dirty()
        let id = bench.command(.remove(PlexIndex(1)))
        bench.settle(holding: { $0.plex == 1 })
        #expect(
            bench.recorded(0)?[PlexIndex(1)].role == .absent && bench.recorded(0)?.history.first?.reason == .removed)
        #expect(bench.answers[id] == nil)
        bench.settle()
        #expect(bench.answers[id]?.isDone == true && bench.scan(1) == .none && bench.released == [PlexIndex(1)])
    }

    @Test func joinOfAPlexThatTakesPartOrOfAnotherSizeIsRefused() throws {
        let bench = try MirrorBench(freshRecord([.inSync, .inSync, .failed]), present: set(0, 1))
        let taking = bench.command(.join(PlexIndex(1), try newDisk(plexUUID(1), sequence: 1)))
        #expect(bench.answers[taking]?.isRefused == true)
        let other = try Disk.layout(dataBytes: 2 << 20)
        let sized = bench.command(
            .join(
                PlexIndex(2), Attachment(uuid: plexUUID(2), layout: other, sequence: 1, basis: .everything("it is new"))
            ))
        #expect(bench.answers[sized]?.isRefused == true && bench.pending.isEmpty)
    }

    @Test func joinIsRefusedWhileOldOperationsAreStillOut() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.send(1, .write, 0)
        bench.send(2, .write, 8192)
        bench.complete(.write, on: 1, at: 0, failing: .media)
        bench.complete(.write, on: 0, at: 0)
        bench.settle(holding: { $0.plex == 1 })
        let attachment = try newDisk(plexUUID(1), sequence: 9)
        let early = bench.command(.join(PlexIndex(1), attachment))
        // A write given up may still land, after whatever is written now.
        #expect(bench.answers[early]?.isRefused == true)
        bench.settle()
        let late = bench.command(.join(PlexIndex(1), attachment))
        bench.settle()
        #expect(bench.answers[late]?.isDone == true && bench.record.inSync == set(0, 1))
    }

    @Test func commandsAreCarriedOutOneByOne() throws {
        let bench = try MirrorBench(freshRecord([.inSync, .inSync, .inSync]))
        let first = bench.command(.takeOffline(PlexIndex(2)))
        let second = bench.command(.takeOffline(PlexIndex(1)))
        let third = bench.command(.takeOffline(PlexIndex(0)))
        #expect(bench.answers.isEmpty && bench.record[PlexIndex(1)].role == .inSync)
        bench.settle()
        #expect(bench.answers[first]?.isDone == true && bench.answers[second]?.isDone == true)
        #expect(bench.answers[third]?.isRefused == true && bench.recorded(0)?.inSync == set(0))
    }
}
