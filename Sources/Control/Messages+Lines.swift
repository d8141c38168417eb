internal import Foundation

/// One line of JSON without its end, as both sides of the control socket read and write it.
extension ControlRequest {
    package init(line: [UInt8]) throws { self = try decode(line) }

    package func line() throws -> [UInt8] { try [UInt8](JSONEncoder().encode(self)) }
}

extension ControlResponse {
    package init(line: [UInt8]) throws { self = try decode(line) }

    package func line() throws -> [UInt8] { try [UInt8](JSONEncoder().encode(self)) }
}

/// No message has as many levels by far. Foundation's scanner ends the process where there are more than 512.
private let maximumNesting = 32

private struct TooDeep: Error, CustomStringConvertible {
    var description: String { "more than \(maximumNesting) levels of arrays and objects" }
}

private func decode<Message: Decodable>(_ line: [UInt8]) throws -> Message {
    guard nesting(of: line) <= maximumNesting else { throw TooDeep() }
    return try JSONDecoder().decode(Message.self, from: Data(line))
}

/// The most brackets that are open at once outside of texts.
private func nesting(of line: [UInt8]) -> Int {
    var depth = 0
    var deepest = 0
    var isText = false
    var isEscaped = false
    for byte in line {
        if isText {
            if isEscaped {
                isEscaped = false
            } else if byte == UInt8(ascii: "\\") {
                isEscaped = true
            } else if byte == UInt8(ascii: "\"") {
                isText = false
            }
            continue
        }
        switch byte {
        case UInt8(ascii: "\""): isText = true
        case UInt8(ascii: "["), UInt8(ascii: "{"):
            depth += 1
            deepest = max(deepest, depth)
        case UInt8(ascii: "]"), UInt8(ascii: "}"): depth -= 1
        default: break
        }
    }
    return deepest
}
