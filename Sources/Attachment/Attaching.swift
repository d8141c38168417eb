public import Logging
internal import Glibc

/// What `plexus attach` was asked for.
public struct AttachOptions: Sendable {
    public var mirror: String
    public var server: ServerAddress
    /// Nil: any that is free.
    public var device: BlockDevice?
    public var connections = 2
    public var timeouts = Timeouts(request: 30, deadConnection: 600)
    /// Nil: as the contents want it; see `BlockSize`.
    public var blockBytes: UInt64?
    /// The device was attached by another program.
    public var adopts = false
    /// Reads that the server has answered for the mirror, if it can be asked: whether the device that is to be adopted
    /// is this mirror shows there.
    public var countReads: (@Sendable () -> UInt64?)?

    public static let connectionsAllowed = 1...16
    /// The server gives a disk up that is silent for 2 seconds, or for 10 at a flush; a kernel that is less patient would take the
    /// server for dead because of one slow disk.
    public static let requestSecondsAllowed: ClosedRange<UInt64> = 15...86_400
    public static let deadSecondsAllowed: ClosedRange<UInt64> = 1...31_536_000
    public static let blocksAllowed: [UInt64] = [512, 1024, 2048, 4096]

    public init(mirror: String, server: ServerAddress) {
        self.mirror = mirror
        self.server = server
    }
}

extension Keeper {
    /// Attaches the mirror as a block device, or takes care again of one that it is attached as already.
    ///
    /// - Throws: `AttachmentError`.
    public static func attach(_ options: AttachOptions, _ logger: Logger) throws(AttachmentError) -> Keeper {
        let driver = try Driver()
        try Record.makeFolder()
        // Two that attach the same mirror at once must see each other.
        let turn = try Lock.take("\(Record.folder)/lock", waits: true)
        defer { _ = turn }
        if let device = Record.find(options.mirror) {
            if let wanted = options.device, wanted != device {
                throw AttachmentError("\(options.mirror) is attached as \(device.path) already, not as \(wanted.path)")
            }
            guard !Record.isWatched(device) else {
                throw AttachmentError(
                    "\(options.mirror) is attached as \(device.path) already; detach it first: plexus detach \(options.mirror)"
                )
            }
            return try takeOver(device, options, driver, logger)
        }
        let connection = try ServerConnection(options.server, export: options.mirror, withinSeconds: 10)
        if options.adopts { return try adopt(options, connection, driver, logger) }
        return try attachNew(options, connection, driver, logger)
    }

    private static func attachNew(
        _ options: AttachOptions, _ first: ServerConnection, _ driver: Driver, _ logger: Logger
    ) throws(AttachmentError) -> Keeper {
        if let device = options.device, device.isAttached {
            throw AttachmentError(
                "\(device.path) is in use\(device.owner.map { " by \($0)" } ?? ""); if nbd-client attached \(options.mirror) as that: --adopt"
            )
        }
        let block: UInt64
        if let wanted = options.blockBytes { block = wanted } else { block = try fittingBlock(first) }
        guard first.sizeBytes % block == 0 else {
            throw AttachmentError("\(first.sizeBytes) bytes are no multiple of the blocks of \(block) bytes")
        }
        var sockets: [Int32] = []
        defer { for socket in sockets { close(socket) } }
        sockets.append(try first.socket())
        let count = first.allowsSeveral ? options.connections : 1
        while sockets.count < count {
            let next = try ServerConnection(options.server, export: options.mirror, withinSeconds: 10)
            guard next.identity == first.identity, next.sizeBytes == first.sizeBytes else {
                throw AttachmentError("\(options.server): another server answers there now; try again")
            }
            sockets.append(try next.socket())
        }
        let record = Record(
            mirror: options.mirror, identity: first.identity, server: options.server.description,
            backend: Record.backend(of: options.mirror), connections: count, attacher: "")
        let number = try driver.connect(
            device: options.device?.number,
            Driver.Parameters(
                sizeBytes: first.sizeBytes, blockBytes: block, serverFlags: first.transmissionFlags,
                timeouts: options.timeouts, backend: Record.backend(of: options.mirror)), sockets)
        let device = BlockDevice(number: number)
        let text = "\(options.mirror) is attached: \(device.path), blocks of \(block) bytes, connections: \(count)"
        do throws(AttachmentError) {
            return try watch(device, record, first.sizeBytes, driver, mayBeHurt: false, text, logger)
        } catch {
            // Nobody would connect it again.
            try driver.disconnect(device: number)
            throw error
        }
    }

