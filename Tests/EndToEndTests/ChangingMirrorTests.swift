import CLibNBD
import Control
import TestSupport
import Testing

private let dataBytes = 8 << 20
private let workers = 4

/// The data in pieces that belong to the workers in turn. 255 sectors long, so that neighbours of different
/// owners share blocks, which the server has to read, change and write back without losing either's bytes.
private enum Share {
    static let pieceBytes = 255 * 512

    static func pieces(of worker: Int) -> [Range<Int>] {
        stride(from: worker * pieceBytes, to: dataBytes, by: workers * pieceBytes).map {
            $0..<min($0 + pieceBytes, dataBytes)
        }
    }
}

/// A client that knows what every byte of its pieces must be.
private final class Writer {
    private var random: XorShift
    private let client: NBDClient
    private let pieces: [Range<Int>]
    private let seed: UInt64
    /// Of the whole disk; only our pieces mean anything.
    private(set) var model = [UInt8](repeating: 0, count: dataBytes)
    /// Cheaper than drawing each byte: writes take their bytes from a random place of this.
    private let noise: [UInt8]

    init(_ uri: String, worker: Int, seed: UInt64) throws {
        self.seed = seed
        var random = XorShift(seed: seed &* 1000 &+ UInt64(worker) &+ 1)
        var noise = [UInt8](repeating: 0, count: 256 << 10)
        for index in stride(from: 0, to: noise.count, by: 8) {
            let word = random.next()
            for byte in 0..<8 { noise[index + byte] = UInt8(truncatingIfNeeded: word >> (8 * byte)) }
        }
        self.noise = noise
        self.random = random
        pieces = Share.pieces(of: worker)
        client = try NBDClient(uri)
    }

    /// Up to four requests at once, none of which touches another, then what they must have done.
    func step() throws {
        var operations = pieces.shuffled(using: &random).prefix(Int.random(in: 1...4, using: &random)).map { draw($0) }
        if Int.random(in: 0..<10, using: &random) == 0 { operations.append(NBDClient.Operation(command: .flush)) }
        let asked = operations
        try client.perform(&operations)
        for (operation, question) in zip(operations, asked) {
            if let error = operation.error {
                throw Missing("seed \(seed): \(operation.command) at \(operation.offset): \(error)")
            }
            try apply(operation, question)
        }
    }

    private func draw(_ piece: Range<Int>) -> NBDClient.Operation {
        // Mostly sectors, as file systems ask; bytes now and then, as no one promised not to.
        let unit = Int.random(in: 0..<4, using: &random) == 0 ? 1 : 512
        let most = Int.random(in: 0..<4, using: &random) == 0 ? piece.count : min(piece.count, 16 << 10)
        let count = Int.random(in: 1...most / unit, using: &random) * unit
        let offset = piece.lowerBound + Int.random(in: 0...(piece.count - count) / unit, using: &random) * unit
        let isDurable = Int.random(in: 0..<8, using: &random) == 0
        var operation = NBDClient.Operation(command: .read, offset: offset, count: count)
        operation.flags = isDurable ? UInt32(LIBNBD_CMD_FLAG_FUA) : 0
        switch Int.random(in: 0..<16, using: &random) {
        case 0..<8:
            operation.command = .write
            let start = Int.random(in: 0...noise.count - count, using: &random)
            operation.bytes = Array(noise[start..<start + count])
        case 8, 9:
            operation.command = .zero
            if Bool.random(using: &random) { operation.flags |= UInt32(LIBNBD_CMD_FLAG_NO_HOLE) }
        case 10: operation.command = .trim
        default:
            operation.bytes = [UInt8](repeating: 0xEE, count: count)
            operation.flags = 0
        }
        return operation
    }

    private func apply(_ operation: NBDClient.Operation, _ question: NBDClient.Operation) throws {
        let range = operation.offset..<operation.offset + operation.count
        switch operation.command {
        case .write: model.replaceSubrange(range, with: question.bytes)
        case .zero: model.replaceSubrange(range, with: repeatElement(0, count: range.count))
        case .trim: try adoptTrimmed(range)
        case .read:
            if let difference = firstDifference(operation.bytes, Array(model[range])) {
                throw Missing("seed \(seed): the byte \(range.lowerBound + difference) as it was written")
            }
        case .flush: break
        }
    }

