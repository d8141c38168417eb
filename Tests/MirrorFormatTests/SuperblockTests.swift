import Bytes
import TestSupport
import Testing

@testable import MirrorFormat

@Suite struct SuperblockTests {
    @Test func goldenRecordEncodesToTheDocumentedBytes() throws {
        let rows = try Golden.superblock().encoded(copy: Golden.copy).nonZeroRows
        for (got, wanted) in zip(rows, Golden.superblockRows) {
            #expect(
                got.0 == wanted.0 && got.1 == wanted.1, "row \(got.0): \(got.1), documented \(wanted.0): \(wanted.1)")
        }
        #expect(rows.count == Golden.superblockRows.count)
    }

    @Test func goldenBytesDecodeToTheGoldenRecord() throws {
        var bytes = [UInt8](repeating: 0, count: Superblock.byteCount)
        for (start, row) in Golden.superblockRows {
            for (index, position) in stride(from: 0, to: 32, by: 2).enumerated() {
                bytes[start + index] = UInt8(row.dropFirst(position).prefix(2), radix: 16) ?? 0
            }
        }
        let decoded = Superblock.decoded(bytes, copy: Golden.copy, diskBytes: Golden.diskBytes)
        #expect(decoded == .success(try Golden.superblock()))
    }

    @Test func fieldsLieAtTheDocumentedOffsets() throws {
        let superblock = try Golden.superblock()
        let bytes = superblock.encoded(copy: 3)
        #expect(Array(bytes[0..<8]) == Array("PLEXUSSB".utf8))
        #expect(load(bytes, 8) & 0xFFFF_FFFF == 1)
        #expect(Array(bytes[40..<46]) == [3, 7, 8, 1, 6, 1])
        #expect(load(bytes, 48) == 6)
        #expect(load(bytes, 56) == Golden.mirror.bits.high && load(bytes, 64) == Golden.mirror.bits.low)
        #expect(load(bytes, 152) == 8 << 20 && load(bytes, 160) == 16 << 20 && load(bytes, 168) == 1 << 20)
        #expect(load(bytes, 176) == 9)
        #expect(load(bytes, 184) == Golden.generation.bits.high)
        for (index, area) in superblock.layout.areas.enumerated() {
            #expect(load(bytes, 384 + index * 24) == UInt64(area.kind.rawValue))
            #expect(load(bytes, 392 + index * 24) == area.offset && load(bytes, 400 + index * 24) == area.length)
        }
        for (index, member) in superblock.record.members.enumerated() {
            #expect(load(bytes, 704 + index * 88) == member.uuid.bits.high)
            #expect(bytes[704 + index * 88 + 16] == member.role.rawValue)
        }
        #expect(load(bytes, 1472 + 16) == 8)
        #expect(bytes[2240...].allSatisfy { $0 == 0 })
    }

    @Test func randomRecordsSurviveARoundTripInEveryCopy() throws {
        var random = XorShift(seed: 0x5EED_0001)
        for round in 0..<500 {
            let superblock = try random.superblock()
            let copy = round % 4
            let decoded = Superblock.decoded(
                superblock.encoded(copy: copy), copy: copy, diskBytes: superblock.layout.diskBytes)
            #expect(decoded == .success(superblock), "round \(round)")
        }
    }

    @Test func hostNameTooLongIsCutBetweenCharacters() throws {
        var superblock = try Golden.superblock()
        superblock.writer.host = String(repeating: "é", count: 31) + "日本"
        let decoded = try Superblock.decoded(superblock.encoded(copy: 0), copy: 0, diskBytes: Golden.diskBytes).get()
        #expect(decoded.writer.host == String(repeating: "é", count: 31))
    }

    @Test func everySingleFlippedBitIsDetected() throws {
        let bytes = try Golden.superblock().encoded(copy: 1)
        // Every bit of the fields, and a sample of the zeroes behind them.
        let positions = Array(0..<2240 * 8) + stride(from: 2240 * 8, to: 4096 * 8, by: 13)
        for position in positions {
            var flipped = bytes
            flipped[position / 8] ^= 1 << UInt8(position % 8)
            if case .success = Superblock.decoded(flipped, copy: 1, diskBytes: Golden.diskBytes) {
                Issue.record("flip of bit \(position % 8) of byte \(position / 8) went unnoticed")
            }
        }
    }

    @Test func copyAtAnotherPositionIsRejected() throws {
        let bytes = try Golden.superblock().encoded(copy: 0)
        for copy in 1..<4 {
            #expect(Superblock.decoded(bytes, copy: copy, diskBytes: Golden.diskBytes) == .failure(.checksum))
        }
    }

    @Test func diskThatGrewOrShrankIsRejected() throws {
        let bytes = try Golden.superblock().encoded(copy: 0)
        for size in [Golden.diskBytes + 4096, Golden.diskBytes - 4096, Golden.diskBytes * 2] {
            #expect(Superblock.decoded(bytes, copy: 0, diskBytes: size) == .failure(.checksum))
        }
        // Less than a block more: the same positions, another disk.
        #expect(
            Superblock.decoded(bytes, copy: 0, diskBytes: Golden.diskBytes + 512)
                == .failure(.inconsistent("disk size")))
    }

    @Test func unknownIncompatibleFeatureIsNamedByItsBit() throws {
        let bytes = try Golden.superblock().encoded(copy: 0)
        for bit in [0, 5, 63] {
            var changed = bytes
            changed.store(UInt64(1) << UInt64(bit), at: 32)
            let decoded = Superblock.decoded(
                sealed(changed, copy: 0, diskBytes: Golden.diskBytes), copy: 0, diskBytes: Golden.diskBytes)
            #expect(decoded == .failure(.unknownIncompatibleFeature(bit: bit)))
        }
    }

    @Test func unknownReadOnlyCompatibleFeatureForbidsWriting() throws {
        var bytes = try Golden.superblock().encoded(copy: 0)
        bytes.store(UInt64(4), at: 24)
        let decoded = Superblock.decoded(
            sealed(bytes, copy: 0, diskBytes: Golden.diskBytes), copy: 0, diskBytes: Golden.diskBytes)
        #expect(try decoded.get().mustStayReadOnly)
    }

    @Test func unknownCompatibleFeatureIsIgnored() throws {
        var bytes = try Golden.superblock().encoded(copy: 0)
        bytes.store(UInt64.max, at: 16)
        let decoded = Superblock.decoded(
            sealed(bytes, copy: 0, diskBytes: Golden.diskBytes), copy: 0, diskBytes: Golden.diskBytes)
        #expect(decoded == .success(try Golden.superblock()))
    }

    @Test func laterMajorFormatIsToldBeforeTheChecksumIsLookedAt() throws {
        var bytes = try Golden.superblock().encoded(copy: 0)
        bytes.store(UInt16(2), at: 8)
        #expect(Superblock.decoded(bytes, copy: 0, diskBytes: Golden.diskBytes) == .failure(.futureFormat(major: 2)))
    }

    @Test(
        arguments: [
            (40, 1), (41, 13), (42, 7), (43, 17), (45, 8), (46, 0), (46, 64), (384, 8), (384, 3), (704 + 16, 7),
            (704 + 18, 8), (1472 + 32, 7), (792, 0), (88, 0xFF), (168, 1), (392, 1), (152, 1),
            // An empty name; counts near the end of the integers; superblocks elsewhere; a log without a record.
            (88, 0), (48 + 7, 0x41), (176 + 7, 0xFF), (529, 0xF0), (384 + 5 * 24 + 18, 0),
        ] as [(Int, UInt8)])
    func contentsThatContradictThemselvesAreRejected(offset: Int, value: UInt8) throws {
        var bytes = try Golden.superblock().encoded(copy: 2)
        bytes[offset] = value
        if offset == 792 { bytes[784] = 0 }
        let decoded = Superblock.decoded(
            sealed(bytes, copy: 2, diskBytes: Golden.diskBytes), copy: 2, diskBytes: Golden.diskBytes)
        guard case .failure(.inconsistent) = decoded else {
            Issue.record("byte \(offset) = \(value) gave \(decoded)")
            return
        }
    }
}