    private static func fittingBlock(_ connection: ServerConnection) throws(AttachmentError) -> UInt64 {
        BlockSize.fitting(
            try connection.read(at: 0, count: Int(min(connection.sizeBytes, UInt64(BlockSize.headBytes)))))
    }

    /// It is attached, and nobody reconnects it: the process that did was killed.
    private static func takeOver(
        _ device: BlockDevice, _ options: AttachOptions, _ driver: Driver, _ logger: Logger
    ) throws(AttachmentError) -> Keeper {
        var record =
            Record.read(device)
            ?? Record(
                mirror: options.mirror, identity: "", server: "", backend: device.backend,
                connections: AttachOptions.connectionsAllowed.upperBound, attacher: device.attacher ?? "")
        if record.identity.isEmpty {
            // Nobody knows any more which mirror of that name it was: now it has to be there, and look like it.
            let connection = try ServerConnection(options.server, export: options.mirror, withinSeconds: 10)
            try compare(device, connection, options)
            record.identity = connection.identity
        }
        record.server = options.server.description
        let change = try driver.reconfigure(
            device: device.number, backend: record.backend, options.timeouts, socket: nil)
        guard case .done = change else { throw AttachmentError("\(device.path) was detached just now; try again") }
        let text = "\(options.mirror) is attached as \(device.path) since before, and watched over again"
        return try watch(device, record, device.sizeBytes, driver, mayBeHurt: true, text, logger)
    }

    /// Another program attached it, and does not reconnect it.
    private static func adopt(
        _ options: AttachOptions, _ connection: ServerConnection, _ driver: Driver, _ logger: Logger
    ) throws(AttachmentError) -> Keeper {
        guard let device = options.device else { throw AttachmentError("--adopt needs the device: /dev/nbdN") }
        guard device.isAttached else { throw AttachmentError("\(device.path) is not attached; leave --adopt out") }
        if let owner = device.owner {
            throw AttachmentError("\(device.path) is attached to something else: \(owner)")
        }
        try compare(device, connection, options)
        let change = try driver.reconfigure(
            device: device.number, backend: device.backend, options.timeouts, socket: nil)
        guard case .done = change else {
            throw AttachmentError(
                "\(device.path) was attached without netlink (nbd-client -nonetlink), so no connection of it can be replaced: detach it (nbd-client -d \(device.path)), then plexus attach \(options.mirror)"
            )
        }
        let record = Record(
            mirror: options.mirror, identity: connection.identity, server: options.server.description,
            backend: device.backend, connections: AttachOptions.connectionsAllowed.upperBound, attacher: "")
        let text = "\(options.mirror): \(device.path) is adopted"
        return try watch(device, record, connection.sizeBytes, driver, mayBeHurt: true, text, logger)
    }

    private static func watch(
        _ device: BlockDevice, _ record: Record, _ sizeBytes: UInt64, _ driver: Driver, mayBeHurt: Bool, _ text: String,
        _ logger: Logger
    ) throws(AttachmentError) -> Keeper {
        let lock = try Record.lock(device)
        guard let server = ServerAddress(record.server) else {
            preconditionFailure("an address is read as it was written")
        }
        var record = record
        record.attacher = device.attacher ?? ""
        try record.write(device, lock)
        // Looking for partitions reads, and would wait for connections that nobody replaces yet.
        if !mayBeHurt { device.announce() }
        let hasName = StableName.set(record.mirror, to: device)
        return Keeper(
            device: device, record: record, server: server, sizeBytes: sizeBytes, driver: driver, lock: lock,
            mayBeHurt: mayBeHurt, text: hasName ? "\(text); also \(StableName.path(record.mirror))" : text,
            logger: logger)
    }

