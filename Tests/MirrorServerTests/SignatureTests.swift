import Glibc
import TestSupport
import Testing

@testable import MirrorServer

/// What `plexus create` recognizes as somebody's data.
@Suite struct SignatureTests {
    private static let makeExt4 = ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4"].first { path in
        FileFacts(path) != nil
    }

    private func find(_ path: String) throws -> String? { try withDisk(path, .readOnly) { try Signature.find(on: $0) } }

    @Test(arguments: [0, 512, 4096, 8 * mebibyte]) func blankDiskHasNone(bytes: Int) throws {
        try withTemporaryDirectory { directory in
            try makeFile("\(directory)/disk", bytes: bytes)
            try #expect(find("\(directory)/disk") == nil)
        }
    }

    /// Bytes that mean nothing to anybody are no signature: the disk counts as blank.
    @Test func arbitraryBytesHaveNone() throws {
        try withTemporaryDirectory { directory in
            try write([UInt8](repeating: 0x5A, count: mebibyte), to: "\(directory)/disk")
            try #expect(find("\(directory)/disk") == nil)
        }
    }

    @Test(.enabled(if: makeExt4 != nil, "mkfs.ext4 is not installed (e2fsprogs)")) func ext4IsFoundAndRefused() throws {
        try withTemporaryDirectory { directory in
            let disk = "\(directory)/disk"
            try makeFile(disk, bytes: 16 * mebibyte)
            let program = try #require(Self.makeExt4)
            let log = "\(directory)/log"
            let make = try ChildProcess(program, ["-q", "-F", "-L", "holiday", disk], output: log, errors: log)
            try #expect(make.wait() == .exit(0))
            try #expect(find(disk) == "ext4 (label holiday)")

            let before = try bytes(of: disk)
            var formatter = MirrorFormatter(name: "data", disks: [disk, "\(directory)/new"])
            formatter.sizeBytes = UInt64(mebibyte)
            let error = try waitUntil("a refusal") {
                let error = try refusal { _ = try formatter.run(writes: true) }
                return error.isInUse ? nil : error
            }
            #expect(
                error.description
                    == "\(disk): holds ext4 (label holiday); its contents would be lost. To overwrite it: --force")
            try #expect(bytes(of: disk) == before && FileFacts("\(directory)/new") == nil)
            formatter.force = true
            let outcome = try patiently { try formatter.run(writes: true) }
            #expect(outcome.plans[0].overwrites == "ext4 (label holiday)")
        }
    }

    /// An MBR with one Linux partition from sector 2048 on.
    @Test func partitionTableIsFound() throws {
        try withTemporaryDirectory { directory in
            var sector = [UInt8](repeating: 0, count: 512)
            sector.replaceSubrange(440..<444, with: [1, 2, 3, 4])
            sector.replaceSubrange(
                446..<462, with: [0, 0x20, 0x21, 0, 0x83, 0x45, 0x22, 0, 0, 8, 0, 0, 0, 8, 0, 0])
            sector.replaceSubrange(510..<512, with: [0x55, 0xAA])
            let disk = "\(directory)/disk"
            try makeFile(disk, bytes: 4 * mebibyte)
            try write(sector, to: disk)
            try #expect(find(disk) == "a dos partition table")
        }
    }
}
