import TestSupport
import Testing

@testable import Rehearsal

@Suite struct GPTTests {
    @Test func checksumIsThatOfZlib() {
        // RFC 1952 names no vector; "123456789" is everybody's.
        #expect(CRC32.checksum(of: Array("123456789".utf8)) == 0xCBF4_3926)
        #expect(CRC32.checksum(of: [UInt8]()) == 0)
    }

    @Test func tableMadeBySgdiskIsReadInFull() throws {
        let found = try #require(try table(MadeBySgdisk.image))
        #expect(found == PartitionTable(kind: .gpt, blockBytes: 512, partitions: MadeBySgdisk.partitions))
        #expect(found.systemPartition?.number == 1)
    }

    @Test func bytesBehindTheMirrorAreNotLookedAt() throws {
        // As on a plex, where Plexus' own areas follow; a read there would be an error.
        let image = MadeBySgdisk.image
        let disk = DiskBytes(count: UInt64(image.count)) { offset, count throws(Unreadable) in
            guard Int(offset) + count <= image.count else { throw Unreadable(description: "outside") }
            return Array(image[Int(offset)..<Int(offset) + count])
        }
        #expect(try PartitionTable.find(in: disk)?.faults == [])
    }

    /// Where a byte is damaged, and what is said of it.
    @Test(arguments: [
        (512, "the first header is bad: block 1 holds none"),
        (512 + 40, "the first header is bad: the checksum of block 1 is wrong"),
        (512 + 16, "the first header is bad: the checksum of block 1 is wrong"),
        (1024 + 32, "the first header is bad: the checksum of its entries in block 2 is wrong"),
        ((1 << 20) - 512, "the backup header is bad: block 2047 holds none"),
        ((1 << 20) - 512 + 56, "the backup header is bad: the checksum of block 2047 is wrong"),
        ((1 << 20) - 33 * 512 + 200, "the backup header is bad: the checksum of its entries in block 2015 is wrong"),
        (510, "the protective MBR in block 0 is missing: firmware may pass the disk over"),
        (450, "the protective MBR in block 0 is missing: firmware may pass the disk over"),
    ]) func everyDamageIsNamedAndTheOtherCopyIsUsed(offset: Int, said: String) throws {
        var image = MadeBySgdisk.image
        image[offset] ^= 0x41
        let found = try #require(try table(image))
        #expect(found.faults == [said])
        #expect(found.partitions == MadeBySgdisk.partitions)
    }

    @Test func twoBadHeadersAreNoMissingTable() throws {
        var image = MadeBySgdisk.image
        image[512] = 0
        image[image.count - 512] = 0
        let found = try #require(try table(image))
        #expect(found.faults.count == 1 && found.partitions.isEmpty)
        image[520] ^= 1
        image[512] = UInt8(ascii: "E")
        #expect(try table(image)?.faults.count == 2)
    }

    @Test func backupAloneWithoutProtectionIsWhatIsLeftOfAnOldTable() throws {
        var image = MadeBySgdisk.image
        image.replaceSubrange(0..<20 * 512, with: [UInt8](repeating: 0, count: 20 * 512))
        #expect(try table(image)?.isRemains == true)
        #expect(try table(MadeBySgdisk.image)?.isRemains == false)
    }

    @Test func tableInBlocksOf4096BytesIsRecognized() throws {
        let made = MadeHere(blockBytes: 4096, blocks: 256, partitions: [(40, 99)], usable: 6...240)
        let found = try #require(try table(made.image))
        #expect((found.blockBytes, found.faults) == (4096, []))
        #expect(found.partitions.map(\.offset) == [40 * 4096] && found.partitions.map(\.count) == [60 * 4096])
    }

    @Test func mirrorLongerThanItsTableIsANote() throws {
        let found = try #require(try table(MadeHere(usable: 34...1400, alternate: 1500).image))
        #expect(found.faults.isEmpty)
        #expect(found.notes == ["the backup header lies in block 1500, the mirror has 2048"])
    }

    @Test func headersThatDisagreeAreAFault() throws {
        var image = MadeHere().image
        let other = MadeHere(partitions: [(40, 99), (100, 198)]).image
        image.replaceSubrange((image.count - 33 * 512)..., with: other[(image.count - 33 * 512)...])
        #expect(try table(image)?.faults == ["the first and the backup header say different things"])
    }

