import BasicContainers
import Control
import MirrorFormat
import NBDProtocol
import TestSupport
import Testing

@testable import MirrorServer

/// What `plexus serve` makes of the disks that it is given.
@Suite struct OpeningTests {
    private func options(degraded: Bool = false, readOnly: Bool = false) -> Opening.Options {
        var options = Opening.Options()
        options.allowDegraded = degraded
        options.isReadOnly = readOnly
        return options
    }

    private func open<Value>(
        _ paths: [String], degraded: Bool = false, readOnly: Bool = false, _ body: (borrowing Opening) throws -> Value
    ) throws -> Value {
        let opening = try Opening.open(paths, options(degraded: degraded, readOnly: readOnly))
        defer {
            for index in opening.served.indices {
                for case let disk? in opening.served[index].disks { disk.shut() }
            }
        }
        return try body(opening)
    }

    @Test func pairIsServedUnderItsPlexNumbers() throws {
        try withTemporaryDirectory { directory in
            let paths = try makeMirror(directory)
            for order in [paths, paths.reversed()] {
                try open(order) { opening in
                    #expect(opening.warnings == [] && opening.refused.isEmpty)
                    #expect(opening.served.indices.map { opening.served[$0].name } == ["data"])
                    #expect(opening.served[0].paths == paths + Array(repeating: nil, count: 6))
                    #expect(opening.served[0].disks.map { $0?.path } == opening.served[0].paths)
                    #expect(opening.served[0].export.sizeBytes == UInt64(8 * mebibyte))
                    #expect(!opening.served[0].export.isReadOnly)
                }
            }
        }
    }

    @Test func oneOfTwoIsRefusedAsIncompleteAndLetGo() throws {
        try withTemporaryDirectory { directory in
            let paths = try makeMirror(directory)
            try open([paths[0]]) { opening in
                #expect(opening.served.isEmpty && opening.refused.count == 1)
                let refused = opening.refused[0]
                #expect(refused.name == "data" && refused.state == "offline" && refused.size == UInt64(8 * mebibyte))
                #expect(refused.reason.contains("plex 1") && refused.reason.contains("present: plex 0"))
                #expect(refused.action.contains("--degraded") && refused.action.contains("--read-only"))
            }
            try withDisk(paths[0]) { _ in }
        }
    }

    @Test func oneOfTwoIsServedDegraded() throws {
        try withTemporaryDirectory { directory in
            let paths = try makeMirror(directory)
            try open([paths[1]], degraded: true) { opening in
                #expect(opening.refused.isEmpty && opening.served.count == 1)
                #expect(opening.served[0].disks.map { $0 != nil }.prefix(2) == [false, true])
            }
        }
    }

    @Test func oneOfTwoIsServedForReading() throws {
        try withTemporaryDirectory { directory in
            let paths = try makeMirror(directory)
            try withDisk(paths[0]) { _ in
                try open([paths[0]], readOnly: true) { opening in
                    #expect(opening.served.count == 1)
                    #expect(opening.served[0].export.isReadOnly)
                }
            }
        }
    }

    @Test func absentDiskIsAWarningAndTheMirrorIncomplete() throws {
        try withTemporaryDirectory { directory in
            let paths = try makeMirror(directory)
            try open([paths[0], "\(directory)/none.img"]) { opening in
                #expect(opening.warnings.count == 1 && opening.warnings[0].hasPrefix("\(directory)/none.img: "))
                #expect(opening.served.isEmpty && opening.refused.count == 1)
            }
        }
    }

    @Test func diskWithoutMetadataIsAWarningAndTheOthersAreServed() throws {
        try withTemporaryDirectory { directory in
            let paths = try makeMirror(directory)
            let blank = "\(directory)/blank.img"
            try makeFile(blank, bytes: mebibyte)
            try open([blank] + paths) { opening in
                #expect(opening.served.count == 1)
                #expect(opening.warnings.count == 1)
                #expect(opening.warnings[0].contains("carries no Plexus metadata"))
                try withDisk(blank) { _ in }
            }
        }
    }

    @Test func diskNamedTwiceIsRefused() throws {
        try withTemporaryDirectory { directory in
            let paths = try makeMirror(directory)
            let error = try refusal { _ = try Opening.open(paths + [paths[0]], options()) }
            #expect(error.description.contains("named twice"))
        }
    }

    /// Going on without the disk that somebody else uses would split the mirror.
    @Test func diskInUseStopsEverythingAndLetsTheOthersGo() throws {
        try withTemporaryDirectory { directory in
            let paths = try makeMirror(directory)
            var impatient = options(degraded: true)
            impatient.patienceSeconds = 0
            try withDisk(paths[1]) { _ in
                let error = try refusal { _ = try Opening.open(paths, impatient) }
                #expect(error.isInUse)
            }
            for path in paths { try withDisk(path) { _ in } }
        }
    }

    @Test func cloneOfAPlexIsRefused() throws {
        try withTemporaryDirectory { directory in
            let paths = try makeMirror(directory)
            let clone = "\(directory)/clone.img"
            try write(bytes(of: paths[1]), to: clone)
            try open(paths + [clone]) { opening in
                #expect(opening.served.isEmpty && opening.refused.count == 1)
                #expect(opening.refused[0].reason.contains("\(paths[1]) and \(clone) carry the same plex"))
            }
        }
    }

