import TestSupport

@testable import Rehearsal

extension DiskBytes {
    /// A disk that is no longer than the mirror.
    init(_ bytes: [UInt8]) {
        self.init(count: UInt64(bytes.count)) { offset, count throws(Unreadable) in
            let start = Int(offset)
            return Array(bytes[start..<start + count])
        }
    }
}

func table(_ bytes: [UInt8]) throws -> PartitionTable? { try PartitionTable.find(in: DiskBytes(bytes)) }

func bytes(hex: String) -> [UInt8] {
    let digits = hex.compactMap(\.hexDigitValue)
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

/// Little-endian.
func store<Value: FixedWidthInteger>(_ value: Value, _ offset: Int, _ image: inout [UInt8]) {
    for byte in 0..<Value.bitWidth / 8 { image[offset + byte] = UInt8(truncatingIfNeeded: value >> (byte * 8)) }
}

/// A disk of 1 MiB as sgdisk 1.0.9 made it: `sgdisk -a 1 -n 1:34:1000 -t 1:ef00 -n 2:1001:0 -t 2:8300`, with chosen GUIDs.
enum MadeBySgdisk {
    static let image: [UInt8] = {
        var image = [UInt8](repeating: 0, count: 1 << 20)
        func put(_ hex: String, _ offset: Int) {
            let part = bytes(hex: hex)
            image.replaceSubrange(offset..<offset + part.count, with: part)
        }
        put("0000 0200 ee20 2000 0100 0000 ff07 0000", 446)
        put("55aa", 510)
        put(first, 512)
        for start in [1024, image.count - 33 * 512] { put(entries, start) }
        put(backup, image.count - 512)
        return image
    }()

    private static let first = """
        4546492050415254 00000100 5c000000 3ae57e2a 00000000 0100000000000000 ff07000000000000 2200000000000000
        de07000000000000 11111111222233334444555555555555 0200000000000000 80000000 80000000 31f0abea
        """
    private static let backup = """
        4546492050415254 00000100 5c000000 31cb0c99 00000000 ff07000000000000 0100000000000000 2200000000000000
        de07000000000000 11111111222233334444555555555555 df07000000000000 80000000 80000000 31f0abea
        """
    private static let entries =
        "28732ac11ff8d211ba4b00a0c93ec93b aaaaaaaabbbbccccdddd000000000001 2200000000000000 e803000000000000"
        + String(repeating: "00", count: 80)
        + "af3dc60f838472478e793d69d8477de4 aaaaaaaabbbbccccdddd000000000002 e903000000000000 de07000000000000"

    static let partitions = [
        Partition(
            number: 1, offset: 34 * 512, count: 967 * 512, type: "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
            isSystemPartition: true),
        Partition(
            number: 2, offset: 1001 * 512, count: 1014 * 512, type: "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
            isSystemPartition: false),
    ]
}

/// A table of our own making, for what sgdisk would not do. Both headers agree and all checksums are right.
struct MadeHere {
    var blockBytes = 512
    var blocks = 2048
    var partitions: [(first: UInt64, last: UInt64)] = [(40, 99), (100, 199)]
    var entryBytes: UInt32 = 128
    var entryCount: UInt32 = 128
    var usable: ClosedRange<UInt64> = 34...2000
    var alternate: UInt64?

    var image: [UInt8] {
        var image = [UInt8](repeating: 0, count: blocks * blockBytes)
        image.replaceSubrange(444..<462, with: bytes(hex: "00000000020000000000ee00000000000000")[..<18])
        image[446 + 4] = MBR.protective
        store(UInt16(0xAA55), 510, &image)
        var entries = [UInt8](repeating: 0, count: Int(min(entryBytes, 4096)) * Int(min(entryCount, 1024)))
        for (index, partition) in partitions.enumerated() {
            let base = index * Int(min(entryBytes, 4096))
            guard base + 128 <= entries.count else { break }
            entries.replaceSubrange(base..<base + 16, with: bytes(hex: "af3dc60f838472478e793d69d8477de4"))
            store(partition.first, base + 32, &entries)
            store(partition.last, base + 40, &entries)
        }
        let entryBlocks = (entries.count + blockBytes - 1) / blockBytes
        let last = alternate.map { Int($0) } ?? blocks - 1
        put(entries, at: 2, own: 1, other: UInt64(last), &image)
        put(entries, at: last - entryBlocks, own: UInt64(last), other: 1, &image)
        return image
    }

    private func put(_ entries: [UInt8], at place: Int, own: UInt64, other: UInt64, _ image: inout [UInt8]) {
        image.replaceSubrange(place * blockBytes..<place * blockBytes + entries.count, with: entries)
        var header = [UInt8](repeating: 0, count: 92)
        header.replaceSubrange(0..<8, with: Array("EFI PART".utf8))
        store(UInt32(0x10000), 8, &header)
        store(UInt32(92), 12, &header)
        store(own, 24, &header)
        store(other, 32, &header)
        store(usable.lowerBound, 40, &header)
        store(usable.upperBound, 48, &header)
        store(UInt64(place), 72, &header)
        store(entryCount, 80, &header)
        store(entryBytes, 84, &header)
        store(CRC32.checksum(of: entries), 88, &header)
        store(CRC32.checksum(of: header), 16, &header)
        image.replaceSubrange(Int(own) * blockBytes..<Int(own) * blockBytes + 92, with: header)
    }
}
