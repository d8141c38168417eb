internal import Bytes
internal import MirrorFormat

/// A set of regions, one bit each: 1 Mi regions are 128 KiB.
package struct RegionSet: Sendable, Equatable {
    /// How many regions there are, in the set or not.
    package let count: Int
    /// Bits beyond `count` are zero.
    private(set) var words: [UInt64]

    package init(count: Int, isFull: Bool = false) {
        self.count = count
        words = Array(repeating: 0, count: (count + 63) / 64)
        if isFull { insert(0..<count) }
    }

    package func contains(_ region: Int) -> Bool { words[region >> 6] >> UInt64(region & 63) & 1 != 0 }

    package mutating func insert(_ region: Int) { words[region >> 6] |= 1 << UInt64(region & 63) }

    package mutating func remove(_ region: Int) { words[region >> 6] &= ~(1 << UInt64(region & 63)) }

    package mutating func insert(_ range: Range<Int>) {
        Self.eachWord(of: range) { words[$0] |= $1 }
    }

    package func containsAll(of range: Range<Int>) -> Bool {
        var result = true
        Self.eachWord(of: range) { if words[$0] & $1 != $1 { result = false } }
        return result
    }

    package func containsAny(of range: Range<Int>) -> Bool {
        var result = false
        Self.eachWord(of: range) { if words[$0] & $1 != 0 { result = true } }
        return result
    }

    package mutating func formUnion(_ other: RegionSet) {
        for index in words.indices { words[index] |= other.words[index] }
    }

    package mutating func formIntersection(_ other: RegionSet) {
        for index in words.indices { words[index] &= other.words[index] }
    }

    package mutating func subtract(_ other: RegionSet) {
        for index in words.indices { words[index] &= ~other.words[index] }
    }

    package func isSubset(of other: RegionSet) -> Bool {
        words.indices.allSatisfy { words[$0] & ~other.words[$0] == 0 }
    }

    package var isEmpty: Bool { words.allSatisfy { $0 == 0 } }
    package var population: Int { words.reduce(0) { $0 + $1.nonzeroBitCount } }

    /// The first member from `region` on.
    package func next(from region: Int) -> Int? {
        guard region < count else { return nil }
        var index = region >> 6
        var word = words[index] & (~0 << UInt64(region & 63))
        while word == 0 {
            index += 1
            guard index < words.count else { return nil }
            word = words[index]
        }
        return index << 6 + word.trailingZeroBitCount
    }

    /// Where the run of members that begins at `region` ends, at most `limit`.
    package func endOfRun(from region: Int, limit: Int) -> Int {
        var end = region
        while end < limit, contains(end) { end += 1 }
        return end
    }

    /// The words of one page of the bitmap.
    package func page(_ index: Int) -> [UInt64] {
        Array(words.dropFirst(index * BitmapPage.wordCount).prefix(BitmapPage.wordCount))
    }

    // MARK: words

    /// Word `index` of 64 regions; those beyond the last region stay out.
    mutating func setWord(_ index: Int, _ value: UInt64) {
        let left = count - index << 6
        words[index] = left >= 64 ? value : value & ((1 << UInt64(left)) - 1)
    }

    /// Copies words from `first` on; what lies behind the last of this set is zero.
    func copyWords(from first: Int, to target: inout [UInt64]) {
        let held = max(0, min(target.count, words.count - first))
        var span = target.mutableSpan
        if held > 0 { span.copy(words.span.extracting(first..<first + held)) }
        for index in held..<span.count { span[index] = 0 }
    }

    /// Inserts those members of `page`, which begins at word `first`, that are also in `other`.
    mutating func insertWords(_ page: [UInt64], at first: Int, common other: RegionSet) {
        let held = min(page.count, words.count - first)
        guard held > 0 else { return }
        var span = words.mutableSpan
        span.formUnion(
            page.span.extracting(first: held), at: first, maskedBy: other.words.span.extracting(first..<first + held))
    }

    mutating func insertWord(_ index: Int, _ value: UInt64) { setWord(index, words[index] | value) }

    private static func eachWord(of range: Range<Int>, _ body: (Int, UInt64) -> Void) {
        var region = range.lowerBound
        while region < range.upperBound {
            let end = min(range.upperBound, (region | 63) + 1)
            let bits = end - region
            let mask: UInt64 = bits == 64 ? ~0 : (1 << UInt64(bits)) - 1
            body(region >> 6, mask << UInt64(region & 63))
            region = end
        }
    }
}
