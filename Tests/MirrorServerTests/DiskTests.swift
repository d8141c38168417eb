import Glibc
import MirrorFormat
import TestSupport
import Testing

@testable import MirrorServer

@Suite struct DiskTests {
    private func withFile(bytes: Int = mebibyte, _ body: (String) throws -> Void) throws {
        try withTemporaryDirectory { directory in
            let path = "\(directory)/disk.img"
            try makeFile(path, bytes: bytes)
            try body(path)
        }
    }

    @Test func openDiskKnowsItsSizeAndKind() throws {
        try withFile(bytes: mebibyte + 512) { path in
            try withDisk(path) { disk in
                #expect(disk.bytes == UInt64(mebibyte + 512))
                #expect(disk.path == path && !disk.isBlockDevice)
            }
        }
    }

    @Test func secondOpenForWritingIsRefusedAsInUse() throws {
        try withFile { path in
            try withDisk(path) { _ in
                let error = try refusal { _ = try Disk.open(path, .readWrite) }
                #expect(error.isInUse)
                #expect(error.description == "\(path): is in use by another server; stop that one first (plexus stop)")
            }
        }
    }

    @Test func secondOpenThroughAnotherNameIsRefusedAsInUse() throws {
        try withFile { path in
            try #require(unsafe link(path, path + ".hard") == 0)
            try #require(unsafe symlink(path, path + ".soft") == 0)
            try withDisk(path) { _ in
                for other in [path + ".hard", path + ".soft"] {
                    try #expect(refusal { _ = try Disk.open(other, .readWrite) }.isInUse)
                }
            }
        }
    }

    @Test func lockGoesWithTheDisk() throws {
        try withFile { path in
            for _ in 0..<3 { try withDisk(path) { _ in } }
        }
    }

    @Test func readingTakesNoLockAndHeedsNone() throws {
        try withFile { path in
            try withDisk(path, .readOnly) { _ in
                try withDisk(path) { _ in
                    for _ in 0..<2 { try Disk.open(path, .readOnly).shut() }
                    try #expect(refusal { _ = try Disk.open(path, .readWrite) }.isInUse)
                }
            }
        }
    }

    @Test(arguments: [Disk.Access.readOnly, .readWrite]) func directoryIsRefused(access: Disk.Access) throws {
        try withTemporaryDirectory { directory in
            let error = try refusal { _ = try Disk.open(directory, access) }
            #expect(!error.isInUse)
            #expect(error.description.hasPrefix("\(directory): "))
            #expect(error.description.contains("a file"))
        }
    }

    @Test func deviceThatIsNoDiskIsRefused() throws {
        let error = try refusal { _ = try Disk.open("/dev/null", .readWrite) }
        #expect(error.description == "/dev/null: is neither a file nor a block device")
    }

    @Test func absentDiskIsNamedWithAdvice() throws {
        try withTemporaryDirectory { directory in
            let error = try refusal { _ = try Disk.open("\(directory)/none.img", .readWrite) }
            #expect(
                error.description
                    == "\(directory)/none.img: can't be opened: No such file or directory; check the path")
        }
    }

    @Test(.enabled(if: geteuid() != 0, "root may open everything")) func forbiddenDiskIsNamedWithAdvice() throws {
        try withFile { path in
            try #require(unsafe chmod(path, 0o400) == 0)
            let error = try refusal { _ = try Disk.open(path, .readWrite) }
            #expect(error.description.contains("Permission denied; it must be readable and writable for this user"))
        }
    }

    @Test func writtenBlocksAreReadBack() throws {
        try withFile { path in
            let block = (0..<8192).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            try withDisk(path) { disk in
                try disk.write(block, at: 12_288)
                try disk.flush()
            }
            try withDisk(path, .readOnly) { disk in
                try #expect(disk.read(at: 12_288, count: 8192) == block)
                try #expect(disk.read(at: 0, count: 4096) == [UInt8](repeating: 0, count: 4096))
            }
        }
    }

    @Test func readAcrossTheEndSaysWhereTheDiskEnds() throws {
        try withFile(bytes: 8192) { path in
            try withDisk(path) { disk in
                let error = try refusal { _ = try disk.read(at: 4096, count: 8192) }
                #expect(error.description == "\(path): can't be read at 8192: the disk ends here")
            }
        }
    }

    @Test func diskThatWasOpenedForReadingIsNotWritten() throws {
        try withFile { path in
            try withDisk(path, .readOnly) { disk in
                let error = try refusal { try disk.write([UInt8](repeating: 1, count: 4096), at: 0) }
                #expect(error.description.contains("can't be written at 0"))
            }
            try #expect(bytes(of: path).allSatisfy { $0 == 0 })
        }
    }

    @Test(arguments: [0, 1, 4096, 65_535, 65_536, mebibyte]) func blankDiskCarriesNoMetadata(bytes: Int) throws {
        try withFile(bytes: bytes) { path in
            try withDisk(path) { disk in
                try #expect(disk.scan() == .none)
                try #expect(refusal { _ = try disk.superblock() }.description.contains("carries no Plexus metadata"))
            }
        }
    }
}

@Suite struct DiskIdentityTests {
    private func withLinks(_ body: (_ a: String, _ hard: String, _ soft: String, _ b: String) throws -> Void) throws {
        try withTemporaryDirectory { directory in
            let names = ["a", "hard", "soft", "b"].map { "\(directory)/\($0)" }
            try makeFile(names[0], bytes: 4096)
            try makeFile(names[3], bytes: 4096)
            try #require(unsafe link(names[0], names[1]) == 0)
            try #require(unsafe symlink(names[0], names[2]) == 0)
            try body(names[0], names[1], names[2], names[3])
        }
    }

    @Test func linksToOneFileHaveOneIdentity() throws {
        try withLinks { a, hard, soft, b in
            let identity = try #require(Disk.identity(of: a))
            #expect(Disk.identity(of: hard) == identity)
            #expect(Disk.identity(of: soft) == identity)
            #expect(Disk.identity(of: b) != identity)
            try withDisk(hard) { disk in #expect(disk.identity == identity) }
        }
    }

    @Test func absentDiskHasNoIdentity() {
        #expect(Disk.identity(of: "/nonexistent/disk") == nil)
    }

    @Test func disksThatAreOneAreRefusedByName() throws {
        try withLinks { a, hard, soft, b in
            #expect(throws: Never.self) { try Disk.checkDistinct([a, b, "/nonexistent/disk", "/nonexistent/disk"]) }
            try #expect(
                refusal { try Disk.checkDistinct([a, b, a]) }.description
                    == "\(a): is named twice; name each disk once")
            for other in [hard, soft] {
                try #expect(
                    refusal { try Disk.checkDistinct([a, b, other]) }.description
                        == "\(other): is the same disk as \(a); name each disk once")
            }
        }
    }
}
