import Glibc
import MirrorFormat
import TestSupport
import Testing

@testable import MirrorServer

/// `plexus create`.
@Suite struct MirrorFormatterTests {
    @Test func newFilesAreSparseWithAnAllocatedTail() throws {
        try withTemporaryDirectory { directory in
            var formatter = MirrorFormatter(name: "data", disks: ["\(directory)/a", "\(directory)/b"])
            formatter.sizeBytes = UInt64(64 * mebibyte)
            let outcome = try patiently { try formatter.run(writes: true) }
            #expect(!outcome.needsResync, "two files of zeroes are equal")
            #expect(outcome.plans.map(\.path) == formatter.disks)
            for plan in outcome.plans {
                #expect(plan.isNew && plan.overwrites == nil && plan.dataBytes == UInt64(64 * mebibyte))
                let facts = try #require(FileFacts(plan.path))
                let tail = Int(plan.diskBytes - plan.dataBytes)
                #expect(facts.bytes == Int(plan.diskBytes))
                #expect(facts.mode == 0o600)
                #expect(facts.allocatedBytes >= tail, "metadata must never meet ENOSPC")
                #expect(facts.allocatedBytes < tail + mebibyte, "the data is not sparse")
            }
        }
    }

    @Test func bothPlexesCarryTheSameRecordUnderTheirOwnNames() throws {
        try withTemporaryDirectory { directory in
            let paths = try makeMirror(directory, ["a", "b", "c"])
            let found = try paths.map { try superblock($0) }
            #expect(found[1].record == found[0].record && found[2].record == found[0].record)
            #expect(found.map(\.plex) == (0..<3).map { found[0].record[PlexIndex($0)].uuid })
            #expect(Set(found.map(\.plex)).count == 3)
            let record = found[0].record
            #expect(record.name == "data" && record.isClean && record.dataBytes == UInt64(8 * mebibyte))
            #expect(record.configured.members.allSatisfy { record[$0].role == .inSync })
        }
    }

    @Test(arguments: 0..<Layout.superblockCopies) func eachSuperblockCopyIsEnough(survivor: Int) throws {
        try withTemporaryDirectory { directory in
            let path = try makeMirror(directory)[0]
            let whole = try superblock(path)
            try withDisk(path) { disk in
                for copy in 0..<Layout.superblockCopies where copy != survivor {
                    let offset = Layout.superblockOffset(copy: copy, diskBytes: disk.bytes)
                    try disk.write([UInt8](repeating: 0xEE, count: Superblock.byteCount), at: offset)
                }
                guard case .found(let alone) = try disk.scan() else {
                    Issue.record("copy \(survivor) can't be read")
                    return
                }
                #expect(alone.record == whole.record && alone.plex == whole.plex && alone.layout == whole.layout)
            }
        }
    }

