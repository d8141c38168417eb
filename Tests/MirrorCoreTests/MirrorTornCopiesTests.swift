import MirrorFormat
import Testing

@testable import MirrorCore

/// Copies of a superblock that an update left torn are wiped before the next update of that disk.
@Suite struct MirrorTornCopiesTests {
    private func offset(_ copy: Int) -> UInt64 { Layout.superblockOffset(copy: copy, diskBytes: Disk.bytes) }

    /// Copies 0 and 2 of plex 0 are torn.
    private func torn() throws -> MirrorBench {
        try MirrorBench { plex, image in
            guard plex == 0 else { return }
            for copy in [0, 2] { image.blocks[offset(copy)] = Array(repeating: 7, count: 512) }
        }
    }

    @Test func tornCopiesAreWipedBeforeAnyDiskGetsTheRecord() throws {
        let bench = try torn()
        bench.send(1, .write)
        #expect(bench.waiting(.writeMetadata).filter(\.isSuperblock).map(\.offset) == [offset(0), offset(2)])
        #expect(bench.waiting(.writeMetadata).filter(\.isSuperblock).allSatisfy { $0.plex == 0 && $0.isDurable })
        bench.complete(.writeMetadata, on: 0, at: offset(0))
        #expect(bench.block(0, at: offset(0))?.allSatisfy { $0 == 0 } == true)
        #expect(bench.waiting(.writeMetadata).filter(\.isSuperblock).count == 1)
        bench.complete(.writeMetadata, on: 0, at: offset(2))
        #expect(bench.waiting(.writeMetadata).filter(\.isSuperblock).map(\.plex) == [0, 0, 1, 1])
        bench.settle()
        #expect(bench.replies[1] == .ok)
        // Once is enough.
        bench.clearTrace()
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        #expect(bench.submitted(.writeMetadata).filter { $0.isSuperblock && $0.plex == 0 }.count == 2)
    }

    /// Of four copies of the first state the one that is left lies in the pair whose turn it is.
    @Test func onlyWholeCopyIsNotOverwritten() throws {
        let bench = try MirrorBench { plex, image in
            guard plex == 0, let superblock = try? found(0, freshRecord()).superblock else { return }
            for copy in 0..<4 { image.blocks[offset(copy)] = Array(repeating: 7, count: 4096) }
            image.write(superblock, copy: 0)
        }
        bench.send(1, .write)
        bench.settle()
        #expect(bench.replies[1] == .ok)
        #expect((0..<4).filter { bench.block(0, at: offset($0))?.contains { $0 != 0 } ?? false } == [1, 3])
    }

    @Test func plexThatCanNotBeWipedIsOut() throws {
        let bench = try torn()
        bench.send(1, .write)
        bench.complete(.writeMetadata, on: 0, at: offset(0), failing: .media)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.recorded(1)?.inSync == set(1))
    }

    @Test func wipingIsTriedAgainAfterATransientError() throws {
        let bench = try torn()
        bench.send(1, .write)
        bench.complete(.writeMetadata, on: 0, at: offset(0), failing: .busy)
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.recorded(0)?.inSync == set(0, 1))
        #expect(bench.block(0, at: offset(0)) != nil)
    }

    /// Its last operation came back, and its disk was closed, before the others' records were begun.
    @Test func plexThatIsTakenOutWhileItIsWipedGetsNoRecord() throws {
        let bench = try MirrorBench { _, image in image.blocks[offset(0)] = Array(repeating: 7, count: 512) }
        bench.send(1, .write)
        bench.complete(.writeMetadata, on: 0, at: offset(0), failing: .media)
        bench.command(.takeOffline(PlexIndex(0)))
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.recorded(1)?.inSync == set(1))
        #expect(bench.released == [PlexIndex(0)])
    }

    @Test func mirrorWhoseOnlyDiskCanNotBeWipedWaits() throws {
        let bench = try MirrorBench(freshRecord([.inSync])) { _, image in
            image.blocks[offset(0)] = Array(repeating: 7, count: 512)
        }
        bench.send(1, .write)
        bench.complete(.writeMetadata, on: 0, at: offset(0), failing: .media)
        bench.settle()
        #expect(bench.replies[1] == nil && bench.status().state == .suspended)
        bench.tick(afterMilliseconds: 5000)
        bench.settle()
        #expect(bench.replies[1] == .ok)
        // The first update must not go to copies 1 and 3, which alone hold the state before it.
        #expect(bench.block(0, at: offset(1)) == nil && bench.block(0, at: offset(3)) == nil)
        #expect(bench.recorded(0)?.isClean == false)
    }
}
