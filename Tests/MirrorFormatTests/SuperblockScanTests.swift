import Testing

@testable import MirrorFormat

@Suite struct SuperblockScanTests {
    private func area(_ sequences: [UInt64]) throws -> SuperblockArea {
        var area = SuperblockArea(diskBytes: Golden.diskBytes)
        for sequence in sequences { area.write(try Golden.superblock().with(sequence: sequence)) }
        return area
    }

    @Test func emptyDiskHasNone() {
        #expect(SuperblockArea(diskBytes: Golden.diskBytes).scan() == .none)
    }

    @Test func updatesAlternateBetweenTheTwoPairs() {
        #expect(Superblock.copies(ofSequence: 4) == (0, 2))
        #expect(Superblock.copies(ofSequence: 5) == (1, 3))
    }

    @Test(arguments: [[4, 5], [5, 4], [5, 6], [1]] as [[UInt64]])
    func highestSequenceWins(sequences: [UInt64]) throws {
        let newest = sequences.max() ?? 0
        #expect(try area(sequences).scan() == .found(try Golden.superblock().with(sequence: newest)))
    }

    @Test func newestWithOneTornCopyIsStillFound() throws {
        var area = try area([4, 5])
        area.bytes[SuperblockArea.start(1) + 2000] ^= 1
        #expect(area.scan() == .found(try Golden.superblock().with(sequence: 5)))
    }

    @Test func tornNewestCopiesFallBackToTheOlderPair() throws {
        for torn in [1, 511, 512, 2048, 4095] {
            var area = try area([4, 5])
            // A full history: old and new differ up to byte 2,226.
            let next = try Golden.superblock().with(sequence: 6) { record in
                for low in UInt64(1)...16 {
                    record.begin(
                        Generation(UUID128(high: 6, low: low)), because: .expelled, inSync: .empty, time: low)
                }
            }
            for copy in [0, 2] {
                let block = Array(next.encoded(copy: copy)[..<torn]) + Array(area.copy(copy)[torn...])
                area.put(block, copy: copy)
            }
            let found = area.scan()
            let expected: UInt64 = torn > 2226 ? 6 : 5
            guard case .found(let superblock) = found else {
                Issue.record("torn at \(torn): \(found)")
                continue
            }
            #expect(superblock.sequence == expected, "torn at \(torn)")
        }
    }

