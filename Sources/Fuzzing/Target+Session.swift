internal import NBDProtocol

extension Target {
    /// One NBD client from its first byte to its last, and all that the server does for it. The same bytes are sent
    /// twice, at once and in pieces, which must not make a difference.
    static let session = Target("session", cost: 4) { input throws(Finding) in
        var setting = SessionSetting()
        setting.limits = input.sessionLimits()
        setting.isShuttingDown = input.oneIn(12)
        let bytes = input.conversation()
        input.show("bytes of an NBD client", bytes)
        do throws(Finding) {
            let atOnce = try talk(bytes, setting) { $0 }
            let inPieces = try talk(bytes, setting) { rest in min(rest, 1 + input.below(input.pick([4, 40, 5000]))) }
            try require(atOnce.handshake == inPieces.handshake, "the handshake depends on how bytes arrive")
            try require(atOnce.isOpen == inPieces.isOpen, "the end depends on how bytes arrive")
            // A connection that is cut off takes its replies along; one that goes on owes all of them.
            if atOnce.isOpen {
                try require(atOnce.replies == inPieces.replies, "the replies depend on how bytes arrive")
            }
            return atOnce.word
        } catch {
            throw Finding(error.text, bytes)
        }
    }

    /// - Parameter chunk: from the number of bytes left to the number to send.
    private static func talk(
        _ bytes: [UInt8], _ setting: SessionSetting, _ chunk: (Int) -> Int
    ) throws(Finding) -> SessionSummary {
        var peer = SessionPeer(setting)
        var rest = bytes[...]
        while !rest.isEmpty, !peer.isClosed {
            let piece = rest.prefix(chunk(rest.count))
            rest = rest.dropFirst(piece.count)
            try peer.receive(piece)
        }
        return try peer.summary()
    }
}

/// What a session runs with.
struct SessionSetting {
    var limits = SessionLimits()
    var isShuttingDown = false
    let catalog = ExportCatalog(
        exports: [
            SessionSetting.export("disk", summary: "a mirror", isReadOnly: false),
            SessionSetting.export("frozen", summary: "", isReadOnly: true),
            SessionSetting.export(String(repeating: "é", count: 2048), summary: "long", isReadOnly: false),
        ], defaultName: "disk")

    private static func export(_ name: String, summary: String, isReadOnly: Bool) -> ExportDescription {
        ExportDescription(
            name: name, summary: summary, sizeBytes: 1 << 40, isReadOnly: isReadOnly, canFastZero: !isReadOnly,
            isRotational: false)
    }
}

/// What came of a session, in a form that does not depend on the order of the replies.
struct SessionSummary: Equatable {
    var handshake: [UInt8]
    var replies: [[UInt8]]
    var isOpen: Bool
    var word: String
}

extension Input {
    fileprivate mutating func sessionLimits() -> SessionLimits {
        var limits = SessionLimits()
        if oneIn(2) {
            limits.maximumOptionBytes = 300
            limits.maximumSkippedBytes = 1000
            limits.maximumOptions = 12
            limits.maximumQueries = 8
            limits.maximumReplyBytes = 4000
            limits.maximumExtents = 4
        }
        return limits
    }

    /// All that one client sends: mostly right, so that it gets far, and then mangled.
    fileprivate mutating func conversation() -> [UInt8] {
        if oneIn(16) { return rest(atMost: 600) }
        var bytes: [UInt8] = [0, 0, 0, oneIn(12) ? byte() : UInt8(below(4))]
        for _ in 0..<below(5) { bytes += option() }
        if !oneIn(6) {
            if oneIn(2) { bytes += option(8, []) }
            if oneIn(2) { bytes += option(10, contextData("disk", ["base:allocation"])) }
            let name = pick(["disk", "disk", "", "frozen", "nothing"])
            bytes += oneIn(4) ? option(1, Array(name.utf8)) : option(7, goData(name))
            for _ in 0..<below(12) { bytes += request() }
        }
        if oneIn(3) {
            mangle(&bytes, dictionary: ["IHAVEOPT", "disk", "base:allocation", "\u{25}\u{60}", "\u{0}\u{0}\u{0}"])
        }
        return bytes
    }

    private mutating func option() -> [UInt8] {
        let name = pick(["disk", "", "frozen", "nothing", "a\u{0}b"])
        let code = UInt32(1 + below(13))
        switch below(6) {
        case 0: return option(oneIn(4) ? UInt32(take(4)) : code, [])
        case 1: return option(6 + UInt32(below(2)), goData(name))
        case 2:
            let queries = (0..<below(10)).map { _ in pick(["base:", "base:allocation", "x:y", ""]) }
            return option(9 + UInt32(below(2)), contextData(name, queries))
        case 3: return option(code, bytes(below(400)))
        case 4: return option(code, [UInt8](repeating: byte(), count: below(1200)))
        default: return option(code, Array(name.utf8))
        }
    }

    /// The length is nearly always right.
    private mutating func option(_ code: UInt32, _ data: [UInt8]) -> [UInt8] {
        var length = UInt32(data.count)
        if oneIn(40) { length = pick([length &+ 1, length &- 1, .max, 1 << 20, 1 << 16, UInt32(take(2))]) }
        return Array("IHAVEOPT".utf8) + bigEndian(code) + bigEndian(length) + data
    }

    private mutating func goData(_ name: String) -> [UInt8] {
        let types = (0..<below(5)).map { _ in UInt16(below(6)) }
        return counted(name) + bigEndian(UInt16(types.count)) + types.flatMap { bigEndian($0) }
    }

    private func contextData(_ name: String, _ queries: [String]) -> [UInt8] {
        counted(name) + bigEndian(UInt32(queries.count)) + queries.flatMap { counted($0) }
    }

    private func counted(_ text: String) -> [UInt8] { bigEndian(UInt32(text.utf8.count)) + Array(text.utf8) }

    private mutating func request() -> [UInt8] {
        let command = oneIn(12) ? UInt16(take(2)) : pick([0, 0, 1, 1, 3, 4, 5, 6, 7, 7, 8, 2])
        let flags = oneIn(3) ? UInt16(below(64)) : 0
        let isWrite = command == 1
        let offset = oneIn(4) ? number() : UInt64(take(4))
        let length = isWrite ? UInt32(below(100)) : oneIn(4) ? UInt32(truncatingIfNeeded: number()) : UInt32(take(2))
        return bigEndian(0x2560_9513 as UInt32) + bigEndian(flags) + bigEndian(command) + bigEndian(take(8))
            + bigEndian(offset) + bigEndian(length) + (isWrite ? bytes(Int(length)) : [])
    }
}

func bigEndian<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    (0..<Value.bitWidth / 8).reversed().map { UInt8(truncatingIfNeeded: value >> Value(8 * $0)) }
}
