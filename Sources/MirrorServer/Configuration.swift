internal import Foundation
internal import TOMLKit

/// The file that `plexus serve --config` reads. What is also given on the command line, the command line decides.
///
///     disks = ["/dev/sda", "/dev/sdb"]
///     socket = "/run/plexus/nbd.sock"
///     listen = ["127.0.0.1:10809"]
///     control = "/run/plexus/control.sock"
///     default = "data"
///     degraded = false
///     read-only = false
public struct Configuration: Sendable {
    private static let keys: Set<String> = ["disks", "socket", "listen", "control", "default", "degraded", "read-only"]
    private var table: [String: Value] = [:]

    private enum Value: Sendable {
        case text(String), texts([String]), flag(Bool)
    }

    /// - Throws: `DiskError`, naming the file and the line or key.
    public init(path: String) throws {
        let text: String
        do {
            text = try String(contentsOfFile: path, encoding: .utf8)
        } catch {
            throw DiskError("\(path): the configuration can't be read: \(error.localizedDescription)")
        }
        let parsed: TOMLTable
        do {
            parsed = try TOMLTable(string: text)
        } catch {
            throw DiskError("\(path): is no valid TOML: \(error)")
        }
        for key in parsed.keys.sorted() {
            guard Self.keys.contains(key) else {
                throw DiskError("\(path): unknown key \(key); known: \(Self.keys.sorted().joined(separator: ", "))")
            }
            if let value = parsed[key]?.string {
                table[key] = .text(value)
            } else if let value = parsed[key]?.bool {
                table[key] = .flag(value)
            } else if let values = parsed[key]?.array {
                table[key] = .texts(
                    try values.map { value in
                        guard let text = value.string else { throw DiskError("\(path): \(key): must hold texts only") }
                        return text
                    })
            } else {
                throw DiskError("\(path): \(key): has a value of the wrong kind")
            }
        }
        try checkKinds(path)
    }

    private func checkKinds(_ path: String) throws(DiskError) {
        for (key, value) in table.sorted(by: { $0.key < $1.key }) {
            let fits =
                switch (key, value) {
                case ("disks", .texts), ("listen", .texts), ("listen", .text), ("socket", .text), ("control", .text),
                    ("default", .text), ("degraded", .flag), ("read-only", .flag):
                    true
                case (_, .text), (_, .texts), (_, .flag): false
                }
            guard fits else { throw DiskError("\(path): \(key): has a value of the wrong kind") }
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
        if case .flag(true) = table["degraded"] { options.allowDegraded = true }
        if case .flag(true) = table["read-only"] { options.isReadOnly = true }
    }
}
