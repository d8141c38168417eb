import MirrorFormat
import TestSupport
import Testing

@testable import MirrorCore

/// Requests whose edges cut a block: the rest of it is read, put together in the buffer, and written whole.
@Suite struct MirrorEdgeTests {
    private func dirtyPair() throws -> MirrorBench {
        let bench = try MirrorBench()
        bench.dirty()
        return bench
    }

    struct Write: Sendable {
        var offset: UInt64
        var length: UInt64
        /// Where the rest of cut blocks is read, and to which place of the buffer.
        var reads: [(UInt64, UInt64)]
        var copies: [(UInt64, UInt64, UInt64)]
        var body: (UInt64, UInt64)
    }

    @Test(arguments: [
        Write(
            offset: 5000, length: 1000, reads: [(4096, 4096)], copies: [(4096, 0, 904), (6000, 1904, 2192)],
            body: (4096, 4096)),
        Write(offset: 4096, length: 1, reads: [(4096, 4096)], copies: [(4097, 1, 4095)], body: (4096, 4096)),
        Write(offset: 8191, length: 1, reads: [(4096, 4096)], copies: [(4096, 0, 4095)], body: (4096, 4096)),
        Write(
            offset: 4095, length: 2, reads: [(0, 8192), (4096, 12_288)],
            copies: [(8192, 0, 4095), (12_289, 4097, 4095)],
            body: (0, 8192)),
        Write(offset: 4096, length: 5000, reads: [(8192, 12_288)], copies: [(13_192, 5000, 3192)], body: (4096, 8192)),
        Write(
            offset: 512, length: 16_384, reads: [(0, 20_480), (16_384, 24_576)],
            copies: [(20_480, 0, 512), (25_088, 16_896, 3584)], body: (0, 20_480)),
        Write(offset: 512, length: 3584, reads: [(0, 4096)], copies: [(4096, 0, 512)], body: (0, 4096)),
    ])
    func unalignedWriteReadsTheRestOfItsBlocksFirst(_ row: Write) throws {
        let bench = try dirtyPair()
        bench.send(1, .write, row.offset, row.length)
        bench.settle()
        #expect(bench.replies[1] == .ok)
        let reads = bench.submitted(.read)
        #expect(reads.map(\.offset) == row.reads.map(\.0) && reads.map(\.bufferOffset) == row.reads.map(\.1))
        #expect(reads.allSatisfy { $0.length == 4096 })
        let copies = bench.trace.compactMap { if case .copy = $0 { $0 } else { nil } }
        #expect(copies == row.copies.map { .copy(from: $0.0, to: $0.1, count: $0.2) })
        let writes = bench.submitted(.write)
        #expect(writes.map(\.plex) == [0, 1])
        #expect(writes.allSatisfy { $0.offset == row.body.0 && $0.length == row.body.1 && $0.bufferOffset == 0 })
        // All is in place before the first byte goes out.
        let lastCopy = bench.lastPosition { if case .copy = $0 { true } else { false } } ?? .max
        let firstWrite = bench.position {
            if case .submit(let operation) = $0 { operation.kind == .write } else { false }
        }
        #expect(lastCopy < firstWrite ?? 0)
    }

    /// The buffer model: after the copies the body must be old bytes, payload, old bytes, for any cut.
    @Test func copiesPutEveryByteWhereItBelongs() throws {
        var random = XorShift(seed: 0xED6E)
        let bench = try dirtyPair()
        for id in UInt64(1)...400 {
            let offset = UInt64.random(in: 0..<40_000, using: &random)
            let length = UInt64.random(in: 1...20_000, using: &random)
            let plan = BufferPlan(.write, offset: offset, length: length)
            // What each byte of the buffer stands for: its place on the disk if old, -1 payload, -2 unset.
            var buffer = [Int](repeating: -2, count: Int(plan.bufferBytes))
            for index in 0..<Int(length) { buffer[Int(plan.payloadOffset) + index] = -1 }
            bench.clearTrace()
            bench.send(id, .write, offset, length)
            bench.settle()
            for step in bench.trace {
                if case .complete(let read) = step, read.kind == .read {
                    for index in 0..<Int(read.length) {
                        buffer[Int(read.bufferOffset) + index] = Int(read.offset) + index
                    }
                } else if case .copy(let from, let to, let count) = step {
                    for index in 0..<Int(count) { buffer[Int(to) + index] = buffer[Int(from) + index] }
                }
            }
            let isRight = (0..<Int(plan.bodyLength)).allSatisfy { index in
                let place = Int(plan.bodyOffset) + index
                let isPayload = place >= Int(offset) && place < Int(offset + length)
                return buffer[index] == (isPayload ? -1 : place)
            }
            #expect(isRight, "\(offset) \(length)")
        }
    }