    @Test func tornCopiesAreThoseThatHoldSomethingButNoSuperblock() throws {
        var area = try area([4])
        #expect(area.copies().torn == .none)
        area.bytes[SuperblockArea.start(1) + 4095] = 1
        area.bytes[SuperblockArea.start(2) + 2000] ^= 1
        let torn = area.copies().torn
        #expect((0..<4).filter(torn.contains) == [1, 2])
        #expect(
            unsafe SuperblockScan.copies(area: [UInt8]().span.bytes, diskBytes: Golden.diskBytes) == SuperblockCopies())
    }

    @Test func newestCopiesAreThoseOfTheHighestNumber() throws {
        var area = try area([4, 5])
        #expect((0..<4).filter(area.copies().newest.contains) == [1, 3])
        #expect(area.copies().areAllOverwritten(by: 7) && !area.copies().areAllOverwritten(by: 6))
        area.bytes[SuperblockArea.start(3) + 2000] ^= 1
        #expect((0..<4).filter(area.copies().newest.contains) == [1])
        // As a new disk has it: the same in all four.
        let superblock = try Golden.superblock().with(sequence: 9)
        for copy in 0..<4 { area.write(superblock, copy: copy) }
        #expect(!area.copies().areAllOverwritten(by: 10) && !area.copies().areAllOverwritten(by: 11))
        #expect(!SuperblockCopies().areAllOverwritten(by: 1))
    }

    @Test func allCopiesDestroyedAreCounted() throws {
        var area = try area([4, 5])
        for copy in 0..<4 { area.bytes[SuperblockArea.start(copy) + 100] ^= 0x10 }
        #expect(area.scan() == .damaged(copies: 4))
    }

    @Test func twoContentsWithOneSequenceAreAFork() throws {
        var area = try area([4, 5])
        area.write(try Golden.superblock().with(sequence: 5) { $0.epoch += 1 }, copy: 3)
        #expect(area.scan() == .forked(sequence: 5))
    }

    @Test func forkThatANewerUpdateOvertookIsHistory() throws {
        var area = try area([4, 7])
        area.write(try Golden.superblock().with(sequence: 4) { $0.epoch += 1 }, copy: 2)
        #expect(area.scan() == .found(try Golden.superblock().with(sequence: 7)))
    }

    @Test func forkIsFoundWhereverTheTwoCopiesLie() throws {
        for (first, second) in [(0, 1), (0, 3), (2, 1), (1, 3)] {
            var area = SuperblockArea(diskBytes: Golden.diskBytes)
            area.write(try Golden.superblock().with(sequence: 9), copy: first)
            area.write(try Golden.superblock().with(sequence: 9) { $0.name = "other" }, copy: second)
            #expect(area.scan() == .forked(sequence: 9))
        }
    }

    @Test func futureFormatOnOnePairIsRefusedAlthoughTheOlderPairIsReadable() throws {
        var area = try area([4, 5])
        for copy in [0, 2] {
            var block = area.copy(copy)
            block.store(UInt16(2), at: 8)
            area.put(block, copy: copy)
        }
        #expect(area.scan() == .futureFormat(major: 2))
    }

    @Test func unknownFeatureOnOnePairIsNamedAlthoughTheOlderPairIsReadable() throws {
        var area = try area([4, 5])
        for copy in [1, 3] {
            var block = area.copy(copy)
            block.store(UInt64(1) << 9, at: 32)
            area.put(sealed(block, copy: copy, diskBytes: Golden.diskBytes), copy: copy)
        }
        #expect(area.scan() == .unknownFeature(bit: 9))
    }

    @Test func movedCopiesAreDamageNotSuperblocks() throws {
        let original = try area([4, 5])
        var moved = SuperblockArea(diskBytes: Golden.diskBytes)
        for copy in 0..<4 { moved.put(original.copy(copy), copy: 3 - copy) }
        #expect(moved.scan() == .damaged(copies: 4))
    }

    @Test(arguments: [4096, 512, 1 << 20] as [UInt64])
    func superblocksOfASmallerDiskAreNotTakenAtTheEndOfALarger(growth: UInt64) throws {
        var area = try area([4, 5])
        area.diskBytes += growth
        #expect(area.scan() == .damaged(copies: 4))
        area.diskBytes = Golden.diskBytes - growth
        #expect(area.scan() == .damaged(copies: 4))
    }

    @Test(arguments: [0, 1, 4095, 4096, 16_384, 65_535] as [UInt64])
    func diskSmallerThanTheSuperblockAreaIsRejected(diskBytes: UInt64) throws {
        // The file can hold anything, our own magic included.
        var area = try area([4, 5])
        area.diskBytes = diskBytes
        #expect(area.scan() == .none)
        area.bytes = Array(area.bytes[..<Int(diskBytes)])
        #expect(area.scan() == .none)
    }

    @Test func areaThatIsCutShortNeverStopsTheProgram() throws {
        let whole = try area([4, 5])
        for count in stride(from: 0, through: whole.bytes.count, by: 1021) {
            var area = whole
            area.bytes = Array(whole.bytes[..<count])
            _ = area.scan()
        }
    }

    @Test func copyOfAnotherPlexIsNotBelievedHoweverNew() throws {
        // A disk of the same size in the same mirror: its copies pass the checksum here, too.
        for (sequence, copy) in [(9, 1), (9, 0), (5, 3), (1, 2)] as [(UInt64, Int)] {
            var area = try area([4, 5])
            var stray = try Golden.superblock().with(sequence: sequence)
            stray.plex = stray.record.members[0].uuid
            area.write(stray, copy: copy)
            #expect(area.scan() == .forked(sequence: max(5, sequence)))
        }
    }

    @Test func plexThatWasBrokenOffBetweenTwoPairsIsFound() throws {
        // The same plex under the name of another mirror: not a stray.
        var area = try area([4])
        let own = try Golden.superblock().with(sequence: 5) { $0.mirror = MirrorUUID(UUID128(high: 7, low: 7)) }
        area.write(own)
        #expect(area.scan() == .found(own))
    }
}