    @Test(
        arguments: [
            ([(40, 99), (99, 150)], "partitions 1 and 2 overlap"),
            ([(40, 300), (50, 60), (200, 210)], "partitions 1 and 2 overlap"),
            ([(20, 99)], "partition 1 has the blocks 20 to 99, outside of 34 to 2000"),
            ([(40, 2001)], "partition 1 has the blocks 40 to 2001, outside of 34 to 2000"),
            ([(99, 40)], "partition 1 has the blocks 99 to 40, outside of 34 to 2000"),
            ([(40, UInt64.max)], "partition 1 has the blocks 40 to 18446744073709551615, outside of 34 to 2000"),
        ] as [([(UInt64, UInt64)], String)]) func partitionsThatCanNotBeAreAFault(
            partitions: [(UInt64, UInt64)], said: String
        ) throws
    {
        let made = MadeHere(partitions: partitions.map { (first: $0.0, last: $0.1) })
        #expect(try table(made.image)?.faults.first == said)
    }

    /// Checksums are right: somebody, or a bug, has written this on purpose.
    @Test func headersThatCanNotBeAreAFault() throws {
        #expect(try fault(MadeHere(entryBytes: 100)) == "it has 128 entries of 100 bytes")
        #expect(try fault(MadeHere(entryBytes: 1 << 31)) == "it has 128 entries of 2147483648 bytes")
        #expect(try fault(MadeHere(entryCount: 0)) == "it has 0 entries of 128 bytes")
        #expect(try fault(MadeHere(entryCount: .max)) == "it has 4294967295 entries of 128 bytes")
        #expect(
            try fault(MadeHere(usable: 34...2048)) == "partitions may reach to block 2048, and the mirror has only 2048"
        )
        #expect(try fault(MadeHere(usable: 0...UInt64.max))?.hasPrefix("partitions may reach to block") == true)
    }

    private func fault(_ made: MadeHere) throws -> String? {
        let said = try table(made.image)?.faults.first
        return said.map { $0.replacing("the first header is bad: ", with: "") }
    }

    @Test func tooShortDisksHaveNone() throws {
        for count in [0, 1, 511, 512, 513, 1023, 1024, 1535, 4096, 3 * 4096 - 1] {
            let image = MadeBySgdisk.image
            _ = try table(Array(image.prefix(count)))
            #expect(try table([UInt8](repeating: 0, count: count)) == nil)
        }
    }

    @Test func unreadableBlocksAreAnErrorNotAnAbsence() {
        let disk = DiskBytes(count: 1 << 20) { offset, count throws(Unreadable) in
            if offset > 0 { throw Unreadable(description: "bad") }
            return [UInt8](repeating: 0, count: count)
        }
        #expect(throws: Unreadable(description: "bad")) { _ = try PartitionTable.find(in: disk) }
    }

    /// Whatever a disk holds, a table is read or refused; what it names lies inside.
    @Test func randomDamageNeverTrapsNorLeadsOutside() throws {
        var random = XorShift(seed: 20_261_122)
        let originals = [
            MadeBySgdisk.image, MadeHere().image, MadeHere(blockBytes: 4096, blocks: 256, usable: 6...240).image,
        ]
        for round in 0..<1200 {
            var image = originals[round % originals.count]
            let places = [512, 1024, 4096, 446, image.count - 512, image.count - 4096, image.count - 33 * 512]
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                let place =
                    places.randomElement(using: &random).map { $0 + Int.random(in: 0..<128, using: &random) } ?? 0
                if place < image.count { image[place] = UInt8.random(in: 0...255, using: &random) }
            }
            // Half of them with right checksums, so that the fields behind are reached.
            if round % 2 == 0 { repair(&image, blockBytes: round % 3 == 2 ? 4096 : 512) }
            if round % 7 == 0 { image.removeLast(Int.random(in: 0..<image.count, using: &random)) }
            guard let found = try table(image) else { continue }
            for partition in found.partitions {
                #expect(partition.count > 0 && partition.offset + partition.count <= UInt64(image.count))
            }
        }
    }

    private func repair(_ image: inout [UInt8], blockBytes: Int) {
        for base in [blockBytes, image.count - blockBytes] {
            store(UInt32(0), base + 16, &image)
            store(CRC32.checksum(of: image[base..<base + 92]), base + 16, &image)
        }
    }
}
