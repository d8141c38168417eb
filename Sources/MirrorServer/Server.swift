internal import BasicContainers
internal import Control
internal import Foundation
internal import Glibc
package import Logging
internal import MirrorCore
internal import MirrorFormat
internal import URing

/// The version that `--version` and `status --json` tell.
public let plexusVersion = "0.1.0"

/// What `plexus serve` was asked for.
public struct ServerOptions: Sendable {
    public var disks: [String] = []
    /// Nil: the default path, unless a socket was handed over or only TCP is wanted.
    public var socket: String?
    public var listen: [String] = []
    public var control: String?
    public var defaultMirror: String?
    public var allowDegraded = false
    public var isReadOnly = false
    /// Absolute path of a program that is run for each event.
    public var onEvent: String?
    /// A plex whose disk comes back takes part again. Nil: yes.
    public var autoRejoin: Bool?
    /// Not sooner than so many seconds after it went. Nil: 10.
    public var rejoinSeconds: Int?
    /// A plex that is out for so long is replaced by a spare. Nil: 300.
    public var spareSeconds: Int?
    public var writeDeadlineSeconds: Int?
    /// A scrub begins so many seconds after the last. Nil: never by itself.
    public var scrubSeconds: Int?
    /// Bytes per second that it reads of each plex. Nil: no limit.
    public var scrubLimit: UInt64?
    /// Reactors, each on a thread of its own. Nil: one.
    public var threads: Int?
    /// See `stayInMemory`. Nil: no.
    public var lockMemory: Bool?

    public static let threadsAllowed = 1...64

    /// Of a delay.
    public static let secondsAllowed = 0...86_400

    public static func secondsRefusal(_ seconds: Int) -> String {
        "\(seconds) seconds: allowed are \(secondsAllowed.lowerBound) to \(secondsAllowed.upperBound)"
    }

    var opening: Opening.Options {
        var opening = Opening.Options()
        opening.allowDegraded = allowDegraded
        opening.isReadOnly = isReadOnly
        return opening
    }

    var policies: Policies {
        var policies = Policies()
        policies.disks = disks
        if let autoRejoin { policies.rejoins = autoRejoin }
        if let rejoinSeconds { policies.rejoinSeconds = UInt64(rejoinSeconds) }
        if let spareSeconds { policies.spareSeconds = UInt64(spareSeconds) }
        if let writeDeadlineSeconds { policies.writeDeadlineSeconds = UInt64(writeDeadlineSeconds) }
        policies.scrubs = ScrubPolicy(everySeconds: scrubSeconds.map { UInt64($0) }, limit: scrubLimit)
        return policies
    }

    public static func threadsRefusal(_ threads: Int) -> String {
        "\(threads) threads: allowed are \(threadsAllowed.lowerBound) to \(threadsAllowed.upperBound)"
    }

    public init() {}

    /// `$XDG_RUNTIME_DIR/plexus/` or `/run/plexus/`.
    public static var runtimeDirectory: String {
        if let directory = ProcessInfo.processInfo.environment["XDG_RUNTIME_DIR"], !directory.isEmpty {
            return "\(directory)/plexus"
        }
        return systemDirectory
    }

    private static let systemDirectory = "/run/plexus"

    public static var defaultSocket: String { "\(runtimeDirectory)/nbd.sock" }
    public static var defaultControl: String { "\(runtimeDirectory)/control.sock" }

    /// Where verbs look for the server: one of this user's, else the one of the system, if that is there. A root who is
    /// logged in has a runtime directory of the session, and the server that systemd started does not listen there.
    public static var presentControl: String {
        let ofSystem = "\(systemDirectory)/control.sock"
        let isOther = unsafe access(defaultControl, F_OK) != 0 && access(ofSystem, F_OK) == 0
        return isOther ? ofSystem : defaultControl
    }
}

/// `plexus serve`.
public enum Server {
    /// Runs until it is stopped, or another process has taken over.
    ///
    /// - Parameters:
    ///   - arguments: of the program, without its name; a process that takes over may use them again.
    ///   - handover: from another process that served until now.
    ///   - reread: gives the options anew at SIGHUP; nil: SIGHUP stops the server.
    ///   - announce: called with a line for the user once everything answers.
    /// - Returns: the exit code.
    /// - Throws: `DiskError` when it can't start.
    package static func run(
        _ options: ServerOptions, arguments: [String] = [], handover: Handover? = nil,
        reread: (@Sendable () throws -> ServerOptions)? = nil,
        logger: Logger, announce: (String) -> Void
    ) throws -> Int32 {
        signal(SIGPIPE, SIG_IGN)
        raiseFileLimit()
        var supervisor = Supervisor(environment: ProcessInfo.processInfo.environment)
        // Before there are threads, rings and buffers.
        if options.lockMemory ?? false { try stayInMemory() }
        var options = options
        var handover = handover
        var opened = options.disks
        if let handover { opened = handover.isKept ? handover.report.disks : handover.report.disks(and: options.disks) }
        while true {
            options.disks += opened.filter { !options.disks.contains($0) }
            supervisor.tell(status: "opens \(opened.count) disks")
            guard
                let (left, settings) = try serve(
                    options, opened, arguments, handover, reread: reread, supervisor: supervisor, logger: logger,
                    announce: announce)
            else { return 0 }
            options = settings
            let next = left.leave { supervisor.tick(now: currentInstant().nanoseconds, isAlive: true) }
            if let process = next {
                logger.info("process \(process) has taken over")
                supervisor.tell("MAINPID=\(process)")
                return 0
            }
            logger.error("the other server ended before it served: this one goes on")
            handover = left
            opened = left.report.disks
        }
    }

