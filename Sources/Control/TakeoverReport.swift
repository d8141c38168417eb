/// What a server leaves to the one that takes over, beside the open sockets: these follow the line, control socket first, then
/// `listeners`, then `clients`, in messages with up to 64 of them each.
public struct TakeoverReport: Codable, Sendable, Equatable {
    public struct Socket: Codable, Sendable, Equatable {
        public var isTCP: Bool
        /// Of a Unix socket that the server made, and removes.
        public var path: String?
        public var address: String
        /// As it was asked for; null: it was handed over by a service manager.
        public var origin: String?

        public init(isTCP: Bool, path: String?, address: String, origin: String?) {
            self.isTCP = isTCP
            self.path = path
            self.address = address
            self.origin = origin
        }
    }

    /// One that has chosen an export, and to whom nothing is owed.
    public struct Client: Codable, Sendable, Equatable {
        public var export: String
        public var size: UInt64
        public var structuredReplies: Bool
        public var hasAllocationContext: Bool
        /// Received and not yet understood.
        public var received: [UInt8]
        /// Bytes to come that belong to a refused write.
        public var discarding: Int

        public init(
            export: String, size: UInt64, structuredReplies: Bool, hasAllocationContext: Bool, received: [UInt8],
            discarding: Int
        ) {
            self.export = export
            self.size = size
            self.structuredReplies = structuredReplies
            self.hasAllocationContext = hasAllocationContext
            self.received = received
            self.discarding = discarding
        }
    }

    /// Of the server's program, without its name.
    public var arguments: [String]
    /// Where it was started.
    public var directory: String
    /// Absolute paths of all that it had open.
    public var disks: [String]
    public var control: Socket?
    public var listeners: [Socket]
    public var clients: [Client]
    /// What the service manager told it: NOTIFY_SOCKET, WATCHDOG_USEC.
    public var environment: [String: String]

    public init(
        arguments: [String], directory: String, disks: [String], control: Socket?, listeners: [Socket],
        clients: [Client], environment: [String: String]
    ) {
        self.arguments = arguments
        self.directory = directory
        self.disks = disks
        self.control = control
        self.listeners = listeners
        self.clients = clients
        self.environment = environment
    }

    public var fileCount: Int { (control == nil ? 0 : 1) + listeners.count + clients.count }
}
