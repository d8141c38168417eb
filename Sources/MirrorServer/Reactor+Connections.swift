internal import BasicContainers
internal import DequeModule
internal import Glibc
internal import Logging
internal import MirrorCore
internal import NBDProtocol
internal import URing

/// Accepting, reading and sending.
extension Reactor {
    private func key(_ connection: Connection) -> UInt64 {
        UInt64(connection.generation & 0xFFFF_FFFF) << 24 | UInt64(connection.index)
    }

    private func connection(_ key: UInt64) -> Connection? {
        let index = Int(key & 0xFF_FFFF)
        guard index < connections.count, let connection = connections[index],
            UInt64(connection.generation) == key >> 24
        else { return nil }
        return connection
    }

    mutating func accept(_ index: Int) {
        // While another server takes over they wait in the queue, for that or for this one.
        guard let listener = listeners[index], handover == nil, inherited == nil else { return }
        while true {
            guard isStopping || handshaking < limits.handshakes else {
                // A burst of honest clients is served in a moment; idle ones are gone in ten seconds.
                isAcceptPaused = true
                return
            }
            guard let file = listener.accept() else {
                // Without a descriptor to spare the client stays in the queue, and no event will tell of it again.
                if errno != EAGAIN { isAcceptPaused = true }
                return
            }
            let connected = group.connections
            guard !isStopping, connected < limits.connections else {
                logger.warning("client refused: connections=\(connected) handshakes=\(handshaking)")
                Glibc.close(file)
                continue
            }
            if listener.isTCP {
                var one: Int32 = 1
                unsafe setsockopt(file, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
                unsafe setsockopt(file, SOL_SOCKET, SO_KEEPALIVE, &one, 4)
            }
            open(file)
        }
    }

    mutating func resumeAccepting() {
        guard isAcceptPaused, handshaking < limits.handshakes else { return }
        isAcceptPaused = false
        for index in listeners.indices { accept(index) }
    }

    private mutating func open(_ file: Int32) {
        let connection = Connection(
            index: freeIndex(), generation: nextGeneration, file: file, limits: .standard, now: now.nanoseconds)
        handshaking += 1
        group.connectionEntered()
        connection.session.begin(output: &connection.rawOutput)
        enter(connection)
    }

    private mutating func freeIndex() -> Int {
        let index = connections.firstIndex { $0 == nil } ?? connections.count
        if index == connections.count { connections.append(nil) }
        return index
    }

    private mutating func enter(_ connection: Connection) {
        // 24 bits of index and 32 of generation fill the user data beside its source.
        nextGeneration &+= 1
        connections[connection.index] = connection
        if connection.hasOutput { wantSend(connection) }
        poll(connection.file, .connectionInput, key(connection))
    }

    /// A client that another reactor has shaken hands with.
    mutating func adopt(_ connection: Connection, _ target: MirrorPlace) {
        guard let route = route(to: target) else {
            preconditionFailure("a client of a mirror that this reactor was not told of")
        }
        connection.move(index: freeIndex(), generation: nextGeneration, route: route, now: now.nanoseconds)
        enter(connection)
        if routes[route].isStopped { endAfterReplies(connection) } else { adopted.append(connection) }
    }

    /// The other reactor may have read requests already. They come behind all that has reached this one's sockets when
    /// the client was handed over: the ring has been asked since.
    mutating func beginAdopted() {
        guard !adopted.isEmpty else { return }
        for connection in adopted where connections[connection.index] === connection {
            if hasHungUp(connection) {
                close(connection)
                continue
            }
            connection.isReadable = true
            enqueue(connection)
        }
        adopted.removeAll(keepingCapacity: true)
    }

    /// It is no longer a connection of this reactor. What the ring still reports of it goes to nobody.
    mutating func forget(_ connection: Connection) {
        connections[connection.index] = nil
        // The poll holds the socket open otherwise, and the client would wait for the end of the stream.
        ring.preparePollRemoval(
            of: UInt64(Source.connectionInput.rawValue) << 56 | key(connection),
            userData: UInt64(Source.ignored.rawValue) << 56)
    }

    mutating func inputReady(_ key: UInt64, hasMore: Bool) {
        guard let connection = connection(key) else { return }
        connection.isReadable = true
        if !hasMore { poll(connection.file, .connectionInput, key) }
        enqueue(connection)
    }

    mutating func outputReady(_ key: UInt64) {
        guard let connection = connection(key) else { return }
        connection.isWaitingToSend = false
        wantSend(connection)
    }

    mutating func enqueue(_ connection: Connection) {
        guard !connection.isQueued, !connection.isBlocked, !connection.isEnding else { return }
        connection.isQueued = true
        ready.append(connection.index)
    }

    mutating func readConnections() {
        swap(&ready, &indicesAtWork)
        for position in indicesAtWork.indices {
            guard let connection = connections[indicesAtWork[position]] else { continue }
            connection.isQueued = false
            receive(connection)
        }
        indicesAtWork.removeAll(keepingCapacity: true)
    }

    /// Connections that found no room try again, oldest first, as soon as something was given back.
    mutating func retryBlocked() {
        guard hasFreed, !blocked.isEmpty else { return }
        hasFreed = false
        let batch = blocked
        blocked.removeAll(keepingCapacity: true)
        for index in batch {
            guard let connection = connections[index], connection.isBlocked else { continue }
            connection.isBlocked = false
            if hasHungUp(connection) {
                // Its client may have sent the same requests again over another connection: what it left
                // unread must not be carried out after newer ones.
                close(connection)
                continue
            }
            receive(connection)
        }
    }

    /// This process stood still. A client that lost patience meanwhile may have sent what it left unread once more,
    /// over another connection, and newer writes after it; those would be overwritten.
    mutating func closeHungUp() {
        for case let connection? in connections where hasHungUp(connection) { close(connection) }
    }

    private func hasHungUp(_ connection: Connection) -> Bool {
        var poll = pollfd(fd: connection.file, events: Int16(0x2000), revents: 0)  // POLLRDHUP
        return unsafe Glibc.poll(&poll, 1, 0) > 0 && poll.revents & (0x2000 | Int16(POLLHUP) | Int16(POLLERR)) != 0
    }

    mutating func block(_ connection: Connection) {
        guard !connection.isBlocked else { return }
        connection.isBlocked = true
        blocked.append(connection.index)
    }

    /// Reads until the socket is empty, the connection is blocked, or its turn is over.
    private mutating func receive(_ connection: Connection) {
        var turns = 8
        guard mayRead(connection) else { return }
        if !connection.inbox.isEmpty, connection.receiving == nil { parseInbox(connection) }
        while turns > 0, connections[connection.index] === connection, !connection.isBlocked, !connection.isEnding,
            mayRead(connection)
        {
            guard connection.isReadable else { return }
            turns -= 1
            if connection.receiving != nil { receivePayload(connection) } else { receiveRequests(connection) }
        }
        if connections[connection.index] === connection, connection.isReadable, mayRead(connection) {
            enqueue(connection)
        }
    }

    /// While another server takes over only requests are completed that have begun to arrive.
    private func mayRead(_ connection: Connection) -> Bool { handover == nil || connection.receiving != nil }

    /// What was left over is parsed without waiting for more.
    private mutating func parseInbox(_ connection: Connection) {
        let count = connection.inbox.count
        let memory = unsafe scratch.pointer(scratchBuffer)
        unsafe connection.inbox.withUnsafeBytes { bytes in
            if let start = bytes.baseAddress { unsafe memory.copyMemory(from: start, byteCount: count) }
        }
        connection.inbox.removeAll(keepingCapacity: true)
        parseScratch(connection, count: count)
    }

    private mutating func receiveRequests(_ connection: Connection) {
        let held = connection.inbox.count
        let memory = unsafe scratch.pointer(scratchBuffer)
        let isHeaderOnly = connection.sendsBulk && connection.discarding == 0 && held < ParsedRequest.headerBytes
        let room = (isHeaderOnly ? ParsedRequest.headerBytes : limits.scratchBytes) - held
        guard room > 0 else {
            close(connection)
            return
        }
        let count = unsafe recv(connection.file, memory + held, room, Int32(MSG_DONTWAIT))
        guard didReceive(count, connection) else { return }
        unsafe connection.inbox.withUnsafeBytes { bytes in
            if let start = bytes.baseAddress { unsafe memory.copyMemory(from: start, byteCount: held) }
        }
        connection.inbox.removeAll(keepingCapacity: true)
        parseScratch(connection, count: held + count)
    }

    /// The rest of a large write goes straight to its buffer.
    private mutating func receivePayload(_ connection: Connection) {
        guard let job = connection.receiving else { return }
        let missing = Int(jobs[job].request.payloadBytes) - connection.received
        let target = unsafe payloadMemory(job) + connection.received
        let count = unsafe recv(connection.file, target, missing, Int32(MSG_DONTWAIT))
        guard didReceive(count, connection) else { return }
        connection.received += count
        if count == missing { payloadComplete(connection, job) }
    }

    /// - Returns: whether there are bytes; if not, the connection was dealt with.
    private mutating func didReceive(_ count: Int, _ connection: Connection) -> Bool {
        if count > 0 {
            connection.progressAt = now.nanoseconds
            return true
        }
        if count < 0, errno == EAGAIN || errno == EWOULDBLOCK {
            connection.isReadable = false
        } else if count == 0 || errno != EINTR {
            // The client is gone. What it sent completely is carried out, what is incomplete is forgotten.
            close(connection)
        }
        return false
    }

    // MARK: parsing

    /// Consumes what it can of the first `count` scratch bytes and keeps the rest.
    private mutating func parseScratch(_ connection: Connection, count: Int) {
        let memory = unsafe scratch.pointer(scratchBuffer)
        var position = 0
        var mover: Int?
        while position < count, connections[connection.index] === connection, !connection.isBlocked,
            !connection.isEnding, mover == nil
        {
            let rest = unsafe RawSpan(
                _unsafeBytes: UnsafeRawBufferPointer(start: memory + position, count: count - position))
            let consumed: Int
            if connection.discarding > 0 {
                consumed = min(connection.discarding, count - position)
                connection.discarding -= consumed
            } else if connection.session.phase == .handshake {
                consumed = shakeHands(connection, rest)
                mover = destination(connection)
            } else if connection.session.phase == .transmission {
                consumed = takeRequest(connection, rest)
            } else {
                consumed = count - position
            }
            if consumed == 0 { break }
            position += consumed
            if localCompletions.count >= limits.localBatch { answerEarly(connection) }
        }
        guard connections[connection.index] === connection, !connection.isEnding else { return }
        unsafe connection.inbox.append(
            contentsOf: UnsafeRawBufferPointer(start: memory + position, count: count - position))
        if let mover, let route = connection.route { hand(connection, to: mover, routes[route].place) }
    }

    /// What was copied to and from disks in memory is answered before the rest of the requests is looked at: the client works
    /// on while we do.
    private mutating func answerEarly(_ connection: Connection) {
        endBatches()
        now = currentInstant()
        completeLocally()
        if connections[connection.index] === connection { sendWanted(connection) }
    }

    /// Which other reactor shall serve a client that has just chosen its mirror.
    private func destination(_ connection: Connection) -> Int? {
        guard !isAlone, let route = connection.route, connections[connection.index] === connection else { return nil }
        let reactor = group.reactor(forClientsOf: routes[route].place)
        return reactor == place ? nil : reactor
    }

    private mutating func shakeHands(_ connection: Connection, _ bytes: RawSpan) -> Int {
        let consumed = connection.session.handshake(
            bytes, catalog: catalog, shuttingDown: isStopping, output: &connection.rawOutput)
        if connection.hasOutput { wantSend(connection) }
        switch connection.session.phase {
        case .handshake: break
        case .transmission:
            handshaking -= 1
            connection.route = connection.session.export.flatMap { route(to: $0.name) }
            if connection.route == nil { close(connection) }
        case .closing: endAfterReplies(connection)
        }
        return consumed
    }

    // MARK: sending

    mutating func wantSend(_ connection: Connection) {
        guard !connection.needsSend else { return }
        connection.needsSend = true
        toSend.append(connection.index)
    }

    mutating func sendAll() {
        swap(&toSend, &indicesAtWork)
        for position in indicesAtWork.indices {
            if let connection = connections[indicesAtWork[position]] { sendWanted(connection) }
        }
        indicesAtWork.removeAll(keepingCapacity: true)
    }

    private mutating func sendWanted(_ connection: Connection) {
        guard connection.needsSend else { return }
        connection.needsSend = false
        if !connection.isWaitingToSend { send(connection) }
    }

    private mutating func send(_ connection: Connection) {
        while connection.hasOutput {
            let count = connection.rawSent < connection.rawOutput.count ? sendRaw(connection) : sendReplies(connection)
            if count < 0 {
                if errno == EINTR { continue }
                if errno == EAGAIN || errno == EWOULDBLOCK {
                    connection.isWaitingToSend = true
                    // Its time to take the replies begins now, however long the disks were busy before.
                    connection.progressAt = now.nanoseconds
                    ring.preparePollOnce(
                        connection.file, events: UInt32(POLLOUT),
                        userData: UInt64(Source.connectionOutput.rawValue) << 56 | key(connection))
                } else {
                    close(connection)
                }
                return
            }
            connection.progressAt = now.nanoseconds
        }
        if connection.isEnding, connection.requestsInFlight == 0 { close(connection) }
    }

    private mutating func sendRaw(_ connection: Connection) -> Int {
        let start = connection.rawSent
        let count = unsafe connection.rawOutput.withUnsafeBytes { bytes in
            unsafe Glibc.send(
                connection.file, bytes.baseAddress.map { unsafe $0 + start }, bytes.count - start,
                Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
        }
        if count > 0 { connection.rawSent += count }
        if connection.rawSent == connection.rawOutput.count {
            connection.rawOutput.removeAll()
            connection.rawSent = 0
        }
        return count
    }

    /// Up to 32 replies in one call: headers from a page on the side, payloads from their buffers.
    private mutating func sendReplies(_ connection: Connection) -> Int {
        let batch = min(connection.replies.count, 32)
        let isStructured = connection.session.structuredReplies
        let headers = unsafe headerPage.pointer(headerBuffer)
        var span = unsafe MutableRawSpan(
            _unsafeBytes: UnsafeMutableRawBufferPointer(start: headers, count: headerBuffer.bytes))
        var sizes = InlineArray<32, Int>(repeating: 0)
        var vectors = unsafe InlineArray<64, iovec>(repeating: iovec())
        var used = 0
        var skip = connection.sent
        for position in 0..<batch {
            let reply = connection.replies[position]
            let start = position * ReplyEncoder.maximumReplyBytes
            let headerBytes = reply.encodeHeader(structuredReplies: isStructured, into: &span, at: start)
            sizes[position] = headerBytes + reply.payloadBytes
            unsafe append(headers + start, headerBytes, to: &vectors, &used, skipping: &skip)
            if let payload = reply.payload, reply.payloadBytes > 0 {
                let memory = unsafe poolPointer(payload, isLarge: reply.isLarge) + reply.payloadOffset
                unsafe append(memory, reply.payloadBytes, to: &vectors, &used, skipping: &skip)
            } else if let late = reply.late, let memory = unsafe UnsafeMutableRawPointer(bitPattern: late.address) {
                unsafe append(
                    memory + reply.payloadOffset, reply.payloadBytes, to: &vectors, &used, skipping: &skip)
            }
        }
        let count = unsafe withUnsafeMutablePointer(to: &vectors) { pointer in
            var message = unsafe msghdr()
            unsafe message.msg_iov = UnsafeMutableRawPointer(pointer).assumingMemoryBound(to: iovec.self)
            unsafe message.msg_iovlen = used
            return unsafe sendmsg(connection.file, &message, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
        }
        if count > 0 { repliesSent(connection, bytes: count, sizes) }
        return count
    }

    private mutating func append(
        _ memory: UnsafeMutableRawPointer, _ count: Int, to vectors: inout InlineArray<64, iovec>, _ used: inout Int,
        skipping skip: inout Int
    ) {
        let skipped = min(skip, count)
        skip -= skipped
        guard skipped < count else { return }
        unsafe vectors[used] = iovec(iov_base: memory + skipped, iov_len: count - skipped)
        used += 1
    }

    /// - Parameter sizes: of the first replies, header and payload.
    private mutating func repliesSent(_ connection: Connection, bytes: Int, _ sizes: InlineArray<32, Int>) {
        var sent = connection.sent + bytes
        var position = 0
        while position < sizes.count, sizes[position] > 0, sent >= sizes[position],
            let first = connection.replies.popFirst()
        {
            sent -= sizes[position]
            position += 1
            give(first, back: connection)
            if connection.isBlocked { hasFreed = true }
        }
        connection.sent = sent
    }

    /// The payload of a reply that is sent, or never will be.
    private mutating func give(_ reply: OutgoingReply, back connection: Connection) {
        if let late = reply.late { giveBack(late) }
        guard let payload = reply.payload else { return }
        giveBuffer(payload, isLarge: reply.isLarge)
        connection.bytesInFlight -= payload.bytes
    }

    mutating func giveBuffer(_ buffer: PooledBuffer, isLarge: Bool) {
        giveUnused(buffer, isLarge: isLarge)
        hasFreed = true
    }

    /// As `giveBuffer`, for one that nobody can have waited for.
    mutating func giveUnused(_ buffer: PooledBuffer, isLarge: Bool) {
        if isLarge { largePool.give(buffer) } else { smallPool.give(buffer) }
    }

    func poolPointer(_ buffer: PooledBuffer, isLarge: Bool) -> UnsafeMutableRawPointer {
        unsafe isLarge ? largePool.pointer(buffer) : smallPool.pointer(buffer)
    }

    // MARK: ending

    mutating func endAfterReplies(_ connection: Connection) {
        connection.isEnding = true
        if let job = connection.receiving {
            // Nothing more is read: this write stays incomplete, and nobody may wait for it.
            connection.receiving = nil
            connection.requestsInFlight -= 1
            if let buffer = jobs[job].buffer { connection.bytesInFlight -= buffer.bytes }
            dropJob(job)
        }
        if connection.requestsInFlight == 0, !connection.hasOutput { close(connection) } else { wantSend(connection) }
    }

    mutating func endConnections(to route: Int) {
        for connection in connections where connection?.route == route {
            if let connection { endAfterReplies(connection) }
        }
    }

    /// Ends the connection at once. Requests in flight go on to the disks, their replies go nowhere.
    mutating func close(_ connection: Connection) {
        guard connections[connection.index] === connection else { return }
        forget(connection)
        group.connectionLeft()
        if connection.session.phase != .transmission { handshaking -= 1 }
        while let reply = connection.replies.popFirst() { give(reply, back: connection) }
        if let job = connection.receiving { dropJob(job) }
        shutdown(connection.file, Int32(SHUT_RDWR))
        Glibc.close(connection.file)
        hasFreed = true
    }

    /// Handshakes that take too long, and clients that sit on memory that others wait for.
    mutating func expireConnections() {
        let isShort = blocked.contains { connections[$0].map { $0.isBlocked && $0.isShortOfMemory } ?? false }
        for case let connection? in connections {
            if connection.route == nil, now.nanoseconds - connection.acceptedAt > limits.handshakeNanoseconds {
                logger.warning("client refused: its handshake took longer than 10 s")
                close(connection)
            } else if isShort, connection.bytesInFlight > 0,
                connection.receiving != nil || connection.isWaitingToSend,
                now.nanoseconds - connection.progressAt > limits.stallNanoseconds
            {
                logger.warning("client cut off: stalled with \(connection.bytesInFlight) bytes while others wait")
                close(connection)
            }
        }
    }
}
