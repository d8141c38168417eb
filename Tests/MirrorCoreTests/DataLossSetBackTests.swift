import MirrorFormat
import Testing

@testable import MirrorCore

/// A disk is set back to an earlier state: a snapshot, or a cache that lied. Acknowledged writes are on the other one
/// only, and the disk must not be taken for a copy of it.
@Suite struct DataLossSetBackTests {
    /// A pair in which block 3 is 2. A disk of an earlier state has 1 there.
    private func pair() throws -> (DataBench, earlier: DataDisk) {
        let bench = try DataBench(plexes: 2)
        bench.write(3, 1)
        bench.rest()
        bench.command(.stop)
        bench.settle()
        let earlier = bench.disks[1]
        try bench.start(on: [0, 1])
        bench.settle()
        bench.write(3, 2, fua: true)
        bench.rest()
        bench.command(.stop)
        bench.settle()
        #expect(bench.isStopped)
        return (bench, earlier)
    }

    /// It went on in the era that both knew. The record of the other one counted as older, and was copied over.
    @Test func diskThatWasSetBackAndRanAloneIsAnotherSide() throws {
        let (bench, earlier) = try pair()
        bench.disks[1] = earlier
        try bench.start(on: [1], isDegraded: true)
        bench.settle()
        bench.write(7, 5)
        bench.rest()
        bench.command(.stop)
        bench.settle()
        guard case .split(_, related: true) = bench.verdict(on: [0, 1]).refusal else {
            Issue.record("\(bench.verdict(on: [0, 1]))")
            return
        }
        #expect(bench.disks[0].cache[3] == 2)
    }

    /// The same, and the other one is chosen. Only what either side had changed alone was copied.
    @Test func diskThatWasSetBackAndLosesTheSplitGetsWhatItLostBefore() throws {
        let (bench, earlier) = try pair()
        bench.disks[1] = earlier
        try bench.start(on: [1], isDegraded: true)
        bench.settle()
        for value in UInt32(0)...6 {
            bench.write(8, value)
            bench.rest()
        }
        bench.command(.stop)
        bench.settle()
        try bench.start(on: [0], isDegraded: true)
        bench.settle()
        bench.write(9, 9)
        bench.rest()
        try bench.join(1, disk: 1)
        bench.settle()
        bench.idle(seconds: 2)
        #expect(bench.record.inSync == set(0, 1) && bench.copies(of: 3) == [2, 2])
        #expect(bench.disks[0].cache == bench.disks[1].cache)
    }

    /// Seed 486573. It was complete, and its promotion on the way to the disks, when it was taken offline; then its disk was
    /// set back to the middle of the rebuild. It counted as having all.
    @Test func diskThatWasSetBackToTheMiddleOfItsRebuildIsCopiedInFull() throws {
        let bench = try DataBench.rejoining()
        bench.settle(holding: { $0.kind == .read })
        let earlier = bench.disks[1]
        bench.settle(holding: { $0.kind == .flush })
        bench.complete(.flush, on: 1)
        bench.settle(holding: \.isSuperblock)
        #expect(bench.record.inSync == set(0, 1) && bench.copies(of: 4) == [45, 45])
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        #expect(bench.record.inSync == set(0))
        bench.disks[1] = earlier
        try bench.join(1, disk: 1)
        bench.settle()
        bench.idle(seconds: 2)
        #expect(bench.record.inSync == set(0, 1) && bench.copies(of: 4) == [45, 45])
    }

    /// Its record is the current one. Only the pages of its bitmap tell that it is older.
    @Test func diskThatWasSetBackWithinAnEpochIsCopiedOver() throws {
        let bench = try DataBench(plexes: 2)
        bench.write(3, 1)
        bench.rest()
        let earlier = bench.disks[1]
        bench.write(3, 2, fua: true)
        bench.rest()
        bench.losePower()
        bench.disks[1] = earlier
        try bench.start(on: [0, 1])
        bench.settle()
        bench.idle(seconds: 2)
        #expect(bench.record.inSync == set(0, 1) && bench.copies(of: 3) == [2, 2])
    }
}
