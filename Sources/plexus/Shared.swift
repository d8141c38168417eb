import ArgumentParser
import Control
import Foundation
import MirrorServer

/// A number of bytes: 512, 4K, 64M, 10G, 2T; K is 1,024.
struct ByteSize: ExpressibleByArgument {
    var bytes: UInt64

    init?(argument: String) {
        let units: [Character: UInt64] = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40]
        var digits = Substring(argument)
        var factor: UInt64 = 1
        if let last = digits.last, let unit = units[Character(last.uppercased())] {
            factor = unit
            digits = digits.dropLast()
        }
        guard !digits.isEmpty, digits.allSatisfy({ $0.isASCII && $0.isNumber }), let count = UInt64(digits) else {
            return nil
        }
        let product = count.multipliedReportingOverflow(by: factor)
        guard !product.overflow, product.partialValue < 1 << 62 else { return nil }
        bytes = product.partialValue
    }

    static func text(_ bytes: UInt64) -> String {
        var value = Double(bytes)
        for unit in ["B", "KiB", "MiB", "GiB"] {
            if value < 1024 { return unit == "B" ? "\(bytes) B" : String(format: "%.1f %@", value, unit) }
            value /= 1024
        }
        return String(format: "%.1f TiB", value)
    }
}

struct ControlOptions: ParsableArguments {
    @Option(name: .customLong("control"), help: "The server's control socket.")
    var controlPath: String = ServerOptions.presentControl

    func client() throws -> ControlClient { try ControlClient(path: controlPath) }

    /// Sends one request; a refusal becomes an error on stderr.
    func perform(_ request: ControlRequest) throws -> ControlResponse {
        do {
            let response = try client().perform(request)
            if let error = response.error { throw Failure(error) }
            return response
        } catch let error as ControlError {
            throw Failure(error.description)
        }
    }

    /// The verbs that change something: perform, print what was done.
    func change(_ request: ControlRequest) throws {
        let response = try perform(request)
        print(response.message ?? "done")
    }
}

/// The arguments of a verb that does something to one plex, and no more than that.
struct ChosenPlex: ParsableArguments {
    @Argument(help: "The mirror.")
    var name: String

    @Argument(help: "Number, disk path or UUID, see plexus status.")
    var plex: String

    @OptionGroup var control: ControlOptions

    func change(_ verb: ControlRequest.Verb, _ fill: (inout ControlRequest) -> Void = { _ in }) throws {
        var request = ControlRequest(verb, mirror: name, plex: plexArgument(plex))
        fill(&request)
        try control.change(request)
    }
}

/// Ends the program with a text on stderr.
struct Failure: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}

func printError(_ text: String) { writeError("plexus: \(text)\n") }

/// Absolute, for the server has another working directory.
func absolute(_ path: String) -> String {
    var parts = path.hasPrefix("/") ? [] : FileManager.default.currentDirectoryPath.split(separator: "/")
    parts += path.split(separator: "/")
    parts.removeAll { $0 == "." }
    guard parts.contains(".."), let name = parts.last, name != ".." else { return "/" + parts.joined(separator: "/") }
    // `link/..` is where the link leads to, which is not where its name stands; the last part stays as it was named.
    let parent = URL(fileURLWithPath: "/" + parts.dropLast().joined(separator: "/")).resolvingSymlinksInPath().path
    return (parent == "/" ? "" : parent) + "/" + name
}

/// A PLEX argument: numbers and UUIDs as they are, everything else is a path.
func plexArgument(_ text: String) -> String {
    Int(text) != nil || UUID(uuidString: text) != nil ? text : absolute(text)
}

func json<Value: Encodable>(_ value: Value, pretty: Bool = true) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting =
        pretty ? [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes] : [.sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(value), as: UTF8.self)
}

/// Runs a verb's body; what goes wrong is told in one line and a chosen exit code.
func reporting(exitCode: Int32 = 1, _ body: () throws -> Void) throws {
    do {
        try body()
    } catch let error as Failure {
        printError(error.description)
        throw ExitCode(exitCode)
    } catch let error as DiskError {
        printError(error.description)
        throw ExitCode(exitCode)
    } catch let error as ControlError {
        printError(error.description)
        throw ExitCode(exitCode)
    }
}

/// What was printed goes out now, also into a pipe.
func flushOutput() { fflush(nil) }