    @Test func unalignedWriteWhoseBlockCannotBeReadFailsAndWritesNothing() throws {
        let bench = try dirtyPair()
        bench.send(1, .write, 5000, 1000)
        bench.settle(failing: { $0.kind == .read ? .media : nil })
        #expect(bench.replies[1] == .ioError && bench.submitted(.write).isEmpty && bench.released.isEmpty)
    }

    @Test func edgeIsReadFromTheOtherPlexWhenOneCannot() throws {
        let bench = try dirtyPair()
        bench.send(1, .write, 5000, 1000)
        bench.settle(failing: { $0.kind == .read && $0.plex == 0 ? .media : nil })
        #expect(bench.replies[1] == .ok && bench.submitted(.write).count == 2)
    }

    @Test(arguments: [(true, DiskOperation.Kind.deallocate), (false, .zero)])
    func zeroesWithCutEdgesWriteBothEdgesAndZeroTheMiddle(mayDeallocate: Bool, kind: DiskOperation.Kind) throws {
        let bench = try dirtyPair()
        // 5,000..<17,288: blocks 4,096 and 16,384 are cut, 8,192..<16,384 is whole.
        bench.send(1, .zeroes, 5000, 12_288, mayDeallocate: mayDeallocate)
        bench.settle()
        #expect(bench.replies[1] == .ok)
        let steps = bench.trace.compactMap { step -> String? in
            switch step {
            case .submit(let operation):
                "\(operation.kind) \(operation.kind == .read ? "" : "\(operation.plex): ")"
                    + "\(operation.offset) \(operation.length) \(operation.bufferOffset)"
            case .fill(let at, let count): "fill \(at) \(count)"
            case .complete, .fail, .reply, .copy, .adopt, .detach, .answer, .release, .stopped: nil
            }
        }
        #expect(
            steps == [
                "read 4096 4096 0", "fill 904 3192", "write 0: 4096 4096 0", "write 1: 4096 4096 0",
                "\(kind) 0: 8192 8192 0", "\(kind) 1: 8192 8192 0",
                "read 16384 4096 4096", "fill 4096 904", "write 0: 16384 4096 4096", "write 1: 16384 4096 4096",
            ])
    }

    @Test func zeroesInsideOneBlockRewriteIt() throws {
        let bench = try dirtyPair()
        bench.send(1, .zeroes, 5000, 1000)
        bench.settle()
        #expect(bench.submitted(.deallocate).isEmpty && bench.submitted(.write).count == 2 && bench.replies[1] == .ok)
        #expect(bench.trace.contains(.fill(at: 904, count: 1000)))
    }

    @Test func wholeBlocksOfZeroesNeedNoReading() throws {
        let bench = try dirtyPair()
        bench.send(1, .zeroes, 8192, 1 << 20)
        bench.settle()
        #expect(bench.submitted(.read).isEmpty && bench.submitted(.write).isEmpty)
        #expect(bench.submitted(.deallocate).map(\.length) == [1 << 20, 1 << 20] && bench.replies[1] == .ok)
    }

    @Test(arguments: [(5000, 1000), (4097, 4096), (4095, 2), (1, 4095), (4097, 8190)] as [(UInt64, UInt64)])
    func trimOfLessThanABlockDoesNothing(offset: UInt64, length: UInt64) throws {
        let bench = try dirtyPair()
        bench.send(1, .trim, offset, length)
        #expect(bench.pending.isEmpty && bench.replies[1] == .ok)
    }

    @Test func trimCoversTheWholeBlocksInsideOnAllPlexes() throws {
        let bench = try dirtyPair()
        bench.send(1, .trim, 5000, 12_288)
        bench.settle()
        let trims = bench.submitted(.deallocate)
        #expect(trims.map(\.plex) == [0, 1] && trims.allSatisfy { $0.offset == 8192 && $0.length == 8192 })
        #expect(bench.replies[1] == .ok && bench.submitted(.write).isEmpty && bench.submitted(.read).isEmpty)
    }

    @Test func zeroesThatFailHalfWayOnOnePlexAreAcknowledgedAfterItsExpulsion() throws {
        let bench = try dirtyPair()
        bench.send(1, .zeroes, 5000, 12_288)
        bench.settle(
            holding: { $0.kind == .writeMetadata }, failing: { $0.kind == .deallocate && $0.plex == 1 ? .media : nil })
        #expect(bench.replies[1] == nil)
        // Nothing more went to the plex that failed.
        #expect(bench.submitted(.write).map(\.plex) == [0, 1, 0])
        bench.settle()
        #expect(bench.replies[1] == .ok && bench.recorded(0)?[PlexIndex(1)].cause.operation == .zero)
    }
}
