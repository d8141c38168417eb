internal import DequeModule
internal import NBDProtocol
internal import URing

/// One NBD client. All of its memory is bounded: `inbox` by the scratch buffer, requests by count and bytes.
final class Connection {
    /// Both of the reactor that serves it.
    private(set) var index: Int
    private(set) var generation: UInt32
    let file: Int32
    var session: Session
    /// Received and not yet understood.
    var inbox: [UInt8] = []
    /// Greeting and option replies.
    var rawOutput: [UInt8] = []
    var rawSent = 0
    var replies = Deque<OutgoingReply>()
    /// Bytes of the first reply that are sent.
    var sent = 0
    /// To the mirror that it chose; nil during the handshake.
    var route: Int?
    var isReadable = false
    var isQueued = false
    /// A request is understood but there is no room for it.
    var isBlocked = false
    /// Blocked because all memory is taken, not because it has too much under way itself.
    var isShortOfMemory = false
    /// DISC came, or the session ended: answer what is in flight, then close.
    var isEnding = false
    var isWaitingToSend = false
    var needsSend = false
    var requestsInFlight = 0
    var bytesInFlight = 0
    /// The write whose payload is coming, and how much has come.
    var receiving: Int?
    var received = 0
    /// Its last write was a large one, and the next is likely to be: headers are read by themselves, so that
    /// payloads go straight to their buffers.
    var sendsBulk = false
    /// Payload of a refused write, to be thrown away.
    var discarding = 0
    var acceptedAt: UInt64
    /// The last time that a byte moved in either direction.
    var progressAt: UInt64

    init(index: Int, generation: UInt32, file: Int32, limits: SessionLimits, now: UInt64) {
        self.index = index
        self.generation = generation
        self.file = file
        session = Session(limits: limits)
        acceptedAt = now
        progressAt = now
    }

    /// Another server process had it. What it received and did not understand yet is `received`.
    init(file: Int32, resuming session: consuming Session, received: [UInt8], discarding: Int, now: UInt64) {
        index = 0
        generation = 0
        self.file = file
        self.session = session
        inbox = received
        self.discarding = discarding
        acceptedAt = now
        progressAt = now
    }

    /// Nothing is owed to it, and no request of it is half received but for what is in `inbox`.
    var isDrained: Bool { requestsInFlight == 0 && !hasOutput && receiving == nil }

    var hasOutput: Bool { rawSent < rawOutput.count || !replies.isEmpty }

    /// It is served by another reactor from now on. Nothing of it is in flight, for it has only shaken hands.
    func move(index: Int, generation: UInt32, route: Int, now: UInt64) {
        precondition(requestsInFlight == 0 && replies.isEmpty)
        self.index = index
        self.generation = generation
        self.route = route
        // By the clock of the one that compares it.
        progressAt = now
        isQueued = false
        needsSend = false
        isWaitingToSend = false
    }
}

/// A client request from its header to its reply; or, on the reactor of its mirror, one whose client another reactor
/// has.
struct ClientJob {
    var isUsed = false
    var generation: UInt32 = 0
    /// The reactor that has the client, and the job there; -1: this one.
    var origin = -1
    var originJob = 0
    var connection = 0
    var connectionGeneration: UInt32 = 0
    var route = 0
    /// Index of the mirror in the reactor that it runs on.
    var mirror = 0
    var request = ClientRequest(command: .read, cookie: 0, offset: 0, length: 0, flags: [], payloadBytes: 0)
    var buffer: PooledBuffer?
    var isLarge = false
    /// Address and size of the buffer; 0: none.
    var memory: UInt = 0
    /// What `memory` was at first; see `LateMemory`.
    var ownMemory: UInt = 0
    var memoryBytes = 0
    /// On this memory, and not ended.
    var operations: Int32 = 0
    /// Another plex was asked for what it reads, or its memory was replaced.
    var hasCopies = false
    /// Of one that has ended: disks still have its own memory in their hands.
    var isOwnPinned = false
    /// What the reply is sent from, if not from its own.
    var late: LateBuffer?
    /// Of the payload within the buffer.
    var payloadOffset = 0
    var extentCount = 0
    /// When all of it was there, payload included; monotonic nanoseconds.
    var completeAt: UInt64 = 0
}

