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
        let isMade = DispatchSemaphore(value: 0)
        let mayRun = DispatchSemaphore(value: 0)
        let hasEnded = DispatchSemaphore(value: 0)
        let mayLeave = DispatchSemaphore(value: 0)
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
        _ group: ReactorGroup, shares: inout UniqueArray<UniqueArray<ServedMirror>>, routes: [Route],
        defaultName: String?, isReadOnly: Bool, logger: Logger
    ) throws(SystemError) {
        for place in 1..<max(group.mailboxes.count, 1) {
            let desk = Desk()
            swap(&desk.mirrors, &shares[place])
            desks.append(desk)
            Self.start(
                place, group, desk, routes: routes, defaultName: defaultName, isReadOnly: isReadOnly, logger: logger)
            // Foundation does not tell that there was no thread to be had.
            if desk.isMade.wait(timeout: .now() + 30) == .timedOut {
                desk.fault = SystemError("pthread_create", number: EAGAIN)
            }
            if let fault = desk.fault {
                cancel()
                throw fault
            }
        }
    }

    private static func start(
        _ place: Int, _ group: ReactorGroup, _ desk: Desk, routes: [Route], defaultName: String?, isReadOnly: Bool,
        logger: Logger
    ) {
        let thread = Thread {
            var mirrors = UniqueArray<ServedMirror>()
            swap(&mirrors, &desk.mirrors)
            do throws(SystemError) {
                var reactor = try Reactor(
                    place, of: group, mirrors: mirrors, routes: routes, defaultName: defaultName,
                    isReadOnly: isReadOnly, logger: logger)
                desk.isMade.signal()
                desk.mayRun.wait()
                if !desk.isCancelled {
                    desk.isClean = reactor.run { _ in }
                    desk.hasEnded.signal()
                    // Others may still work with its memory.
                    desk.mayLeave.wait()
                }
                _ = consume reactor
            } catch {
                desk.fault = error
                desk.isMade.signal()
            }
            desk.hasEnded.signal()
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

    /// Waits for all to end; for one that hangs in a call of the system not for ever.
    ///
    /// - Returns: whether everything was stopped in good order. If not, no memory is given back but by the end of the
    ///   process: operations may be under way there.
    func join() -> Bool {
        let deadline = DispatchTime.now() + 5
        for desk in desks where desk.hasEnded.wait(timeout: deadline) == .timedOut { return false }
        guard desks.allSatisfy(\.isClean) else { return false }
        for desk in desks {
            desk.mayLeave.signal()
            desk.hasEnded.wait()
        }
        return true
    }
}
