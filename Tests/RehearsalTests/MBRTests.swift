import TestSupport
import Testing

@testable import Rehearsal

@Suite struct MBRTests {
    private struct Entry {
        var type: UInt8
        var first: UInt32
        var blocks: UInt32
    }

    private func write(_ entries: [Entry], at block: Int, _ image: inout [UInt8]) {
        for (index, entry) in entries.enumerated() {
            let base = block * 512 + 446 + index * 16
            image[base + 4] = entry.type
            store(entry.first, base + 8, &image)
            store(entry.blocks, base + 12, &image)
        }
        store(UInt16(0xAA55), block * 512 + 510, &image)
    }

    private var blank: [UInt8] { [UInt8](repeating: 0, count: 1 << 20) }

    @Test func partitionsAreReadWithTheirTypes() throws {
        var image = blank
        write([Entry(type: 0xEF, first: 8, blocks: 100), Entry(type: 0x83, first: 200, blocks: 300)], at: 0, &image)
        let found = try #require(try table(image))
        #expect(
            found
                == PartitionTable(
                    kind: .mbr, blockBytes: 512,
                    partitions: [
                        Partition(number: 1, offset: 8 * 512, count: 100 * 512, type: "EF", isSystemPartition: true),
                        Partition(number: 2, offset: 200 * 512, count: 300 * 512, type: "83", isSystemPartition: false),
                    ]))
    }

    @Test func logicalPartitionsAreFollowed() throws {
        var image = blank
        write([Entry(type: 0x83, first: 8, blocks: 8), Entry(type: 0x05, first: 100, blocks: 900)], at: 0, &image)
        write([Entry(type: 0x83, first: 4, blocks: 16), Entry(type: 0x05, first: 50, blocks: 50)], at: 100, &image)
        write([Entry(type: 0x82, first: 4, blocks: 16)], at: 150, &image)
        let found = try #require(try table(image))
        #expect(found.partitions.map(\.number) == [1, 5, 6])
        #expect(found.partitions.map { $0.offset / 512 } == [8, 104, 154])
        #expect(found.partitions.map(\.type) == ["83", "83", "82"])
        #expect(found.faults.isEmpty)
    }

    @Test func chainsThatBreakOffOrHaveNoEndAreFaults() throws {
        var image = blank
        write([Entry(type: 0x0F, first: 100, blocks: 900)], at: 0, &image)
        #expect(try table(image)?.faults == ["the chain of logical partitions breaks off at block 100"])
        // The second record names itself as the next.
        write([Entry(type: 0, first: 0, blocks: 0), Entry(type: 0x05, first: 50, blocks: 50)], at: 100, &image)
        write([Entry(type: 0, first: 0, blocks: 0), Entry(type: 0x05, first: 50, blocks: 50)], at: 150, &image)
        #expect(try table(image)?.faults == ["the chain of logical partitions has no end"])
        write([Entry(type: 0x0F, first: .max, blocks: .max)], at: 0, &image)
        #expect(try table(image)?.faults == ["the chain of logical partitions breaks off at block 4294967295"])
    }

    @Test func partitionsBeyondTheMirrorOrEmptyAreFaults() throws {
        var image = blank
        write([Entry(type: 0x83, first: 2000, blocks: 100)], at: 0, &image)
        #expect(try table(image)?.faults == ["partition 1 reaches beyond the mirror, which ends at byte 1048576"])
        write([Entry(type: 0x83, first: 2000, blocks: 0)], at: 0, &image)
        #expect(try table(image)?.faults.count == 1)
        #expect(try table(image)?.partitions == [])
    }

    @Test func bootSectorsAreNoTables() throws {
        var image = blank
        store(UInt16(0xAA55), 510, &image)
        #expect(try table(image) == nil)
        image.replaceSubrange(446..<460, with: Array("Disk error, no".utf8))
        #expect(try table(image) == nil)
    }

    @Test func randomRecordsNeverTrapNorLeadOutside() throws {
        var random = XorShift(seed: 3)
        for _ in 0..<1000 {
            var image = [UInt8](repeating: 0, count: 64 << 10)
            for block in [0, 1, 7, 60] {
                let entries = (0..<4).map { _ in
                    Entry(
                        type: [0, 5, 0x0F, 0x83, 0xEF, 0xEE].randomElement(using: &random) ?? 0,
                        first: Bool.random(using: &random) ? .random(in: 0...130, using: &random) : random.next(),
                        blocks: Bool.random(using: &random) ? .random(in: 0...130, using: &random) : random.next())
                }
                write(entries, at: block, &image)
            }
            for partition in try table(image)?.partitions ?? [] {
                #expect(partition.count > 0 && partition.offset + partition.count <= UInt64(image.count))
            }
        }
    }
}