    /// - Returns: what another process is to have; nil when the server was stopped.
    private static func serve(
        _ options: ServerOptions, _ disks: [String], _ arguments: [String], _ handover: Handover?,
        reread: (@Sendable () throws -> ServerOptions)?,
        supervisor: Supervisor, logger: Logger, announce: (String) -> Void
    ) throws -> (Handover, ServerOptions)? {
        let eventProgram = try options.onEvent.map { path throws(DiskError) in
            try EventProgram(path: path, logger: logger)
        }
        var opening = try open(disks, options, isPatient: handover?.isOwn ?? false, logger)
        let (listeners, control) =
            try handover.map { left throws(DiskError) in try sockets(options, left) }
            ?? sockets(options, logger)
        // Before there are other threads, so that none of them gets these signals.
        var signals = stopSignals(isHangUpAmong: reread != nil)
        unsafe sigprocmask(SIG_BLOCK, &signals, nil)
        let wanted = options.threads ?? 1
        let count = ReactorGroup.useful(threads: wanted, mirrors: opening.served.count)
        if count < wanted { logger.warning("\(count) threads are used: more than two for each mirror have no work") }
        let group = try ReactorGroup(
            threads: count, mirrors: opening.served.count, policies: options.policies,
            isSupervised: supervisor.isPresent)
        var shares = UniqueArray<UniqueArray<ServedMirror>>()
        let routes = deal(&opening.served, to: &shares, group)
        let threads = try ReactorThreads(
            group, shares: &shares, routes: routes, defaultName: options.defaultMirror, isReadOnly: options.isReadOnly,
            logger: logger)
        var reactor: Reactor
        do {
            reactor = try Reactor(
                0, of: group, mirrors: shares.remove(at: 0), routes: routes, refused: opening.refused,
                listeners: listeners, controlListener: control, defaultName: options.defaultMirror,
                isReadOnly: options.isReadOnly, logger: logger)
            reactor.settings.options = options
        } catch {
            threads.cancel()
            throw error
        }
        reactor.eventProgram = eventProgram
        reactor.supervisor = supervisor
        reactor.settings.read = reread
        threads.run()
        reactor.inherited = handover
        let isClean = reactor.run { reactor in
            for line in addresses(reactor) { announce(line) }
            handover?.isServing()
        }
        let areOthersClean = threads.join()
        eventProgram?.finish(withinSeconds: 5)
        guard isClean && areOthersClean else {
            // Not by way of whatever gives memory back that a disk may still be writing from.
            _exit(1)
        }
        let settings = reactor.settings.options
        let left = reactor.handover.map { stage in
            Handover(
                arguments: arguments, control: control, listeners: reactor.listeners.compactMap { $0 },
                clients: group.leftClients, disks: stage.disks, environment: ProcessInfo.processInfo.environment,
                peer: reactor.takePeer() ?? -1)
        }
        _ = consume reactor
        return left.map { ($0, settings) }
    }

    /// - Parameter isPatient: what another process had open for a moment, and may have operations under way on, is waited for.
    private static func open(
        _ disks: [String], _ options: ServerOptions, isPatient: Bool, _ logger: Logger
    ) throws(DiskError) -> Opening {
        var how = options.opening
        if isPatient { how.patienceSeconds = 60 }
        let opening = try Opening.open(disks, how)
        for warning in opening.warnings { logger.warning("\(warning)") }
        for refused in opening.refused {
            logger.error("mirror=\(refused.name) state=\(refused.state): \(refused.reason); \(refused.action)")
        }
        // A split is no reason to leave: `plexus status` tells of it, and `plexus resolve` ends it.
        let hasSplit = opening.refused.contains { $0.split != nil }
        guard !opening.served.isEmpty || (hasSplit && !options.isReadOnly) else { throw nothingToServe(opening) }
        if let name = options.defaultMirror,
            !opening.served.indices.contains(where: { opening.served[$0].name == name })
        {
            throw DiskError("--default \(name): no such mirror on these disks")
        }
        return opening
    }

    private static func sockets(
        _ options: ServerOptions, _ logger: Logger
    ) throws(DiskError) -> (listeners: [Listener], control: Listener?) {
        let handedOver = Listener.activated()
        let listeners = try listen(options, handedOver)
        do throws(DiskError) {
            return (listeners, try controlSocket(options, isActivated: !handedOver.isEmpty, logger))
        } catch {
            for listener in listeners { listener.shut() }
            throw error
        }
    }

