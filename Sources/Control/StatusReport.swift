/// `plexus status --json`, version 1. Keys are a contract: they are added to, never renamed; what has no value
/// is null, not absent.
public struct StatusReport: Codable, Sendable {
    public var version = 1
    public var server: Server
    public var mirrors: [Mirror]

    public init(server: Server, mirrors: [Mirror]) {
        self.server = server
        self.mirrors = mirrors
    }

    public struct Server: Codable, Sendable {
        public var pid: Int32
        public var version: String
        /// Where NBD clients are answered: paths and HOST:PORT.
        public var sockets: [String]?
        public init(pid: Int32, version: String, sockets: [String] = []) {
            self.pid = pid
            self.version = version
            self.sockets = sockets
        }
    }

    public struct Bitmap: Codable, Sendable {
        public var regionSize: UInt64
        public var regions: UInt64
        public var dirty: UInt64
        public init(regionSize: UInt64, regions: UInt64, dirty: UInt64) {
            self.regionSize = regionSize
            self.regions = regions
            self.dirty = dirty
        }
    }

    public struct Resync: Codable, Sendable {
        public var plex: Int?
        public var done: UInt64
        public var total: UInt64
        public var bytesPerSecond: UInt64
        public var etaSeconds: UInt64?
        public var paused: Bool
        /// Bytes per second, by the user's order; null: none.
        public var limit: UInt64?
        /// What was copied is read back and compared.
        public var verify: Bool?
        /// `low`, `normal` or `high`.
        public var priority: String?
        public var reason: String
        /// False: it is finished, and `done` are the bytes that it copied.
        public var running: Bool

