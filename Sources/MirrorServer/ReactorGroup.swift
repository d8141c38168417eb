internal import Glibc
internal import MirrorCore
internal import NBDProtocol
internal import Synchronization
internal import URing

/// The reactors of one server, each on a thread of its own, and the little that they share.
///
/// The first has the listening sockets, the handshakes and the control socket. Mirrors are dealt out in turn and stay
/// where they are. Where there are more reactors than mirrors, those without one serve the sockets of all; otherwise
/// each mirror's reactor serves the sockets of its clients, and no request ever crosses threads.
final class ReactorGroup: Sendable {
    final class Member: Sendable {
        let mailbox: Mailbox
        /// Its connections, handshakes included.
        fileprivate let clients = Atomic(0)

        init() throws(SystemError) { mailbox = try Mailbox() }
    }

    let members: [Member]
    /// Those that serve sockets and no mirror.
    let helpers: Range<Int>
    private let runningMirrors: Atomic<Int>
    /// Which mirror has a disk open, by path.
    private let owners = Mutex<[String: String]>([:])

    /// - Parameters:
    ///   - threads: at least 1.
    ///   - mirrors: how many are served at start.
    init(threads: Int, mirrors: Int) throws(SystemError) {
        var members: [Member] = []
        for _ in 0..<threads { members.append(try Member()) }
        self.members = members
        let withMirrors = max(mirrors, 1)
        helpers = withMirrors < threads ? withMirrors..<threads : 0..<0
        runningMirrors = Atomic(mirrors)
    }

    /// Where the mirror of that number runs.
    func reactor(ofMirror number: Int) -> Int { number % (helpers.isEmpty ? members.count : helpers.lowerBound) }

    /// Of what one mirror has room for: what the sockets of one reactor may use.
    var share: Int { Limits().requests / max(helpers.count, 1) }

    /// Which reactor shall serve a new client of a mirror there.
    func reactor(forClientOf place: MirrorPlace) -> Int {
        helpers.min { clients(of: $0) < clients(of: $1) } ?? place.reactor
    }

    private func clients(of reactor: Int) -> Int { members[reactor].clients.load(ordering: .relaxed) }

    /// Of all reactors, handshakes included.
    var connections: Int { members.indices.reduce(0) { $0 + clients(of: $1) } }
    func connectionEntered(_ reactor: Int) { members[reactor].clients.add(1, ordering: .relaxed) }
    func connectionLeft(_ reactor: Int) { members[reactor].clients.subtract(1, ordering: .relaxed) }

    /// A reactor stays until no mirror runs, for each of them may owe it replies.
    var areAllStopped: Bool { runningMirrors.load(ordering: .sequentiallyConsistent) == 0 }
    func mirrorStarted() { runningMirrors.add(1, ordering: .sequentiallyConsistent) }
    func mirrorsStopped(_ count: Int) { runningMirrors.subtract(count, ordering: .sequentiallyConsistent) }

    func claim(_ path: String, mirror: String) { owners.withLock { $0[path] = mirror } }
    func giveUp(_ path: String) { owners.withLock { _ = $0.removeValue(forKey: path) } }
    func owner(of path: String) -> String? { owners.withLock { $0[path] } }
}