/// What one server process allows itself. Sizes in bytes, times in nanoseconds.
struct ServerLimits {
    var connections = 2048
    /// Connections that have not finished the handshake.
    var handshakes = 256
    var handshakeNanoseconds: UInt64 = 10_000_000_000
    var requestsPerConnection = 256
    /// Replies that the client has not taken yet; then nothing more is read from it.
    var repliesPerConnection = 1024
    /// At least one request is always allowed.
    var bytesPerConnection = 48 << 20
    var requests = 8192
    /// Payloads up to `smallBytes` come from one pool, larger ones from the other, so that a few clients
    /// with huge requests can't starve the rest.
    var smallBytes = 256 << 10
    /// Of each thread.
    var smallPoolBytes = 64 << 20
    var largePoolBytes = 128 << 20
    var largestPieceBytes = 64 << 20
    /// Of either pool, beyond that, for what disks keep that do not answer; see `Limits.pinnedBytes`.
    var heldBytes = 64 << 20
    /// At least this, and more for many mirrors: each may have on each of 8 plexes two superblock copies, a block of
    /// the event log and eight pages of the bitmap in flight.
    var metadataPoolBytes = 16 << 20
    var metadataPagesPerMirror = 104
    /// While others wait for memory, a client that holds some and moves nothing for so long is cut off.
    var stallNanoseconds: UInt64 = 2_000_000_000
    /// For the last replies when the server stops.
    var drainNanoseconds: UInt64 = 1_000_000_000
    var scratchBytes = 128 << 10
    /// From this size on a payload is worth a call of its own.
    var bulkBytes = 16 << 10
    /// Of the small pool, for clients that hold no memory yet and ask for no more than `modestBytes`: so many others
    /// that take no replies can't keep them waiting.
    var reservedBytes = 8 << 20
    var modestBytes = 64 << 10
    var controlConnections = 64
    /// Disks that are being opened at once, for one reactor.
    var openings = 64
    /// Of one mirror.
    var spares = 8
    /// Before another spare is tried.
    var spareRetryNanoseconds: UInt64 = 10_000_000_000
    var watchNanoseconds: UInt64 = 1_000_000_000
    /// Between two looks for disks that are away.
    var searchNanoseconds: UInt64 = 5_000_000_000
    var searchPatienceNanoseconds: UInt64 = 60_000_000_000
    /// Of one mirror; a thread each.
    var hangingSearches = 4
    /// Each so many-th goes beyond the places that are known.
    var searchesUntilThorough = 6
    var controlLineBytes = 64 << 10
    /// Events and answers that a program does not read.
    var controlOutputBytes = 16 << 20
    /// To and from disks in main memory.
    var largestCopyBytes = 64 << 10
    /// So many of these, and the clients that wait for them are answered before more is begun.
    var localBatch = 12
    var tickMilliseconds = 100
    /// Between two looks at the states of mirrors for the service manager.
    var conditionNanoseconds: UInt64 = 500_000_000
    /// While reads are under way that another plex could be asked for.
    var hedgeMilliseconds = 25
    /// For reading back and comparing, for all mirrors of a reactor.
    var verifyBytes = 8 << 20
    /// How long the thread waits for the next event without falling asleep, if the one before came as soon.
    var spinNanoseconds: UInt64 = 50_000
    var stopNanoseconds: UInt64 = 60_000_000_000
    /// For all clients to have their answers, before another server takes over.
    var handoverNanoseconds: UInt64 = 10_000_000_000

    /// - Parameter threads: they share the memory, as far as each can still take the largest request.
    init(threads: Int) {
        let allSmallBytes = smallPoolBytes
        while smallPoolBytes * threads > allSmallBytes, smallPoolBytes > 16 << 20 { smallPoolBytes /= 2 }
        if threads > 1 { largePoolBytes = largestPieceBytes }
    }
}
