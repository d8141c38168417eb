/// Many inputs of one target, one seed each, and what they came to.
package struct Campaign {
    package let target: Target
    /// By the word that an input ended with.
    package private(set) var outcomes: [String: Int] = [:]
    package private(set) var inputs: UInt64 = 0

    package init(_ target: Target) { self.target = target }

    /// - Throws: `Finding`, of this seed.
    package mutating func run(seed: UInt64) throws(Finding) {
        var input = Input(seed: seed, salt: target.name)
        try run(&input)
    }

    package mutating func run(_ input: inout Input) throws(Finding) {
        let outcome = try target.run(&input)
        inputs += 1
        outcomes[outcome, default: 0] += 1
    }

    /// "found 61 %, damaged 20 %, ...", the frequent ones first.
    package var shares: String {
        outcomes.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { word, count in
            let share = Double(count) * 100 / Double(max(inputs, 1))
            return "\(word) \(share < 1 ? "<1" : String(Int(share.rounded()))) %"
        }.joined(separator: ", ")
    }
}

/// Sixteen bytes a row, with offsets; rows of zeroes are left out.
package func hexDump(_ bytes: [UInt8]) -> String {
    func hex(_ value: Int, _ digits: Int) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
    var lines: [String] = []
    for start in stride(from: 0, to: bytes.count, by: 16) {
        let row = bytes[start..<min(start + 16, bytes.count)]
        guard row.contains(where: { $0 != 0 }) else { continue }
        let text = row.map { (32..<127).contains($0) ? String(UnicodeScalar($0)) : "." }.joined()
        let digits = row.map { hex(Int($0), 2) }.joined(separator: " ")
        lines.append("\(hex(start, 6))  \(digits)  \(text)")
    }
    return (lines + ["\(bytes.count) bytes"]).joined(separator: "\n")
}
