import CLibNBD
import Control
import Glibc
import TestSupport
import Testing

private let mebibyte = 1 << 20

extension EndToEnd {
    @Suite(.serialized) struct ProtocolTests {
        /// A healthy mirror of 2 MiB that is served.
        private func serve(
            _ arguments: [String] = [], _ body: (Server, [String]) throws -> Void
        ) throws {
            try withTemporaryDirectory { directory in
                let disks = try createMirror(directory, bytes: 2 * mebibyte)
                try withServer(directory, disks, arguments) { try body($0, disks) }
            }
        }

        /// The error number that a refused call left.
        private static func errorNumber(_ body: () throws -> Void) throws -> Int32 {
            try #require(throws: NBDError.self) { try body() }.number
        }

        @Test func clientGetsWhatItAsksFor() throws {
            try serve { server, _ in
                let client = try NBDClient(server.uri)
                #expect(client.hasStructuredReplies && client.canContext("base:allocation"))
                #expect(!client.canContext("qemu:dirty-bitmap:none"))
                try #expect(client.size == 2 * mebibyte)
                #expect(client.canMultipleConnections && !client.isReadOnly)
                #expect(client.canFlush && client.canForceUnitAccess && client.canTrim && client.canZero)
                #expect(client.blockSizes[0] == 1 && client.blockSizes[1] == 4096)
                #expect(client.blockSizes[2] >= 32 * mebibyte)
                try #expect(server.status().clients == 1)
                try client.shutdown()
                _ = try waitUntil("the client to be gone") { try server.status().clients == 0 ? true : nil }
                try server.stop()
            }
        }

        @Test func clientWithoutStructuredRepliesIsServedToo() throws {
            try serve { server, _ in
                var wishes = NBDClient.Wishes()
                wishes.structuredReplies = false
                wishes.contexts = []
                wishes.checksRequests = false
                let client = try NBDClient(server.uri, wishes)
                #expect(!client.hasStructuredReplies && !client.canContext("base:allocation"))
                try client.write([1, 2, 3], at: 5)
                try #expect(client.read(at: 4, count: 5) == [0, 1, 2, 3, 0])
                let number = try Self.errorNumber { _ = try client.read(at: 2 * mebibyte, count: 1) }
                #expect(number == EINVAL)
                try #expect(client.read(at: 4, count: 5) == [0, 1, 2, 3, 0])
            }
        }

        @Test func defaultExportIsTheOnlyMirrorAndOthersAreUnknown() throws {
            try serve { server, _ in
                try #expect(NBDClient("nbd+unix:///?socket=\(server.socket)").size == 2 * mebibyte)
                #expect(throws: NBDError.self) { _ = try NBDClient("nbd+unix:///other?socket=\(server.socket)") }
                try #expect(NBDClient(server.uri).size == 2 * mebibyte)
            }
        }

        /// What does not fit on the disk is ENOSPC for what writes and EINVAL for what does not.
        @Test func requestsBeyondTheEndAreRefusedAndChangeNothing() throws {
            try serve { server, disks in
                var wishes = NBDClient.Wishes()
                wishes.checksRequests = false
                let client = try NBDClient(server.uri, wishes)
                let size = try client.size
                try client.write([UInt8](repeating: 7, count: 4096), at: size - 4096)
                let eight = [UInt8](repeating: 1, count: 8)
                for offset in [size - 4, size, size + 4096, 1 << 62] {
                    #expect(try Self.errorNumber { try client.write(eight, at: offset) } == ENOSPC)
                    #expect(try Self.errorNumber { try client.zero(at: offset, count: 8) } == ENOSPC)
                    #expect(try Self.errorNumber { try client.trim(at: offset, count: 8) } == EINVAL)
                    #expect(try Self.errorNumber { _ = try client.read(at: offset, count: 8) } == EINVAL)
                    #expect(try Self.errorNumber { _ = try client.extents(at: offset, count: 8) } == EINVAL)
                }
                #expect(try client.read(at: size - 4096, count: 4096) == [UInt8](repeating: 7, count: 4096))
                try client.shutdown()
                try server.stop()
                for disk in disks {
                    let end = try contents(of: disk, count: size).suffix(4096)
                    #expect(end.allSatisfy { $0 == 7 })
                }
            }
        }

