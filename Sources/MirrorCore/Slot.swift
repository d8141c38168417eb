internal import MirrorFormat

/// A request on its way through the mirror, or a piece of internal work that needs the same steps.
///
/// Slots lie in a slab that is allocated once; an index and a generation name one. The steps:
///
///     write:  held -> lock -> gate -> (edge reads) -> fanOut -> (parked) -> reply
///     read:   held -> lock -> reading -> reply             a clean range
///                          -> reading -> fanOut -> reply   a range that may differ between plexes (R7)
///     flush:  held -> fanOut -> (parked) -> reply
///     window: lock -> reading -> fanOut -> done            a piece of the resync
///     repair: lock -> gate -> reading -> fanOut -> done    a block that one plex could not read
///             lock -> reading -> done                      or whether it is one
///     scrub:  lock -> reading -> done                      a piece of the scrub
///             lock -> reading -> gate -> fanOut -> done    a block that it found different
struct Slot {
    enum Kind: UInt8, BitwiseCopyable {
        case free
        case client
        case resyncWindow
        case repair
        case internalFlush
        case scrub
        case scrubRepair
    }

    enum Step: UInt8, BitwiseCopyable {
        case idle
        /// Waiting for the mirror to open, or for a break to take its copy.
        case held
        case lock
        /// Waiting for the mirror to be marked dirty on disk.
        case gate
        case reading
        /// Reading the rest of a block that the request cuts.
        case edgeRead
        case fanOut
        /// Done on disk, but a plex that missed it is still on record as in sync (R2).
        case parked
        /// Failed on every plex alike; to be tried again.
        case retryWait
        /// An error that is told only when a record is durable.
        case failureRecord
        /// Failed on some plexes by bad blocks; these are being put elsewhere.
        case sparing
        /// Done on disk; the reply waits for the record that says who holds it now.
        case healRecord
        /// Reading goes on when the record names another source.
        case pinRecord
        /// A flush failed everywhere but on a plex that is just being recorded as in sync, or the source of a read may
        /// know less than such a one.
        case promotionWait
    }

    /// The part of a request that is being written. Zeroes with cut edges take up to three.
    enum Fragment: UInt8, BitwiseCopyable {
        case head, middle, tail, done
    }

    /// What the present fan-out or read does.
    struct Transfer: BitwiseCopyable {
        var kind: DiskOperation.Kind = .read
        var offset: UInt64 = 0
        var length: UInt64 = 0
        var bufferOffset: UInt64 = 0
        var isDurable = false
    }

    var kind = Kind.free
    var step = Step.idle
    /// What `pinRecord` goes back to.
    var resumeStep = Step.idle
    var fragment = Fragment.head
    var generation: UInt32 = 0
    var request = Request(id: RequestID(0), kind: .read)
    var transfer = Transfer()
    /// Operations that have not come back.
    var pending = PlexSet.empty
    /// Where every fragment so far succeeded. Meaningful from the first fan-out on.
    var good = PlexSet.empty
    var failed = PlexSet.empty
    /// Of these, by a bad block.
    var failedByMedia = PlexSet.empty
    /// Spared what could be: what failed now has failed.
    var isSpared = false
    /// Hold it but for blocks that are on record as bad.
    var lacking = PlexSet.empty
    /// Where a read was tried in vain.
    var tried = PlexSet.empty
    var source: PlexIndex?
    /// How far a read has made plexes equal; nil: it need not.
    var equalisedTo: UInt64?
    var hasFannedOut = false
    var holdsLock = false
    var isExclusive = false
    var countsAsMutation = false
    /// A block that the request cuts was read where plexes may differ.
    var cutsUnequal = false
    var headRead = false
    var tailRead = false
    var commonFailures: UInt8 = 0
    var transients: UInt8 = 0
    var status = ReplyStatus.ok
    /// Waiting for this round of the record, see `RecordCommit`.
    var ticket: UInt64 = 0
    var retryAt: UInt64 = 0
    var purpose = FlushPurpose.clean
    var windowTargets = PlexSet.empty
    var windowEqualises = false
    /// Of a repair: only finds out whether the plex can read it.
    var isProbe = false
    /// Of a repair: the block comes out of the spare pool.
    var isPutBack = false
    /// Of a read: some plex failed, and not by a bad block.
    var failedOtherwise = false
    /// Of a read: where all that is wanted ends, and what is being read at present.
    var readEnd: UInt64 = 0
    var pieceEnd: UInt64 = 0
    var progress = InlineArray<8, UInt64>(repeating: 0)
    /// Of what each plex does at present: monotonic nanoseconds.
    var submittedAt = InlineArray<8, UInt64>(repeating: 0)
    /// Of a read: who reads into a copy of the buffer, because another one has not answered.
    var hedges = PlexSet.empty
    /// Of a read: several plexes were asked, or one was waited for no more; see `Mirror.raceWon`.
    var isRace = false
    /// Operations on its buffer were given up and have not ended.
    var hasLetGo = false
    /// The next slot in whatever queue this one stands in.
    var next: Int32 = -1

    var isOfScrub: Bool { kind == .scrub || kind == .scrubRepair }
}

/// What an internal flush is for.
enum FlushPurpose: UInt8, BitwiseCopyable {
    /// Before serving after a crash: whatever a reader sees must not vanish later (R7).
    case open
    /// Before marking the mirror clean.
    case clean
    case stop
    /// Before a rebuilt plex is promoted (R10); `Slot.source` names it.
    case promote
    /// Before plexes that may have differed count as equal.
    case equalised
    /// Before a plex is broken off.
    case breakOff
}

/// Slots in order of arrival, linked through `Slot.next`: no memory of its own.
struct SlotQueue: BitwiseCopyable {
    private var head: Int32 = -1
    private var tail: Int32 = -1

    var isEmpty: Bool { head < 0 }

    mutating func append(_ index: Int, in slots: inout [Slot]) {
        slots[index].next = -1
        if tail >= 0 { slots[Int(tail)].next = Int32(index) } else { head = Int32(index) }
        tail = Int32(index)
    }

    mutating func popFirst(in slots: inout [Slot]) -> Int? {
        guard head >= 0 else { return nil }
        let index = Int(head)
        head = slots[index].next
        if head < 0 { tail = -1 }
        slots[index].next = -1
        return index
    }
}