    @Test func planWritesNothing() throws {
        try withTemporaryDirectory { directory in
            let (old, new) = ("\(directory)/old", "\(directory)/new")
            try makeFile(old, bytes: 16 * mebibyte)
            var formatter = MirrorFormatter(name: "data", disks: [old, new])
            formatter.sizeBytes = UInt64(2 * mebibyte)
            let outcome = try patiently { try formatter.run(writes: false) }
            #expect(outcome.plans.map(\.isNew) == [false, true])
            #expect(outcome.needsResync)
            #expect(FileFacts(new) == nil)
            #expect(FileFacts(old)?.allocatedBytes == 0)
            for plan in outcome.plans {
                #expect(plan.areas.count == AreaKind.allCases.count)
                #expect(
                    plan.areas.allSatisfy { $0.offset >= plan.dataBytes && $0.offset + $0.length <= plan.diskBytes })
            }
            // And what was planned is what is done.
            let done = try patiently { try formatter.run(writes: true) }
            #expect(done.plans.map(\.diskBytes) == outcome.plans.map(\.diskBytes))
            #expect(FileFacts(new)?.bytes == Int(outcome.plans[1].diskBytes))
        }
    }

    @Test func disksThatExistAreUsedInFullAndMarkedForResync() throws {
        try withTemporaryDirectory { directory in
            let paths = ["\(directory)/a", "\(directory)/b"]
            try makeFile(paths[0], bytes: 32 * mebibyte)
            try makeFile(paths[1], bytes: 16 * mebibyte + 1000)
            try write(Array("kept".utf8), to: paths[0])
            let outcome = try patiently { try MirrorFormatter(name: "data", disks: paths).run(writes: true) }
            #expect(outcome.needsResync)
            let capacity = Layout.capacity(
                ofDisk: UInt64(16 * mebibyte + 1000), regionBytes: nil, spareBytes: nil)
            #expect(outcome.plans.map(\.dataBytes) == [capacity, capacity], "as large as the smaller disk allows")
            let record = try superblock(paths[0]).record
            #expect(!record.isClean)
            #expect(record.mirror.description == outcome.uuid)
            try #expect(bytes(of: paths[0]).starts(with: Array("kept".utf8)))
        }
    }

    @Test(arguments: ["", "a/b", " a", "a ", "a\n", "\u{7F}", String(repeating: "n", count: 64)])
    func badNameIsRefused(name: String) throws {
        try withTemporaryDirectory { directory in
            var formatter = MirrorFormatter(name: name, disks: ["\(directory)/a", "\(directory)/b"])
            formatter.sizeBytes = UInt64(mebibyte)
            try #expect(
                refusal { _ = try formatter.run(writes: true) }.description.contains("a mirror's name has 1 to"))
            #expect(FileFacts("\(directory)/a") == nil)
        }
    }

    @Test(arguments: ["d", "disk 1", "Größe", String(repeating: "n", count: 63)]) func goodNameIsKept(name: String)
        throws
    {
        try withTemporaryDirectory { directory in
            let path = try makeMirror(directory, name: name)[0]
            try #expect(superblock(path).record.name == name)
        }
    }

    @Test(arguments: [0, 1, 9]) func numberOfDisksIsChecked(count: Int) throws {
        try withTemporaryDirectory { directory in
            var formatter = MirrorFormatter(name: "data", disks: (0..<count).map { "\(directory)/\($0)" })
            formatter.sizeBytes = UInt64(mebibyte)
            let text = try refusal { _ = try formatter.run(writes: true) }.description
            #expect(text == (count < 2 ? "a mirror needs at least two disks" : "a mirror has at most 8 plexes"))
        }
    }

    @Test(arguments: [0, 4096, mebibyte - 4096, mebibyte + 1]) func badSizeIsRefused(bytes: Int) throws {
        try withTemporaryDirectory { directory in
            var formatter = MirrorFormatter(name: "data", disks: ["\(directory)/a", "\(directory)/b"])
            formatter.sizeBytes = UInt64(bytes)
            let text = try refusal { _ = try formatter.run(writes: true) }.description
            #expect(text == "--size \(bytes): must be a multiple of 4096 and at least 1 MiB")
        }
    }

    @Test(arguments: [0, 4096, 100_000, 128 * mebibyte]) func badRegionIsRefused(bytes: Int) throws {
        try withTemporaryDirectory { directory in
            var formatter = MirrorFormatter(name: "data", disks: ["\(directory)/a", "\(directory)/b"])
            formatter.sizeBytes = UInt64(mebibyte)
            formatter.regionBytes = UInt64(bytes)
            let text = try refusal { _ = try formatter.run(writes: true) }.description
            #expect(
                text
                    == "--region \(bytes): must be a power of two from 64K to 64M, and so large that there are less than 16777216 regions"
            )
        }
    }

    @Test func absentDiskNeedsASize() throws {
        try withTemporaryDirectory { directory in
            let formatter = MirrorFormatter(name: "data", disks: ["\(directory)/a", "\(directory)/b"])
            let text = try refusal { _ = try formatter.run(writes: true) }.description
            #expect(text == "\(directory)/a: does not exist; to create it as a sparse file give --size")
        }
    }
}

/// What it does not overwrite, and what it leaves behind when it can't go on.
@Suite struct MirrorFormatterRefusalTests {
    private func formatter(_ disks: [String], size: Int = mebibyte, force: Bool = false) -> MirrorFormatter {
        var formatter = MirrorFormatter(name: "data", disks: disks)
        formatter.sizeBytes = UInt64(size)
        formatter.force = force
        return formatter
    }

    /// Once the locks that are not ours are gone.
    private func refused(_ formatter: MirrorFormatter) throws -> DiskError {
        try waitUntil("a refusal") {
            let error = try refusal { _ = try formatter.run(writes: true) }
            return error.isInUse ? nil : error
        }
    }

    @Test func sameDiskTwiceIsRefused() throws {
        try withTemporaryDirectory { directory in
            let (a, b) = ("\(directory)/a", "\(directory)/b")
            #expect(throws: DiskError.self) { try formatter([a, a]).run(writes: true) }
            #expect(FileFacts(a) == nil)
            try makeFile(a, bytes: 16 * mebibyte)
            try #require(unsafe link(a, b) == 0)
            try #expect(refused(formatter([a, a])).description.contains("named twice"))
            try #expect(refused(formatter([a, b])).description.contains("is the same disk as"))
            #expect(FileFacts(a)?.allocatedBytes == 0)
        }
    }

    /// Neither exists, so they have no identity yet: the second can't be created.
    @Test func twoSpellingsOfOneNewFileAreRefusedAndNothingStays() throws {
        try withTemporaryDirectory { directory in
            let error = try refused(formatter(["\(directory)/a", "\(directory)/./a"]))
            #expect(error.description.contains("can't be created: File exists"))
            #expect(FileFacts("\(directory)/a") == nil)
        }
    }

    @Test func diskTooSmallForTheMetadataIsRefused() throws {
        try withTemporaryDirectory { directory in
            let (small, new) = ("\(directory)/small", "\(directory)/new")
            try makeFile(small, bytes: 4 * mebibyte)
            let error = try refused(formatter([small, new]))
            #expect(error.description.hasPrefix("\(small): is too small: 4194304 bytes"))
            #expect(FileFacts(new) == nil)
        }
    }

