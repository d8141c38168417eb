import Bytes
import Testing

@testable import MirrorServer

/// How far data reach, by what the disk says of itself.
@Suite struct ContentsTests {
    private func find(
        _ count: Int = 132 << 10, sectorBytes: UInt64 = 512, _ fill: (inout MutableRawSpan) -> Void
    ) -> Contents? {
        var bytes = [UInt8](repeating: 0, count: count)
        do {
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            fill(&raw)
        }
        return Contents.find(in: unsafe bytes.span.bytes, sectorBytes: sectorBytes)
    }

    @Test func blankAndUnknownDisksSayNothing() {
        #expect(find { _ in } == nil)
        #expect(
            find { for offset in stride(from: 0, to: 4096, by: 8) { $0.storeLittleEndian(0x1234_5678, at: offset) } }
                == nil)
        #expect(find(0) { _ in } == nil && find(512) { _ in } == nil)
    }

    @Test(arguments: [512, 4096]) func partitionTableReachesToItsBackup(sector: Int) {
        let found = find {
            put("EFI PART", at: sector, into: &$0)
            $0.storeLittleEndian(UInt64(131_071), at: sector + 32)
            $0.storeLittleEndian(UInt64(131_038), at: sector + 48)
        }
        #expect(found?.endBytes == 131_072 * UInt64(sector))
    }

    @Test func masterBootRecordReachesToTheEndOfItsLastPartition() {
        let found = find {
            $0.storeLittleEndian(UInt16(0xAA55), at: 510)
            for (entry, first, count) in [(0, UInt32(2048), UInt32(2048)), (2, 8192, 1000)] {
                $0.storeLittleEndian(UInt8(0x83), at: 446 + entry * 16 + 4)
                $0.storeLittleEndian(first, at: 446 + entry * 16 + 8)
                $0.storeLittleEndian(count, at: 446 + entry * 16 + 12)
            }
        }
        #expect(found?.endBytes == 9192 * 512)
        // A boot sector alone, and the entry that stands for a GPT.
        #expect(find { $0.storeLittleEndian(UInt16(0xAA55), at: 510) } == nil)
        let protective = find {
            $0.storeLittleEndian(UInt16(0xAA55), at: 510)
            $0.storeLittleEndian(UInt8(0xEE), at: 450)
            $0.storeLittleEndian(UInt32.max, at: 458)
        }
        #expect(protective == nil)
        // Where a table would be, other boot sectors have texts, and a 4 KiB sector is counted as one.
        let text = find {
            $0.storeLittleEndian(UInt16(0xAA55), at: 510)
            put("BOOTMGR is compressed. Press Ctrl+Alt+Del to restart, please.", at: 446, into: &$0)
        }
        #expect(text == nil)
        let large = find(sectorBytes: 4096) {
            $0.storeLittleEndian(UInt16(0xAA55), at: 510)
            $0.storeLittleEndian(UInt8(0x83), at: 450)
            $0.storeLittleEndian(UInt32(1000), at: 458)
        }
        #expect(large?.endBytes == 1000 * 4096)
    }

    @Test func fileSystemsReachToTheirLastBlock() {
        let ext = find {
            $0.storeLittleEndian(UInt16(0xEF53), at: 1024 + 0x38)
            $0.storeLittleEndian(UInt32(2), at: 1024 + 0x18)
            $0.storeLittleEndian(UInt32(0x80), at: 1024 + 0x60)
            $0.storeLittleEndian(UInt32(5), at: 1024 + 4)
            $0.storeLittleEndian(UInt32(1), at: 1024 + 0x150)
        }
        #expect(ext?.endBytes == ((1 << 32) + 5) * 4096)
        let xfs = find {
            put("XFSB", at: 0, into: &$0)
            $0.storeBigEndian(UInt32(4096), at: 4)
            $0.storeBigEndian(UInt64(1000), at: 8)
        }
        #expect(xfs?.endBytes == 4_096_000)
        let btrfs = find {
            put("_BHRfS_M", at: 65_536 + 0x40, into: &$0)
            $0.storeLittleEndian(UInt64(7 << 30), at: 65_536 + 0xD1)
        }
        #expect(btrfs?.endBytes == 7 << 30)
        let lvm = find {
            put("LABELONE", at: 512, into: &$0)
            $0.storeLittleEndian(UInt32(32), at: 512 + 20)
            $0.storeLittleEndian(UInt64(3 << 30), at: 512 + 64)
        }
        #expect(lvm?.endBytes == 3 << 30)
        let swap = find {
            put("SWAPSPACE2", at: 4086, into: &$0)
            $0.storeLittleEndian(UInt32(99), at: 1028)
        }
        #expect(swap?.endBytes == 409_600)
    }

    @Test func sizesThatNoDiskHasAreNoEnd() {
        let ext = find {
            $0.storeLittleEndian(UInt16(0xEF53), at: 1024 + 0x38)
            $0.storeLittleEndian(UInt32.max, at: 1024 + 0x18)
            $0.storeLittleEndian(UInt32.max, at: 1024 + 4)
        }
        let gpt = find {
            put("EFI PART", at: 512, into: &$0)
            $0.storeLittleEndian(UInt64.max, at: 512 + 32)
        }
        #expect(ext == nil && gpt == nil)
    }
}

private func put(_ text: String, at offset: Int, into bytes: inout MutableRawSpan) {
    for (index, byte) in text.utf8.enumerated() { bytes.storeLittleEndian(byte, at: offset + index) }
}