    // MARK: whether a device is this mirror

    private static let comparedBlocks = 64

    /// A device that another program attached does not say what it is. It is this mirror if it is as large, holds the same, and
    /// what is read from it is read from the server.
    private static func compare(
        _ device: BlockDevice, _ connection: ServerConnection, _ options: AttachOptions
    ) throws(AttachmentError) {
        guard device.sizeBytes == connection.sizeBytes else {
            throw AttachmentError(
                "\(device.path) has \(device.sizeBytes) bytes, \(options.mirror) has \(connection.sizeBytes): it is another disk"
            )
        }
        guard let countReads = options.countReads, let earlier = countReads() else {
            throw AttachmentError(
                "whether \(device.path) is \(options.mirror) can't be seen without the server's control socket: --control PATH"
            )
        }
        let blocks = connection.sizeBytes / 4096
        let step = max(1, blocks / UInt64(comparedBlocks))
        let offsets = (0..<min(blocks, UInt64(comparedBlocks))).map { $0 * step * 4096 }
        // Others may read from the mirror as well: as long a time without reading tells how much that is.
        let began = ContinuousClock.now
        var contents = try read(device, offsets)
        let took = ContinuousClock.now - began
        guard contents.contains(where: { $0.contains { $0 != 0 } }) else {
            throw AttachmentError(
                "\(device.path) is empty, and so may be others: detach it, nbd-client -d \(device.path), and attach it: plexus attach \(options.mirror) \(device.path)"
            )
        }
        usleep(UInt32(took / .microseconds(1)) + 50_000)
        let before = countReads()
        contents = try read(device, offsets)
        guard let before, let after = countReads(), before >= earlier, after >= before else {
            throw AttachmentError("the server was started again meanwhile; try again")
        }
        let others = before - earlier >= UInt64(offsets.count) ? before - earlier - UInt64(offsets.count) : 0
        guard before - earlier >= UInt64(offsets.count), after - before >= UInt64(offsets.count) + others / 2 else {
            throw AttachmentError("\(device.path) is not \(options.mirror): the server is not asked when it is read")
        }
        for (offset, expected) in zip(offsets, contents) {
            var isEqual = try connection.read(at: offset, count: 4096) == expected
            // It may have been written in between, but not each time.
            for _ in 0..<3 where !isEqual {
                isEqual = try connection.read(at: offset, count: 4096) == Self.read(device, [offset])[0]
            }
            guard isEqual else {
                throw AttachmentError("\(device.path) is not \(options.mirror): they differ at \(offset)")
            }
        }
    }

    /// 4 KiB at each offset, past the cache.
    private static func read(_ device: BlockDevice, _ offsets: [UInt64]) throws(AttachmentError) -> [[UInt8]] {
        let direct: Int32 = 0o40000  // O_DIRECT
        let file = unsafe open(device.path, O_RDONLY | O_CLOEXEC | direct)
        guard file >= 0 else { throw AttachmentError("\(device.path): \(errorText(errno))") }
        defer { close(file) }
        guard let memory = unsafe aligned_alloc(4096, 4096) else { throw AttachmentError("no memory") }
        defer { unsafe free(memory) }
        var contents: [[UInt8]] = []
        for offset in offsets {
            guard unsafe pread(file, memory, 4096, off_t(offset)) == 4096 else {
                throw AttachmentError("\(device.path): can't be read at \(offset): \(errorText(errno))")
            }
            unsafe contents.append(Array(UnsafeRawBufferPointer(start: memory, count: 4096)))
        }
        return contents
    }
}
