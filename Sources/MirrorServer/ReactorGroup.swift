internal import Glibc
internal import MirrorCore
internal import MirrorFormat
internal import NBDProtocol
internal import Synchronization
internal import URing

/// The reactors of one server, each on a thread of its own, and the little that they share.
///
/// The first has the listening sockets, the handshakes and the control socket. Mirrors are dealt out in turn and stay
/// where they are. Where there are more reactors than mirrors, those without one serve the sockets; otherwise each
/// mirror's reactor serves the sockets of its clients, and no request ever crosses threads.
///
/// All sockets of one mirror are served by one reactor. A client that lost its connection may send a request again over
/// another one, and newer ones behind it: they must reach the mirror behind all that the first connection still brings.
/// Within one reactor the order in which they came holds; between two there would be none.
final class ReactorGroup: Sendable {
    /// By reactor.
    let mailboxes: [Mailbox]
    /// Those that serve sockets and no mirror.
    private let helpers: Range<Int>
    private let runningMirrors: Atomic<Int>
    private let openConnections = Atomic(0)
    private let currentPolicies: Mutex<Policies>
    /// Where mirrors run.
    private let places = Mutex<[MirrorUUID: MirrorPlace]>([:])
    /// Which mirror has a disk open, by path.
    private let owners = Mutex<[String: String]>([:])
    /// For another server process.
    private let clientsLeft = Mutex<[Handover.Client]>([])
    /// Mirrors that copy, or would if no other came first.
    private let copying = Mutex<[String: ResyncPriority]>([:])
    /// There is a service manager that wants to know.
    let isSupervised: Bool
    /// By mirror: its state and why, in one line.
    private let currentConditions = Mutex<[String: String]>([:])

    /// More than two for each mirror would have nothing to do.
    static func useful(threads: Int, mirrors: Int) -> Int { min(threads, 2 * max(mirrors, 1)) }

    /// - Parameters:
    ///   - threads: at least 1, at most `useful`.
    ///   - mirrors: how many are served at start.
    init(
        threads: Int, mirrors: Int, policies: Policies = Policies(), isSupervised: Bool = false
    ) throws(SystemError) {
        self.isSupervised = isSupervised
        currentPolicies = Mutex(policies)
        var mailboxes: [Mailbox] = []
        for _ in 0..<threads { mailboxes.append(try Mailbox()) }
        self.mailboxes = mailboxes
        let withMirrors = max(mirrors, 1)
        helpers = withMirrors < threads ? withMirrors..<threads : 0..<0
        runningMirrors = Atomic(mirrors)
    }

    /// Where the mirror of that number runs.
    func reactor(ofMirror number: Int) -> Int { number % (helpers.isEmpty ? mailboxes.count : helpers.lowerBound) }

    /// Which reactor serves the clients of a mirror there.
    func reactor(forClientsOf place: MirrorPlace) -> Int {
        helpers.isEmpty ? place.reactor : helpers.lowerBound + (place.reactor + place.index) % helpers.count
    }

    /// Of all reactors, handshakes included.
    var connections: Int { openConnections.load(ordering: .relaxed) }
    func connectionEntered() { openConnections.add(1, ordering: .relaxed) }
    func connectionLeft() { openConnections.subtract(1, ordering: .relaxed) }

    /// A reactor stays until no mirror runs, for each of them may owe it replies.
    var areAllStopped: Bool { runningMirrors.load(ordering: .sequentiallyConsistent) == 0 }
    func mirrorStarted() { runningMirrors.add(1, ordering: .sequentiallyConsistent) }
    func mirrorsStopped(_ count: Int) { runningMirrors.subtract(count, ordering: .sequentiallyConsistent) }

    func enter(_ mirror: MirrorUUID, _ place: MirrorPlace) { places.withLock { $0[mirror] = place } }
    func leave(_ mirror: MirrorUUID) { places.withLock { _ = $0.removeValue(forKey: mirror) } }
    func place(of mirror: MirrorUUID) -> MirrorPlace? { places.withLock { $0[mirror] } }
    var mirrors: Set<MirrorUUID> { places.withLock { Set($0.keys) } }

    var policies: Policies {
        get { currentPolicies.withLock { $0 } }
        set { currentPolicies.withLock { $0 = newValue } }
    }

    /// Of one mirror: whether it has something to copy. Those below it wait.
    func copies(_ mirror: String, _ priority: ResyncPriority?) {
        copying.withLock { $0[mirror] = priority }
    }

    /// The mirror whose copying comes before one of that priority, the most urgent first; nil: none.
    func copiesBefore(_ priority: ResyncPriority) -> String? {
        copying.withLock { copying in
            copying.filter { $0.value > priority }.max { ($0.value, $1.key) < ($1.value, $0.key) }?.key
        }
    }

    var conditions: [String: String] { currentConditions.withLock { $0 } }
    func note(_ mirror: String, _ condition: String) { currentConditions.withLock { $0[mirror] = condition } }

    /// Whether every loop went round since then; monotonic nanoseconds.
    func allTicked(since time: UInt64) -> Bool { mailboxes.allSatisfy { $0.hasTicked(since: time) } }

    func leave(_ client: Handover.Client) { clientsLeft.withLock { $0.append(client) } }
    var leftClients: [Handover.Client] { clientsLeft.withLock { $0 } }
    var claimedPaths: [String] { owners.withLock { $0.keys.sorted() } }

    func claimDisks(of mirror: borrowing ServedMirror) {
        for case let disk? in mirror.disks { claim(disk.path, mirror: mirror.name) }
        for spare in mirror.spares { claim(spare.disk.path, mirror: mirror.name) }
    }

    func claim(_ path: String, mirror: String) { owners.withLock { $0[path] = mirror } }
    func giveUp(_ path: String) { owners.withLock { _ = $0.removeValue(forKey: path) } }
    func owner(of path: String) -> String? { owners.withLock { $0[path] } }
}
