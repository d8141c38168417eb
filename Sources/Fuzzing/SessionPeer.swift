internal import Bytes
internal import MirrorCore
internal import NBDProtocol

/// The reactor's treatment of one client, without sockets and disks: what it buffers, when it reads on, how it answers.
struct SessionPeer: ~Copyable {
    private let setting: SessionSetting
    private var session: Session
    private var inbox: [UInt8] = []
    private var handshake: [UInt8] = []
    private var replies: [[UInt8]] = []
    private var inFlight: [ClientRequest] = []
    /// Payload of a refused write, to be thrown away.
    private var discarding = 0
    private var receiving: ClientRequest?
    private var received = 0
    /// Requests that are owed a reply, or got one.
    private var requests = 0
    private(set) var isClosed = false
    private var isEnding = false

    /// Requests that are carried out at once; the real server has more room.
    private static let room = 4
    /// The largest buffer that the real server has for one request.
    private static let maximumBufferBytes: UInt64 = 64 << 20

    init(_ setting: SessionSetting) {
        self.setting = setting
        session = Session(limits: setting.limits)
        session.begin(output: &handshake)
    }

    mutating func receive(_ bytes: ArraySlice<UInt8>) throws(Finding) {
        inbox += bytes
        try parse()
        while inFlight.count == Self.room, !isClosed {
            try completeOne()
            try parse()
        }
        guard !isClosed, !isEnding else { return }
        let bound = session.phase == .handshake ? setting.limits.maximumOptionBytes + 16 : ParsedRequest.headerBytes
        try require(inbox.count < bound, "\(inbox.count) bytes are held, nothing is done with them")
        let replyBound = setting.limits.maximumReplyBytes + 3 * 8192 + setting.limits.maximumOptionBytes
        try require(handshake.count < replyBound, "\(handshake.count) bytes of option replies")
    }

    private mutating func parse() throws(Finding) {
        var position = 0
        while position < inbox.count, !isClosed, !isEnding, inFlight.count < Self.room {
            let consumed = try step(position)
            guard consumed > 0 else { break }
            position += consumed
            try require(position <= inbox.count, "more is consumed than there is")
        }
        inbox.removeFirst(position)
    }

    /// - Returns: how many bytes were consumed; 0: more are needed.
    private mutating func step(_ position: Int) throws(Finding) -> Int {
        let available = inbox.count - position
        if let request = receiving {
            let taken = min(available, Int(request.payloadBytes) - received)
            received += taken
            if received == Int(request.payloadBytes) {
                receiving = nil
                inFlight.append(request)
            }
            return taken
        }
        if discarding > 0 {
            let taken = min(available, discarding)
            discarding -= taken
            return taken
        }
        let bytes = inbox
        let rest = unsafe bytes.span.bytes.extracting(droppingFirst: position)
        switch session.phase {
        case .handshake:
            let consumed = session.handshake(
                rest, catalog: setting.catalog, shuttingDown: setting.isShuttingDown, output: &handshake)
            if session.phase == .closing { isEnding = true }
            return consumed
        case .transmission: return try take(session.parse(rest))
        case .closing: return available
        }
    }

    private mutating func take(_ parsed: ParsedRequest) throws(Finding) -> Int {
        switch parsed {
        case .incomplete: return 0
        case .badMagic, .oversizedWrite:
            isClosed = true
            return 1
        case .disconnect:
            isEnding = true
            return ParsedRequest.headerBytes
        case .refused(let refused):
            requests += 1
            discarding = Int(refused.payloadBytes)
            try reply(refused.cookie) { span, isStructured in
                ReplyEncoder.failure(
                    cookie: refused.cookie, refused.error, reason: refused.reason, structuredReplies: isStructured,
                    into: &span, at: 0)
            }
        case .request(let request):
            requests += 1
            try check(request)
            received = 0
            if request.payloadBytes > 0 { receiving = request } else { inFlight.append(request) }
        }
        return ParsedRequest.headerBytes
    }

    /// What the engine relies on.
    private func check(_ request: ClientRequest) throws(Finding) {
        guard let export = session.export else { throw Finding("a request without an export") }
        let (end, overflows) = request.offset.addingReportingOverflow(UInt64(request.length))
        try require(!overflows && end <= export.sizeBytes, "a request beyond the end: \(request)")
        let kind: RequestKind
        switch request.command {
        case .read, .cache: kind = .read
        case .write: kind = .write
        case .flush: kind = .flush
        case .trim: kind = .trim
        case .writeZeroes: kind = .zeroes
        case .blockStatus: kind = .allocation
        }
        let changes = kind == .write || kind == .trim || kind == .zeroes
        try require(!changes || !export.isReadOnly, "a change of a read-only export: \(request)")
        try require(request.payloadBytes == (kind == .write ? request.length : 0), "a wrong payload: \(request)")
        if request.command == .blockStatus {
            try require(request.length > 0 && session.allocationContextID != nil, "not negotiated: \(request)")
        }
        guard request.command != .cache else { return }
        let plan = BufferPlan(kind, offset: request.offset, length: UInt64(request.length))
        try require(plan.bufferBytes <= Self.maximumBufferBytes, "a buffer of \(plan.bufferBytes) bytes")
    }