    @Test func diskTooSmallForTheSizeIsRefusedWithBothSizes() throws {
        try withTemporaryDirectory { directory in
            let (small, new) = ("\(directory)/small", "\(directory)/new")
            try makeFile(small, bytes: 16 * mebibyte)
            let capacity = try #require(
                Layout.capacity(ofDisk: UInt64(16 * mebibyte), regionBytes: nil, spareBytes: nil))
            let error = try refused(formatter([small, new], size: 16 * mebibyte))
            #expect(
                error.description
                    == "\(small): can carry \(capacity) bytes beside the metadata, less than --size \(16 * mebibyte)")
            #expect(FileFacts(new) == nil)
            // To the last block it fits.
            #expect(throws: Never.self) {
                try patiently { try formatter([small, new], size: Int(capacity)).run(writes: true) }
            }
        }
    }

    @Test func plexOfAnotherMirrorIsRefusedUnlessForced() throws {
        try withTemporaryDirectory { directory in
            let old = try makeMirror(directory, name: "old", ["a", "b"])
            let before = try superblock(old[0])
            let error = try refused(formatter([old[0], "\(directory)/c"]))
            #expect(
                error.description
                    == "\(old[0]): holds plex of mirror old; its contents would be lost. To overwrite it: --force")
            #expect(FileFacts("\(directory)/c") == nil)
            try #expect(superblock(old[0]) == before)

            let outcome = try patiently { try formatter([old[0], "\(directory)/c"], force: true).run(writes: true) }
            #expect(outcome.plans[0].overwrites == "plex of mirror old" && outcome.plans[1].overwrites == nil)
            try #expect(superblock(old[0]).record.mirror != before.record.mirror)
            try #expect(superblock("\(directory)/c").record == superblock(old[0]).record)
        }
    }

    @Test func damagedMetadataIsRefusedUnlessForced() throws {
        try withTemporaryDirectory { directory in
            let old = try makeMirror(directory, ["a", "b"])
            try withDisk(old[0]) { disk in
                for copy in 0..<Layout.superblockCopies {
                    let offset = Layout.superblockOffset(copy: copy, diskBytes: disk.bytes)
                    var block = try disk.read(at: offset, count: Superblock.byteCount)
                    block[4000] ^= 1
                    try disk.write(block, at: offset)
                }
            }
            let error = try refused(formatter([old[0], "\(directory)/c"]))
            #expect(error.description.contains("damaged Plexus metadata"))
            #expect(throws: Never.self) {
                try patiently { try formatter([old[0], "\(directory)/c"], force: true).run(writes: true) }
            }
        }
    }

    /// A record of the old event log that survived would be told as one of the new mirror.
    @Test func forcedCreationLeavesNothingOfTheOldMetadata() throws {
        try withTemporaryDirectory { directory in
            let paths = try makeMirror(directory, ["a", "b"])
            let old = try superblock(paths[0])
            for area in old.layout.areas where area.kind != .superblocks && area.kind != .sparePool {
                try withDisk(paths[0]) { disk in
                    try disk.write([UInt8](repeating: 0xEE, count: Int(area.length)), at: area.offset)
                }
            }
            _ = try patiently { try formatter(paths, size: 8 * mebibyte, force: true).run(writes: true) }
            for area in try superblock(paths[0]).layout.areas where area.kind != .superblocks && area.kind != .sparePool
            {
                try withDisk(paths[0]) { disk in
                    let found = try disk.read(at: area.offset, count: Int(area.length))
                    // Bitmap and maps are written anew, random numbers and checksums in them; 0xEE was the filling.
                    #expect(!found.contains([UInt8](repeating: 0xEE, count: 8)), "\(area.kind)")
                    let isPages = area.kind == .intentBitmap || area.kind == .missedWriteMaps
                    #expect(isPages || found.allSatisfy { $0 == 0 }, "\(area.kind)")
                }
            }
        }
    }

    @Test func diskInUseIsRefusedEvenIfForced() throws {
        try withTemporaryDirectory { directory in
            let old = try makeMirror(directory, ["a", "b"])
            try withDisk(old[1]) { _ in
                let error = try refusal {
                    _ = try formatter(["\(directory)/c", old[1]], force: true).run(writes: true)
                }
                #expect(error.isInUse)
            }
            #expect(FileFacts("\(directory)/c") == nil)
        }
    }

    /// The second file can't be created, for its directory is a file.
    @Test func failureRemovesTheFilesThatWereCreated() throws {
        try withTemporaryDirectory { directory in
            try makeFile("\(directory)/file", bytes: 0)
            let error = try refused(formatter(["\(directory)/a", "\(directory)/file/b"]))
            #expect(error.description.contains("\(directory)/file/b: can't be created"))
            #expect(FileFacts("\(directory)/a") == nil)
        }
    }

    @Test func absentDirectoryIsNamed() throws {
        try withTemporaryDirectory { directory in
            let error = try refused(formatter(["\(directory)/a", "\(directory)/none/b"]))
            #expect(error.description == "\(directory)/none/b: can't be created: No such file or directory")
            #expect(FileFacts("\(directory)/a") == nil)
        }
    }
}
