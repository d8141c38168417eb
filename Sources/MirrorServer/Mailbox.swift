internal import CLinux
internal import Control
internal import Glibc
internal import MirrorCore
internal import NBDProtocol
internal import Synchronization
internal import URing

/// A client's request to a mirror that runs on another reactor.
struct RequestLetter: BitwiseCopyable {
    /// The reactor that has the socket, and the job there.
    var origin: Int
    var job: Int
    /// Index of the mirror where it goes.
    var mirror: Int
    var request: ClientRequest
    /// The buffer of the job. It stays where it is until the reply.
    var memory: UInt
    var memoryBytes: Int
    /// When all of it was there; monotonic nanoseconds.
    var completeAt: UInt64
}

/// The end of such a request.
struct ReplyLetter: BitwiseCopyable {
    enum Outcome: BitwiseCopyable {
        case ended(ReplyStatus)
        /// A fast zero that would be slow; nothing was changed.
        case notFast
    }

    var job: Int
    var outcome: Outcome
    var extentCount: Int
    /// See `ClientJob`.
    var isOwnPinned = false
    var late: LateBuffer?
}

/// Whatever is rare between reactors.
enum Note {
    /// A client whose mirror was chosen. The sender keeps no reference.
    case adopt(Connection, MirrorPlace)
    case mirrorAdded(ExportDescription, MirrorPlace)
    case mirrorStopped(MirrorPlace)
    /// All mirrors of a reactor answer.
    case opened
    /// For a mirror of the receiver; `asker` is the key of a control connection of the first reactor.
    case command(ControlRequest, asker: UInt64)
    case response(ControlResponse, asker: UInt64)
    case event(EventReport, from: Int)
    /// What do you know? Answered by `gathered`.
    case gather(ControlRequest, ticket: UInt64)
    case gathered(GatheredReports, ticket: UInt64, from: Int)
    case standBy(HotSpare)
    case stop
    /// No more requests are read: another server process takes over.
    case handOver(UInt64)
    /// All clients of a reactor have their answers; or why that can't be waited for.
    case drained(from: Int, attempt: UInt64, complaint: String?)
    /// It does not.
    case handOverCancelled
    /// A reply was sent from this memory of the receiver's.
    case unpin(UInt)
    /// The buffer of the receiver's at this address is in no disk's hands any more.
    case unpinned(UInt)
    /// What did not go well while stopping.
    case complaint(String)
}

/// What other reactors have for this one. A batch is left or taken at a time: one lock for all requests of a turn.
final class Mailbox: Sendable {
    /// Of use to one thread at a time: it is handed over under the lock.
    struct Contents: @unchecked Sendable {
        var requests: [RequestLetter] = []
        var replies: [ReplyLetter] = []
        var notes: [Note] = []

        var isEmpty: Bool { requests.isEmpty && replies.isEmpty && notes.isEmpty }

        /// Keeps the memory for the next batch.
        mutating func removeAll() {
            requests.removeAll(keepingCapacity: true)
            replies.removeAll(keepingCapacity: true)
            notes.removeAll(keepingCapacity: true)
        }
    }

    private let contents = Mutex(Contents())
    private let isFilled = Atomic(false)
    private let isAsleep = Atomic(false)
    /// Monotonic nanoseconds; 0: not yet.
    private let lastTick = Atomic<UInt64>(0)
    /// Becomes readable when mail comes for a reactor that sleeps; eventfd(2).
    let file: Int32

    init() throws(SystemError) {
        file = eventfd(0, Int32(O_NONBLOCK | O_CLOEXEC))
        guard file >= 0 else { throw SystemError("eventfd", number: errno) }
    }

    deinit { close(file) }

    /// By the receiver, whose loop goes round.
    func ticked(at now: UInt64) { lastTick.store(now, ordering: .relaxed) }
    func hasTicked(since time: UInt64) -> Bool { lastTick.load(ordering: .relaxed) > time }

    /// For the receiver; may be late, never wrong for good.
    var hasMail: Bool { isFilled.load(ordering: .acquiring) }

    /// - Parameter batch: empty afterwards.
    func leave(_ batch: inout Contents) {
        contents.withLock { held in
            if held.isEmpty {
                swap(&held, &batch)
            } else {
                held.requests += batch.requests
                held.replies += batch.replies
                held.notes += batch.notes
            }
        }
        batch.removeAll()
        isFilled.store(true, ordering: .sequentiallyConsistent)
        if isAsleep.exchange(false, ordering: .sequentiallyConsistent) {
            var one: UInt64 = 1
            _ = unsafe write(file, &one, 8)
        }
    }

    /// - Parameter batch: empty before.
    func take(_ batch: inout Contents) {
        isFilled.store(false, ordering: .sequentiallyConsistent)
        contents.withLock { held in swap(&held, &batch) }
    }

    /// From now on mail wakes the receiver.
    ///
    /// - Returns: false if there is some already.
    func fallAsleep() -> Bool {
        isAsleep.store(true, ordering: .sequentiallyConsistent)
        if isFilled.load(ordering: .sequentiallyConsistent) {
            isAsleep.store(false, ordering: .sequentiallyConsistent)
            return false
        }
        return true
    }

    func wakeUp() { isAsleep.store(false, ordering: .sequentiallyConsistent) }

    /// After `file` was readable.
    func drainFile() {
        var count: UInt64 = 0
        _ = unsafe read(file, &count, 8)
    }
}
