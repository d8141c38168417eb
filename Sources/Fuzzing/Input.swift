internal import MirrorFormat

/// One input of a fuzz target: where the target takes its every decision from.
///
/// An input is a row of bytes and nothing more, so that one target serves the seeded fuzzer, a fuzzer that is guided by
/// coverage, and the replay of what either of them found. Whoever asks beyond the end of a given row gets zeroes, and
/// zero always means the first and simplest choice.
package struct Input: Sendable {
    /// Nil: the bytes are given. Otherwise xorshift64* (Marsaglia, 2003; Vigna, 2016) makes them up, without end.
    private var state: UInt64?
    private var given: [UInt8]
    private var position = 0
    private var numbers: UInt64 = 0
    /// What was taken so far, in the form in which it can be given again; empty unless asked for.
    package private(set) var taken: [UInt8] = []
    private let isRecorded: Bool
    /// Hears what is about to be decoded, so that a trap can be understood from what was printed before it.
    private let listener: (@Sendable (String, [UInt8]) -> Void)?

    /// - Parameter salt: the name of the target, so that targets differ on the same seed.
    package init(
        seed: UInt64, salt: String, isRecorded: Bool = false, listener: (@Sendable (String, [UInt8]) -> Void)? = nil
    ) {
        // FNV-1a of the salt; SplitMix64 (Steele, Lea, Flood, 2014) spreads neighbouring seeds over the whole state.
        let hash = salt.utf8.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
        var mixed = (seed ^ hash) &+ 0x9E37_79B9_7F4A_7C15
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        mixed ^= mixed >> 31
        state = mixed == 0 ? 1 : mixed
        given = []
        self.isRecorded = isRecorded
        self.listener = listener
    }

    package init(bytes: [UInt8], listener: (@Sendable (String, [UInt8]) -> Void)? = nil) {
        state = nil
        given = bytes
        isRecorded = false
        self.listener = listener
    }

    /// To be called with bytes that are about to be decoded.
    func show(_ what: @autoclosure () -> String, _ bytes: @autoclosure () -> [UInt8]) {
        if let listener { listener(what(), bytes()) }
    }

    /// An integer of so many bytes, 1 through 8.
    mutating func take(_ count: Int) -> UInt64 {
        precondition(count >= 1 && count <= 8)
        let value = state == nil ? takeGiven(count) : takeRandom(count)
        if isRecorded {
            for index in 0..<count { taken.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * index))) }
        }
        return value
    }

    private mutating func takeGiven(_ count: Int) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<count where position + index < given.count {
            value |= UInt64(given[position + index]) << UInt64(8 * index)
        }
        position = min(position + count, given.count)
        return value
    }

    private mutating func takeRandom(_ count: Int) -> UInt64 {
        guard var next = state else { return 0 }
        next ^= next >> 12
        next ^= next << 25
        next ^= next >> 27
        state = next
        // The high bits of the product are the good ones.
        return (next &* 0x2545_F491_4F6C_DD1D) >> UInt64(64 - 8 * count)
    }

    /// A number from 0 through `bound` - 1, from as few bytes as that needs.
    mutating func below(_ bound: Int) -> Int {
        guard bound > 1 else { return 0 }
        let count = bound <= 1 << 8 ? 1 : bound <= 1 << 16 ? 2 : 8
        return Int(take(count) % UInt64(bound))
    }

    mutating func within(_ range: ClosedRange<Int>) -> Int {
        range.lowerBound + below(range.upperBound - range.lowerBound + 1)
    }

    /// True once in so many times; false when there is no input left.
    mutating func oneIn(_ count: Int) -> Bool { below(count) == count - 1 }

    mutating func pick<Element>(_ elements: [Element]) -> Element {
        precondition(!elements.isEmpty)
        return elements[below(elements.count)]
    }

    mutating func pick(_ plexes: PlexMembers) -> PlexIndex { pick(Array(plexes)) }

    mutating func byte() -> UInt8 { UInt8(take(1)) }
    mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in byte() } }

    /// Mostly of no interest, often at the edge of something.
    mutating func number() -> UInt64 {
        switch below(8) {
        case 0: return UInt64(below(4))
        case 1: return .max - UInt64(below(4))
        case 2: return 1 << UInt64(below(64))
        case 3: return (1 << UInt64(below(64))) &- 1
        case 4: return UInt64(below(1 << 16)) << 12
        case 5: return take(2)
        case 6: return take(4)
        default: return take(8)
        }
    }

    /// 1, 2, 3: for what must never be twice the same, whatever the input.
    mutating func nextNumber() -> UInt64 {
        numbers += 1
        return numbers
    }

    mutating func shuffle<Element>(_ elements: inout [Element]) {
        for index in elements.indices.dropFirst().reversed() { elements.swapAt(index, below(index + 1)) }
    }

    /// The rest of a given row, at most so many bytes; made-up rows are as long as they like.
    mutating func rest(atMost limit: Int) -> [UInt8] {
        bytes(state == nil ? min(limit, given.count - position) : below(limit + 1))
    }
}
