import TestSupport
import Testing

@testable import NBDProtocol

@Suite struct ReplyEncoding {
    private let cookie: UInt64 = 0x0102_0304_0506_0708
    private let cookieBytes: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8]
    private let chunk: [UInt8] = [0x66, 0x8E, 0x33, 0xEF]

    /// What `write` wrote at offset 3 of a buffer of 0xEE; the bytes around it must be left alone.
    private func encoded(_ write: (inout MutableRawSpan, Int) -> Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: 200)
        var count = 0
        do {
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            count = write(&raw, 3)
        }
        #expect(bytes.prefix(3).allSatisfy { $0 == 0xEE })
        #expect(bytes.dropFirst(3 + count).allSatisfy { $0 == 0xEE })
        return Array(bytes[3..<3 + count])
    }

    @Test func simpleReplyIsSixteenBytes() {
        let success = encoded { ReplyEncoder.simpleReply(cookie: cookie, error: nil, into: &$0, at: $1) }
        #expect(success == [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0] + cookieBytes)
        #expect(success.count == ReplyEncoder.simpleReplyBytes)
        let failure = encoded { ReplyEncoder.simpleReply(cookie: cookie, error: .enospc, into: &$0, at: $1) }
        #expect(failure == [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28] + cookieBytes)
    }

    @Test func readDataHeaderLeavesRoomForTheData() {
        let header = encoded {
            ReplyEncoder.readDataHeader(
                cookie: cookie, offset: 0x1122_3344_5566_7788, dataBytes: 0x200, done: true, into: &$0, at: $1)
        }
        #expect(
            header == chunk + [0, 1, 0, 1] + cookieBytes + [0, 0, 2, 8, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88])
        #expect(header.count == ReplyEncoder.readDataHeaderBytes)
        let more = encoded {
            ReplyEncoder.readDataHeader(cookie: cookie, offset: 0, dataBytes: 1, done: false, into: &$0, at: $1)
        }
        #expect(more == chunk + [0, 0, 0, 1] + cookieBytes + [0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    @Test func readHoleNamesItsRange() {
        let hole = encoded {
            ReplyEncoder.readHole(cookie: cookie, offset: 0x1000, length: 0x2000, done: true, into: &$0, at: $1)
        }
        #expect(
            hole == chunk + [0, 1, 0, 2] + cookieBytes + [0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0x20, 0])
        #expect(hole.count == ReplyEncoder.readHoleBytes)
    }

    @Test func noneIsDone() {
        let none = encoded { ReplyEncoder.none(cookie: cookie, into: &$0, at: $1) }
        #expect(none == chunk + [0, 1, 0, 0] + cookieBytes + [0, 0, 0, 0])
        #expect(none.count == ReplyEncoder.noneBytes)
    }

    @Test func errorCarriesItsReason() {
        let error = encoded {
            ReplyEncoder.error(cookie: cookie, .einval, reason: .unknownCommand, into: &$0, at: $1)
        }
        #expect(
            error == chunk + [0, 1, 0x80, 1] + cookieBytes + [0, 0, 0, 21, 0, 0, 0, 22, 0, 15]
                + Array("unknown command".utf8))
    }

    @Test func everyReasonFitsTheRoomReserved() {
        for reason in RefusalReason.allCases {
            #expect(reason.text.utf8CodeUnitCount > 0)
            #expect(reason.text.utf8CodeUnitCount <= ReplyEncoder.maximumTextBytes)
            #expect(reason.text.isASCII)
            for error in NBDError.allCases {
                let bytes = encoded { ReplyEncoder.error(cookie: cookie, error, reason: reason, into: &$0, at: $1) }
                #expect(bytes.count == 26 + reason.text.utf8CodeUnitCount)
                #expect(bytes.count <= ReplyEncoder.maximumErrorBytes)
            }
        }
        #expect(ReplyEncoder.maximumReplyBytes >= ReplyEncoder.readHoleBytes)
    }

    @Test func blockStatusIsHeaderAndExtents() {
        let header = encoded {
            ReplyEncoder.blockStatusHeader(cookie: cookie, contextID: 1, extentCount: 2, into: &$0, at: $1)
        }
        #expect(header == chunk + [0, 1, 0, 5] + cookieBytes + [0, 0, 0, 20, 0, 0, 0, 1])
        #expect(header.count == ReplyEncoder.blockStatusHeaderBytes)
        let extent = encoded {
            ReplyEncoder.extent(
                Extent(lengthBytes: 0x1000, flags: BlockStatus.hole | BlockStatus.zero), into: &$0, at: $1)
        }
        #expect(extent == [0, 0, 0x10, 0, 0, 0, 0, 3])
        #expect(extent.count == ReplyEncoder.extentBytes)
    }

    @Test func successAndFailureTakeTheFormOfTheSession() {
        for structured in [false, true] {
            let success = encoded {
                ReplyEncoder.success(cookie: cookie, structuredReplies: structured, into: &$0, at: $1)
            }
            let failure = encoded {
                ReplyEncoder.failure(
                    cookie: cookie, .eio, reason: .ioError, structuredReplies: structured, into: &$0, at: $1)
            }
            #expect(success.count == (structured ? 20 : 16))
            #expect(Array(failure.prefix(4)) == (structured ? chunk : [0x67, 0x44, 0x66, 0x98]))
        }
    }

    @Test func replyWithoutRoomStopsTheProgram() async {
        await #expect(processExitsWith: .failure) {
            var bytes = [UInt8](repeating: 0, count: 15)
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            _ = ReplyEncoder.simpleReply(cookie: 1, error: nil, into: &raw, at: 0)
        }
    }
}

