import TestSupport
import Testing

@testable import MirrorFormat

@Suite struct BadRangeTests {
    private func record(_ ranges: [(Int, UInt64, UInt32)]) throws -> Record {
        var record = try Golden.superblock().record
        record.badRanges = ranges.map { BadRange(plex: PlexIndex($0.0), offset: $0.1 * 4096, blocks: $0.2) }
        return record
    }

    private func blocks(_ record: Record) -> [[UInt64]] {
        record.badRanges.map { [UInt64($0.plex.value), $0.offset / 4096, UInt64($0.blocks)] }
    }

    @Test func healingShortensSplitsAndRemoves() throws {
        var record = try record([(0, 10, 4), (1, 10, 4), (1, 20, 1)])
        let answer1 = record.heal(PlexIndex(1), offset: 11 * 4096, length: 4096)
        #expect(answer1)
        #expect(blocks(record) == [[0, 10, 4], [1, 10, 1], [1, 12, 2], [1, 20, 1]])
        let answer2 = record.heal(PlexIndex(1), offset: 12 * 4096, length: 9 * 4096)
        #expect(answer2)
        #expect(blocks(record) == [[0, 10, 4], [1, 10, 1]])
        let answer3 = record.heal(PlexIndex(0), offset: 0, length: 100 * 4096)
        #expect(answer3)
        #expect(blocks(record) == [[1, 10, 1]])
        #expect(record.isBad(PlexIndex(1), offset: 9 * 4096, length: 8192))
        #expect(!record.isBad(PlexIndex(1), offset: 11 * 4096, length: 4096))
        #expect(!record.isBad(PlexIndex(0), offset: 10 * 4096, length: 4096))
    }

    @Test func neighboursAreJoined() throws {
        var record = try record([(0, 1, 1)])
        record.setBad(PlexIndex(1), blocks: [5, 6, 7, 9].map { $0 * 4096 })
        #expect(blocks(record) == [[0, 1, 1], [1, 5, 3], [1, 9, 1]])
        record.setBad(PlexIndex(1), blocks: [])
        #expect(blocks(record) == [[0, 1, 1]])
    }

    @Test func whatDoesNotFitIsRefusedAndNothingIsChanged() throws {
        var record = try record((0..<Record.badRangeCapacity).map { (0, UInt64($0) * 8, 3) })
        let before = record
        let answer4 = record.heal(PlexIndex(0), offset: 4096, length: 4096)
        #expect(!answer4)
        #expect(record == before)
    }

    @Test func rangesLieAtTheDocumentedOffsetsAndSetAFeatureBit() throws {
        var superblock = try Golden.superblock()
        superblock.record.badRanges = [BadRange(plex: PlexIndex(2), offset: 3 * 4096, blocks: 5)]
        let bytes = superblock.encoded(copy: 1)
        #expect(load(bytes, 32) == 3 && load(bytes, 344) & 0xFFFF == 1)
        #expect(load(bytes, 2496) == 3 * 4096 && load(bytes, 2504) == 2 << 32 | 5)
        #expect(Superblock.decoded(bytes, copy: 1, diskBytes: Golden.diskBytes) == .success(superblock))
    }

    @Test(
        arguments: [
            (0, 1, 8), (0, 1 << 20, 1), (0, 2047, 2), (0, 0, 0),
        ] as [(Int, UInt64, UInt32)])
    func rangesThatCanNotBeAreRejected(plex: Int, block: UInt64, count: UInt32) throws {
        var superblock = try Golden.superblock()
        superblock.record.badRanges = [BadRange(plex: PlexIndex(plex), offset: block * 4096, blocks: count)]
        var bytes = superblock.encoded(copy: 1)
        if count == 8 { bytes[2496 + 12] = 8 }
        let decoded = Superblock.decoded(
            sealed(bytes, copy: 1, diskBytes: Golden.diskBytes), copy: 1, diskBytes: Golden.diskBytes)
        #expect(decoded == .failure(.inconsistent("bad range 0")))
    }

    @Test func tooManyRangesAreRejected() throws {
        var bytes = try Golden.superblock().encoded(copy: 1)
        bytes[344] = UInt8(Record.badRangeCapacity + 1)
        let decoded = Superblock.decoded(
            sealed(bytes, copy: 1, diskBytes: Golden.diskBytes), copy: 1, diskBytes: Golden.diskBytes)
        #expect(decoded == .failure(.inconsistent("bad ranges")))
    }
}