    /// Those of another process, as far as they are wanted, and what is wanted beyond that.
    ///
    /// The other one goes on with all of its own if this fails: none may be removed before.
    private static func sockets(
        _ options: ServerOptions, _ handover: Handover
    ) throws(DiskError) -> (listeners: [Listener], control: Listener?) {
        let present = handover.listeners
        let wanted = options.listenOrigins(hasOthers: present.contains { $0.origin == nil })
        var new: [Listener] = []
        do throws(DiskError) {
            for origin in wanted where !present.contains(where: { $0.origin == origin }) {
                new += try Listener.listen(origin)
            }
            var control = handover.control
            if let path = options.control ?? (control == nil ? ServerOptions.defaultControl : nil),
                path != control?.path
            {
                let own = try Listener.unix(path)
                if let control { handover.willShut(control) }
                control = own
            }
            for listener in present where !isWanted(listener, wanted) { handover.willShut(listener) }
            return (present.filter { isWanted($0, wanted) } + new, control)
        } catch {
            for listener in new { listener.shut() }
            throw error
        }
    }

    private static func isWanted(_ listener: Listener, _ origins: [String]) -> Bool {
        listener.origin.map { origins.contains($0) } ?? true
    }

    /// Each mirror goes to its reactor.
    private static func deal(
        _ served: inout UniqueArray<ServedMirror>, to shares: inout UniqueArray<UniqueArray<ServedMirror>>,
        _ group: ReactorGroup
    ) -> [Route] {
        for _ in group.mailboxes { shares.append(UniqueArray<ServedMirror>()) }
        var routes: [Route] = []
        while !served.isEmpty {
            let mirror = served.remove(at: 0)
            group.claimDisks(of: mirror)
            let reactor = group.reactor(ofMirror: routes.count)
            let place = MirrorPlace(reactor: reactor, index: shares[reactor].count)
            group.enter(mirror.mirror.record.mirror, place)
            routes.append(Route(export: mirror.export, place: place))
            shares[reactor].append(mirror)
        }
        return routes
    }

    private static func nothingToServe(_ opening: borrowing Opening) -> DiskError {
        var lines = opening.warnings
        lines += opening.refused.map { "mirror \($0.name) is not started (\($0.state)): \($0.reason); \($0.action)" }
        return DiskError(lines.isEmpty ? "no disk was named" : lines.joined(separator: "\n"))
    }

    private static func listen(_ options: ServerOptions, _ handedOver: [Listener]) throws(DiskError) -> [Listener] {
        var listeners = handedOver
        do throws(DiskError) {
            for origin in options.listenOrigins(hasOthers: !handedOver.isEmpty) {
                listeners += try Listener.listen(origin)
            }
        } catch {
            for listener in listeners { listener.shut() }
            throw error
        }
        return listeners
    }

    /// A server that libnbd or systemd started for one client does without, if the usual place is taken.
    private static func controlSocket(
        _ options: ServerOptions, isActivated: Bool, _ logger: Logger
    ) throws(DiskError) -> Listener? {
        if let path = options.control { return try Listener.unix(path) }
        do throws(DiskError) {
            return try Listener.unix(ServerOptions.defaultControl)
        } catch {
            guard isActivated else { throw error }
            logger.warning("no control socket: \(error.description)")
            return nil
        }
    }

    private static func addresses(_ reactor: borrowing Reactor) -> [String] {
        var lines: [String] = []
        // What needs no percent sign in a query; RFC 3986, "unreserved", and the slash.
        let plain = CharacterSet(
            charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")
        for refused in reactor.refused {
            lines.append("\(refused.name): not served (\(refused.state)): \(refused.reason); \(refused.action)")
        }
        for route in reactor.routes.indices {
            let plainName = reactor.routes[route].name
            let name = plainName.addingPercentEncoding(withAllowedCharacters: .urlPathAllowed) ?? plainName
            for case let listener? in reactor.listeners {
                if let path = listener.path {
                    let absolute = path.hasPrefix("/") ? path : FileManager.default.currentDirectoryPath + "/" + path
                    let socket = absolute.addingPercentEncoding(withAllowedCharacters: plain) ?? absolute
                    lines.append("\(plainName): nbd+unix:///\(name)?socket=\(socket)")
                } else if listener.isTCP, !listener.address.hasPrefix("fd ") {
                    // localhost may have two addresses and has one name.
                    let line = "\(plainName): nbd://\(listener.address)/\(name)"
                    if lines.last != line { lines.append(line) }
                }
            }
        }
        return lines
    }

    static func raiseFileLimit() {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(7), &limit) == 0 else { return }  // RLIMIT_NOFILE
        limit.rlim_cur = min(limit.rlim_max, 65_536)
        unsafe setrlimit(__rlimit_resource_t(7), &limit)
    }
}
