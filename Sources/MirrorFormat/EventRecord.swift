internal import Bytes

/// What happened. Raw values are on disk; the codes that users see never change.
package enum EventCode: UInt16, Sendable, CaseIterable, BitwiseCopyable {
    case plexFailed = 1
    case plexMissing = 2
    case plexReturned = 3
    case resyncStarted = 4
    case resyncFinished = 5
    case resyncPaused = 6
    case readError = 7
    case badBlock = 8
    case sparing = 9
    case spared = 10
    case spareFailed = 11
    case corrected = 12
    case splitBrain = 14
    case startedDegraded = 15
    case brokenOff = 16
    case joined = 17
    case suspended = 18
    case resumed = 19
    case clientRefused = 20
    case offline = 21
    case cleared = 26
    case scrubStarted = 22
    case scrubMismatch = 23
    case scrubFinished = 24
    case slow = 27
    case slowEnded = 28

    package var text: String {
        switch self {
        case .plexFailed: "PLEX_FAILED"
        case .plexMissing: "PLEX_MISSING"
        case .plexReturned: "PLEX_RETURNED"
        case .resyncStarted: "RESYNC_STARTED"
        case .resyncFinished: "RESYNC_FINISHED"
        case .resyncPaused: "RESYNC_PAUSED"
        case .readError: "READ_ERROR"
        case .badBlock: "BAD_BLOCK"
        case .sparing: "SPARING"
        case .spared: "SPARED"
        case .spareFailed: "SPARE_FAILED"
        case .corrected: "CORRECTED"
        case .splitBrain: "SPLIT_BRAIN"
        case .startedDegraded: "STARTED_DEGRADED"
        case .brokenOff: "BROKEN_OFF"
        case .joined: "JOINED"
        case .suspended: "SUSPENDED"
        case .resumed: "RESUMED"
        case .clientRefused: "CLIENT_REFUSED"
        case .offline: "PLEX_OFFLINE"
        case .cleared: "CLEARED"
        case .scrubStarted: "SCRUB_STARTED"
        case .scrubMismatch: "SCRUB_MISMATCH"
        case .scrubFinished: "SCRUB_FINISHED"
        case .slow: "PLEX_SLOW"
        case .slowEnded: "PLEX_SLOW_ENDED"
        }
    }
}

/// One line of the event log, which every plex keeps as a ring of 256-byte records.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 4 | magic `PXEV` |
/// | 4 | 4 | CRC-32C of the mirror UUID and these 256 bytes with this field zero |
/// | 8 | 8 | sequence, from 1; record n lies in slot n mod capacity |
/// | 16 | 8 | time, nanoseconds since 1970 |
/// | 24 | 2 | code |
/// | 26 | 1 | plex, 255: none |
/// | 27 | 1 | length of the text |
/// | 28 | 4 | error number |
/// | 32 | 8, 8 | offset and length of the range in bytes |
/// | 48 | 16 | generation |
/// | 64 | 8 | epoch |
/// | 72 | 184 | text, UTF-8 |
package struct EventRecord: Sendable, Hashable {
    package static let byteCount = 256
    package static let magic: UInt32 = 0x5645_5850  // "PXEV"
    package static let textCapacity = 184
    package static let perBlock = 16

    package var sequence: UInt64
    package var time: UInt64
    package var code: EventCode
    package var plex: PlexIndex?
    package var errorNumber: Int32
    package var offset: UInt64
    package var length: UInt64
    package var generation: Generation
    package var epoch: UInt64
    package var text: String

    package init(
        sequence: UInt64, time: UInt64, code: EventCode, plex: PlexIndex? = nil, errorNumber: Int32 = 0,
        offset: UInt64 = 0, length: UInt64 = 0, generation: Generation = .none, epoch: UInt64 = 0, text: String = ""
    ) {
        self.sequence = sequence
        self.time = time
        self.code = code
        self.plex = plex
        self.errorNumber = errorNumber
        self.offset = offset
        self.length = length
        self.generation = generation
        self.epoch = epoch
        self.text = text
    }

    package func encode(mirror: MirrorUUID, into bytes: inout MutableRawSpan, at base: Int) {
        for offset in stride(from: 0, to: Self.byteCount, by: 8) {
            bytes.storeLittleEndian(UInt64(0), at: base + offset)
        }
        bytes.storeLittleEndian(Self.magic, at: base)
        bytes.storeLittleEndian(sequence, at: base + 8)
        bytes.storeLittleEndian(time, at: base + 16)
        bytes.storeLittleEndian(code.rawValue, at: base + 24)
        bytes.storeLittleEndian(plex?.value ?? 255, at: base + 26)
        bytes.storeLittleEndian(errorNumber, at: base + 28)
        bytes.storeLittleEndian(offset, at: base + 32)
        bytes.storeLittleEndian(length, at: base + 40)
        bytes.store(generation.bits, at: base + 48)
        bytes.storeLittleEndian(epoch, at: base + 64)
        let textBytes = bytes.store(text, at: base + 72, capacity: Self.textCapacity)
        bytes.storeLittleEndian(UInt8(textBytes), at: base + 27)
        let sum = checksum(of: bytes.bytes.extracting(base..<base + Self.byteCount), field: 4, mirror: mirror)
        bytes.storeLittleEndian(sum, at: base + 4)
    }

    /// Nil for anything that is not a whole record of this mirror; survives any 256 bytes.
    package init?(decoding bytes: RawSpan, mirror: MirrorUUID) {
        guard bytes.byteCount >= Self.byteCount, bytes.loadLittleEndian(at: 0, as: UInt32.self) == Self.magic,
            checksum(of: bytes.extracting(0..<Self.byteCount), field: 4, mirror: mirror)
                == bytes.loadLittleEndian(at: 4, as: UInt32.self),
            bytes.loadLittleEndian(at: 8, as: UInt64.self) <= Superblock.maximumCount,
            let code = EventCode(rawValue: bytes.loadLittleEndian(at: 24)),
            let text = try? bytes.loadText(at: 72, count: Self.textCapacity)
        else { return nil }
        let plex = bytes.loadLittleEndian(at: 26, as: UInt8.self)
        self.init(
            sequence: bytes.loadLittleEndian(at: 8), time: bytes.loadLittleEndian(at: 16), code: code,
            plex: plex < PlexSet.capacity ? PlexIndex(Int(plex)) : nil,
            errorNumber: bytes.loadLittleEndian(at: 28), offset: bytes.loadLittleEndian(at: 32),
            length: bytes.loadLittleEndian(at: 40), generation: Generation(bytes.loadUUID(at: 48)),
            epoch: bytes.loadLittleEndian(at: 64), text: text)
    }
}
