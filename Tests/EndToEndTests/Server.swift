import Control
import Foundation
import TestSupport

/// The `plexus` that was built with the tests: it lies beside the test bundle.
enum Plexus {
    static var path: String {
        get throws {
            let bundle = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
            let path = URL(fileURLWithPath: bundle).deletingLastPathComponent().appendingPathComponent("plexus").path
            guard FileManager.default.isExecutableFile(atPath: path) else { throw Missing("plexus beside \(bundle)") }
            return path
        }
    }

    /// Runs a verb to its end.
    ///
    /// - Throws: `Missing` with what it printed, if its exit code is another.
    static func run(_ arguments: [String], in directory: String, code: Int32 = 0) throws {
        let log = "\(directory)/\(arguments.first ?? "").log"
        let process = try ChildProcess(path, arguments, output: log, errors: log)
        let end = try process.wait()
        guard end == .exit(code) else {
            throw Missing("exit code \(code) of \(arguments), got \(end): \(text(log))")
        }
    }

    static func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
}

/// One `plexus serve` that runs, and the verbs that talk to it.
final class Server {
    let name: String
    let socket: String
    let control: String
    let process: ChildProcess
    private let output: String
    private let errors: String

    /// Returns once it has printed the URI of its mirror.
    fileprivate init(_ directory: String, _ disks: [String], name: String, _ arguments: [String]) throws {
        self.name = name
        socket = "\(directory)/nbd.sock"
        control = "\(directory)/control.sock"
        output = "\(directory)/serve-\(UUID().uuidString).out"
        errors = "\(directory)/serve.log"
        process = try ChildProcess(
            Plexus.path, ["serve"] + disks + ["--socket", socket, "--control", control] + arguments, output: output,
            errors: errors)
    }

    fileprivate func waitUntilReady() throws {
        let line = try waitUntil("the server's ready line") {
            if let end = process.poll() { throw Missing("a server that runs, it ended with \(end)") }
            let text = Plexus.text(output)
            return text.hasSuffix("\n") ? text : nil
        }
        guard line == "\(name): \(uri)\n" else { throw Missing("the ready line, got \(line)") }
    }

    var uri: String { "nbd+unix:///\(name)?socket=\(socket)" }

    /// What to add to a failure.
    fileprivate var log: String { "server's log:\n\(Plexus.text(errors))" }

    @discardableResult
    func perform(_ request: ControlRequest) throws -> ControlResponse {
        let response = try ControlClient(path: control).perform(request)
        if let error = response.error { throw ControlError(error) }
        return response
    }

    func status() throws -> StatusReport.Mirror {
        guard let mirror = try perform(ControlRequest(.status, mirror: name)).status?.mirrors.first else {
            throw Missing("the status of \(name)")
        }
        return mirror
    }

    /// Nil while the mirror does not know the disk.
    func plex(on disk: String) throws -> StatusReport.Plex? { try status().plexes.first { $0.disk == disk } }

    func eventCodes() throws -> [String] {
        try perform(ControlRequest(.events, mirror: name)).events?.map(\.code) ?? []
    }

    func wait(for state: String) throws {
        _ = try waitUntil("\(name) to be \(state), is \((try? status().state) ?? "unknown")") {
            try status().state == state ? true : nil
        }
    }

    func waitInSync(_ disk: String) throws {
        _ = try waitUntil("\(disk) to be in sync") { try plex(on: disk)?.state == "in-sync" ? true : nil }
    }

    /// Flush, mark clean, leave.
    func stop() throws {
        try perform(ControlRequest(.stop))
        let end = try process.wait()
        guard end == .exit(0) else { throw Missing("a clean end, got \(end)") }
    }

    func kill() throws {
        process.send(SIGKILL)
        _ = try process.wait()
    }
}

/// Serves the disks while `body` runs; the process ends with it.
func withServer<Value>(
    _ directory: String, _ disks: [String], name: String = "data", _ arguments: [String] = [],
    _ body: (Server) throws -> Value
) throws -> Value {
    let server = try Server(directory, disks, name: name, arguments)
    defer { server.process.end() }
    do {
        try server.waitUntilReady()
        return try body(server)
    } catch {
        throw Missing("what was expected: \(error)\n\(server.log)")
    }
}

/// A new mirror in `directory`; new files are equal, so it is healthy from the start.
func createMirror(_ directory: String, name: String = "data", bytes: Int, disks: [String] = ["a.img", "b.img"]) throws
    -> [String]
{
    let paths = disks.map { "\(directory)/\($0)" }
    try Plexus.run(["create", name] + paths + ["--size", "\(bytes)", "--region", "64K"], in: directory)
    return paths
}

/// The first bytes of a file: on a plex, the data.
func contents(of path: String, count: Int) throws -> [UInt8] {
    let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
    defer { try? file.close() }
    let bytes = [UInt8](try file.read(upToCount: count) ?? Data())
    guard bytes.count == count else { throw Missing("\(count) bytes of \(path)") }
    return bytes
}

/// Where the two differ first; nil if they are equal.
func firstDifference(_ left: [UInt8], _ right: [UInt8]) -> Int? {
    guard left.count == right.count else { return min(left.count, right.count) }
    if unsafe memcmp(left, right, left.count) == 0 { return nil }
    return left.indices.first { left[$0] != right[$0] }
}
