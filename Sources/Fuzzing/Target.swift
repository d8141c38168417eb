/// What is fuzzed: code that must survive any input, and what must hold whatever it does.
package struct Target: Sendable, CustomStringConvertible {
    package let name: String
    /// How many cheap inputs one of these takes the time of; short runs have so many times fewer.
    package let cost: Int
    /// Ends with a word for how the input ended, which is counted: a target is worth something only if its inputs
    /// reach every end. Traps and hangs are the caller's to notice.
    package let run: @Sendable (inout Input) throws(Finding) -> String

    init(_ name: String, cost: Int = 1, _ run: @escaping @Sendable (inout Input) throws(Finding) -> String) {
        self.name = name
        self.cost = cost
        self.run = run
    }

    package var description: String { name }

    package static let all: [Target] = [
        .superblock, .scan, .page, .event, .scrubLedger, .remapPage, .remaps, .assembly, .opening, .configuration,
        .control, .session,
    ]
}

/// A promise that was broken.
package struct Finding: Error, Sendable {
    package var text: String
    /// What was decoded, if that is one row of bytes.
    package var bytes: [UInt8]

    init(_ text: String, _ bytes: [UInt8] = []) {
        self.text = text
        self.bytes = bytes
    }
}

func require(
    _ condition: Bool, _ text: @autoclosure () -> String, _ bytes: @autoclosure () -> [UInt8] = []
) throws(Finding) {
    if !condition { throw Finding(text(), bytes()) }
}
