internal import Foundation

/// The file that `plexus serve --config` reads. What is also given on the command line, the command line decides.
///
///     disks = ["/dev/sda", "/dev/sdb"]
///     socket = "/run/plexus/nbd.sock"
///     listen = ["127.0.0.1:10809"]
///     control = "/run/plexus/control.sock"
///     default = "data"
///     degraded = false
///     read-only = false
///     threads = 1
///     lock-memory = true
///     on-event = "/usr/local/sbin/tell-me"
///     auto-rejoin = true
///     rejoin-delay = 10
///     spare-delay = 300
///     scrub-every = "30d"
///     scrub-limit = "20M"
public struct Configuration: Sendable {
    private enum Kind {
        case text, texts, textOrTexts, flag, number
    }

    private static let keys: [String: Kind] = [
        "disks": .texts, "socket": .text, "listen": .textOrTexts, "control": .text, "default": .text, "degraded": .flag,
        "read-only": .flag, "threads": .number, "on-event": .text, "auto-rejoin": .flag, "rejoin-delay": .number,
        "spare-delay": .number, "write-deadline": .number, "scrub-every": .text, "scrub-limit": .text,
        "lock-memory": .flag,
    ]
    private var table: [String: Value] = [:]

    private enum Value: Sendable {
        case text(String), texts([String]), flag(Bool), number(Int)
    }

    /// - Throws: `DiskError`, naming the file, and the line where one is wrong.
    public init(path: String) throws {
        let text: String
        do {
            text = try String(contentsOfFile: path, encoding: .utf8)
        } catch {
            throw DiskError("\(path): the configuration can't be read: \(error.localizedDescription)")
        }
        try self.init(text: text, path: path)
    }

    /// - Parameter path: for the messages.
    package init(text: String, path: String) throws {
        let parsed: [String: FlatTOML.Value]
        var lines: [String: Int] = [:]
        do throws(FlatTOML.Fault) {
            parsed = try FlatTOML.parse(text, lines: &lines)
        } catch {
            throw DiskError("\(path): line \(error.line): is no valid TOML: \(error.text)")
        }
        for (key, value) in parsed.sorted(by: { lines[$0.key] ?? 0 < lines[$1.key] ?? 0 }) {
            do throws(DiskError) {
                table[key] = try Self.judge(key, value)
            } catch {
                throw DiskError("\(path): line \(lines[key] ?? 0): \(error.description)")
            }
        }
    }

    private static func judge(_ key: String, _ value: FlatTOML.Value) throws(DiskError) -> Value {
        guard let kind = keys[key] else {
            throw DiskError("unknown key \(key); known: \(keys.keys.sorted().joined(separator: ", "))")
        }
        switch (kind, value) {
        case (.text, .text(let text)), (.textOrTexts, .text(let text)):
            if let refusal = refusal(key, text) { throw DiskError("\(key): \(refusal)") }
            return .text(text)
        case (.texts, .list(let values)), (.textOrTexts, .list(let values)): return .texts(try texts(key, values))
        case (.flag, .flag(let flag)): return .flag(flag)
        case (.number, .number(let number)):
            if let refusal = refusal(key, number) { throw DiskError("\(key): \(refusal)") }
            return .number(number)
        case (.text, _), (.texts, _), (.textOrTexts, _), (.flag, _), (.number, _):
            throw DiskError("\(key): has a value of the wrong kind")
        }
    }

    private static func texts(_ key: String, _ values: [FlatTOML.Value]) throws(DiskError) -> [String] {
        var texts: [String] = []
        for value in values {
            guard case .text(let text) = value else { throw DiskError("\(key): must hold texts only") }
            texts.append(text)
        }
        return texts
    }

    private static func refusal(_ key: String, _ number: Int) -> String? {
        if key == "threads", !ServerOptions.threadsAllowed.contains(number) {
            return ServerOptions.threadsRefusal(number)
        }
        if ["rejoin-delay", "spare-delay", "write-deadline"].contains(key),
            !ServerOptions.secondsAllowed.contains(number)
        {
            return ServerOptions.secondsRefusal(number)
        }
        return nil
    }

    private static func refusal(_ key: String, _ text: String) -> String? {
        if key == "scrub-every", ScrubPolicy.seconds(text) == nil {
            return "\(text) is no time such as 30d, 12h or 90m"
        }
        if key == "scrub-limit", ScrubPolicy.bytes(text) == nil {
            return "\(text) is no number of bytes per second such as 20M"
        }
        return nil
    }

    /// Fills in what the command line left open.
    public func complete(_ options: inout ServerOptions) {
        if options.disks.isEmpty, case .texts(let disks) = table["disks"] { options.disks = disks }
        if options.listen.isEmpty {
            if case .texts(let listen) = table["listen"] { options.listen = listen }
            if case .text(let listen) = table["listen"] { options.listen = [listen] }
        }
        if options.socket == nil, case .text(let path) = table["socket"] { options.socket = path }
        if options.control == nil, case .text(let path) = table["control"] { options.control = path }
        if options.defaultMirror == nil, case .text(let name) = table["default"] { options.defaultMirror = name }
        if options.onEvent == nil, case .text(let path) = table["on-event"] { options.onEvent = path }
        if options.threads == nil, case .number(let threads) = table["threads"] { options.threads = threads }
        if options.autoRejoin == nil, case .flag(let flag) = table["auto-rejoin"] { options.autoRejoin = flag }
        if options.rejoinSeconds == nil, case .number(let seconds) = table["rejoin-delay"] {
            options.rejoinSeconds = seconds
        }
        if options.spareSeconds == nil, case .number(let seconds) = table["spare-delay"] {
            options.spareSeconds = seconds
        }
        if options.writeDeadlineSeconds == nil, case .number(let seconds) = table["write-deadline"] {
            options.writeDeadlineSeconds = seconds
        }
        if options.scrubSeconds == nil, case .text(let text) = table["scrub-every"] {
            options.scrubSeconds = ScrubPolicy.seconds(text)
        }
        if options.scrubLimit == nil, case .text(let text) = table["scrub-limit"] {
            options.scrubLimit = ScrubPolicy.bytes(text)
        }
        if options.lockMemory == nil, case .flag(let flag) = table["lock-memory"] { options.lockMemory = flag }
        if case .flag(true) = table["degraded"] { options.allowDegraded = true }
        if case .flag(true) = table["read-only"] { options.isReadOnly = true }
    }
}
