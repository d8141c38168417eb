internal import MirrorServer

extension Target {
    /// `plexus serve --config`: what was written is understood; anything else is refused with a message, or gives
    /// options that lie in the text.
    static let configuration = Target("configuration") { input throws(Finding) in
        let wanted = input.options()
        let valid = Array(input.toml(wanted).utf8)
        var bytes = valid
        switch input.below(4) {
        case 0: break
        case 1: bytes = (0..<input.below(201)).map { _ in input.oneIn(200) ? input.byte() : input.byte() & 0x7F }
        case 2: bytes = Array((0..<input.below(40)).map { _ in input.pick(words) }.joined().utf8)
        default: input.mangle(&bytes, dictionary: words)
        }
        input.show("configuration", bytes)
        // The file is read as UTF-8, and refused if it is none.
        guard let text = String(validating: bytes, as: UTF8.self) else { return "no text" }
        var options = ServerOptions()
        do {
            try Configuration(text: text, path: "plexus.toml").complete(&options)
        } catch {
            let isExplained = "\(error)".hasPrefix("plexus.toml: ")
            try require(isExplained, "a refusal that does not name the file: \(error)", bytes)
            try require(bytes != valid, "a valid file is refused: \(error)", bytes)
            return "refused"
        }
        if bytes == valid { try require(options.isEqual(to: wanted), "what was written is not understood", bytes) }
        // Escapes make a text shorter, never longer.
        let texts =
            options.disks + options.listen
            + [options.socket, options.control, options.defaultMirror].compactMap(\.self)
        let textBytes = texts.reduce(0) { $0 + $1.utf8.count }
        try require(textBytes <= bytes.count, "options are longer than the text", bytes)
        return bytes == valid ? "valid" : "accepted"
    }

    private static let words = [
        "disks", "socket", "listen", "control", "default", "degraded", "read-only", "threads", "auto-rejoin",
        "rejoin-delay", "write-deadline", "scrub-every", "scrub-limit", "lock-memory", "\"30d\"", "\"20M\"", " = ", "=",
        "[", "]",
        "[[", "]]",
        "{",
        "}", ",", ".", "\n", "\r\n", "\t", " ", "#", "\"", "'", "\"\"\"", "'''", "\\", "\\u0041", "\\U0010FFFF",
        "\\uD800",
        "\\x00", "true", "false", "0", "-1", "1e400", "0x", "9223372036854775808", "nan", "inf", "1979-05-27T07:32:00Z",
        "1979-02-30", "25:61:61", "a", "é", "𝄞", "\u{0}", "\u{7F}", "\u{FEFF}", "\"a\"", "[\"a\"]",
        String(repeating: "[", count: 300), String(repeating: "{a=", count: 300), "[a.b]\n", "a.a.a = 1\n",
    ]
}

extension ServerOptions {
    fileprivate func isEqual(to other: ServerOptions) -> Bool {
        disks == other.disks && listen == other.listen && socket == other.socket && control == other.control
            && defaultMirror == other.defaultMirror && allowDegraded == other.allowDegraded
            && isReadOnly == other.isReadOnly && threads == other.threads && autoRejoin == other.autoRejoin
            && rejoinSeconds == other.rejoinSeconds && scrubSeconds == other.scrubSeconds
            && scrubLimit == other.scrubLimit && lockMemory == other.lockMemory
    }
}

extension Input {
    fileprivate mutating func options() -> ServerOptions {
        var options = ServerOptions()
        options.disks = (0..<below(3)).map { _ in string() }
        options.listen = (0..<below(3)).map { _ in string() }
        options.socket = oneIn(2) ? string() : nil
        options.control = oneIn(2) ? string() : nil
        options.defaultMirror = oneIn(2) ? string() : nil
        options.allowDegraded = oneIn(2)
        options.isReadOnly = oneIn(2)
        options.threads = oneIn(2) ? 1 + below(64) : nil
        options.autoRejoin = oneIn(2) ? oneIn(2) : nil
        options.lockMemory = oneIn(2) ? oneIn(2) : nil
        options.rejoinSeconds = oneIn(2) ? below(86_401) : nil
        options.scrubSeconds = oneIn(2) ? (1 + below(87_600)) * 3600 : nil
        options.scrubLimit = oneIn(2) ? UInt64(1 + below(1 << 20)) << 10 : nil
        return options
    }

    private mutating func string() -> String {
        (0..<below(6)).map { _ in pick(["/dev/sda", "a", "é", "\"", "\\", "\n", "\t", "𝄞", "127.0.0.1:1", "'", " "]) }
            .joined()
    }

    fileprivate mutating func toml(_ options: ServerOptions) -> String {
        var lines: [String] = []
        if !options.disks.isEmpty { lines.append("disks = \(quoted(options.disks))") }
        if !options.listen.isEmpty {
            let isOne = options.listen.count == 1 && oneIn(2)
            lines.append("listen = \(isOne ? quoted(options.listen[0]) : quoted(options.listen))")
        }
        if let socket = options.socket { lines.append("socket = \(quoted(socket))") }
        if let control = options.control { lines.append("control=\(quoted(control)) # where to ask") }
        if let name = options.defaultMirror { lines.append("\"default\" = \(quoted(name))") }
        if options.allowDegraded || oneIn(2) { lines.append("degraded = \(options.allowDegraded)") }
        if options.isReadOnly || oneIn(2) { lines.append("read-only = \(options.isReadOnly)") }
        if let rejoins = options.autoRejoin { lines.append("auto-rejoin = \(rejoins)") }
        if let seconds = options.writeDeadlineSeconds { lines.append("write-deadline = \(seconds)") }
        if let seconds = options.rejoinSeconds { lines.append("rejoin-delay = \(seconds)") }
        if let seconds = options.scrubSeconds { lines.append("scrub-every = \"\(seconds / 3600)h\"") }
        if let limit = options.scrubLimit { lines.append("scrub-limit = \"\(limit >> 10)K\"") }
        if let locks = options.lockMemory { lines.append("lock-memory = \(locks)") }
        if let threads = options.threads { lines.append("threads = \(threads)") }
        shuffle(&lines)
        return lines.map { $0 + "\n" }.joined()
    }

    private func quoted(_ texts: [String]) -> String {
        "[" + texts.map { quoted($0) }.joined(separator: ", ") + "]"
    }

    /// A basic string of TOML 1.0.
    private func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": quoted += "\\\""
            case "\\": quoted += "\\\\"
            case "\n": quoted += "\\n"
            case "\t": quoted += "\\t"
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}
