internal import Bytes

/// Replies of the transmission phase. Each function writes at `offset`, returns the number of bytes written, and
/// neither allocates nor touches anything else; there must be room, or the program stops (see the constants).
///
/// Simple reply:
///
///     offset  bytes
///     0       4      magic 0x67446698
///     4       4      error, 0 = success
///     8       8      cookie
///     16             the data of a successful READ
///
/// Chunk of a structured reply:
///
///     offset  bytes
///     0       4      magic 0x668e33ef
///     4       2      flags, bit 0 = DONE, the last chunk of the reply
///     6       2      type
///     8       8      cookie
///     16      4      bytes of payload
///     20             payload
///
/// Without structured replies every reply is simple. With them READ must be answered in chunks, errors too; this
/// server answers everything in chunks then, so that every error carries its reason.
package enum ReplyEncoder {
    package static let simpleReplyBytes = 16
    package static let chunkHeaderBytes = 20
    /// Chunk header and offset; the data follows from the caller's buffer.
    package static let readDataHeaderBytes = 28
    package static let readHoleBytes = 32
    package static let noneBytes = 20
    /// Longest `RefusalReason.text`; asserted by a test.
    package static let maximumTextBytes = 96
    /// Chunk header, error number, length of the text, text.
    package static let maximumErrorBytes = 20 + 6 + maximumTextBytes
    /// Chunk header and context id; the extents follow.
    package static let blockStatusHeaderBytes = 24
    package static let extentBytes = 8
    /// Room that is enough for every reply but the data of READ and the extents of BLOCK_STATUS.
    package static let maximumReplyBytes = maximumErrorBytes

    private static let done: UInt16 = 1

    /// - Parameter error: nil for success.
    package static func simpleReply(
        cookie: UInt64, error: NBDError?, into bytes: inout MutableRawSpan, at offset: Int
    ) -> Int {
        bytes.storeBigEndian(Magic.simpleReply, at: offset)
        bytes.storeBigEndian(error?.rawValue ?? 0, at: offset + 4)
        bytes.storeBigEndian(cookie, at: offset + 8)
        return simpleReplyBytes
    }

    /// Header of an OFFSET_DATA chunk.
    ///
    ///     20      8      offset in the export
    ///     28             data
    ///
    /// - Parameter dataBytes: not 0 (the protocol has no empty data chunk): a READ of length 0 is answered with `none`.
    package static func readDataHeader(
        cookie: UInt64, offset exportOffset: UInt64, dataBytes: UInt32, done: Bool, into bytes: inout MutableRawSpan,
        at offset: Int
    ) -> Int {
        precondition(dataBytes > 0 && dataBytes <= UInt32.max - 8)
        chunkHeader(.offsetData, cookie: cookie, payloadBytes: 8 + dataBytes, done: done, into: &bytes, at: offset)
        bytes.storeBigEndian(exportOffset, at: offset + 20)
        return readDataHeaderBytes
    }

    /// An OFFSET_HOLE chunk: a range of zeroes inside the answer to a READ without DF.
    ///
    ///     20      8      offset in the export
    ///     28      4      length, not 0
    package static func readHole(
        cookie: UInt64, offset exportOffset: UInt64, length: UInt32, done: Bool, into bytes: inout MutableRawSpan,
        at offset: Int
    ) -> Int {
        precondition(length > 0)
        chunkHeader(.offsetHole, cookie: cookie, payloadBytes: 12, done: done, into: &bytes, at: offset)
        bytes.storeBigEndian(exportOffset, at: offset + 20)
        bytes.storeBigEndian(length, at: offset + 28)
        return readHoleBytes
    }

    /// A NONE chunk with DONE: success without content, or the end of a reply whose chunks were sent without DONE.
    package static func none(cookie: UInt64, into bytes: inout MutableRawSpan, at offset: Int) -> Int {
        chunkHeader(.none, cookie: cookie, payloadBytes: 0, done: true, into: &bytes, at: offset)
        return noneBytes
    }

    /// An ERROR chunk with DONE.
    ///
    ///     20      4      error
    ///     24      2      bytes of text
    ///     26             text, UTF-8
    package static func error(
        cookie: UInt64, _ error: NBDError, reason: RefusalReason, into bytes: inout MutableRawSpan, at offset: Int
    ) -> Int {
        let textBytes = bytes.storeText(reason.text, at: offset + 26)
        chunkHeader(
            .error, cookie: cookie, payloadBytes: 6 + UInt32(textBytes), done: true, into: &bytes, at: offset)
        bytes.storeBigEndian(error.rawValue, at: offset + 20)
        bytes.storeBigEndian(UInt16(textBytes), at: offset + 24)
        return 26 + textBytes
    }

    /// Header of a BLOCK_STATUS chunk with DONE, for there is only one context; `extentCount` extents must follow.
    ///
    ///     20      4      context id
    ///     24             extents
    package static func blockStatusHeader(
        cookie: UInt64, contextID: UInt32, extentCount: Int, into bytes: inout MutableRawSpan, at offset: Int
    ) -> Int {
        precondition(extentCount > 0 && extentCount <= 1 << 20)
        chunkHeader(
            .blockStatus, cookie: cookie, payloadBytes: 4 + 8 * UInt32(extentCount), done: true, into: &bytes,
            at: offset)
        bytes.storeBigEndian(contextID, at: offset + 20)
        return blockStatusHeaderBytes
    }

    /// One extent of a BLOCK_STATUS chunk.
    ///
    ///     0       4      length, not 0
    ///     4       4      flags
    package static func extent(_ extent: Extent, into bytes: inout MutableRawSpan, at offset: Int) -> Int {
        precondition(extent.lengthBytes > 0)
        bytes.storeBigEndian(extent.lengthBytes, at: offset)
        bytes.storeBigEndian(extent.flags, at: offset + 4)
        return extentBytes
    }

    /// Success of a command without content, in the form the session calls for. Also for a READ of length 0.
    package static func success(
        cookie: UInt64, structuredReplies: Bool, into bytes: inout MutableRawSpan, at offset: Int
    ) -> Int {
        structuredReplies
            ? none(cookie: cookie, into: &bytes, at: offset)
            : simpleReply(cookie: cookie, error: nil, into: &bytes, at: offset)
    }

    /// Failure of any command, in the form the session calls for.
    package static func failure(
        cookie: UInt64, _ error: NBDError, reason: RefusalReason, structuredReplies: Bool,
        into bytes: inout MutableRawSpan, at offset: Int
    ) -> Int {
        structuredReplies
            ? Self.error(cookie: cookie, error, reason: reason, into: &bytes, at: offset)
            : simpleReply(cookie: cookie, error: error, into: &bytes, at: offset)
    }

    private static func chunkHeader(
        _ type: ChunkType, cookie: UInt64, payloadBytes: UInt32, done isLast: Bool, into bytes: inout MutableRawSpan,
        at offset: Int
    ) {
        bytes.storeBigEndian(Magic.structuredReply, at: offset)
        bytes.storeBigEndian(isLast ? done : 0, at: offset + 4)
        bytes.storeBigEndian(type.rawValue, at: offset + 6)
        bytes.storeBigEndian(cookie, at: offset + 8)
        bytes.storeBigEndian(payloadBytes, at: offset + 16)
    }
}
