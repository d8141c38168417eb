import TestSupport
import Testing

@testable import NBDProtocol

/// Conversations of a client that knows the protocol just well enough to do harm. A trap fails the whole run; the
/// expectations are that bytes are never buffered beyond the limit, that whole input is consumed or the session
/// is over, and that cutting the same bytes differently changes nothing.
@Suite struct SessionFuzz {
    private func limits() -> SessionLimits {
        var limits = SessionLimits()
        limits.maximumOptionBytes = 300
        limits.maximumSkippedBytes = 1000
        limits.maximumOptions = 12
        limits.maximumQueries = 8
        return limits
    }

    private func text(_ random: inout XorShift) -> [UInt8] {
        let texts = ["", "disk", "frozen", "nothing", "base:", "base:allocation", "x:y", "a\0b"]
        return Array(texts[Int.random(in: 0..<texts.count, using: &random)].utf8)
    }

    /// A length that is nearly always right.
    private func length(_ count: Int, _ random: inout XorShift) -> [UInt8] {
        switch UInt8.random(in: 0..<24, using: &random) {
        case 0: bigEndian(UInt32.max)
        case 1: bigEndian(UInt32(count) + 1)
        case 2: bigEndian(UInt32(max(0, count - 1)))
        case 3: bigEndian(UInt32.random(in: 0...2000, using: &random))
        default: bigEndian(UInt32(count))
        }
    }

    private func data(_ random: inout XorShift) -> [UInt8] {
        let name = text(&random)
        switch UInt8.random(in: 0..<8, using: &random) {
        case 0, 1, 2:
            return []
        case 3, 4:
            let count = Int.random(in: 0...4, using: &random)
            let types = (0..<2 * count).map { $0 % 2 == 0 ? 0 : UInt8.random(in: 0...5, using: &random) }
            return length(name.count, &random) + name + bigEndian(UInt16(count)) + types
        case 5, 6:
            let queries = (0..<Int.random(in: 0...10, using: &random)).map { _ in text(&random) }
            return length(name.count, &random) + name + length(queries.count, &random)
                + queries.flatMap { length($0.count, &random) + $0 }
        default:
            return (0..<Int.random(in: 0...600, using: &random)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
        }
    }

    private func conversation(_ random: inout XorShift) -> [UInt8] {
        var bytes: [UInt8] = [0, 0, 0, UInt8.random(in: 0...3, using: &random)]
        for _ in 0..<Int.random(in: 0...14, using: &random) {
            let data = data(&random)
            let option = UInt32.random(in: 1...13, using: &random)
            if option < 3 && Bool.random(using: &random) { continue }
            bytes += Array("IHAVEOPT".utf8) + bigEndian(option) + length(data.count, &random) + data
        }
        if UInt8.random(in: 0..<8, using: &random) == 0 {
            bytes[Int.random(in: 0..<bytes.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        }
        return bytes
    }

    @Test func mutatedConversationsMakeProgressOrClose() {
        var random = XorShift(seed: 0x5EED)
        var ends: [Session.Phase: Int] = [:]
        for _ in 0..<20_000 {
            let bytes = conversation(&random)
            let atOnce = Conversation(limits: limits(), clientFlags: nil)
            atOnce.send(bytes)
            let inPieces = Conversation(limits: limits(), clientFlags: nil)
            var rest = bytes[...]
            while !rest.isEmpty && inPieces.phase == .handshake {
                let piece = rest.prefix(Int.random(in: 1...40, using: &random))
                inPieces.send(Array(piece))
                rest = rest.dropFirst(piece.count)
            }
            #expect(atOnce.phase == inPieces.phase)
            #expect(atOnce.output == inPieces.output)
            #expect(atOnce.pending == inPieces.pending + rest)
            #expect(atOnce.export == inPieces.export)
            #expect((atOnce.phase == .transmission) == (atOnce.export != nil))
            ends[atOnce.phase, default: 0] += 1
        }
        // The generator is worth something only if it reaches every end.
        #expect([.handshake, .transmission, .closing].allSatisfy { (ends[$0] ?? 0) > 500 }, "\(ends)")
    }

    @Test func randomBytesNeverTrap() {
        var random = XorShift(seed: 0xBAD)
        for _ in 0..<2000 {
            let conversation = Conversation(limits: limits(), clientFlags: nil)
            conversation.send(
                (0..<Int.random(in: 0...200, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) })
        }
    }

    @Test func randomRequestsAreInsideTheExportOrRefused() {
        var random = XorShift(seed: 0xF00D)
        let conversation = Conversation.inTransmission("disk", structured: true, context: true)
        for _ in 0..<20_000 {
            var bytes = (0..<28).map { _ in UInt8.random(in: 0...255, using: &random) }
            if Bool.random(using: &random) { bytes.replaceSubrange(0..<6, with: [0x25, 0x60, 0x95, 0x13, 0, 0]) }
            if Bool.random(using: &random) { bytes.replaceSubrange(6..<8, with: [0, bytes[7] % 9]) }
            if Bool.random(using: &random) { bytes.replaceSubrange(16..<22, with: [0, 0, 0, 0, 0, bytes[21] % 17]) }
            if Bool.random(using: &random) { bytes.replaceSubrange(24..<26, with: [0, bytes[25] % 17]) }
            if case .request(let request) = conversation.parse(bytes) {
                let (end, overflow) = request.offset.addingReportingOverflow(UInt64(request.length))
                #expect(!overflow && end <= 1 << 20)
            }
        }
    }
}
