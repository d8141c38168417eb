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
        #expect(load(bytes, 8) & 0xFFFF_FFFF == 0x1_0001 && load(bytes, 32) == 1)
        #expect(Array(bytes[40..<46]) == [3, 7, 8, 1, 6, 1])
        #expect(load(bytes, 48) == 6)
        #expect(load(bytes, 56) == Golden.mirror.bits.high && load(bytes, 64) == Golden.mirror.bits.low)
        #expect(load(bytes, 152) == 8 << 20 && load(bytes, 160) == 16 << 20 && load(bytes, 168) == 1 << 20)
        #expect(load(bytes, 176) == 9 && load(bytes, 336) == 1)
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
        for (index, member) in superblock.record.members.enumerated() {
            #expect(bytes[704 + index * 88 + 17] == member.missedWriteMap?.slot ?? 255)
            #expect(load(bytes, 2240 + index * 32) == member.missedWriteMap?.id ?? 0)
            #expect(load(bytes, 2248 + index * 32) == member.missedWriteMap?.epoch ?? 0)
            #expect(load(bytes, 2256 + index * 32) == member.missedWriteMap?.lastClear ?? 0)
            #expect(load(bytes, 2264 + index * 32) == (member.missedWriteMap?.startsFull == true ? 1 : 0))
        }
        #expect(bytes[2496...].allSatisfy { $0 == 0 })
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
        let positions = Array(0..<2496 * 8) + stride(from: 2496 * 8, to: 4096 * 8, by: 13)
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
        for bit in [3, 5, 63] {
            var changed = bytes
            changed.store(UInt64(1) << UInt64(bit), at: 32)
            let decoded = Superblock.decoded(
                sealed(changed, copy: 0, diskBytes: Golden.diskBytes), copy: 0, diskBytes: Golden.diskBytes)
            #expect(decoded == .failure(.unknownIncompatibleFeature(bit: bit)))
        }
    }

    /// Written by software of format 1.0, which kept no bitmap: nothing that lies in those areas counts.
    @Test func recordWithoutTheTrackingFeatureSaysThatNobodyCounted() throws {
        var superblock = try Golden.superblock()
        for index in superblock.record.members.indices { superblock.record.members[index].missedWriteMap = nil }
        var bytes = superblock.encoded(copy: 0)
        #expect(load(bytes, 32) == Superblock.writeTracking)
        bytes.store(UInt16(0), at: 10)
        bytes.store(UInt64(0), at: 32)
        // The recovery offset of that format, of the plex that was being rebuilt.
        bytes.store(UInt64(1) << 20, at: 704 + 2 * 88 + 40)
        let decoded = try Superblock.decoded(
            sealed(bytes, copy: 0, diskBytes: Golden.diskBytes), copy: 0, diskBytes: Golden.diskBytes
        ).get()
        #expect(!decoded.tracksWrites)
        superblock.tracksWrites = false
        #expect(decoded == superblock)
    }

    @Test func featureOfTrackingIsWrittenOnlyIfItIsKept() throws {
        var superblock = try Golden.superblock()
        for tracks in [true, false] {
            superblock.tracksWrites = tracks
            let decoded = Superblock.decoded(
                superblock.encoded(copy: 1), copy: 1, diskBytes: Golden.diskBytes)
            #expect(decoded == .success(superblock))
        }
    }

    /// Area table: 0 spare pool, 1 maps, 2 bitmap; 24 bytes each from 384, the length at 16.
    @Test(
        arguments: [
            (1, 0), (1, 6 * 4096), (1, 7 * 4096 - 512), (1, 14 * 4096), (2, 0), (2, 2 * 4096),
        ] as [(Int, UInt64)])
    func bitmapAreasThatDoNotFitEachOtherAreRejected(area: Int, length: UInt64) throws {
        var bytes = try Golden.superblock().encoded(copy: 0)
        bytes.store(length, at: 384 + area * 24 + 16)
        let decoded = Superblock.decoded(
            sealed(bytes, copy: 0, diskBytes: Golden.diskBytes), copy: 0, diskBytes: Golden.diskBytes)
        #expect(decoded == .failure(.inconsistent("areas")))
    }

    @Test func bitmapWithFewerBitsThanRegionsIsRejected() throws {
        // 32,257 regions of 64 KiB: one more than a page has bits.
        let data: UInt64 = 32_257 * (64 << 10)
        let disk = data + (16 << 20)
        var superblock = try Golden.superblock()
        superblock.layout = try Layout(diskBytes: disk, dataBytes: data, regionBytes: 64 << 10, spareBytes: nil)
        superblock.record.dataBytes = data
        superblock.record.regionBytes = 64 << 10
        #expect(Superblock.decoded(superblock.encoded(copy: 0), copy: 0, diskBytes: disk) == .success(superblock))
        let areas = superblock.layout.areas.map { area in
            var area = area
            if area.kind == .intentBitmap { area.length = 4096 }
            if area.kind == .missedWriteMaps { area.length = 7 * 4096 }
            return area
        }
        superblock.layout = Layout(diskBytes: disk, dataBytes: data, regionBytes: 64 << 10, areas: areas)
        let decoded = Superblock.decoded(superblock.encoded(copy: 0), copy: 0, diskBytes: disk)
        #expect(decoded == .failure(.inconsistent("areas")))
    }

    @Test func areasOfAnAbsurdDiskAreJudgedWithoutOverflow() throws {
        let disk: UInt64 = 1 << 63
        var superblock = try Golden.superblock()
        let whole = try Layout(diskBytes: disk, dataBytes: 8 << 20, regionBytes: nil, spareBytes: nil)
        let areas = whole.areas.map { area in
            var area = area
            if area.kind == .intentBitmap {
                area.offset = 1 << 30
                area.length = 1 << 62
            }
            return area
        }
        superblock.layout = Layout(diskBytes: disk, dataBytes: 8 << 20, regionBytes: 1 << 20, areas: areas)
        let decoded = Superblock.decoded(superblock.encoded(copy: 0), copy: 0, diskBytes: disk)
        #expect(decoded == .failure(.inconsistent("areas")))
    }

    @Test func mapSlotThatTwoPlexesClaimIsRejected() throws {
        var superblock = try Golden.superblock()
        superblock.record.members[0].missedWriteMap?.slot = 3
        let decoded = Superblock.decoded(superblock.encoded(copy: 0), copy: 0, diskBytes: Golden.diskBytes)
        #expect(decoded == .failure(.inconsistent("map of 2")))
    }

    @Test(arguments: [0, 1, 2048, 128 << 20] as [UInt64])
    func regionSizeOutOfBoundsIsRejected(region: UInt64) throws {
        var bytes = try Golden.superblock().encoded(copy: 0)
        bytes.store(region, at: 168)
        let decoded = Superblock.decoded(
            sealed(bytes, copy: 0, diskBytes: Golden.diskBytes), copy: 0, diskBytes: Golden.diskBytes)
        #expect(decoded == .failure(.inconsistent("region or data size")))
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
            (704 + 17, 7), (704 + 17, 254), (704 + 18, 9), (2264, 2), (2328, 255), (1472 + 32, 8), (792, 0), (88, 0xFF),
            (168, 1), (392, 1), (152, 1),
            // An empty name; counts near the end of the integers; superblocks elsewhere; a log without a record.
            (88, 0), (48 + 7, 0x41), (176 + 7, 0xFF), (336 + 1, 1), (529, 0xF0), (384 + 5 * 24 + 18, 0),
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
