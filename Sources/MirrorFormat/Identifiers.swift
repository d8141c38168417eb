/// 128 random bits, shown like a UUID (8-4-4-4-12 hexadecimal digits).
package struct UUID128: Hashable, Sendable, Comparable, CustomStringConvertible, BitwiseCopyable {
    package var high: UInt64
    package var low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    package static let zero = UUID128(high: 0, low: 0)

    package static func < (left: UUID128, right: UUID128) -> Bool {
        (left.high, left.low) < (right.high, right.low)
    }

    /// The inverse of `description`; nil for anything else. Case does not matter.
    package init?(_ text: String) {
        let dash = UInt8(ascii: "-")
        let isGrouped = text.utf8.enumerated().allSatisfy { [8, 13, 18, 23].contains($0) == ($1 == dash) }
        guard text.utf8.count == 36, isGrouped else { return nil }
        let digits = text.utf8.filter { $0 != dash }
        var values: (UInt64, UInt64) = (0, 0)
        for (index, digit) in digits.enumerated() {
            guard let value = Character(UnicodeScalar(digit)).hexDigitValue else { return nil }
            if index < 16 { values.0 = values.0 << 4 | UInt64(value) } else { values.1 = values.1 << 4 | UInt64(value) }
        }
        self.init(high: values.0, low: values.1)
    }

    package var description: String {
        var text = ""
        for index in 0..<32 {
            if index == 8 || index == 12 || index == 16 || index == 20 { text += "-" }
            let word = index < 16 ? high : low
            text += String((word >> UInt64(60 - (index % 16) * 4)) & 15, radix: 16)
        }
        return text
    }
}

/// Names one mirror for as long as it exists; on the superblock of each of its plexes.
package struct MirrorUUID: Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
    package var bits: UUID128
    package init(_ bits: UUID128) { self.bits = bits }
    package var description: String { bits.description }
}

/// Names one plex of one mirror.
package struct PlexUUID: Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
    package var bits: UUID128
    package init(_ bits: UUID128) { self.bits = bits }
    package var description: String { bits.description }
}

/// Names one era of a mirror's membership; a new one is drawn whenever the set of plexes that hold every
/// acknowledged write shrinks (3-correctness, R9).
package struct Generation: Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
    package var bits: UUID128
    package init(_ bits: UUID128) { self.bits = bits }
    package static let none = Generation(.zero)
    package var description: String { bits.description }
}

/// A plex's number within its mirror, 0 through 7; its slot in the member table.
package struct PlexIndex: Hashable, Sendable, Comparable, BitwiseCopyable, CustomStringConvertible {
    package let value: UInt8

    /// - Parameter value: 0 through 7.
    @inlinable package init(_ value: Int) {
        precondition(value >= 0 && value < PlexSet.capacity)
        self.value = UInt8(value)
    }

    @inlinable package static func < (left: PlexIndex, right: PlexIndex) -> Bool { left.value < right.value }
    @inlinable package var description: String { String(value) }
}

/// A set of plexes: one bit each, so that set algebra on the path of a request is one instruction.
package struct PlexSet: Hashable, Sendable, BitwiseCopyable {
    @inlinable package static var capacity: Int { 8 }

    package var mask: UInt8

    @inlinable package init(mask: UInt8 = 0) { self.mask = mask }
    @inlinable package init(_ plex: PlexIndex) { mask = 1 << plex.value }

    @inlinable package static var empty: PlexSet { PlexSet() }
    @inlinable package var isEmpty: Bool { mask == 0 }
    @inlinable package var count: Int { mask.nonzeroBitCount }
    @inlinable package var first: PlexIndex? { mask == 0 ? nil : PlexIndex(mask.trailingZeroBitCount) }

    @inlinable package func contains(_ plex: PlexIndex) -> Bool { mask & (1 << plex.value) != 0 }
    @inlinable package mutating func insert(_ plex: PlexIndex) { mask |= 1 << plex.value }
    @inlinable package mutating func remove(_ plex: PlexIndex) { mask &= ~(1 << plex.value) }
    @inlinable package func union(_ other: PlexSet) -> PlexSet { PlexSet(mask: mask | other.mask) }
    @inlinable package func intersection(_ other: PlexSet) -> PlexSet { PlexSet(mask: mask & other.mask) }
    @inlinable package func subtracting(_ other: PlexSet) -> PlexSet { PlexSet(mask: mask & ~other.mask) }
    @inlinable package func isSubset(of other: PlexSet) -> Bool { mask & ~other.mask == 0 }

    @inlinable @inline(__always)
    package func filter(_ isIncluded: (PlexIndex) -> Bool) -> PlexSet {
        var set = PlexSet.empty
        forEach { if isIncluded($0) { set.insert($0) } }
        return set
    }

    /// Calls `body` for each member, lowest index first.
    @inlinable @inline(__always)
    package func forEach(_ body: (PlexIndex) -> Void) {
        var rest = mask
        while rest != 0 {
            body(PlexIndex(rest.trailingZeroBitCount))
            rest &= rest - 1
        }
    }

    /// Lowest index first; of the set as it is now, whatever becomes of it meanwhile.
    @inlinable package var members: PlexMembers { PlexMembers(rest: mask) }
}

/// The members of a `PlexSet`, one after the other, without a list of them anywhere.
package struct PlexMembers: Sequence, IteratorProtocol, BitwiseCopyable, Sendable {
    @usableFromInline var rest: UInt8

    @inlinable init(rest: UInt8) { self.rest = rest }

    @inlinable package mutating func next() -> PlexIndex? {
        guard rest != 0 else { return nil }
        defer { rest &= rest - 1 }
        return PlexIndex(rest.trailingZeroBitCount)
    }
}
