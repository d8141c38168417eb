import Bytes
import TestSupport
import Testing

@testable import MirrorFormat

@Suite struct BitmapPageTests {
    private func encode(
        _ page: BitmapPage = Golden.page, words: [UInt64] = Golden.pageWords, mirror: MirrorUUID = Golden.mirror
    ) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: BitmapPage.byteCount)
        do {
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            page.encode(mirror: mirror, words: words.span, into: &raw)
        }
        return bytes
    }

    private func decode(
        _ bytes: [UInt8], mirror: MirrorUUID = Golden.mirror, sheet: UInt8 = Golden.page.sheet,
        index: UInt64 = Golden.page.index
    ) -> BitmapPage? {
        unsafe BitmapPage(decoding: bytes.span.bytes, mirror: mirror, sheet: sheet, index: index)
    }

    private func words(of bytes: [UInt8]) -> [UInt64] {
        (0..<BitmapPage.wordCount).map { unsafe BitmapPage.word($0, of: bytes.span.bytes) }
    }

    @Test func goldenPageEncodesToTheDocumentedBytes() {
        let rows = encode().nonZeroRows
        for (got, wanted) in zip(rows, Golden.pageRows) {
            #expect(
                got.0 == wanted.0 && got.1 == wanted.1, "row \(got.0): \(got.1), documented \(wanted.0): \(wanted.1)")
        }
        #expect(rows.count == Golden.pageRows.count)
    }

    @Test func goldenBytesDecodeToTheGoldenPage() {
        var bytes = [UInt8](repeating: 0, count: BitmapPage.byteCount)
        for (start, row) in Golden.pageRows {
            for (index, position) in stride(from: 0, to: 32, by: 2).enumerated() {
                bytes[start + index] = UInt8(row.dropFirst(position).prefix(2), radix: 16) ?? 0
            }
        }
        #expect(decode(bytes) == Golden.page)
        #expect(words(of: bytes) == Golden.pageWords)
    }

    @Test func pageHasTheDocumentedNumberOfBits() {
        #expect(BitmapPage.bitCount == 32_256 && Layout.bitsPerBitmapPage == 32_256 && BitmapPage.wordCount == 504)
    }

    @Test func randomPagesSurviveARoundTrip() {
        var random = XorShift(seed: 0xB17)
        for round in 0..<500 {
            let page = BitmapPage(
                sheet: UInt8.random(in: 0...7, using: &random), index: random.next(), sequence: random.count(),
                lastClear: random.count(), generation: Generation(random.uuid()), absence: random.next())
            let count = Int.random(in: 0...BitmapPage.wordCount, using: &random)
            let mirror = MirrorUUID(random.uuid())
            let bits = (0..<count).map { _ in random.next() }
            let bytes = encode(page, words: bits, mirror: mirror)
            #expect(decode(bytes, mirror: mirror, sheet: page.sheet, index: page.index) == page, "round \(round)")
            #expect(words(of: bytes) == bits + Array(repeating: 0, count: BitmapPage.wordCount - count))
        }
    }

    /// A page at another page's place, or another mirror's, says nothing about the regions there.
    @Test func pageOfAnotherMirrorSheetOrPlaceIsRejected() {
        let bytes = encode()
        #expect(decode(bytes, mirror: MirrorUUID(.zero)) == nil)
        #expect(decode(bytes, sheet: 0) == nil && decode(bytes, sheet: 5) == nil)
        #expect(decode(bytes, index: 1) == nil && decode(bytes, index: 3) == nil)
        #expect(decode(bytes, index: 2 + 1 << 32) == nil)
    }

    @Test func everySingleFlippedBitIsDetected() {
        let bytes = encode()
        for position in 0..<bytes.count * 8 {
            var flipped = bytes
            flipped[position / 8] ^= 1 << UInt8(position % 8)
            #expect(decode(flipped) == nil, "bit \(position)")
        }
    }

    @Test func emptyRandomAndShortBytesNeverDecode() {
        var random = XorShift(seed: 0xB18)
        #expect(decode([UInt8](repeating: 0, count: BitmapPage.byteCount)) == nil)
        var bytes = [UInt8](repeating: 0, count: BitmapPage.byteCount)
        for round in 0..<2000 {
            for offset in stride(from: 0, to: bytes.count, by: 8) { bytes.store(random.next(), at: offset) }
            if round % 2 == 0 { bytes.replaceSubrange(0..<8, with: Array("PLEXUSBM".utf8)) }
            if round % 4 == 0 {
                bytes[12] = Golden.page.sheet
                bytes.store(Golden.page.index, at: 16)
            }
            #expect(decode(bytes) == nil, "round \(round)")
        }
        let whole = encode()
        for count in stride(from: 0, to: whole.count, by: 61) { #expect(decode(Array(whole[..<count])) == nil) }
    }

    /// Half of the old contents and half of the new: what a power failure leaves.
    @Test(arguments: [512, 1024, 2048, 3584]) func tornPageIsRejected(torn: Int) {
        var next = Golden.page
        next.sequence += 1
        let old = encode()
        let new = encode(next, words: Golden.pageWords.map { ~$0 })
        #expect(decode(Array(new[..<torn]) + Array(old[torn...])) == nil)
    }
}
