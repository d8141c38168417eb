@testable import MirrorFormat

/// The bytes below come from an encoder written separately, in Python, from the documented tables: they
/// hold the format still, and our encoder to its own documentation.
enum Golden {
    static let diskBytes: UInt64 = 16 << 20
    static let copy = 2
    static let mirror = MirrorUUID(UUID128(high: 0x0011_2233_4455_6677, low: 0x8899_AABB_CCDD_EEFF))
    static let generation = Generation(UUID128(high: 0x2222_0000_0000_0000, low: 2))

    static func superblock() throws -> Superblock {
        let layout = try Layout(diskBytes: diskBytes, dataBytes: 8 << 20, regionBytes: nil, spareBytes: nil)
        var failed = Member(uuid: PlexUUID(UUID128(high: 0xA0A0_A0A0_A0A0_A0A0, low: 0)), role: .failed)
        failed.cause = FailureCause(
            operation: .write, errorNumber: 5, offset: 12_288, time: 1_700_000_000_500_000_000)
        failed.readErrors = 3
        failed.writeErrors = 4
        failed.corrected = 5
        failed.spared = 6
        failed.missedWriteMap = MissedWriteMap(
            slot: 6, id: 0x0123_4567_89AB_CDEF, startsFull: false, epoch: 7, lastClear: 41)
        let own = Member(uuid: PlexUUID(UUID128(high: 0xA1A1_A1A1_A1A1_A1A1, low: 1)), role: .inSync)
        var rebuilt = Member(uuid: PlexUUID(UUID128(high: 0xA2A2_A2A2_A2A2_A2A2, low: 2)), role: .recovering)
        rebuilt.missedWriteMap = MissedWriteMap(
            slot: 3, id: 0xFEDC_BA98_7654_3211, startsFull: true, epoch: 8, lastClear: 99)
        var record = Record(
            mirror: mirror, name: "golden", dataBytes: 8 << 20, regionBytes: 1 << 20,
            generation: Generation(UUID128(high: 0x1111_0000_0000_0000, low: 1)), members: [failed, own, rebuilt],
            time: 1_700_000_000_000_000_000)
        record.epoch = 8
        record.begin(generation, because: .expelled, inSync: PlexSet(mask: 3), time: 1_700_000_000_600_000_000)
        record.epoch = 9
        record.unconfirmed = 1
        record.updatedTime = 1_700_000_001_000_000_000
        record.isClean = false
        record.pinned = PlexIndex(1)
        record.parent = Record.Ancestry(
            mirror: MirrorUUID(UUID128(high: 0xFA7E, low: 0x12)),
            generation: Generation(UUID128(high: 0xFA7E, low: 0x34)), epoch: 77)
        return Superblock(
            record: record, plex: own.uuid, sequence: 6, layout: layout,
            writer: Superblock.Writer(bootID: UUID128(high: 0xB007, low: 0x1D), host: "host.example"))
    }

    static let superblockRows: [(Int, String)] = [
        (0, "504c455855535342010001004ebc81b8"),
        (32, "01000000000000000207080106010600"),
        (48, "06000000000000007766554433221100"),
        (64, "ffeeddccbbaa9988a1a1a1a1a1a1a1a1"),
        (80, "0100000000000000676f6c64656e0000"),
        (144, "00000000000000000000800000000000"),
        (160, "00000001000000000000100000000000"),
        (176, "09000000000000000000000000002222"),
        (192, "020000000000000000002a36fe9c9717"),
        (208, "00cac471fe9c971707b0000000000000"),
        (224, "1d00000000000000686f73742e657861"),
        (240, "6d706c65000000000000000000000000"),
        (288, "00000000000000007efa000000000000"),
        (304, "12000000000000007efa000000000000"),
        (320, "34000000000000004d00000000000000"),
        (336, "01000000000000000000000000000000"),
        (384, "07000000000000000000bd0000000000"),
        (400, "00004000000000000600000000000000"),
        (416, "0000fd00000000000070000000000000"),
        (432, "05000000000000000070fd0000000000"),
        (448, "00100000000000000300000000000000"),
        (464, "0080fd00000000000040000000000000"),
        (480, "040000000000000000c0fd0000000000"),
        (496, "00400000000000000200000000000000"),
        (512, "0000fe00000000000000010000000000"),
        (528, "01000000000000000000ff0000000000"),
        (544, "00000100000000000000000000000000"),
        (704, "a0a0a0a0a0a0a0a00000000000000000"),
        (720, "05060200050000000030000000000000"),
        (736, "0065f753fe9c97170000000000000000"),
        (752, "03000000000000000400000000000000"),
        (768, "05000000000000000600000000000000"),
        (784, "0000000000000000a1a1a1a1a1a1a1a1"),
        (800, "010000000000000001ff000000000000"),
        (880, "a2a2a2a2a2a2a2a20200000000000000"),
        (896, "02030000000000000000000000000000"),
        (976, "000000000000000000ff000000000000"),
        (1072, "00ff0000000000000000000000000000"),
        (1152, "000000000000000000ff000000000000"),
        (1248, "00ff0000000000000000000000000000"),
        (1328, "000000000000000000ff000000000000"),
        (1472, "00000000000011110100000000000000"),
        (1488, "08000000000000000046ed59fe9c9717"),
        (1504, "01030000000000000000000000000000"),
        (2240, "efcdab89674523010700000000000000"),
        (2256, "29000000000000000000000000000000"),
        (2304, "1132547698badcfe0800000000000000"),
        (2320, "63000000000000000100000000000000"),
    ]

    static let event = EventRecord(
        sequence: 17, time: 1_700_000_002_000_000_000, code: .plexFailed, plex: PlexIndex(1), errorNumber: 5,
        offset: 12_288, length: 4096, generation: generation, epoch: 9, text: "write error EIO at 12288 é")

    static let eventRows: [(Int, String)] = [
        (0, "505845566905580b1100000000000000"),
        (16, "00945fadfe9c97170100011b05000000"),
        (32, "00300000000000000010000000000000"),
        (48, "00000000000022220200000000000000"),
        (64, "09000000000000007772697465206572"),
        (80, "726f722045494f206174203132323838"),
        (96, "20c3a900000000000000000000000000"),
    ]

    static let page = BitmapPage(
        sheet: 4, index: 2, sequence: 1000, lastClear: 998, generation: generation, absence: 0xFEDC_BA98_7654_3211)
    /// Bits 0, 1, 63, 64, 100 and the last.
    static let pageWords: [UInt64] = {
        var words = [UInt64](repeating: 0, count: BitmapPage.wordCount)
        words[0] = 1 << 63 | 3
        words[1] = 1 << 36 | 1
        words[BitmapPage.wordCount - 1] = 1 << 63
        return words
    }()

    static let pageRows: [(Int, String)] = [
        (0, "504c45585553424da1fd253d04000000"),
        (16, "0200000000000000e803000000000000"),
        (32, "e6030000000000000000000000002222"),
        (48, "02000000000000001132547698badcfe"),
        (64, "03000000000000800100000010000000"),
        (4080, "00000000000000000000000000000080"),
    ]
}
