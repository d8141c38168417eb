/// The part of TOML 1.0 that a configuration of Plexus is written in: a key and a value a line, comments, texts in one
/// pair of quotes, lists over any number of lines, true and false, whole numbers in their plainest form.
///
/// Other numbers, dates and inline tables are read just well enough to be told that they don't belong here. Tables, dotted
/// keys and texts in three quotes are refused as such. What it accepts, every TOML parser reads in the same way.
struct FlatTOML {
    enum Value: Equatable {
        case text(String), flag(Bool), number(Int), list([Value])
        /// Another number, a date, an inline table.
        case other
    }

    struct Fault: Error {
        /// From 1.
        var line: Int
        var text: String
    }

    /// Lists in lists have no use; the bound keeps hostile ones from exhausting the stack.
    private static let maximumDepth = 8

    private let scalars: [Unicode.Scalar]
    private var position = 0
    private var line = 1

    private init(_ text: String) { scalars = Array(text.unicodeScalars) }

    static func parse(_ text: String) throws(Fault) -> [String: Value] {
        var lines: [String: Int] = [:]
        return try parse(text, lines: &lines)
    }

    /// - Parameter lines: where each key stands.
    static func parse(_ text: String, lines: inout [String: Int]) throws(Fault) -> [String: Value] {
        var parser = FlatTOML(text)
        var table: [String: Value] = [:]
        while try parser.skipToContent() {
            let line = parser.line
            let key = try parser.key()
            lines[key] = line
            parser.skipBlanks()
            guard parser.take("=") else { throw parser.fault("\(key): = is missing") }
            parser.skipBlanks()
            let value = try parser.value(depth: 0)
            guard table.updateValue(value, forKey: key) == nil else { throw parser.fault("\(key): is there twice") }
            // What follows a value that is of no use is of no use either.
            if value == .other { parser.skipLine() }
            try parser.endLine()
        }
        return table
    }

    // MARK: scalars

    private var next: Unicode.Scalar? { position < scalars.count ? scalars[position] : nil }

    private mutating func take(_ scalar: Unicode.Scalar) -> Bool {
        guard next == scalar else { return false }
        position += 1
        return true
    }

    private func fault(_ text: String) -> Fault { Fault(line: line, text: text) }

    /// LF, or CR and LF.
    private mutating func takeNewline() -> Bool {
        if next == "\r", position + 1 < scalars.count, scalars[position + 1] == "\n" { position += 1 }
        guard take("\n") else { return false }
        line += 1
        return true
    }

    private mutating func skipBlanks() { while next == " " || next == "\t" { position += 1 } }

    private mutating func skipLine() { while let scalar = next, scalar != "\n" { position += 1 } }

    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        (scalar.value < 32 && scalar != "\t") || scalar.value == 127
    }

    private mutating func skipComment() throws(Fault) {
        guard take("#") else { return }
        while let scalar = next, scalar != "\n", scalar != "\r" {
            guard !Self.isControl(scalar) else { throw fault("a control character in a comment") }
            position += 1
        }
    }

    /// Blanks, newlines and comments.
    ///
    /// - Returns: false at the end of the text.
    private mutating func skipToContent() throws(Fault) -> Bool {
        repeat {
            skipBlanks()
            try skipComment()
        } while takeNewline()
        return next != nil
    }

    private mutating func endLine() throws(Fault) {
        skipBlanks()
        try skipComment()
        guard next == nil || takeNewline() else { throw fault("something follows the value") }
    }

    // MARK: keys and values

    private static func isBare(_ scalar: Unicode.Scalar) -> Bool {
        scalar.isASCII
            && (scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) || scalar == "-" || scalar == "_")
    }

    private mutating func key() throws(Fault) -> String {
        var key = ""
        if next == "\"" || next == "'" {
            key = try quoted()
        } else {
            while let scalar = next, Self.isBare(scalar) {
                key.unicodeScalars.append(scalar)
                position += 1
            }
            guard !key.isEmpty else {
                throw fault(next == "[" ? "tables have no place here" : "a key is missing")
            }
        }
        skipBlanks()
        guard next != "." else { throw fault("\(key): dotted keys have no place here") }
        return key
    }

    private mutating func value(depth: Int) throws(Fault) -> Value {
        switch next {
        case "\"", "'": return .text(try quoted())
        case "[": return .list(try list(depth: depth + 1))
        case "{":
            guard depth == 0 else { throw fault("inline tables have no place here") }
            return .other
        default: return try word()
        }
    }

    private mutating func word() throws(Fault) -> Value {
        var word = ""
        while let scalar = next, Self.isBare(scalar) || scalar == "+" || scalar == "." || scalar == ":" {
            word.unicodeScalars.append(scalar)
            position += 1
        }
        switch word {
        case "true": return .flag(true)
        case "false": return .flag(false)
        case "inf", "nan": return .other
        default:
            guard let first = word.unicodeScalars.first, ("0"..."9").contains(first) || first == "+" || first == "-"
            else { throw fault(word.isEmpty ? "a value is missing" : "\(word) is no value") }
            return Self.plainNumber(word).map { .number($0) } ?? .other
        }
    }

    /// Digits only, not more than any setting needs, and no zero in front.
    private static func plainNumber(_ word: String) -> Int? {
        guard word.utf8.count <= 9, word == "0" || word.first != "0",
            word.unicodeScalars.allSatisfy({ ("0"..."9").contains($0) })
        else { return nil }
        return Int(word)
    }

    private mutating func list(depth: Int) throws(Fault) -> [Value] {
        guard depth <= Self.maximumDepth else { throw fault("lists in lists in lists") }
        position += 1
        var values: [Value] = []
        while try skipToContent(), next != "]" {
            values.append(try value(depth: depth))
            guard try skipToContent(), next == "]" || take(",") else { break }
        }
        guard take("]") else { throw fault("a list is not closed") }
        return values
    }

    // MARK: texts

    /// A basic string, or a literal one, which knows no escapes.
    private mutating func quoted() throws(Fault) -> String {
        guard let quote = next else { throw fault("a text is missing") }
        position += 1
        if take(quote) {
            guard next != quote else { throw fault("texts in three quotes have no place here") }
            return ""
        }
        var text = ""
        while let scalar = next, scalar != "\n" {
            position += 1
            if scalar == quote { return text }
            guard !Self.isControl(scalar) else { throw fault("a control character in a text") }
            text.unicodeScalars.append(scalar == "\\" && quote == "\"" ? try escaped() : scalar)
        }
        throw fault("a text is not closed")
    }

    private mutating func escaped() throws(Fault) -> Unicode.Scalar {
        guard let kind = next else { throw fault("a text is not closed") }
        position += 1
        switch kind {
        case "b": return "\u{8}"
        case "t": return "\t"
        case "n": return "\n"
        case "f": return "\u{C}"
        case "r": return "\r"
        case "\"", "\\": return kind
        case "u": return try numbered(digits: 4)
        case "U": return try numbered(digits: 8)
        default: throw fault("\\\(kind) is no escape; a backslash is written as \\\\")
        }
    }

    private mutating func numbered(digits: Int) throws(Fault) -> Unicode.Scalar {
        var value: UInt32 = 0
        for _ in 0..<digits {
            guard let scalar = next, scalar.isASCII, let digit = Character(scalar).hexDigitValue else {
                throw fault("\\u has four digits, \\U eight")
            }
            position += 1
            value = value << 4 | UInt32(digit)
        }
        guard let scalar = Unicode.Scalar(value) else { throw fault("a number that is no character") }
        return scalar
    }
}