    /// The oldest or the newest, as the request has it: the order must not matter.
    private mutating func completeOne() throws(Finding) {
        guard let request = inFlight.popLast() else { return }
        let failures: [(NBDError, RefusalReason)] = [
            (.eio, .ioError), (.enospc, .noSpace), (.eshutdown, .shuttingDown),
        ]
        if request.cookie % 8 < UInt64(failures.count), request.command != .cache {
            let (error, reason) = failures[Int(request.cookie % 8)]
            try reply(request.cookie) { span, isStructured in
                ReplyEncoder.failure(
                    cookie: request.cookie, error, reason: reason, structuredReplies: isStructured, into: &span, at: 0)
            }
        } else if request.command == .blockStatus {
            try replyExtents(request)
        } else if request.command == .read, request.length > 0 {
            try reply(request.cookie, payload: request) { span, isStructured in
                isStructured
                    ? ReplyEncoder.readDataHeader(
                        cookie: request.cookie, offset: request.offset, dataBytes: request.length, done: true,
                        into: &span, at: 0)
                    : ReplyEncoder.simpleReply(cookie: request.cookie, error: nil, into: &span, at: 0)
            }
        } else {
            try reply(request.cookie) { span, isStructured in
                ReplyEncoder.success(cookie: request.cookie, structuredReplies: isStructured, into: &span, at: 0)
            }
        }
    }

    private mutating func replyExtents(_ request: ClientRequest) throws(Finding) {
        // Any allocation will do, as long as the request alone decides about it.
        var state = request.cookie ^ request.offset
        let allocation = (0..<Int(state % 9)).map { _ in
            state = state &* 0x5851_F42D_4C95_7F2D &+ 1
            let isEmpty = state >> 40 & 15 == 0
            return AllocationExtent(lengthBytes: isEmpty ? 0 : state >> (state >> 58), flags: UInt32(state >> 33 & 3))
        }
        var extents: [Extent] = []
        BlockStatus.reduce(
            allocation.span, requestBytes: request.length, reqOne: request.flags.contains(.reqOne),
            maximumExtents: setting.limits.maximumExtents, into: &extents)
        let total = extents.reduce(0 as UInt64) { $0 + UInt64($1.lengthBytes) }
        try require(total > 0 && total <= UInt64(request.length), "\(total) bytes of extents for \(request)")
        try require(extents.count <= (request.flags.contains(.reqOne) ? 1 : setting.limits.maximumExtents), "too many")
        let context = session.allocationContextID ?? 0
        try reply(request.cookie, extents: extents) { span, _ in
            ReplyEncoder.blockStatusHeader(
                cookie: request.cookie, contextID: context, extentCount: extents.count, into: &span, at: 0)
        }
    }

    /// Encodes into the 128 bytes that the server has for a header, and reads that as a client would.
    private mutating func reply(
        _ cookie: UInt64, payload: ClientRequest? = nil, extents: [Extent] = [],
        _ encode: (inout MutableRawSpan, _ isStructured: Bool) -> Int
    ) throws(Finding) {
        var header = [UInt8](repeating: 0xEE, count: 128)
        var count = 0
        do {
            var span = header.mutableSpan
            var raw = unsafe span.mutableBytes
            count = encode(&raw, session.structuredReplies)
        }
        var bytes = Array(header[..<count])
        for extent in extents { bytes += bigEndian(extent.lengthBytes) + bigEndian(extent.flags) }
        let reader = ReplyReader(bytes: bytes, payloadBytes: payload.map { Int($0.length) } ?? 0)
        try reader.check(
            cookie: cookie, isStructured: session.structuredReplies, request: payload, extents: extents.count)
        replies.append(bytes)
    }

    /// Everything is answered, or the connection is gone.
    mutating func summary() throws(Finding) -> SessionSummary {
        while !inFlight.isEmpty, !isClosed {
            try completeOne()
            try parse()
        }
        let isOpen = !isClosed && !isEnding
        let owed = receiving == nil || isClosed ? requests : requests - 1
        if !isClosed { try require(replies.count == owed, "\(replies.count) replies to \(owed) requests") }
        try ReplyReader.check(handshake: handshake, phase: session.phase)
        try require(
            (session.phase == .transmission) == (session.export != nil), "a session in transmission without an export")
        let word: String
        switch session.phase {
        case .handshake: word = "handshake"
        case .closing: word = "closing"
        case .transmission: word = isClosed ? "cut off" : isEnding ? "disconnected" : "transmission"
        }
        let sorted = replies.sorted { $0.lexicographicallyPrecedes($1) }
        return SessionSummary(handshake: handshake, replies: sorted, isOpen: isOpen, word: word)
    }
}