@Suite struct BlockStatusExtents {
    private func reduce(
        _ allocation: [(UInt64, UInt32)], request: UInt32, one: Bool = false, maximum: Int = 100
    ) -> [Extent] {
        var reply = [Extent(lengthBytes: 99, flags: 99)]
        let allocation = allocation.map { AllocationExtent(lengthBytes: $0.0, flags: $0.1) }
        BlockStatus.reduce(
            allocation.span, requestBytes: request, reqOne: one, maximumExtents: maximum, into: &reply)
        return reply
    }

    private func extents(_ list: (UInt32, UInt32)...) -> [Extent] {
        list.map { Extent(lengthBytes: $0.0, flags: $0.1) }
    }

    @Test func equalNeighboursAreMergedAndTheEndIsCut() {
        #expect(reduce([(30, 3), (20, 3), (0, 0), (80, 0)], request: 100) == extents((50, 3), (50, 0)))
        #expect(reduce([(30, 3), (0, 0), (20, 3)], request: 100) == extents((50, 3)))
        #expect(reduce([(100, 0), (5, 3)], request: 100) == extents((100, 0)))
    }

    @Test func reqOneGivesExactlyOneInsideTheRequest() {
        #expect(reduce([(30, 3), (20, 3), (80, 0)], request: 100, one: true) == extents((50, 3)))
        #expect(reduce([(1 << 40, 3)], request: 100, one: true) == extents((100, 3)))
        #expect(reduce([], request: 100, one: true) == extents((100, 0)))
    }

    @Test func lengthsOfSixtyFourBitsAreCutToTheRequest() {
        #expect(reduce([(.max, 3), (.max, 0)], request: .max) == extents((.max, 3)))
        #expect(reduce([(1 << 31, 3), (1 << 31, 3), (1, 0)], request: .max) == extents((.max, 3)))
    }

    @Test func countIsCapped() {
        let many = (0..<50).map { (UInt64(1), UInt32($0 % 2)) }
        #expect(reduce(many, request: 100, maximum: 3) == extents((1, 0), (1, 1), (1, 0)))
        #expect(reduce(many, request: 100, maximum: 50).count == 50)
    }

    @Test func nothingKnownIsData() {
        #expect(reduce([], request: 512) == extents((512, 0)))
        #expect(reduce([(0, 3), (0, 1)], request: 512) == extents((512, 0)))
    }

    @Test func randomListsObeyTheRules() {
        var random = XorShift(seed: 42)
        for _ in 0..<5000 {
            let allocation = (0..<Int.random(in: 0...12, using: &random)).map { _ -> (UInt64, UInt32) in
                let longest: UInt64 = Bool.random(using: &random) ? 64 : .max
                return (UInt64.random(in: 0...longest, using: &random), UInt32.random(in: 0...3, using: &random))
            }
            let request = UInt32.random(in: 1...(Bool.random(using: &random) ? 256 : .max), using: &random)
            let one = Bool.random(using: &random)
            let maximum = Int.random(in: 1...6, using: &random)
            let reply = reduce(allocation, request: request, one: one, maximum: maximum)
            #expect(!reply.isEmpty && reply.count <= (one ? 1 : maximum))
            #expect(reply.allSatisfy { $0.lengthBytes > 0 })
            #expect(reply.reduce(0) { $0 + UInt64($1.lengthBytes) } <= UInt64(request))
            #expect(zip(reply, reply.dropFirst()).allSatisfy { $0.flags != $1.flags })
        }
    }
}