    /// Trimmed bytes may be as before or zero, but what was read once stays.
    private func adoptTrimmed(_ range: Range<Int>) throws {
        let found = try client.read(at: range.lowerBound, count: range.count)
        for (index, byte) in found.enumerated() where byte != 0 && byte != model[range.lowerBound + index] {
            throw Missing("seed \(seed): the byte \(range.lowerBound + index) zero or as it was")
        }
        model.replaceSubrange(range, with: found)
    }

    func finish() throws {
        try client.flush()
        try client.shutdown()
    }
}

extension EndToEnd {
    /// Plexes are taken out and brought back while clients work.
    @Suite(.serialized) struct ChangingMirrorTests {
        /// What a client can see of each is nothing.
        private static func change(_ server: Server, _ disks: [String], _ progress: Progress) throws {
            func isUnderLoad() throws {
                let goal = progress.total + 20
                _ = try waitUntil("clients that get on") { progress.total >= goal || progress.isStopped ? true : nil }
            }
            func change(_ verb: ControlRequest.Verb, _ disk: String, keep: Bool? = nil) throws {
                var request = ControlRequest(verb, mirror: server.name, plex: disk, disk: disk)
                request.keep = keep
                try server.perform(request)
                try isUnderLoad()
            }
            try isUnderLoad()
            // Broken off as a copy, and joined again: only what differs is copied.
            try change(.break, disks[1], keep: true)
            try change(.join, disks[1])
            try server.waitInSync(disks[1])
            // The other one, forgotten and joined as a new disk: everything is copied.
            try change(.break, disks[0], keep: false)
            try change(.join, disks[0])
            try server.waitInSync(disks[0])
            // A third.
            try change(.join, disks[2])
            try server.waitInSync(disks[2])
            try change(.offline, disks[1])
            try change(.online, disks[1])
            // Not waited for: the mirror changes again while it resyncs.
            try change(.break, disks[2], keep: true)
            try change(.join, disks[2])
            try server.wait(for: "healthy")
            try isUnderLoad()
        }

        @Test(arguments: [UInt64(20_261), 20_262])
        func clientsNoticeNothingAndAllPlexesEndEqual(seed: UInt64) throws {
            try withTemporaryDirectory { directory in
                var disks = try createMirror(directory, bytes: dataBytes)
                disks.append("\(directory)/c.img")
                try makeFile(disks[2], bytes: FileFacts(disks[0])?.bytes ?? 0)
                let model = try withServer(directory, Array(disks[0..<2])) { server in
                    let model = try Self.load(server, disks, seed: seed)
                    // What a new client reads is what the old ones wrote.
                    let client = try NBDClient(server.uri)
                    let found = try client.read(at: 0, count: dataBytes)
                    #expect(firstDifference(found, model) == nil, "seed \(seed)")
                    try client.shutdown()
                    try Self.expectEvents(server)
                    try server.stop()
                    return model
                }
                for disk in disks {
                    let found = try contents(of: disk, count: dataBytes)
                    #expect(firstDifference(found, model) == nil, "seed \(seed): \(disk)")
                }
            }
        }

        /// - Returns: what the disk must hold afterwards.
        private static func load(_ server: Server, _ disks: [String], seed: UInt64) throws -> [UInt8] {
            let progress = Progress()
            let uri = server.uri
            let models = try withWorkers(workers, progress) { worker in
                let writer = try Writer(uri, worker: worker, seed: seed)
                while !progress.isStopped {
                    try writer.step()
                    progress.add(1)
                }
                try writer.finish()
                return writer.model
            } meanwhile: {
                _ = try waitUntil("\(workers) clients") {
                    try server.status().clients == workers || progress.isStopped ? true : nil
                }
                try change(server, disks, progress)
            }
            var model = [UInt8](repeating: 0, count: dataBytes)
            for worker in 0..<workers {
                for piece in Share.pieces(of: worker) { model.replaceSubrange(piece, with: models[worker][piece]) }
            }
            return model
        }

        private static func expectEvents(_ server: Server) throws {
            let codes = try server.eventCodes()
            for code in ["BROKEN_OFF", "JOINED", "RESYNC_STARTED", "RESYNC_FINISHED", "PLEX_OFFLINE"] {
                #expect(codes.contains(code), "\(codes)")
            }
            #expect(!codes.contains("PLEX_FAILED") && !codes.contains("READ_ERROR"), "\(codes)")
            let status = try server.status()
            #expect(status.state == "healthy" && status.plexes.map(\.state) == ["in-sync", "in-sync", "in-sync"])
            #expect(status.plexes.allSatisfy { $0.readErrors == 0 && $0.writeErrors == 0 })
        }
    }
}
