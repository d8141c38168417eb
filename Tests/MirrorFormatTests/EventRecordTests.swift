import Bytes
import TestSupport
import Testing

@testable import MirrorFormat

@Suite struct EventRecordTests {
    private func encode(_ event: EventRecord, mirror: MirrorUUID = Golden.mirror, at base: Int = 0) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: base + EventRecord.byteCount)
        do {
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            event.encode(mirror: mirror, into: &raw, at: base)
        }
        return Array(bytes[base...])
    }

    private func decode(_ bytes: [UInt8], mirror: MirrorUUID = Golden.mirror) -> EventRecord? {
        unsafe EventRecord(decoding: bytes.span.bytes, mirror: mirror)
    }

    @Test func goldenEventEncodesToTheDocumentedBytes() {
        let rows = encode(Golden.event, at: 512).nonZeroRows
        for (got, wanted) in zip(rows, Golden.eventRows) {
            #expect(
                got.0 == wanted.0 && got.1 == wanted.1, "row \(got.0): \(got.1), documented \(wanted.0): \(wanted.1)")
        }
        #expect(rows.count == Golden.eventRows.count)
    }

    @Test func randomEventsSurviveARoundTrip() {
        var random = XorShift(seed: 0xE7E7)
        for round in 0..<2000 {
            let event = EventRecord(
                sequence: random.count(), time: random.next(),
                code: EventCode.allCases.randomElement(using: &random) ?? .joined,
                plex: Bool.random(using: &random) ? PlexIndex(Int.random(in: 0..<8, using: &random)) : nil,
                errorNumber: Int32(truncatingIfNeeded: random.next()), offset: random.next(), length: random.next(),
                generation: Generation(random.uuid()), epoch: random.next(), text: random.text(atMost: 184))
            #expect(decode(encode(event)) == event, "round \(round)")
        }
    }

    @Test func textTooLongIsCutBetweenCharactersAndItsLengthIsTrue() {
        var event = Golden.event
        event.text = "x" + String(repeating: "日", count: 100)
        let bytes = encode(event)
        let kept = "x" + String(repeating: "日", count: 61)
        #expect(decode(bytes)?.text == kept)
        #expect(Int(bytes[27]) == kept.utf8.count)
        event.text = "x" + String(repeating: "é", count: 100)
        #expect(Int(encode(event)[27]) == 183)
    }

    @Test func sequenceNearTheEndOfTheIntegersIsRejected() {
        // The next event would have no number.
        var event = Golden.event
        event.sequence = Superblock.maximumCount
        #expect(decode(encode(event)) == event)
        event.sequence += 1
        #expect(decode(encode(event)) == nil)
    }

    @Test func eventOfAnotherMirrorIsRejected() {
        #expect(decode(encode(Golden.event), mirror: MirrorUUID(.zero)) == nil)
    }

    @Test func everySingleFlippedBitIsDetected() {
        let bytes = encode(Golden.event)
        for position in 0..<bytes.count * 8 {
            var flipped = bytes
            flipped[position / 8] ^= 1 << UInt8(position % 8)
            #expect(decode(flipped) == nil, "bit \(position)")
        }
    }

    @Test func randomAndShortBytesNeverDecode() {
        var random = XorShift(seed: 0xE7E8)
        var bytes = [UInt8](repeating: 0, count: EventRecord.byteCount)
        for round in 0..<20_000 {
            for offset in stride(from: 0, to: bytes.count, by: 8) { bytes.store(random.next(), at: offset) }
            if round % 2 == 0 { bytes.store(EventRecord.magic, at: 0) }
            #expect(decode(bytes) == nil)
        }
        let whole = encode(Golden.event)
        for count in 0..<whole.count { #expect(decode(Array(whole[..<count])) == nil) }
    }

    @Test func codesHaveDistinctNamesAndTheirPublishedNumbers() {
        #expect(Set(EventCode.allCases.map(\.text)).count == EventCode.allCases.count)
        #expect(EventCode.plexFailed.rawValue == 1 && EventCode.plexFailed.text == "PLEX_FAILED")
        #expect(EventCode.splitBrain.rawValue == 14 && EventCode.offline.rawValue == 21)
        #expect(EventCode.scrubStarted.rawValue == 22 && EventCode.scrubFinished.text == "SCRUB_FINISHED")
    }
}
