internal import MirrorCore

/// Everything that is random in a run comes from one of these, seeded with the run's number.
struct Random {
    private var source: Entropy

    init(seed: UInt64) {
        // SplitMix64 (Steele, Lea, Flood, 2014) spreads neighbouring seeds over the whole state.
        var state = seed
        func step() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var z = state
            z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
            return z ^ (z >> 31)
        }
        source = Entropy(step(), step(), step(), step())
    }

    mutating func next() -> UInt64 { source.next() }

    /// A number from 0 through `bound` - 1; the bias of the modulo is below 2^-40 here.
    mutating func below(_ bound: Int) -> Int { bound <= 1 ? 0 : Int(next() % UInt64(bound)) }

    mutating func within(_ range: ClosedRange<Int>) -> Int {
        range.lowerBound + below(range.upperBound - range.lowerBound + 1)
    }

    /// True in `perMille` of 1,000 cases.
    mutating func chance(_ perMille: Int) -> Bool { perMille > 0 && below(1000) < perMille }

    mutating func pick<Element>(_ elements: [Element]) -> Element? {
        elements.isEmpty ? nil : elements[below(elements.count)]
    }

    mutating func shuffle<Element>(_ elements: inout [Element]) {
        var index = elements.count - 1
        while index > 0 {
            elements.swapAt(index, below(index + 1))
            index -= 1
        }
    }

    /// Nanoseconds between the two bounds, short ones far likelier than long ones.
    mutating func delay(_ low: Int, _ high: Int) -> UInt64 {
        let span = high - low
        let first = below(span + 1)
        return UInt64(low + below(first + 1))
    }
}
