internal import Control

extension Target {
    /// The control socket, both ways: bytes in pieces of any size, taken apart into lines, and each line decoded as
    /// server and client do.
    static let control = Target("control") { input throws(Finding) in
        let limit = input.pick([64, 300, 64 << 10])
        var buffer = LineBuffer(limitBytes: limit)
        let bytes = try input.lines()
        input.show("control lines", bytes)
        var rest = bytes[...]
        var lines: [[UInt8]] = []
        while !rest.isEmpty {
            let chunk = rest.prefix(1 + input.below(input.pick([4, 200, 70_000])))
            let held = buffer.heldBytes
            guard buffer.append(chunk) else {
                try require(held + chunk.count > limit, "closed below the limit", bytes)
                break
            }
            try require(held + chunk.count <= limit, "more is held than the limit allows", bytes)
            rest = rest.dropFirst(chunk.count)
            while let line = buffer.nextLine() { lines.append(line) }
        }
        let newline = UInt8(ascii: "\n")
        let expected = bytes.dropLast(rest.count).split(separator: newline, omittingEmptySubsequences: false)
        // After the last newline comes what may yet become a line.
        try require(lines == expected.dropLast().map(Array.init), "lines are not what was sent", bytes)
        if rest.isEmpty { try require(buffer.heldBytes == expected.last?.count, "bytes are lost", bytes) }
        var understood = 0
        for line in lines where try isUnderstood(line) { understood += 1 }
        return !rest.isEmpty ? "too long" : understood > 0 ? "understood" : "refused"
    }

    /// What is understood can be said again, and is then understood in the same way.
    private static func isUnderstood(_ line: [UInt8]) throws(Finding) -> Bool {
        let request = try? ControlRequest(line: line)
        if let request {
            guard let said = try? request.line(), let again = try? ControlRequest(line: said) else {
                throw Finding("a request was understood that can't be said", line)
            }
            try require("\(request)" == "\(again)", "a request changes when it is said again", line)
        }
        let response = try? ControlResponse(line: line)
        if let response {
            guard let said = try? response.line(), let again = try? ControlResponse(line: said) else {
                throw Finding("a response was understood that can't be said", line)
            }
            try require("\(response)" == "\(again)", "a response changes when it is said again", line)
        }
        return request != nil || response != nil
    }
}

extension Input {
    /// Lines of JSON that two honest programs might exchange, or nearly so.
    fileprivate mutating func lines() throws(Finding) -> [UInt8] {
        let isRaw = oneIn(8)
        if isRaw { return rest(atMost: 400) }
        var bytes: [UInt8] = []
        for _ in 0...below(3) {
            var line = try line()
            if oneIn(2) { mangle(&line, dictionary: Self.words) }
            bytes += line
            if !oneIn(8) { bytes.append(UInt8(ascii: "\n")) }
        }
        return bytes
    }

    private mutating func line() throws(Finding) -> [UInt8] {
        do {
            switch below(4) {
            case 0: return (0..<below(12)).flatMap { _ in Array(pick(Self.words).utf8) }
            case 1: return try response().line()
            default: return try request().line()
            }
        } catch {
            throw Finding("a message can't be encoded: \(error)")
        }
    }

    private mutating func request() -> ControlRequest {
        var request = ControlRequest(pick([.status, .break, .join, .offline, .online, .stop, .events]))
        request.version = oneIn(8) ? Int(truncatingIfNeeded: number()) : ControlRequest.currentVersion
        request.mirror = oneIn(2) ? text(atMost: 8) : nil
        request.plex = oneIn(2) ? pick(["0", "1", "-1", "255", "9223372036854775808", "/dev/sda", ""]) : nil
        request.disk = oneIn(3) ? text(atMost: 8) : nil
        request.keep = oneIn(3) ? oneIn(2) : nil
        request.force = oneIn(3) ? oneIn(2) : nil
        request.follow = oneIn(3) ? oneIn(2) : nil
        return request
    }

    private mutating func response() -> ControlResponse {
        var response = ControlResponse(isLast: oneIn(2))
        response.error = oneIn(3) ? text(atMost: 20) : nil
        response.message = oneIn(3) ? text(atMost: 20) : nil
        if oneIn(3) {
            var mirror = StatusReport.Mirror(name: text(atMost: 8), uuid: "\(uuid())", size: number(), state: "healthy")
            mirror.resync = StatusReport.Resync(
                plex: 1, done: number(), total: number(), bytesPerSecond: number(), etaSeconds: nil, paused: false,
                reason: text(atMost: 8))
            response.status = StatusReport(server: StatusReport.Server(pid: 1, version: "0"), mirrors: [mirror])
        }
        if oneIn(3) {
            response.events = [
                EventReport(
                    sequence: number(), time: "", code: "JOINED", mirror: "m", plex: below(9), offset: number(),
                    length: number(), errno: Int32(truncatingIfNeeded: number()), generation: "", epoch: number(),
                    text: text(atMost: 20))
            ]
        }
        return response
    }

    private static let words = [
        "{", "}", "[", "]", ":", ",", "\"", "\\", "\\u0000", "\\ud800", "\\ud834\\udd1e", "null", "true", "false", "0",
        "-0", "1e999", "-1", "1.5", "18446744073709551616", "\"version\":1", "\"verb\":\"status\"", "\"verb\":\"stop\"",
        "\"mirror\":\"data\"", "\"plex\":null", "\"keep\":1", "\"isLast\":true", "\"status\":{}", "\"events\":[{}]",
        "\"mirrors\":[]", "\u{0}", "\u{FEFF}", "\n", " ", "é", "𝄞", "/*", "//", "NaN", "Infinity",
        String(repeating: "[", count: 600), String(repeating: "{\"a\":", count: 600),
    ]
}