    @Test func twoMirrorsAreServedSideBySide() throws {
        try withTemporaryDirectory { directory in
            let one = try makeMirror(directory, name: "one", ["a", "b"])
            let two = try makeMirror(directory, name: "two", ["c", "d", "e"])
            try open([one[0], two[2], one[1], two[0], two[1]]) { opening in
                #expect(
                    opening.served.indices.map { opening.served[$0].name } == ["one", "two"] && opening.refused.isEmpty)
                #expect(Array(opening.served.indices) == [0, 1])
                #expect(opening.served[1].paths.compactMap { $0 } == two)
            }
        }
    }

    @Test func secondMirrorOfTheSameNameIsRefused() throws {
        try withTemporaryDirectory { directory in
            let one = try makeMirror(directory, ["a", "b"])
            let two = try makeMirror(directory, ["c", "d"])
            try open(one + two) { opening in
                #expect(opening.served.count == 1 && opening.refused.count == 1)
                #expect(opening.refused[0].reason == "another mirror of the same name is served")
                #expect(opening.refused[0].action.contains(two[0]))
                for path in two { try withDisk(path) { _ in } }
            }
        }
    }

    @Test func nothingIsWrittenByOpening() throws {
        try withTemporaryDirectory { directory in
            let paths = try makeMirror(directory)
            let before = try paths.map { try bytes(of: $0) }
            try open(paths) { _ in }
            try open([paths[0]]) { _ in }
            try open([paths[0]], degraded: true) { _ in }
            let after = try paths.map { try bytes(of: $0) }
            #expect(before == after)
        }
    }
}

/// `plexus examine`.
@Suite struct ExaminationTests {
    @Test func healthyPairIsStartable() throws {
        try withTemporaryDirectory { directory in
            let paths = try makeMirror(directory)
            // A server that works with them is not disturbed.
            try withDisk(paths[0]) { _ in
                let examination = Examination(disks: paths)
                #expect(examination.disks.map(\.error) == [nil, nil])
                #expect(examination.disks.map(\.index) == [0, 1])
                #expect(examination.disks.map(\.role) == ["inSync", "inSync"])
                #expect(examination.disks[0].members.count == 2)
                #expect(examination.verdicts.map(\.verdict) == ["startable"])
            }
        }
    }

    @Test func singlePlexIsIncompleteAndABlankDiskIsAnError() throws {
        try withTemporaryDirectory { directory in
            let paths = try makeMirror(directory)
            let blank = "\(directory)/blank.img"
            try makeFile(blank, bytes: mebibyte)
            let examination = Examination(disks: [blank, paths[1]])
            #expect(examination.disks[0].error?.contains("carries no Plexus metadata") == true)
            #expect(examination.disks[0].diskSize == UInt64(mebibyte))
            #expect(examination.verdicts.map(\.verdict) == ["incomplete"])
        }
    }

    @Test func ledgerOfTheScrubIsShownAsItLiesOnEachDisk() throws {
        try withTemporaryDirectory { directory in
            let paths = try makeMirror(directory)
            #expect(Examination(disks: paths).disks.allSatisfy { $0.scrub == nil })
            let superblock = try superblock(paths[1])
            var ledger = ScrubLedger()
            ledger.change { state in
                state.isRunning = true
                state.position = 8192
                state.unrecorded = 7
            }
            var entry = Mismatch(
                offset: 4096, plexes: PlexSet(mask: 3), odd: .empty, checksums: [1, 0xABCD, 0, 0, 0, 0, 0, 0],
                time: 1_000_000_000)
            ledger[3] = entry
            entry.offset = 0
            entry.closed = 2_000_000_000
            entry.source = PlexIndex(1)
            ledger[60] = entry
            // What can't be of this mirror is not told.
            entry.offset = superblock.record.dataBytes
            ledger[61] = entry
            for page in 0...2 {
                var bytes = [UInt8](repeating: 0, count: ScrubLedger.pageBytes)
                var span = bytes.mutableSpan
                var raw = unsafe span.mutableBytes
                ledger.encode(page: page, mirror: superblock.record.mirror, into: &raw)
                let offset = ScrubLedger.pageOffset(page, diskBytes: superblock.layout.diskBytes)
                try write(bytes, to: paths[1], at: Int(offset))
            }
            let examination = Examination(disks: paths)
            #expect(examination.disks[0].scrub == nil)
            let scrub = try #require(examination.disks[1].scrub)
            #expect(scrub.running && scrub.position == 8192 && scrub.mismatches == 8 && scrub.unrecorded == 7)
            #expect(scrub.entries.map(\.offset) == [0, 4096] && scrub.entries.map(\.state) == ["repaired", "open"])
            #expect(scrub.entries[1].versions.map(\.crc32c) == ["00000001", "0000abcd"])
            #expect(scrub.entries[0].source == 1 && scrub.entries[0].closed == "1970-01-01T00:00:02Z")
        }
    }
}
