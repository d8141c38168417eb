import CLibNBD
import Control
import Glibc
import Synchronization
import TestSupport
import Testing

private let blockBytes = 4096
private let blocks = 1024
private let workers = 4

/// What each block may hold: of the writes to it that were sent, the last that was acknowledged or a later one.
///
/// A block that was written n times carries n and its own number all over; one that never was carries zeroes.
private struct Journal: Sendable {
    var sent = [UInt32](repeating: 0, count: blocks)
    var acknowledged = [UInt32](repeating: 0, count: blocks)
    /// What was sent up to here and is not acknowledged was lost with a kill, and must not appear any more.
    private var lost = [UInt32](repeating: 0, count: blocks)

    static func pattern(_ block: Int, _ sequence: UInt32) -> [UInt8] {
        if sequence == 0 { return [UInt8](repeating: 0, count: blockBytes) }
        let word = UInt64(block) << 32 | UInt64(sequence)
        return unsafe [UInt8](unsafeUninitializedCapacity: blockBytes) { bytes, count in
            unsafe bytes.withMemoryRebound(to: UInt64.self) { unsafe $0.update(repeating: word) }
            count = blockBytes
        }
    }

    /// The sequence number of each block.
    ///
    /// - Throws: `Missing` for a block that no legal write left like this.
    func check(_ data: [UInt8], _ when: String) throws -> [UInt32] {
        try (0..<blocks).map { block in
            let bytes = Array(data[block * blockBytes..<(block + 1) * blockBytes])
            // Little-endian: the sequence is the first half of the word.
            let sequence = bytes.prefix(4).reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
            let range = acknowledged[block]...sent[block]
            let isLegal =
                sequence == acknowledged[block] || (range.contains(sequence) && sequence > lost[block])
            guard isLegal, firstDifference(bytes, Self.pattern(block, sequence)) == nil else {
                throw Missing("write \(range) but none to \(lost[block]) in block \(block) \(when), found \(sequence)")
            }
            return sequence
        }
    }

    /// From now on only what was found is legal: a value that was returned once must not change back.
    mutating func settle(_ found: [UInt32]) {
        lost = sent
        acknowledged = found
    }

    /// What each worker knows of its own blocks.
    static func merged(_ journals: [Journal]) -> Journal {
        // What was lost before is the same for all.
        var all = journals[0]
        for block in 0..<blocks {
            all.sent[block] = journals[block % workers].sent[block]
            all.acknowledged[block] = journals[block % workers].acknowledged[block]
        }
        return all
    }
}

/// Writes until the connection is lost.
private struct JournalWriter {
    var journal: Journal
    var random: XorShift
    let worker: Int
    let client: NBDClient

    init(_ uri: String, worker: Int, journal: Journal, seed: UInt64) throws {
        self.journal = journal
        self.worker = worker
        random = XorShift(seed: seed &* 1000 &+ UInt64(worker) &+ 1)
        client = try NBDClient(uri)
    }

    /// Eight writes at once.
    ///
    /// - Returns: how many were acknowledged.
    mutating func step() throws -> Int {
        var chosen: Set<Int> = []
        // A few blocks are rewritten all the time: that is where plexes differ after a kill.
        let span = Bool.random(using: &random) ? 16 : blocks / workers
        while chosen.count < 8 { chosen.insert(Int.random(in: 0..<span, using: &random) * workers + worker) }
        let numbers = chosen.sorted()
        var operations = numbers.map { block in
            journal.sent[block] += 1
            var operation = NBDClient.Operation(command: .write, offset: block * blockBytes, count: blockBytes)
            operation.bytes = Journal.pattern(block, journal.sent[block])
            operation.flags = Int.random(in: 0..<16, using: &random) == 0 ? UInt32(LIBNBD_CMD_FLAG_FUA) : 0
            return operation
        }
        try client.perform(&operations)
        var done = 0
        for (block, operation) in zip(numbers, operations) where operation.error == nil {
            journal.acknowledged[block] = journal.sent[block]
            done += 1
        }
        return done
    }
}