        public init(
            plex: Int?, done: UInt64, total: UInt64, bytesPerSecond: UInt64, etaSeconds: UInt64?, paused: Bool,
            reason: String, limit: UInt64? = nil, running: Bool = true
        ) {
            self.running = running
            self.limit = limit
            self.plex = plex
            self.done = done
            self.total = total
            self.bytesPerSecond = bytesPerSecond
            self.etaSeconds = etaSeconds
            self.paused = paused
            self.reason = reason
        }

        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(plex, forKey: .plex)
            try container.encode(done, forKey: .done)
            try container.encode(total, forKey: .total)
            try container.encode(bytesPerSecond, forKey: .bytesPerSecond)
            try container.encode(etaSeconds, forKey: .etaSeconds)
            try container.encode(paused, forKey: .paused)
            try container.encode(limit, forKey: .limit)
            try container.encode(verify, forKey: .verify)
            try container.encode(priority, forKey: .priority)
            try container.encode(reason, forKey: .reason)
            try container.encode(running, forKey: .running)
        }
    }

    /// By kind of request, since the server started.
    public struct Latency: Codable, Sendable, Equatable {
        public var read: LatencyReport
        public var write: LatencyReport
        /// Zeroes and trims.
        public var zero: LatencyReport
        public var flush: LatencyReport
        /// Superblocks, bitmap and event log; null for a mirror, which has these on its plexes.
        public var metadata: LatencyReport?

        public init(
            read: LatencyReport, write: LatencyReport, zero: LatencyReport, flush: LatencyReport,
            metadata: LatencyReport? = nil
        ) {
            self.read = read
            self.write = write
            self.zero = zero
            self.flush = flush
            self.metadata = metadata
        }

        /// What was added since an earlier report.
        public func since(_ earlier: Latency?) -> Latency {
            Latency(
                read: read.since(earlier?.read), write: write.since(earlier?.write), zero: zero.since(earlier?.zero),
                flush: flush.since(earlier?.flush), metadata: metadata?.since(earlier?.metadata))
        }

        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(read, forKey: .read)
            try container.encode(write, forKey: .write)
            try container.encode(zero, forKey: .zero)
            try container.encode(flush, forKey: .flush)
            try container.encode(metadata, forKey: .metadata)
        }
    }

    public struct Plex: Codable, Sendable {
        public var index: Int
        public var uuid: String
        /// By which it is named; of one with a metadata file the path of that.
        public var disk: String?
        /// Of the data, where the metadata lie in a file of their own.
        public var dataDisk: String?
        public var state: String
        public var reason: String?
        /// `direct` (O_DIRECT) or `buffered` (page cache); null while no disk is open.
        public var io: String?
        public var atRisk = false
        public var readErrors: UInt64
        public var writeErrors: UInt64
        public var corrected: UInt64
        public var spared: UInt64
        public var sparesFree: UInt64
        /// Blocks that lie in the spare pool.
        public var remapped = 0
        public var badRanges: [[UInt64]] = []
        /// It answers reads much later than the others, and is read in need only.
        public var slow = false
        /// By the user's order it is read only where no other can be.
        public var writeMostly = false
        /// Operations that its disk has not answered and nobody waits for.
        public var unanswered = 0
        /// Reads that another plex was asked for as well because its disk took long.
        public var hedgedReads: UInt64 = 0
        /// What a join would copy, in bytes; null: nothing, or nobody counts.
        public var missedBytes: UInt64?
        /// The plex that is forgotten when this one is in sync.
        public var replaces: Int?
        /// Operations that its disk has not finished.
        public var queueDepth: Int?
        public var latency: Latency?

        public init(
            index: Int, uuid: String, disk: String?, state: String, reason: String?, io: String?, readErrors: UInt64,
            writeErrors: UInt64, corrected: UInt64, spared: UInt64, sparesFree: UInt64
        ) {
            self.index = index
            self.uuid = uuid
            self.disk = disk
            self.state = state
            self.reason = reason
            self.io = io
            self.readErrors = readErrors
            self.writeErrors = writeErrors
            self.corrected = corrected
            self.spared = spared
            self.sparesFree = sparesFree
        }

        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(index, forKey: .index)
            try container.encode(uuid, forKey: .uuid)
            try container.encode(disk, forKey: .disk)
            try container.encode(dataDisk, forKey: .dataDisk)
            try container.encode(state, forKey: .state)
            try container.encode(reason, forKey: .reason)
            try container.encode(io, forKey: .io)
            try container.encode(atRisk, forKey: .atRisk)
            try container.encode(readErrors, forKey: .readErrors)
            try container.encode(writeErrors, forKey: .writeErrors)
            try container.encode(corrected, forKey: .corrected)
            try container.encode(spared, forKey: .spared)
            try container.encode(sparesFree, forKey: .sparesFree)
            try container.encode(remapped, forKey: .remapped)
            try container.encode(badRanges, forKey: .badRanges)
            try container.encode(slow, forKey: .slow)
            try container.encode(writeMostly, forKey: .writeMostly)
            try container.encode(unanswered, forKey: .unanswered)
            try container.encode(hedgedReads, forKey: .hedgedReads)
            try container.encode(missedBytes, forKey: .missedBytes)
            try container.encode(replaces, forKey: .replaces)
            try container.encode(queueDepth, forKey: .queueDepth)
            try container.encode(latency, forKey: .latency)
        }
    }

    public struct HotSpare: Codable, Sendable {
        public var disk: String
        /// `ready` or `missing`.
        public var state: String

        public init(disk: String, state: String) {
            self.disk = disk
            self.state = state
        }
    }

    public struct Mirror: Codable, Sendable {
        public var name: String
        public var uuid: String
        public var size: UInt64
        public var state: String
        public var reason: String?
        public var action: String?
        public var generation: String
        public var epoch: UInt64
        public var readOnly: Bool
        public var clients: Int
        public var bitmap: Bitmap?
        public var resync: Resync?
        /// Null: none has ever run.
        public var scrub: Scrub?
        /// Requests that clients wait for.
        public var queueDepth: Int?
        /// Null if the mirror is not served.
        public var latency: Latency?
        public var plexes: [Plex]
        /// Disks that stand by.
        public var hotSpares: [HotSpare] = []

        public init(name: String, uuid: String, size: UInt64, state: String) {
            self.name = name
            self.uuid = uuid
            self.size = size
            self.state = state
            generation = ""
            epoch = 0
            readOnly = false
            clients = 0
            plexes = []
        }

        enum CodingKeys: String, CodingKey {
            case name, uuid, size, state, reason, action, generation, epoch, readOnly, clients, bitmap, resync, scrub
            case queueDepth, latency, plexes, hotSpares
        }

        public init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            name = try container.decode(String.self, forKey: .name)
            uuid = try container.decode(String.self, forKey: .uuid)
            size = try container.decode(UInt64.self, forKey: .size)
            state = try container.decode(String.self, forKey: .state)
            reason = try container.decodeIfPresent(String.self, forKey: .reason)
            action = try container.decodeIfPresent(String.self, forKey: .action)
            generation = try container.decode(String.self, forKey: .generation)
            epoch = try container.decode(UInt64.self, forKey: .epoch)
            readOnly = try container.decode(Bool.self, forKey: .readOnly)
            clients = try container.decode(Int.self, forKey: .clients)
            bitmap = try container.decodeIfPresent(Bitmap.self, forKey: .bitmap)
            resync = try container.decodeIfPresent(Resync.self, forKey: .resync)
            scrub = try container.decodeIfPresent(Scrub.self, forKey: .scrub)
            queueDepth = try container.decodeIfPresent(Int.self, forKey: .queueDepth)
            latency = try container.decodeIfPresent(Latency.self, forKey: .latency)
            plexes = try container.decode([Plex].self, forKey: .plexes)
            hotSpares = try container.decodeIfPresent([HotSpare].self, forKey: .hotSpares) ?? []
        }

        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(name, forKey: .name)
            try container.encode(uuid, forKey: .uuid)
            try container.encode(size, forKey: .size)
            try container.encode(state, forKey: .state)
            try container.encode(reason, forKey: .reason)
            try container.encode(action, forKey: .action)
            try container.encode(generation, forKey: .generation)
            try container.encode(epoch, forKey: .epoch)
            try container.encode(readOnly, forKey: .readOnly)
            try container.encode(clients, forKey: .clients)
            try container.encode(bitmap, forKey: .bitmap)
            try container.encode(resync, forKey: .resync)
            try container.encode(scrub, forKey: .scrub)
            try container.encode(queueDepth, forKey: .queueDepth)
            try container.encode(latency, forKey: .latency)
            try container.encode(plexes, forKey: .plexes)
            try container.encode(hotSpares, forKey: .hotSpares)
        }

        public var isServed: Bool { !["split", "failed", "offline"].contains(state) }
    }

    /// 0 all healthy, 1 degraded or rebuilding, 2 failed, split, suspended or offline.
    public var exitCode: Int32 {
        mirrors.reduce(0) { worst, mirror in
            switch mirror.state {
            case "healthy": worst
            case "degraded", "rebuilding": max(worst, 1)
            default: 2
            }
        }
    }
}
