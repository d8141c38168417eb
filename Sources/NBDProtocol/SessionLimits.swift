/// Everything a client can make a session hold or do, with a bound on it.
package struct SessionLimits: Sendable, BitwiseCopyable {
    /// Option data that is buffered as a whole; the caller buffers at most 16 more, for the header.
    package var maximumOptionBytes = 64 * 1024
    /// The protocol's own limit on strings.
    package var maximumNameBytes = 4096
    /// Options in one handshake; the next one closes the connection.
    package var maximumOptions = 1000
    /// Queries in one LIST_META_CONTEXT or SET_META_CONTEXT.
    package var maximumQueries = 1024
    /// Data of one option that is thrown away in order to stay in step; a longer option closes the connection.
    package var maximumSkippedBytes = 1024 * 1024
    /// Once a handshake has drawn this many bytes of replies the next option closes the connection. It bounds what
    /// a client that sends LIST 1000 times in one go makes us hold: this, and one more LIST.
    package var maximumReplyBytes = 4 * 1024 * 1024
    /// Advertised, and the limit for READ and WRITE. At least `preferredBlockBytes`.
    package var maximumPayloadBytes: UInt32 = 32 * 1024 * 1024
    package var preferredBlockBytes: UInt32 = 4096
    /// Extents in one BLOCK_STATUS reply: 4096 * 8 bytes = 32 KiB. The protocol asks for at most 2^20.
    package var maximumExtents = 4096

    /// Every offset and length is served, so that clients which never ask for block sizes (the kernel's) are safe.
    package var minimumBlockBytes: UInt32 { 1 }

    package init() {}

    package static let standard = SessionLimits()
}
