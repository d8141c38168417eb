import MirrorFormat
import Testing

@testable import MirrorCore

/// A copy that was broken off comes back. 64 regions of 64 KiB.
@Suite struct MirrorCopyTests {
    /// Plex 1 is a copy of its own since no bit was set.
    private func broken() throws -> MirrorBench {
        let bench = try MirrorBench(freshRecord(regionBytes: 64 << 10))
        bench.write(regions: [5])
        bench.rest()
        bench.command(.breakOff(PlexIndex(1), name: "copy"))
        bench.settle()
        #expect(bench.record[PlexIndex(1)].role == .brokenOff)
        bench.write(regions: [7, 30])
        bench.clearTrace()
        return bench
    }

    /// The copy, served as a mirror of its own.
    private func copy(of bench: MirrorBench, isReadOnly: Bool = false) throws -> MirrorBench {
        let found = try #require(bench.disks[1]?.found(disk: 1))
        var options = AssemblyOptions()
        options.isReadOnly = isReadOnly
        let assembly = try #require(assemble([found], options: options).assembly)
        let copy = MirrorBench(assembly, isReadOnly: isReadOnly, seed: bench.nextSeed())
        // Whatever a server can't make sense of lies there all the same.
        if let image = bench.disks[1] { copy.replaceDisk(0, with: image) }
        copy.settle()
        return copy
    }

    private func joinText(_ bench: MirrorBench) -> String { bench.events.last { $0.code == .joined }?.text ?? "" }

    private func rejoin(_ bench: MirrorBench) throws {
        bench.clearTrace()
        try bench.rejoin(1)
        bench.settle()
        #expect(bench.recorded(1)?.inSync == set(0, 1) && bench.recorded(1)?.mirror == freshRecord().mirror)
        #expect(bench.recorded(1)?.parent == nil && bench.status().state == .healthy)
    }

    @Test(arguments: [true, false]) func copyThatNobodyUsedGetsWhatWasWrittenSince(areMoved: Bool) throws {
        let bench = try broken()
        if areMoved { bench.rest() }
        try rejoin(bench)
        #expect(bench.regionsCopied(to: 1) == [7, 30])
    }

    @Test func copyThatWasOnlyReadGetsWhatWasWrittenSince() throws {
        let bench = try broken()
        let copy = try copy(of: bench, isReadOnly: true)
        copy.send(1, .read)
        copy.settle()
        copy.command(.stop)
        copy.settle()
        bench.replaceDisk(1, with: copy.disks[0])
        try rejoin(bench)
        #expect(bench.regionsCopied(to: 1) == [7, 30])
    }

    @Test(arguments: [true, false]) func copyThatWasWrittenToGetsEverything(isStopped: Bool) throws {
        let bench = try broken()
        let copy = try copy(of: bench)
        copy.write(regions: [50])
        if isStopped {
            copy.command(.stop)
            copy.settle()
        }
        bench.replaceDisk(1, with: copy.disks[0])
        try rejoin(bench)
        #expect(bench.regionsCopied(to: 1) == Array(0..<64))
        #expect(joinText(bench).contains("it was used as a mirror of its own"))
    }

    /// Power may fail at any moment after somebody began to write to it.
    @Test func copyWhoseFirstWriteWasCutOffNeverCountsAsUnused() throws {
        let bench = try broken()
        let copy = try copy(of: bench)
        copy.send(1, .write, 50 * (64 << 10))
        while let next = copy.pending.first {
            let hasData = next.kind == .write
            copy.complete(next.kind, on: 0, at: next.offset)
            guard hasData else { continue }
            let joining = try bench.restarted(without: set(1))
            joining.settle()
            joining.replaceDisk(1, with: copy.disks[0])
            try joining.rejoin(1)
            joining.settle()
            #expect(joining.regionsCopied(to: 1) == Array(0..<64))
        }
        #expect(copy.replies[1] == .ok)
    }

    /// The copy opens with pages that carry another mirror's name: none is believed, and none is needed.
    @Test func copyIsServedWithABitmapOfItsOwn() throws {
        let bench = try broken()
        let copy = try copy(of: bench)
        #expect(copy.isOpen && copy.disks[0]?.page(sheet: 0, of: copy.record.mirror) != nil)
        copy.write(regions: [50])
        #expect(copy.intent(0) == [50] && copy.replies.count == 1)
        let restarted = try copy.restarted()
        restarted.settle()
        #expect(restarted.isOpen && restarted.intent(0) == [50])
    }

    @Test func copyOfAnEarlierMomentGetsEverything() throws {
        let bench = try broken()
        let old = try #require(bench.disks[1])
        // It came back, took part, and left again; then its disk was set back to the first copy.
        try rejoin(bench)
        bench.write(regions: [60])
        bench.rest()
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        bench.replaceDisk(1, with: old)
        try rejoin(bench)
        #expect(bench.regionsCopied(to: 1) == Array(0..<64))
    }
}
