internal import Testing

@testable import Bytes

/// Runs of words against the same thing done bit by bit.
@Suite struct WordsTests {
    private let words: [UInt64] = [0x0102_0304_0506_0708, .max, 0, 1 << 63, 0xA5A5, 7, 1 << 32]

    @Test func wordsAreStoredLeastSignificantByteFirst() {
        var bytes = [UInt8](repeating: 0xEE, count: 8 * words.count + 5)
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        raw.storeLittleEndian(words.span, at: 3)
        var expected = [UInt8](repeating: 0xEE, count: 3)
        for word in words {
            for shift in 0..<8 { expected.append(UInt8(truncatingIfNeeded: word >> UInt64(shift * 8))) }
        }
        #expect(bytes == expected + [0xEE, 0xEE])
    }

    @Test func copyReplacesTheFirstWordsOnly() {
        var target = [UInt64](repeating: 9, count: words.count + 2)
        var span = target.mutableSpan
        span.copy(words.span)
        #expect(target == words + [9, 9])
    }

    @Test(arguments: 0..<4) func unionTakesWhatBothHaveAndNothingElsewhere(first: Int) {
        let mask: [UInt64] = [.max, 0xF0F0, .max, 0, 0x00FF, 1, 1 << 32]
        let before = (0..<UInt64(words.count + 4)).map { $0 &* 0x9E37_79B9_7F4A_7C15 }
        var target = before
        var span = target.mutableSpan
        span.formUnion(words.span, at: first, maskedBy: mask.span)
        for index in target.indices {
            let isInside = (first..<first + words.count).contains(index)
            #expect(
                target[index]
                    == (isInside ? before[index] | (words[index - first] & mask[index - first]) : before[index]))
        }
    }

    @Test func noWordsAreFine() {
        var target: [UInt64] = []
        var span = target.mutableSpan
        span.formUnion([UInt64]().span, at: 0, maskedBy: [UInt64]().span)
        span.copy([UInt64]().span)
        #expect(target.isEmpty)
    }
}
