import Foundation

/// This program once more, as a process of its own that outlives this one.
struct Child {
    private let process = Process()
    private let output = Pipe()
    private let errors = Pipe()

    /// - Throws: `Failure`.
    init(arguments: [String], environment: [String: String]) throws {
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe")
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = errors
        do {
            try process.run()
        } catch {
            throw Failure("can't start a process: \(error)")
        }
    }

    var pid: Int32 { process.processIdentifier }

    /// What it says first; nil if it ended without, and then what it complained of.
    func firstLine() -> (line: String?, complaints: String) {
        var bytes = Data()
        while let byte = try? output.fileHandleForReading.read(upToCount: 1), !byte.isEmpty {
            if byte.elementsEqual([UInt8(ascii: "\n")]) { return (String(decoding: bytes, as: UTF8.self), "") }
            bytes += byte
        }
        let complaints = (try? errors.fileHandleForReading.readToEnd()) ?? Data()
        return (nil, String(decoding: complaints, as: UTF8.self))
    }

    func exitCode() -> Int32 {
        process.waitUntilExit()
        return process.terminationReason == .exit ? process.terminationStatus : 1
    }
}
