internal import BasicContainers
internal import Dispatch
internal import Foundation
internal import Glibc
internal import Logging
internal import MirrorCore
internal import NBDProtocol
internal import Synchronization
internal import URing

/// The threads of all reactors but the first, which runs where the server was started.
struct ReactorThreads {
    /// What a thread is given, and what it says. The thread takes `mirrors` before anybody else looks again.
    private final class Desk: @unchecked Sendable {
        var mirrors = UniqueArray<ServedMirror>()
        var routes = UniqueArray<Route>()
        let isMade = DispatchSemaphore(value: 0)
        let mayRun = DispatchSemaphore(value: 0)
        let hasEnded = DispatchSemaphore(value: 0)
        var isCancelled = false
        /// Why there is no reactor.
        var fault: SystemError?
        var isClean = false
    }

    private var desks: [Desk] = []

    /// Makes a reactor on each thread: a ring belongs to the thread that sets it up.
    ///
    /// - Parameter shares: the mirrors of each reactor; those of the first stay there.
    init(
        _ group: ReactorGroup, shares: inout UniqueArray<UniqueArray<ServedMirror>>, routes: [RouteSeed],
        defaultName: String?, isReadOnly: Bool, logger: Logger
    ) throws(SystemError) {
        for place in 1..<max(group.members.count, 1) {
            let desk = Desk()
            swap(&desk.mirrors, &shares[place])
            for seed in routes { desk.routes.append(seed.route(share: group.share)) }
            desks.append(desk)
            Self.start(place, group, desk, defaultName: defaultName, isReadOnly: isReadOnly, logger: logger)
            desk.isMade.wait()
            if let fault = desk.fault {
                cancel()
                throw fault
            }
        }
    }

    private static func start(
        _ place: Int, _ group: ReactorGroup, _ desk: Desk, defaultName: String?, isReadOnly: Bool, logger: Logger
    ) {
        let thread = Thread {
            defer { desk.hasEnded.signal() }
            var mirrors = UniqueArray<ServedMirror>()
            var routes = UniqueArray<Route>()
            swap(&mirrors, &desk.mirrors)
            swap(&routes, &desk.routes)
            do throws(SystemError) {
                var reactor = try Reactor(
                    place, of: group, mirrors: mirrors, routes: routes, defaultName: defaultName,
                    isReadOnly: isReadOnly, logger: logger)
                desk.isMade.signal()
                desk.mayRun.wait()
                if !desk.isCancelled { desk.isClean = reactor.run { _ in } }
            } catch {
                desk.fault = error
                desk.isMade.signal()
            }
        }
        thread.name = "plexus-\(place)"
        thread.stackSize = 8 << 20
        thread.start()
    }

    func run() {
        for desk in desks { desk.mayRun.signal() }
    }

    /// Instead of `run`.
    func cancel() {
        for desk in desks where desk.fault == nil {
            desk.isCancelled = true
            desk.mayRun.signal()
            desk.hasEnded.wait()
        }
    }

    /// Waits for all to end.
    ///
    /// - Returns: whether everything was stopped in good order.
    func join() -> Bool {
        for desk in desks { desk.hasEnded.wait() }
        return desks.allSatisfy(\.isClean)
    }
}

/// What a route to a mirror is made of, on each reactor anew.
struct RouteSeed {
    var export: ExportDescription
    var place: MirrorPlace

    func route(share: Int) -> Route { Route(export: export, place: place, share: share) }
}
