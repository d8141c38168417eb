internal import MirrorFormat
internal import Testing

@testable import Simulator

@Suite("SimulatedDisk")
struct SimulatedDiskTests {
    private func disk() throws -> SimulatedDisk {
        SimulatedDisk(
            number: 0,
            layout: try Layout(diskBytes: 640 << 10, dataBytes: 64 << 10, regionBytes: 64 << 10, spareBytes: 0))
    }

    @Test func unflushedWriteIsLostWithThePowerAndAFlushedOneIsNot() throws {
        var disk = try disk()
        var random = Random(seed: 1)
        disk.write(sector: 0, count: 1, from: [1, 2, 3], cell: 0)
        disk.flush(through: disk.order)
        disk.write(sector: 1, count: 1, from: [4, 5, 6], cell: 0)
        #expect(Array(disk.cached[0..<6]) == [1, 2, 3, 4, 5, 6])
        disk.losePower(.everything, random: &random)
        #expect(Array(disk.cached[0..<6]) == [1, 2, 3, 0, 0, 0])
    }

    @Test func flushCoversOnlyWhatWasExecutedBeforeIt() throws {
        var disk = try disk()
        disk.write(sector: 0, count: 1, from: [1, 1, 1], cell: 0)
        let mark = disk.order
        disk.write(sector: 0, count: 1, from: [2, 2, 2], cell: 0)
        disk.flush(through: mark)
        #expect(disk.medium[0] == 1)
        #expect(disk.cached[0] == 2)
    }

    @Test func forcedWriteIsDurableAloneAndOlderOnesNeverComeBack() throws {
        var disk = try disk()
        var random = Random(seed: 1)
        disk.write(sector: 0, count: 2, from: [1, 1, 1, 2, 2, 2], cell: 0)
        disk.write(sector: 0, count: 1, from: [3, 3, 3], cell: 0)
        disk.flush(sectors: 0..<1, through: disk.order)
        disk.losePower(.everything, random: &random)
        #expect(disk.cached[0] == 3)
        #expect(disk.cached[3] == 0)
    }

    @Test func bitThatFlipsUnderACachedWriteIsSeenWhenThatIsLost() throws {
        var disk = try disk()
        var random = Random(seed: 1)
        disk.rot(4, to: 9)
        #expect(disk.cached[4] == 9)
        disk.write(sector: 0, count: 2, from: [1, 1, 1, 2, 2, 2], cell: 0)
        disk.rot(0, to: 8)
        #expect(disk.cached[0] == 1 && disk.values(at: 0) == [8, 1] && disk.values(at: 4) == [9, 2])
        disk.losePower(.everything, random: &random)
        #expect(disk.cached[0] == 8 && disk.cached[4] == 9)
    }

    @Test func cellsStartAtSectorsAndAtTheirFirstAndLastByte() {
        #expect([0, 1, 511, 512, 513, 1023].map { Geometry.cell(atByte: $0) } == [0, 1, 2, 3, 4, 5])
        #expect(Geometry.cell(atByte: 2) == nil)
        #expect((0..<48).allSatisfy { Geometry.cell(atByte: Geometry.byte(ofCell: $0)) == $0 })
    }
}
