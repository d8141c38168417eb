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
///     on-event = "/usr/local/sbin/tell-me"
public struct Configuration: Sendable {
    private static let keys: Set<String> = [
        "disks", "socket", "listen", "control", "default", "degraded", "read-only", "threads", "on-event",
    ]
    private var table: [String: Value] = [:]

    private enum Value: Sendable {
        case text(String), texts([String]), flag(Bool), number(Int)
    }

    /// - Throws: `DiskError`, naming the file and the line or key.
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
        do throws(FlatTOML.Fault) {
            parsed = try FlatTOML.parse(text)
        } catch {
            throw DiskError("\(path): is no valid TOML: line \(error.line): \(error.text)")
        }
        for (key, value) in parsed.sorted(by: { $0.key < $1.key }) {
            guard Self.keys.contains(key) else {
                throw DiskError("\(path): unknown key \(key); known: \(Self.keys.sorted().joined(separator: ", "))")
            }
            switch value {
            case .text(let text): table[key] = .text(text)
            case .flag(let flag): table[key] = .flag(flag)
            case .number(let number): table[key] = .number(number)
            case .list(let values): table[key] = .texts(try Self.texts(values, "\(path): \(key)"))
            case .other: throw DiskError("\(path): \(key): has a value of the wrong kind")
            }
        }
        try checkKinds(path)
    }

    private static func texts(_ values: [FlatTOML.Value], _ place: String) throws(DiskError) -> [String] {
        var texts: [String] = []
        for value in values {
            guard case .text(let text) = value else { throw DiskError("\(place): must hold texts only") }
            texts.append(text)
        }
        return texts
    }

    private func checkKinds(_ path: String) throws(DiskError) {
        for (key, value) in table.sorted(by: { $0.key < $1.key }) {
            let fits =
                switch (key, value) {
                case ("disks", .texts), ("listen", .texts), ("listen", .text), ("socket", .text), ("control", .text),
                    ("default", .text), ("on-event", .text), ("degraded", .flag), ("read-only", .flag),
                    ("threads", .number):
                    true
                case (_, .text), (_, .texts), (_, .flag), (_, .number): false
                }
            guard fits else { throw DiskError("\(path): \(key): has a value of the wrong kind") }
        }
        if case .number(let threads) = table["threads"], !ServerOptions.threadsAllowed.contains(threads) {
            throw DiskError("\(path): threads: \(ServerOptions.threadsRefusal(threads))")
        }
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
        if case .flag(true) = table["degraded"] { options.allowDegraded = true }
        if case .flag(true) = table["read-only"] { options.isReadOnly = true }
    }
}
