internal import Foundation

/// One line of JSON without its end, as both sides of the control socket read and write it.
extension ControlRequest {
    package init(line: [UInt8]) throws { self = try JSONDecoder().decode(Self.self, from: Data(line)) }

    package func line() throws -> [UInt8] { try [UInt8](JSONEncoder().encode(self)) }
}

extension ControlResponse {
    package init(line: [UInt8]) throws { self = try JSONDecoder().decode(Self.self, from: Data(line)) }

    package func line() throws -> [UInt8] { try [UInt8](JSONEncoder().encode(self)) }
}
