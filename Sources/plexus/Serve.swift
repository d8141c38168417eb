import ArgumentParser
import Control
import Foundation
import Logging
import MirrorServer

struct Serve: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serve every mirror found on the disks, in the foreground.",
        discussion: """
            Prints the NBD URI of each mirror once it answers. SIGTERM, SIGINT or `plexus stop` end it in good
            order: requests in flight are answered, everything is flushed and marked clean. SIGHUP reads the file of --config again, and no client
            notices; without --config it stops the server too. Speaks the start-up
            protocols of systemd (sockets handed over, readiness).
            """)

    @Argument(help: "The disks; of every mirror all that there are.")
    var disks: [String] = []

    @Option(
        help:
            "Unix socket for NBD clients. Default: \(ServerOptions.defaultSocket), unless a TCP address or a socket was given."
    )
    var socket: String?

    @Option(help: "HOST:PORT for NBD over TCP; may be repeated. A port alone means the loopback address.")
    var listen: [String] = []

    @Option(help: "Unix socket for plexus status and the other verbs. Default: \(ServerOptions.defaultControl).")
    var control: String?

    @Option(help: "A TOML file with the same settings.")
    var config: String?

    @Option(name: .customLong("default"), help: "The mirror that clients get who name none. With one mirror: that one.")
    var defaultMirror: String?

    @Option(
        help:
            "Threads that serve, up to \(ServerOptions.threadsAllowed.upperBound). Mirrors are spread over them; where there are more threads than mirrors, the others serve the sockets. Default: 1."
    )
    var threads: Int?

    @Option(
        help:
            "A program that is run for each event, one after the other, with PLEXUS_EVENT, _MIRROR, _PLEX, _TEXT, _TIME, _OFFSET, _LENGTH, _ERRNO, _GENERATION, _EPOCH and _SEQUENCE in its environment."
    )
    var onEvent: String?

    @Flag(
        inversion: .prefixedNo,
        help:
            "Take a failed or missing plex back by itself when its disk is there again, if it suffices to copy what it missed and it did not fail three times within an hour. Default: yes."
    )
    var autoRejoin: Bool?

    @Option(help: "Not sooner than so many seconds after it went. Default: 10.")
    var rejoinDelay: Int?

    @Option(help: "After how many seconds a plex that is failed or missing is replaced by a spare. Default: 300.")
    var spareDelay: Int?

    @Option(
        help:
            "Go on without a plex whose disk has not done a write for so many seconds, if another one has; 0: wait for it. Default: 2."
    )
    var writeDeadline: Int?

    @Flag(
        inversion: .prefixedNo,
        help:
            "Keep all memory of the server in memory, some 550 MB, and never wait for memory until others have written theirs. Needed where a mirror is attached to the machine that serves it: else both may wait for each other for ever when memory runs short. Needs root or CAP_SYS_RESOURCE. Default: no."
    )
    var lockMemory: Bool?

    @Flag(help: "Start although in-sync plexes are absent. They may hold newer data, and are rebuilt when they return.")
    var degraded = false

    @Flag(help: "Write nothing at all, on any disk.")
    var readOnly = false

    @Flag(
        help:
            "Take the place of the server at --control, sockets and clients included: they notice nothing. Without disks and --config its own settings are kept."
    )
    var takeover = false

    func run() throws {
        try reporting {
            // A fault of one's own must not cost the clients of the other server anything.
            let own = try disks.isEmpty && config == nil && takeover ? nil : settings()
            guard takeover else { return try serve(own ?? settings(), nil, CommandLine.arguments.dropFirst()) }
            let handover = try Handover.request(from: control ?? ServerOptions.presentControl)
            if let own { return try serve(own, handover, CommandLine.arguments.dropFirst()) }
            // Paths that the other was given mean what they meant there.
            guard FileManager.default.changeCurrentDirectoryPath(handover.report.directory) else {
                throw Failure("--takeover: \(handover.report.directory), where the other server was started, is gone")
            }
            guard let other = try PlexusCommand.parseAsRoot(handover.report.arguments) as? Serve else {
                throw Failure("--takeover: what the other server was started with can't be understood")
            }
            handover.isKept = true
            try serve(other.settings(), handover, handover.report.arguments[...])
        }
    }

    /// What there is to be done, and how it is read again.
    private struct Settings {
        var options: ServerOptions
        /// Nil: there is no file.
        var reread: (@Sendable () throws -> ServerOptions)?
    }

    private func settings() throws -> Settings {
        let given = try options()
        let file = config.map(absolute)
        let read: @Sendable () throws -> ServerOptions = {
            var options = given
            if let file { try Configuration(path: file).complete(&options) }
            guard !options.disks.isEmpty else { throw DiskError("no disks named; usage: plexus serve DISK...") }
            options.disks = options.disks.map(absolute)
            options.onEvent = options.onEvent.map(absolute)
            return options
        }
        return Settings(options: try read(), reread: file == nil ? nil : read)
    }

    private func serve(_ settings: Settings, _ handover: Handover?, _ arguments: ArraySlice<String>) throws {
        let logger = Logger(label: "plexus", factory: { _ in LineLogHandler() })
        let code = try Server.run(
            settings.options, arguments: Array(arguments), handover: handover, reread: settings.reread, logger: logger
        ) { line in
            print(line)
            flushOutput()
        }
        if code != 0 { throw ExitCode(code) }
    }

    private func options() throws -> ServerOptions {
        var options = ServerOptions()
        options.disks = disks
        options.socket = socket
        options.listen = listen
        options.control = control
        options.defaultMirror = defaultMirror
        options.allowDegraded = degraded
        options.isReadOnly = readOnly
        if let threads, !ServerOptions.threadsAllowed.contains(threads) {
            throw Failure("--threads: \(ServerOptions.threadsRefusal(threads))")
        }
        options.threads = threads
        options.lockMemory = lockMemory
        options.onEvent = onEvent
        if let rejoinDelay, !ServerOptions.secondsAllowed.contains(rejoinDelay) {
            throw Failure("--rejoin-delay: \(ServerOptions.secondsRefusal(rejoinDelay))")
        }
        if let spareDelay, !ServerOptions.secondsAllowed.contains(spareDelay) {
            throw Failure("--spare-delay: \(ServerOptions.secondsRefusal(spareDelay))")
        }
        if let writeDeadline, !ServerOptions.secondsAllowed.contains(writeDeadline) {
            throw Failure("--write-deadline: \(ServerOptions.secondsRefusal(writeDeadline))")
        }
        options.writeDeadlineSeconds = writeDeadline
        options.spareSeconds = spareDelay
        options.autoRejoin = autoRejoin
        options.rejoinSeconds = rejoinDelay
        return options
    }
}
