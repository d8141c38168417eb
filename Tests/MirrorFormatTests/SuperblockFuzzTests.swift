import TestSupport
import Testing

@testable import MirrorFormat

@Suite struct SuperblockDecoderFuzz {
    @Test func randomBytesNeverDecode() {
        var random = XorShift(seed: 0xF0_0D)
        var bytes = [UInt8](repeating: 0, count: Superblock.byteCount)
        for round in 0..<20_000 {
            for offset in stride(from: 0, to: 2496, by: 8) { bytes.store(random.next(), at: offset) }
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
                let offset = Int.random(in: 8..<2496, using: &random)
                switch random.next() % 3 {
                case 0: bytes[offset] ^= 1 << UInt8(random.next() % 8)
                case 1: bytes[offset] = [0, 1, 7, 8, 0x7F, 0xFF].randomElement(using: &random) ?? 0
                default: bytes.store(random.next() >> (random.next() % 64), at: min(offset & ~7, 2488))
                }
            }
            bytes = sealed(bytes, copy: 0, diskBytes: Golden.diskBytes)
            guard case .success(let found) = Superblock.decoded(bytes, copy: 0, diskBytes: Golden.diskBytes) else {
                continue
            }
            accepted += 1
            let record = found.record
            let isSound =
                found.layout.isSound && found.layout.hasRoomForMaps && record.members.count == 8
                && record.history.count <= 16
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
