package import Glibc

public struct ControlError: Error, CustomStringConvertible {
    public var description: String
    public init(_ description: String) { self.description = description }
}

/// The client's end of the control socket.
public final class ControlClient {
    private let file: Int32
    private var pending = LineBuffer(limitBytes: .max)

    /// - Throws: `ControlError`, saying that no server listens there and how to name another socket.
    public init(path: String) throws(ControlError) {
        file = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        guard file >= 0 else { throw ControlError("no socket: \(Self.errorText)") }
        guard var address = UnixAddress(path: path) else {
            close(file)
            throw ControlError("the control socket's path is longer than 107 bytes: \(path)")
        }
        let result = unsafe address.withPointer { unsafe connect(file, $0, $1) }
        guard result == 0 else {
            let text = Self.errorText
            close(file)
            throw ControlError(
                "no server answers at \(path): \(text). Is `plexus serve` running? Another socket: --control PATH")
        }
    }

    deinit { close(file) }

    private static var errorText: String { unsafe String(cString: strerror(errno)) }

    /// Sends the request and passes each response on; ends after the last, or when `body` returns false.
    public func perform(_ request: ControlRequest, _ body: (ControlResponse) throws -> Bool) throws {
        try send(try request.line() + [UInt8(ascii: "\n")])
        while let line = try nextLine() {
            let response = try ControlResponse(line: line)
            if try !body(response) || response.isLast { return }
        }
        throw ControlError("the server closed the connection without an answer")
    }

    /// For requests with one response.
    public func perform(_ request: ControlRequest) throws -> ControlResponse {
        var last: ControlResponse?
        try perform(request) { response in
            last = response
            return true
        }
        guard let last else { throw ControlError("no answer") }
        return last
    }

    /// Blocks until the server has closed the connection.
    ///
    /// - Returns: what else it had to say.
    public func waitForEnd() -> [String] {
        var messages: [String] = []
        while let line = try? nextLine(), !line.isEmpty {
            let response = try? ControlResponse(line: line)
            if let text = response?.error ?? response?.message { messages.append(text) }
        }
        return messages
    }

    private func send(_ bytes: [UInt8]) throws {
        var rest = bytes
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes {
                unsafe Glibc.send(file, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw ControlError("the server went away: \(Self.errorText)") }
            rest.removeFirst(count)
        }
    }

    private func nextLine() throws -> [UInt8]? {
        while true {
            if let line = pending.nextLine() { return line }
            var chunk = [UInt8](repeating: 0, count: 65_536)
            let count = unsafe chunk.withUnsafeMutableBytes { unsafe recv(file, $0.baseAddress, $0.count, 0) }
            if count < 0, errno == EINTR { continue }
            guard count > 0, pending.append(chunk[..<count]) else { return nil }
        }
    }
}

/// `sockaddr_un`, filled in.
package struct UnixAddress {
    private var address = sockaddr_un()

    /// - Returns: nil if the path does not fit (107 bytes).
    package init?(path: String) {
        let bytes = Array(path.utf8)
        guard !bytes.isEmpty, bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return nil }
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { field in
            for (index, byte) in bytes.enumerated() { unsafe field[index] = byte }
        }
    }

    package mutating func withPointer<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}
