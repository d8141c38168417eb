import Testing

@testable import Attachment

@Suite struct BlockSizeTests {
    private func head(_ parts: [(Int, [UInt8])]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: BlockSize.headBytes)
        for (offset, part) in parts { bytes.replaceSubrange(offset..<offset + part.count, with: part) }
        return bytes
    }

    @Test func emptyDiskGetsLargeBlocks() {
        #expect(BlockSize.fitting(head([])) == 4096)
        #expect(BlockSize.fitting([]) == 4096)
    }

    @Test func partitionTablesKeepTheBlocksThatTheyCountIn() {
        #expect(BlockSize.fitting(head([(512, Array("EFI PART".utf8))])) == 512)
        #expect(BlockSize.fitting(head([(4096, Array("EFI PART".utf8))])) == 4096)
        // A table of a PC with one Linux partition, active.
        let entry: [UInt8] = [0x80, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]
        #expect(BlockSize.fitting(head([(446, entry), (510, [0x55, 0xAA])])) == 512)
        // With a protective one only, the table itself stands at 4096.
        #expect(
            BlockSize.fitting(head([(446, entry), (510, [0x55, 0xAA]), (4096, Array("EFI PART".utf8))])) == 4096)
        // Entries that are neither active nor not are none.
        #expect(BlockSize.fitting(head([(446, [0x33] + entry.dropFirst()), (510, [0x55, 0xAA])])) == 4096)
    }

    @Test func fileSystemsStayMountable() {
        // ext4 with blocks of 1,024 and of 4,096 bytes.
        #expect(BlockSize.fitting(head([(1024 + 0x18, [0]), (1024 + 0x38, [0x53, 0xEF])])) == 512)
        #expect(BlockSize.fitting(head([(1024 + 0x18, [2]), (1024 + 0x38, [0x53, 0xEF])])) == 4096)
        #expect(BlockSize.fitting(head([(0, Array("XFSB".utf8)), (102, [2, 0])])) == 512)
        #expect(BlockSize.fitting(head([(0, Array("XFSB".utf8)), (102, [0x10, 0])])) == 4096)
        #expect(BlockSize.fitting(head([(82, Array("FAT32".utf8)), (11, [0, 2])])) == 512)
        #expect(BlockSize.fitting(head([(3, Array("NTFS    ".utf8)), (11, [0, 0x10])])) == 4096)
    }

    @Test func shortHeadsAreReadWithoutHarm() {
        let whole = head([
            (0, Array("XFSB".utf8)), (54, Array("FAT16".utf8)), (510, [0x55, 0xAA]), (1024 + 0x38, [0x53, 0xEF]),
        ])
        for length in stride(from: 0, through: 1100, by: 1) {
            #expect([512, 4096].contains(BlockSize.fitting(Array(whole.prefix(length)))))
        }
    }
}

@Suite struct ServerAddressTests {
    @Test func pathsAndAddressesAreTold() {
        #expect(ServerAddress("/run/plexus/nbd.sock") == .unix("/run/plexus/nbd.sock"))
        #expect(ServerAddress("[::1]:10809") == .tcp(host: "::1", port: "10809"))
        #expect(ServerAddress("storage:10809")?.description == "storage:10809")
        for wrong in ["", "storage", "storage:", ":10809", "storage:0", "storage:65536", "storage:nbd"] {
            #expect(ServerAddress(wrong) == nil)
        }
    }
}
