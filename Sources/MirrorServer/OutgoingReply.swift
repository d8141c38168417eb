internal import NBDProtocol
internal import URing

/// A reply that waits to be sent. Its header is made when it is sent; what a read or a block status answers lies in a
/// buffer.
struct OutgoingReply: BitwiseCopyable {
    enum Content: BitwiseCopyable {
        case success
        case failure(NBDError, RefusalReason)
        /// As many bytes as the payload has, from this offset of the mirror.
        case data(offset: UInt64)
        case extents(count: Int, contextID: UInt32)
    }

    var cookie: UInt64
    var content: Content
    var payload: PooledBuffer?
    var isLarge = false
    /// Instead of `payload`.
    var late: LateBuffer?
    var payloadOffset = 0
    var payloadBytes = 0

    init(cookie: UInt64, _ content: Content) {
        self.cookie = cookie
        self.content = content
    }

    /// - Returns: how many bytes the header has; `ReplyEncoder.maximumReplyBytes` at most.
    func encodeHeader(structuredReplies: Bool, into bytes: inout MutableRawSpan, at position: Int) -> Int {
        switch content {
        case .success:
            ReplyEncoder.success(cookie: cookie, structuredReplies: structuredReplies, into: &bytes, at: position)
        case .failure(let error, let reason):
            ReplyEncoder.failure(
                cookie: cookie, error, reason: reason, structuredReplies: structuredReplies, into: &bytes, at: position)
        case .data(let offset):
            structuredReplies
                ? ReplyEncoder.readDataHeader(
                    cookie: cookie, offset: offset, dataBytes: UInt32(payloadBytes), done: true, into: &bytes,
                    at: position)
                : ReplyEncoder.simpleReply(cookie: cookie, error: nil, into: &bytes, at: position)
        case .extents(let count, let contextID):
            ReplyEncoder.blockStatusHeader(
                cookie: cookie, contextID: contextID, extentCount: count, into: &bytes, at: position)
        }
    }
}