extension EndToEnd {
    @Suite(.serialized) struct KilledServerTests {
        /// Kills the server in the middle of writes.
        ///
        /// - Returns: what may be found afterwards.
        private static func load(_ server: Server, _ journal: Journal, seed: UInt64) throws -> Journal {
            let progress = Progress()
            let uri = server.uri
            let journals = try withWorkers(workers, progress) { worker in
                var writer = try JournalWriter(uri, worker: worker, journal: journal, seed: seed)
                // The last step is the one that the kill cuts short.
                while true {
                    let done = try writer.step()
                    progress.add(done)
                    if done < 8 || progress.isStopped { return writer.journal }
                }
            } meanwhile: {
                _ = try waitUntil("acknowledged writes") { progress.total > 1500 || progress.isStopped ? true : nil }
                try server.kill()
            }
            return Journal.merged(journals)
        }

        private static func read(_ server: Server) throws -> [UInt8] {
            let client = try NBDClient(server.uri)
            let data = try client.read(at: 0, count: blocks * blockBytes)
            try client.shutdown()
            return data
        }

        @Test(arguments: [UInt64(20_261), 20_262])
        func everyAcknowledgedWriteIsThereAfterAKill(seed: UInt64) throws {
            try withTemporaryDirectory { directory in
                let disks = try createMirror(directory, bytes: blocks * blockBytes)
                var journal = Journal()
                for round in 1...3 {
                    journal = try withServer(directory, disks) { server in
                        // What the kill before left is read twice: while it is resynced, the same.
                        let found = try journal.check(Self.read(server), "after kill \(round - 1), seed \(seed)")
                        journal.settle(found)
                        _ = try journal.check(Self.read(server), "read again, seed \(seed)")
                        return try Self.load(server, journal, seed: seed &+ UInt64(round))
                    }
                }
                try Self.expectEqualPlexes(directory, disks, journal)
            }
        }

        private static func expectEqualPlexes(_ directory: String, _ disks: [String], _ journal: Journal) throws {
            var journal = journal
            let data = try withServer(directory, disks) { server in
                let data = try read(server)
                journal.settle(try journal.check(data, "after the last kill"))
                try server.wait(for: "healthy")
                #expect(firstDifference(try read(server), data) == nil, "a read after the resync differs")
                try server.stop()
                return data
            }
            for disk in disks {
                #expect(firstDifference(try contents(of: disk, count: data.count), data) == nil, "\(disk)")
            }
        }

        /// The dead server's socket files and disks are taken over.
        @Test func killedServerIsReplacedOnTheSameSockets() throws {
            try withTemporaryDirectory { directory in
                let disks = try createMirror(directory, bytes: 1 << 20)
                try withServer(directory, disks) { server in
                    try NBDClient(server.uri).write([5], at: 9)
                    try server.kill()
                    #expect(FileFacts(server.socket)?.isSocket == true)
                }
                try withServer(directory, disks) { server in
                    try #expect(NBDClient(server.uri).read(at: 9, count: 1) == [5])
                    try server.wait(for: "healthy")
                    try server.stop()
                }
            }
        }

        /// Two servers on one disk would tear the mirror.
        @Test func secondServerOnTheSameDisksIsRefused() throws {
            try withTemporaryDirectory { directory in
                let disks = try createMirror(directory, bytes: 1 << 20)
                try withServer(directory, disks) { server in
                    let others = ["--socket", "\(directory)/other.sock", "--control", "\(directory)/other.control"]
                    try Plexus.run(["serve"] + disks + others, in: directory, code: 1)
                    #expect(Plexus.text("\(directory)/serve.log").contains("in use by another server"))
                    try server.wait(for: "healthy")
                    try server.stop()
                }
            }
        }
    }
}
