import ArgumentParser
import Attachment
import Control
import Foundation
import Glibc
import Logging
import MirrorServer

struct Attach: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Attach a mirror as a block device of this machine: /dev/nbdN and /dev/plexus/NAME.",
        discussion: """
            Needs root and the kernel's nbd driver. A process stays behind, or in the foreground, that gives the kernel new
            connections when the server was restarted or crashed: until then reads and writes wait, and nothing fails. If
            that process was killed, the same command takes the device over again.
            """)

    @Argument(help: "The mirror.")
    var name: String

    @Argument(help: "/dev/nbdN. Default: one that is free.")
    var device: String?

    @Option(help: "The server's NBD socket or HOST:PORT. Default: what the server at --control says.")
    var server: String?

    @Option(
        help:
            "Connections to the server, \(AttachOptions.connectionsAllowed.lowerBound) to \(AttachOptions.connectionsAllowed.upperBound)."
    )
    var connections = 2

    @Option(
        help:
            "Bytes of a logical block: 512, 1024, 2048 or 4096. Default: 4096, or 512 where the partition table or file system was made for that."
    )
    var blockSize: UInt64?

    @Option(
        help:
            "Seconds that the kernel waits for an answer before it asks over another connection; 15 at least, for the server takes up to 10 to give a silent disk up."
    )
    var requestTimeout: UInt64 = 30

    @Option(help: "Seconds that reads and writes wait for a server that is gone; then they fail.")
    var deadTimeout: UInt64 = 600

    @Flag(help: "DEVICE is the mirror already, attached by nbd-client: take care of it from now on.")
    var adopt = false

    @Flag(help: "Stay in the foreground and log to stderr; tells systemd when the device is there.")
    var foreground = false

    @OptionGroup var control: ControlOptions

    /// Set for the process that stays behind: the file that it logs to.
    private static let logVariable = "PLEXUS_ATTACH_LOG"

    func run() throws {
        try reporting {
            let options = try checked()
            let logPath = ProcessInfo.processInfo.environment[Self.logVariable]
            guard foreground || logPath != nil else { return try stayBehind() }
            do {
                let logger = Logger(label: "plexus", factory: { _ in LineLogHandler() })
                let keeper = try Keeper.attach(options, logger)
                print(keeper.text)
                flushOutput()
                notifySupervisor("READY=1\nSTATUS=\(keeper.text)")
                if let logPath { try leaveTerminal(logPath) }
                // What it is needed for comes when memory may be short: the kernel writes to the device to get some back.
                do throws(DiskError) { try stayInMemory() } catch { logger.warning("\(error.description)") }
                if case .stopped = try keeper.run() {
                    logger.warning(
                        "\(keeper.device.path) stays attached, but is not reconnected any more: plexus attach \(name) takes care of it again, plexus detach \(name) ends it"
                    )
                } else {
                    logger.info("mirror=\(name) device=\(keeper.device.path): detached")
                }
            } catch let error as AttachmentError {
                throw Failure(error.description)
            }
        }
    }

    private func checked() throws -> AttachOptions {
        guard AttachOptions.connectionsAllowed.contains(connections) else {
            throw Failure(
                "--connections: \(connections); allowed are \(AttachOptions.connectionsAllowed.lowerBound) to \(AttachOptions.connectionsAllowed.upperBound)"
            )
        }
        guard AttachOptions.requestSecondsAllowed.contains(requestTimeout) else {
            throw Failure(
                "--request-timeout: \(requestTimeout) seconds; allowed are \(AttachOptions.requestSecondsAllowed.lowerBound) to \(AttachOptions.requestSecondsAllowed.upperBound)"
            )
        }
        guard AttachOptions.deadSecondsAllowed.contains(deadTimeout) else {
            throw Failure(
                "--dead-timeout: \(deadTimeout) seconds; allowed are \(AttachOptions.deadSecondsAllowed.lowerBound) to \(AttachOptions.deadSecondsAllowed.upperBound)"
            )
        }
        if let blockSize, !AttachOptions.blocksAllowed.contains(blockSize) {
            throw Failure("--block-size: \(blockSize); allowed are 512, 1024, 2048 and 4096")
        }
        guard getuid() == 0 else { throw Failure("only root may attach block devices: sudo plexus attach \(name)") }
        var options = AttachOptions(mirror: name, server: try address())
        if let device {
            guard let found = BlockDevice(path: device) else { throw Failure("\(device) is not one of /dev/nbdN") }
            options.device = found
        }
        options.connections = connections
        options.timeouts = Timeouts(request: requestTimeout, deadConnection: deadTimeout)
        options.blockBytes = blockSize
        options.adopts = adopt
        let (path, name) = (control.controlPath, name)
        options.countReads = { try? Self.countReads(path, name) }
        return options
    }

    private func address() throws -> ServerAddress {
        if let server {
            let text = server.contains("/") ? absolute(server) : server
            guard let address = ServerAddress(text) else {
                throw Failure("--server \(server): is neither a socket's path nor HOST:PORT")
            }
            return address
        }
        let report = try control.perform(ControlRequest(.status)).status
        guard report?.mirrors.contains(where: { $0.name == name }) ?? false else {
            throw Failure("the server has no mirror \(name); see plexus status")
        }
        // A path first: nothing is between it and the server.
        let sockets = report?.server.sockets ?? []
        guard let text = sockets.first(where: { $0.hasPrefix("/") }) ?? sockets.first,
            let address = ServerAddress(text)
        else { throw Failure("the server does not say where it answers NBD clients: name it with --server") }
        return address
    }

    private static func countReads(_ path: String, _ name: String) throws -> UInt64? {
        let report = try ControlClient(path: path).perform(ControlRequest(.status, mirror: name)).status
        return report?.mirrors.first?.latency?.read.requests
    }

    // MARK: the process that stays behind

    private func stayBehind() throws {
        let log = "/run/plexus-attached/\(name.replacingOccurrences(of: "/", with: "_")).log"
        let child = try Child(
            arguments: Array(CommandLine.arguments.dropFirst()), environment: [Self.logVariable: log])
        let (line, complaints) = child.firstLine()
        guard let line else {
            writeError(complaints)
            throw ExitCode(child.exitCode())
        }
        print(line)
        print("process \(child.pid) watches over it and logs to \(log)")
    }

    /// What this was started from may end, be closed or be unmounted.
    private func leaveTerminal(_ logPath: String) throws {
        let log = unsafe open(logPath, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0o644)
        guard log >= 0 else { throw Failure("\(logPath): \(unsafe String(cString: strerror(errno)))") }
        let null = unsafe open("/dev/null", O_RDWR | O_CLOEXEC)
        signal(SIGHUP, SIG_IGN)
        dup2(null, 1)
        dup2(log, 2)
        close(null)
        close(log)
        _ = unsafe chdir("/")
    }
}