extension SuperblockTests {
    @Test func countersNearTheEndOfTheIntegersAreCut() throws {
        var bytes = try Golden.superblock().encoded(copy: 0)
        for field in [48, 56, 64, 72] { bytes.store(UInt64.max, at: 704 + field) }
        let decoded = Superblock.decoded(
            sealed(bytes, copy: 0, diskBytes: Golden.diskBytes), copy: 0, diskBytes: Golden.diskBytes)
        let member = try decoded.get().record.members[0]
        #expect([member.readErrors, member.writeErrors, member.corrected, member.spared].allSatisfy { $0 == 1 << 62 })
    }
}

@Suite struct SuperblockDecoderFuzz {
    @Test func randomBytesNeverDecode() {
        var random = XorShift(seed: 0xF0_0D)
        var bytes = [UInt8](repeating: 0, count: Superblock.byteCount)
        for round in 0..<20_000 {
            for offset in stride(from: 0, to: 2240, by: 8) { bytes.store(random.next(), at: offset) }
            if round % 2 == 0 { bytes.replaceSubrange(0..<8, with: Array("PLEXUSSB".utf8)) }
            if round % 4 == 0 { bytes.store(UInt32(1), at: 8) }
            guard case .failure = Superblock.decoded(bytes, copy: round % 4, diskBytes: Golden.diskBytes) else {
                Issue.record("round \(round) decoded")
                return
            }
        }
    }

    /// With a right checksum hostile contents reach every check behind it. What is accepted must hold all
    /// that the mirror relies on, and mean the same when it is written again.
    @Test func mutatedRecordsWithARightChecksumAreRejectedOrSound() throws {
        var random = XorShift(seed: 0xF0_0E)
        let original = try Golden.superblock().encoded(copy: 0)
        var accepted = 0
        for round in 0..<80_000 {
            var bytes = original
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let offset = Int.random(in: 8..<2240, using: &random)
                switch random.next() % 3 {
                case 0: bytes[offset] ^= 1 << UInt8(random.next() % 8)
                case 1: bytes[offset] = [0, 1, 7, 8, 0x7F, 0xFF].randomElement(using: &random) ?? 0
                default: bytes.store(random.next() >> (random.next() % 64), at: min(offset & ~7, 2232))
                }
            }
            bytes = sealed(bytes, copy: 0, diskBytes: Golden.diskBytes)
            guard case .success(let found) = Superblock.decoded(bytes, copy: 0, diskBytes: Golden.diskBytes) else {
                continue
            }
            accepted += 1
            let record = found.record
            let isSound =
                found.layout.isSound && record.members.count == 8 && record.history.count <= 16
                && record.index(of: found.plex) != nil && record.regionBytes.nonzeroBitCount == 1
                && record.dataBytes > 0 && record.dataBytes <= Golden.diskBytes && record.name.utf8.count <= 63
            #expect(isSound, "round \(round)")
            if round % 16 == 0, !found.mustStayReadOnly {
                let again = Superblock.decoded(found.encoded(copy: 0), copy: 0, diskBytes: Golden.diskBytes)
                #expect(again == .success(found), "round \(round)")
            }
        }
        #expect(accepted > 10_000, "the mutations are too harsh to reach the checks: \(accepted)")
    }
}
