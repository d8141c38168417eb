import Control
import Foundation
import Glibc
import TestSupport
import Testing

/// Listens at `path`; a client is handed to `answer` on a thread of its own.
private func withServer(
    _ path: String, _ answer: @escaping @Sendable (Int32) -> Void, _ body: () throws -> Void
) throws {
    var address = try #require(UnixAddress(path: path))
    let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    try #require(listener >= 0)
    let isListening = unsafe address.withPointer { unsafe bind(listener, $0, $1) } == 0 && listen(listener, 4) == 0
    guard isListening else {
        close(listener)
        throw Missing("a socket at \(path)")
    }
    let ended = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
        let client = accept(listener, nil, nil)
        if client >= 0 {
            answer(client)
            close(client)
        }
        ended.signal()
    }
    defer {
        shutdown(listener, Int32(SHUT_RDWR))
        ended.wait()
        close(listener)
    }
    try body()
}

/// What the client sends, up to the end of the line.
private func readLine(_ file: Int32) -> String {
    var line: [UInt8] = []
    var byte: UInt8 = 0
    while unsafe recv(file, &byte, 1, 0) == 1, byte != UInt8(ascii: "\n") { line.append(byte) }
    return String(decoding: line, as: UTF8.self)
}

private func write(_ text: String, to file: Int32) {
    let bytes = Array(text.utf8)
    _ = unsafe Glibc.send(file, bytes, bytes.count, Int32(MSG_NOSIGNAL))
}

private let last = #"{"version":1,"isLast":true,"message":"done"}"#

@Suite struct ControlClientTests {
    @Test func answerThatArrivesInPiecesIsOneAnswer() throws {
        try withTemporaryDirectory { directory in
            let path = "\(directory)/control"
            try withServer(
                path,
                { file in
                    _ = readLine(file)
                    for character in last { write(String(character), to: file) }
                    write("\n", to: file)
                },
                {
                    let response = try ControlClient(path: path).perform(ControlRequest(.stop, mirror: "data"))
                    #expect(response.message == "done" && response.error == nil)
                })
        }
    }

    @Test func serverGetsOneLineOfJSON() throws {
        try withTemporaryDirectory { directory in
            let path = "\(directory)/control"
            try withServer(
                path,
                { file in
                    let line = readLine(file)
                    let request = try? JSONDecoder().decode(ControlRequest.self, from: Data(line.utf8))
                    let isRight = request?.verb == .break && request?.mirror == "data" && request?.plex == "1"
                    write(isRight ? last + "\n" : "{\"version\":1,\"isLast\":true,\"error\":\"wrong\"}\n", to: file)
                },
                {
                    let response = try ControlClient(path: path).perform(
                        ControlRequest(.break, mirror: "data", plex: "1"))
                    #expect(response.error == nil)
                })
        }
    }

    @Test func responsesAreHandedOnUntilTheLast() throws {
        try withTemporaryDirectory { directory in
            let path = "\(directory)/control"
            try withServer(
                path,
                { file in
                    _ = readLine(file)
                    let more = #"{"version":1,"isLast":false,"message":"MESSAGE"}"#
                    let lines = ["1", "2", "3"].map { more.replacingOccurrences(of: "MESSAGE", with: $0) }
                    write((lines + [last]).joined(separator: "\n") + "\n", to: file)
                },
                {
                    var messages: [String] = []
                    try ControlClient(path: path).perform(ControlRequest(.events)) { response in
                        messages.append(response.message ?? "")
                        return true
                    }
                    #expect(messages == ["1", "2", "3", "done"])
                })
        }
    }

    @Test func callerMayStopListening() throws {
        try withTemporaryDirectory { directory in
            let path = "\(directory)/control"
            try withServer(
                path,
                { file in
                    _ = readLine(file)
                    write(#"{"version":1,"isLast":false}"# + "\n", to: file)
                    _ = readLine(file)  // Until the client leaves.
                },
                {
                    var count = 0
                    try ControlClient(path: path).perform(ControlRequest(.events)) { _ in
                        count += 1
                        return false
                    }
                    #expect(count == 1)
                })
        }
    }

    @Test(arguments: ["", #"{"version":1,"isL"#])
    func serverThatLeavesWithoutAnAnswerIsAnError(text: String) throws {
        try withTemporaryDirectory { directory in
            let path = "\(directory)/control"
            try withServer(
                path,
                { file in
                    _ = readLine(file)
                    write(text, to: file)
                },
                {
                    let client = try ControlClient(path: path)
                    #expect(throws: ControlError.self) { try client.perform(ControlRequest(.status)) }
                })
        }
    }

    @Test func waitForEndReturnsWhenTheServerCloses() throws {
        try withTemporaryDirectory { directory in
            let path = "\(directory)/control"
            try withServer(
                path,
                { file in
                    _ = readLine(file)
                    write(last + "\n", to: file)
                },
                {
                    let client = try ControlClient(path: path)
                    _ = try client.perform(ControlRequest(.stop))
                    _ = client.waitForEnd()
                })
        }
    }

    @Test func absentServerIsNamedWithTheWayOut() throws {
        try withTemporaryDirectory { directory in
            let path = "\(directory)/control"
            let error = try #require(throws: ControlError.self) { _ = try ControlClient(path: path) }
            #expect(error.description.contains(path) && error.description.contains("--control PATH"))
        }
    }

    @Test func pathThatDoesNotFitASocketAddressIsRefused() {
        let error = #expect(throws: ControlError.self) {
            _ = try ControlClient(path: "/" + String(repeating: "x", count: 107))
        }
        #expect(error?.description.contains("107") == true)
    }

    @Test(arguments: [(0, false), (1, true), (107, true), (108, false), (5000, false)])
    func addressTakesUpTo107Bytes(count: Int, fits: Bool) {
        #expect((UnixAddress(path: String(repeating: "x", count: count)) != nil) == fits)
    }
}
