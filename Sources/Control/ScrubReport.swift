/// `plexus scrub NAME --report --json`, version 1: what scrubs found. Keys are added to, never renamed; what has no value is
/// null, not absent.
public struct ScrubReport: Codable, Sendable {
    public var version = 1
    public var mirror: String
    public var running: Bool
    /// ISO 8601, UTC; null: none was ever finished.
    public var lastFinished: String?
    /// Blocks in which plexes are known to differ.
    public var mismatches: UInt64
    /// Of these: those for which the ledger has no room, and which are not among `entries`.
    public var unrecorded: UInt64
    public var entries: [Entry]

    public init(
        mirror: String, running: Bool, lastFinished: String?, mismatches: UInt64, unrecorded: UInt64, entries: [Entry]
    ) {
        self.mirror = mirror
        self.running = running
        self.lastFinished = lastFinished
        self.mismatches = mismatches
        self.unrecorded = unrecorded
        self.entries = entries
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(version, forKey: .version)
        try container.encode(mirror, forKey: .mirror)
        try container.encode(running, forKey: .running)
        try container.encode(lastFinished, forKey: .lastFinished)
        try container.encode(mismatches, forKey: .mismatches)
        try container.encode(unrecorded, forKey: .unrecorded)
        try container.encode(entries, forKey: .entries)
    }

    /// What one plex held.
    public struct Version: Codable, Sendable {
        public var plex: Int
        /// Eight hexadecimal digits.
        public var crc32c: String
        /// A strict majority of three or more plexes held something else.
        public var odd: Bool

        public init(plex: Int, crc32c: String, odd: Bool) {
            self.plex = plex
            self.crc32c = crc32c
            self.odd = odd
        }
    }

    /// A block.
    public struct Entry: Codable, Sendable {
        /// In bytes.
        public var offset: UInt64
        public var length: UInt64
        /// `differs`: nobody can tell which plex is right; `minority`: some were outvoted.
        public var verdict: String
        public var versions: [Version]
        public var firstSeen: String
        public var lastSeen: String
        /// `open`, `repaired`, or `gone`: written over since.
        public var state: String
        public var closed: String?
        /// The plex whose version the others were given.
        public var source: Int?

        public init(
            offset: UInt64, length: UInt64, verdict: String, versions: [Version], firstSeen: String, lastSeen: String,
            state: String, closed: String?, source: Int?
        ) {
            self.offset = offset
            self.length = length
            self.verdict = verdict
            self.versions = versions
            self.firstSeen = firstSeen
            self.lastSeen = lastSeen
            self.state = state
            self.closed = closed
            self.source = source
        }

        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(offset, forKey: .offset)
            try container.encode(length, forKey: .length)
            try container.encode(verdict, forKey: .verdict)
            try container.encode(versions, forKey: .versions)
            try container.encode(firstSeen, forKey: .firstSeen)
            try container.encode(lastSeen, forKey: .lastSeen)
            try container.encode(state, forKey: .state)
            try container.encode(closed, forKey: .closed)
            try container.encode(source, forKey: .source)
        }
    }
}

/// Of `plexus examine --json`: the scrub's ledger as it lies on one disk. Keys are added to, never renamed; what has no value
/// is null, not absent.
public struct ScrubLedgerReport: Codable, Sendable {
    /// It is to go on when the mirror is served.
    public var running: Bool
    /// All before this byte is done.
    public var position: UInt64
    /// ISO 8601, UTC; null: none ever was.
    public var started: String?
    public var lastFinished: String?
    /// Blocks in which plexes are known to differ.
    public var mismatches: UInt64
    /// Of these: those that are not among `entries`, for want of room.
    public var unrecorded: UInt64
    /// Of this scrub, or the last.
    public var unreadable: UInt64
    public var repaired: UInt64
    public var entries: [ScrubReport.Entry]

    public init(
        running: Bool, position: UInt64, started: String?, lastFinished: String?, mismatches: UInt64,
        unrecorded: UInt64, unreadable: UInt64, repaired: UInt64, entries: [ScrubReport.Entry]
    ) {
        self.running = running
        self.position = position
        self.started = started
        self.lastFinished = lastFinished
        self.mismatches = mismatches
        self.unrecorded = unrecorded
        self.unreadable = unreadable
        self.repaired = repaired
        self.entries = entries
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(running, forKey: .running)
        try container.encode(position, forKey: .position)
        try container.encode(started, forKey: .started)
        try container.encode(lastFinished, forKey: .lastFinished)
        try container.encode(mismatches, forKey: .mismatches)
        try container.encode(unrecorded, forKey: .unrecorded)
        try container.encode(unreadable, forKey: .unreadable)
        try container.encode(repaired, forKey: .repaired)
        try container.encode(entries, forKey: .entries)
    }
}

extension StatusReport {
    /// Null for a mirror that was never scrubbed.
    public struct Scrub: Codable, Sendable {
        public var running: Bool
        /// ISO 8601, UTC.
        public var lastFinished: String?
        /// Blocks in which plexes are known to differ.
        public var mismatches: UInt64
        public var done: UInt64
        public var total: UInt64
        public var bytesPerSecond: UInt64
        public var etaSeconds: UInt64?
        /// Why it does not go on.
        public var waiting: String?
        /// Bytes per second, by the user's order or the configuration; null: none.
        public var limit: UInt64?
        /// It repairs what it finds.
        public var repair: Bool
        /// Blocks, by this scrub or by the last.
        public var repaired: UInt64
        public var unreadable: UInt64

        public init(
            running: Bool, lastFinished: String?, mismatches: UInt64, done: UInt64, total: UInt64,
            bytesPerSecond: UInt64, etaSeconds: UInt64?, waiting: String?, limit: UInt64?, repair: Bool,
            repaired: UInt64, unreadable: UInt64
        ) {
            self.running = running
            self.lastFinished = lastFinished
            self.mismatches = mismatches
            self.done = done
            self.total = total
            self.bytesPerSecond = bytesPerSecond
            self.etaSeconds = etaSeconds
            self.waiting = waiting
            self.limit = limit
            self.repair = repair
            self.repaired = repaired
            self.unreadable = unreadable
        }

        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(running, forKey: .running)
            try container.encode(lastFinished, forKey: .lastFinished)
            try container.encode(mismatches, forKey: .mismatches)
            try container.encode(done, forKey: .done)
            try container.encode(total, forKey: .total)
            try container.encode(bytesPerSecond, forKey: .bytesPerSecond)
            try container.encode(etaSeconds, forKey: .etaSeconds)
            try container.encode(waiting, forKey: .waiting)
            try container.encode(limit, forKey: .limit)
            try container.encode(repair, forKey: .repair)
            try container.encode(repaired, forKey: .repaired)
            try container.encode(unreadable, forKey: .unreadable)
        }
    }
}
