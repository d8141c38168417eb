/// What goes over the control socket: one JSON object per line, a request, then responses until `isLast`.
public struct ControlRequest: Codable, Sendable {
    public enum Verb: String, Codable, Sendable {
        case status, `break`, join, add, replace, spare, resync, scrub, dissolve, offline, online, clear, reactivate,
            writeMostly = "write-mostly",
            stop, events, resolve, takeover
    }

    public static let currentVersion = 1
    public var version = ControlRequest.currentVersion
    public var verb: Verb
    public var mirror: String?
    /// Index, plex UUID or disk path.
    public var plex: String?
    /// Absolute path.
    public var disk: String?
    public var keep: Bool?
    /// Only if all blocks of the copy lie in their own places.
    public var materialise: Bool?
    public var force: Bool?
    public var follow: Bool?
    /// The disk is a file that is to be made.
    public var create: Bool?
    /// Absolute path of the file that is made for the metadata of the disk.
    public var metadata: String?
    /// The disk is to be a spare no more.
    public var remove: Bool?
    /// `pause`, `resume`, `limit`, `verify`, `believe` or `priority`, of a resync; `start`, `stop`, `limit` or `report`,
    /// of a scrub.
    public var order: String?
    /// `low`, `normal` or `high`.
    public var priority: String?
    /// Bytes per second; null: no limit.
    public var limit: UInt64?
    /// A scrub repairs what it finds, with the version of `plex` if that is given.
    public var repair: Bool?
    /// A plex is to be read only where no other can be.
    public var writeMostly: Bool?
    /// A scrub reads holes, too.
    public var all: Bool?

    public init(_ verb: Verb, mirror: String? = nil, plex: String? = nil, disk: String? = nil) {
        self.verb = verb
        self.mirror = mirror
        self.plex = plex
        self.disk = disk
    }
}

public struct ControlResponse: Codable, Sendable {
    public var version = ControlRequest.currentVersion
    public var isLast: Bool
    /// Set when the request was refused or failed: what, and what to do.
    public var error: String?
    /// What was done.
    public var message: String?
    public var status: StatusReport?
    public var events: [EventReport]?
    public var scrub: ScrubReport?
    /// Sockets follow.
    public var takeover: TakeoverReport?

    public init(isLast: Bool = true) { self.isLast = isLast }

    public static func failure(_ text: String) -> ControlResponse {
        var response = ControlResponse()
        response.error = text
        return response
    }
}

/// An event as `plexus events --json` prints it.
public struct EventReport: Codable, Sendable {
    public var sequence: UInt64
    /// ISO 8601, UTC.
    public var time: String
    /// Stable, see the README.
    public var code: String
    public var mirror: String
    public var plex: Int?
    public var offset: UInt64
    public var length: UInt64
    public var errno: Int32
    public var generation: String
    public var epoch: UInt64
    public var text: String

    public init(
        sequence: UInt64, time: String, code: String, mirror: String, plex: Int?, offset: UInt64, length: UInt64,
        errno: Int32, generation: String, epoch: UInt64, text: String
    ) {
        self.sequence = sequence
        self.time = time
        self.code = code
        self.mirror = mirror
        self.plex = plex
        self.offset = offset
        self.length = length
        self.errno = errno
        self.generation = generation
        self.epoch = epoch
        self.text = text
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(sequence, forKey: .sequence)
        try container.encode(time, forKey: .time)
        try container.encode(code, forKey: .code)
        try container.encode(mirror, forKey: .mirror)
        try container.encode(plex, forKey: .plex)
        try container.encode(offset, forKey: .offset)
        try container.encode(length, forKey: .length)
        try container.encode(errno, forKey: .errno)
        try container.encode(generation, forKey: .generation)
        try container.encode(epoch, forKey: .epoch)
        try container.encode(text, forKey: .text)
    }

    /// One line for people.
    public var line: String { "\(time) \(journalLine)" }

    /// The same without the time, which the journal has of its own.
    public var journalLine: String {
        let place = plex.map { " plex=\($0)" } ?? ""
        let range = length > 0 || offset > 0 ? " offset=\(offset) length=\(length)" : ""
        let error = errno != 0 ? " errno=\(errno)" : ""
        return "\(code) mirror=\(mirror)\(place)\(range)\(error) epoch=\(epoch): \(text)"
    }
}