        @Test func holesAreToldAndTrimMakesThem() throws {
            try serve { server, _ in
                let client = try NBDClient(server.uri)
                let size = try client.size
                #expect(try client.extents(at: 0, count: size) == [NBDClient.Extent(count: size, flags: 3)])
                try client.write([UInt8](repeating: 1, count: 128 << 10), at: 256 << 10)
                try client.flush()
                let extents = try client.extents(at: 0, count: size)
                #expect(
                    extents == [
                        NBDClient.Extent(count: 256 << 10, flags: 3), NBDClient.Extent(count: 128 << 10, flags: 0),
                        NBDClient.Extent(count: size - (384 << 10), flags: 3),
                    ])
                try client.trim(at: 256 << 10, count: 128 << 10)
                #expect(try client.extents(at: 0, count: size) == [NBDClient.Extent(count: size, flags: 3)])
                #expect(try client.read(at: 256 << 10, count: 128 << 10).allSatisfy { $0 == 0 })
            }
        }

        /// Whoever asks for no hole gets none: later writes there can't run out of space.
        @Test func zeroesWithoutAHoleKeepTheirSpaceAndOthersGiveItBack() throws {
            try serve { server, disks in
                let count = 256 << 10
                func allocated() -> [Int] { disks.map { FileFacts($0)?.allocatedBytes ?? 0 } }
                let client = try NBDClient(server.uri)
                try client.write([UInt8](repeating: 1, count: count), at: 0)
                try client.flush()
                let full = allocated()
                try client.zero(at: 0, count: count, flags: UInt32(LIBNBD_CMD_FLAG_NO_HOLE))
                try client.flush()
                #expect(zip(allocated(), full).allSatisfy { $0 >= $1 })
                try #expect(client.read(at: 0, count: count).allSatisfy { $0 == 0 })
                try client.zero(at: 0, count: count)
                try client.flush()
                #expect(zip(allocated(), full).allSatisfy { $0 <= $1 - count })
            }
        }

        @Test func readOnlyServerRefusesEveryChange() throws {
            try serve(["--read-only"]) { server, disks in
                let before = try disks.map { try contents(of: $0, count: 2 * mebibyte) }
                var wishes = NBDClient.Wishes()
                wishes.checksRequests = false
                let client = try NBDClient(server.uri, wishes)
                #expect(client.isReadOnly)
                #expect(try Self.errorNumber { try client.write([1], at: 0) } == EPERM)
                #expect(try Self.errorNumber { try client.zero(at: 0, count: 4096) } == EPERM)
                #expect(try Self.errorNumber { try client.trim(at: 0, count: 4096) } == EPERM)
                try client.flush()
                #expect(try client.read(at: 0, count: 8) == [UInt8](repeating: 0, count: 8))
                try client.shutdown()
                try server.stop()
                #expect(try disks.map { try contents(of: $0, count: 2 * mebibyte) } == before)
            }
        }

        @Test func lastGoodPlexIsNotTaken() throws {
            try serve { server, disks in
                try server.perform(ControlRequest(.offline, mirror: "data", plex: "0"))
                for verb in [ControlRequest.Verb.offline, .break] {
                    #expect(throws: ControlError.self) {
                        try server.perform(ControlRequest(verb, mirror: "data", plex: disks[1]))
                    }
                }
                try #expect(server.status().state == "degraded")
                let client = try NBDClient(server.uri)
                try client.write([9], at: 1000)
                try server.perform(ControlRequest(.online, mirror: "data", plex: "0"))
                try server.wait(for: "healthy")
                try client.shutdown()
                try server.stop()
                #expect(try disks.map { try contents(of: $0, count: 1001)[1000] } == [9, 9])
            }
        }

        @Test func stoppedServerLeavesNoSocketAndCanStartAgain() throws {
            try withTemporaryDirectory { directory in
                let disks = try createMirror(directory, bytes: mebibyte)
                for round in UInt8(1)...3 {
                    try withServer(directory, disks) { server in
                        try #expect(server.status().state == "healthy", "a clean stop leaves nothing to resync")
                        let client = try NBDClient(server.uri)
                        #expect(try client.read(at: 7, count: 1) == [round - 1])
                        try client.write([round], at: 7)
                        try client.shutdown()
                        try server.stop()
                        #expect(FileFacts(server.socket) == nil && FileFacts(server.control) == nil)
                    }
                }
            }
        }
    }
}
