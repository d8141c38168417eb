internal import BasicContainers
internal import DequeModule
internal import Glibc
internal import MirrorCore
internal import MirrorFormat
internal import NBDProtocol
internal import URing

/// From an NBD request to the core, and from the core's reply to the client.
extension Reactor {
    /// - Returns: how many bytes were consumed; 0: more are needed, or there is no room now.
    mutating func takeRequest(_ connection: Connection, _ bytes: RawSpan) -> Int {
        guard connection.replies.count < limits.repliesPerConnection else {
            // It asks and does not listen: replies must not pile up without bound.
            block(connection)
            return 0
        }
        switch connection.session.parse(bytes) {
        case .incomplete: return 0
        case .badMagic, .oversizedWrite:
            close(connection)
            return bytes.byteCount
        case .disconnect:
            endAfterReplies(connection)
            return bytes.byteCount
        case .refused(let refused):
            queueFailure(connection, cookie: refused.cookie, refused.error, refused.reason)
            connection.discarding = Int(refused.payloadBytes)
            return ParsedRequest.headerBytes
        case .request(let request): return admit(connection, request, bytes)
        }
    }

    private mutating func admit(_ connection: Connection, _ request: ClientRequest, _ bytes: RawSpan) -> Int {
        guard let route = connection.route else { return bytes.byteCount }
        if answersAtOnce(connection, request, route) { return ParsedRequest.headerBytes }
        let plan = BufferPlan(kind(request), offset: request.offset, length: UInt64(request.length))
        let needed =
            switch request.command {
            case .blockStatus: 4096
            case .cache: 0
            case .read, .write, .flush, .trim, .writeZeroes: Int(plan.bufferBytes)
            }
        guard let job = takeJob(connection, request, route, bytes: needed) else {
            block(connection)
            return 0
        }
        jobs[job].payloadOffset = Int(plan.payloadOffset)
        connection.sendsBulk = request.payloadBytes >= limits.bulkBytes
        guard request.payloadBytes > 0 else {
            start(job)
            return ParsedRequest.headerBytes
        }
        let available = min(Int(request.payloadBytes), bytes.byteCount - ParsedRequest.headerBytes)
        unsafe bytes.withUnsafeBytes { source in
            guard let start = source.baseAddress, available > 0 else { return }
            unsafe payloadMemory(job).copyMemory(from: start + ParsedRequest.headerBytes, byteCount: available)
        }
        connection.receiving = job
        connection.received = available
        if available == Int(request.payloadBytes) { payloadComplete(connection, job) }
        return ParsedRequest.headerBytes + available
    }

    func payloadMemory(_ job: Int) -> UnsafeMutableRawPointer {
        unsafe jobMemory(BufferID(UInt32(job))) + jobs[job].payloadOffset
    }

    /// Only now does the write exist: an incomplete one is never applied.
    mutating func payloadComplete(_ connection: Connection, _ job: Int) {
        connection.receiving = nil
        jobs[job].completeAt = now.nanoseconds
        // There was room when its header came; others may have taken it while the payload was on its way.
        if routes[jobs[job].route].hasRoom { start(job) } else { routes[jobs[job].route].waitingJobs.append(job) }
    }

    /// Writes that are received but found no room, in the order in which they became complete.
    mutating func startWaiting() {
        for route in routes.indices {
            while routes[route].mayStart, let job = routes[route].waitingJobs.popFirst() {
                let connection = connections[jobs[job].connection]
                if connection?.generation == jobs[job].connectionGeneration {
                    start(job)
                } else {
                    // Its client is gone and may have sent it again elsewhere: it must not land after newer ones.
                    dropJob(job)
                }
            }
        }
    }

    /// What needs nothing of a mirror that runs here.
    private mutating func answersAtOnce(_ connection: Connection, _ request: ClientRequest, _ route: Int) -> Bool {
        guard routes[route].place.reactor == place,
            let outcome = outcomeAtOnce(request, routes[route].place.index)
        else { return false }
        switch outcome {
        case .ended: queueSuccess(connection, request)
        case .notFast: queueFailure(connection, cookie: request.cookie, .enotsup, .notFast)
        }
        return true
    }

    /// - Returns: how a request ends that the core has no part in; nil for all others.
    func outcomeAtOnce(_ request: ClientRequest, _ mirror: Int) -> ReplyLetter.Outcome? {
        if case .writeZeroes = request.command, request.flags.contains(.fastZero), !mirrors[mirror].zeroesFast {
            return .notFast
        }
        guard case .cache = request.command else { return nil }
        for case let disk? in mirrors[mirror].disks where !disk.isDirect {
            // A hint, and this thread serves everybody: no more than a moment's work.
            posix_fadvise(
                disk.file, off_t(request.offset), off_t(min(request.length, 1 << 20)), POSIX_FADV_WILLNEED)
        }
        return .ended(.ok)
    }

    private func kind(_ request: ClientRequest) -> RequestKind {
        switch request.command {
        case .read: .read
        case .write: .write
        case .flush: .flush
        case .trim: .trim
        case .cache: .read
        case .writeZeroes: .zeroes
        case .blockStatus: .allocation
        }
    }

    private mutating func takeJob(_ connection: Connection, _ request: ClientRequest, _ route: Int, bytes: Int) -> Int?
    {
        connection.isShortOfMemory = false
        guard connection.requestsInFlight < limits.requestsPerConnection, routes[route].hasRoom,
            connection.bytesInFlight == 0 || connection.bytesInFlight + bytes <= limits.bytesPerConnection
        else { return nil }
        var buffer: PooledBuffer?
        let isLarge = bytes > limits.smallBytes
        if bytes > 0 {
            buffer = isLarge ? takeLarge(connection, bytes: bytes) : takeSmall(connection, bytes: bytes)
        }
        guard buffer != nil || bytes == 0, let job = freeJobs.popLast() else {
            if let buffer { giveUnused(buffer, isLarge: isLarge) }
            connection.isShortOfMemory = true
            return nil
        }
        let generation = jobs[job].generation &+ 1
        jobs[job] = ClientJob(
            isUsed: true, generation: generation, connection: connection.index,
            connectionGeneration: connection.generation, route: route, mirror: routes[route].place.index,
            request: request, buffer: buffer, isLarge: isLarge, memory: address(buffer, isLarge: isLarge),
            ownMemory: address(buffer, isLarge: isLarge), memoryBytes: bytes, completeAt: now.nanoseconds)
        connection.requestsInFlight += 1
        connection.bytesInFlight += bytes
        return job
    }

    private func address(_ buffer: PooledBuffer?, isLarge: Bool) -> UInt {
        guard let buffer else { return 0 }
        return unsafe UInt(bitPattern: poolPointer(buffer, isLarge: isLarge))
    }

    private mutating func takeSmall(_ connection: Connection, bytes: Int) -> PooledBuffer? {
        let isModest = connection.bytesInFlight == 0 && bytes <= limits.modestBytes
        let used = smallPool.usedBytes - late.heldSmallBytes
        guard used + bytes <= limits.smallPoolBytes - (isModest ? 0 : limits.reservedBytes) else { return nil }
        return smallPool.take(bytes: bytes)
    }

    private mutating func takeLarge(_ connection: Connection, bytes: Int) -> PooledBuffer? {
        if let largeWaiter, largeWaiter != connection.index, let first = connections[largeWaiter], first.isBlocked,
            first.isShortOfMemory
        {
            return nil
        }
        let isRoom = largePool.usedBytes - late.heldLargeBytes + bytes <= limits.largePoolBytes
        let buffer = isRoom ? largePool.take(bytes: bytes) : nil
        largeWaiter = buffer == nil ? connection.index : nil
        return buffer
    }

    private mutating func start(_ job: Int) {
        let route = jobs[job].route
        routes[route].inFlight += 1
        let target = routes[route].place
        if target.reactor == place { handToCore(job) } else { send(job, to: target) }
    }

    mutating func handToCore(_ job: Int) {
        let request = jobs[job].request
        let isFlush = request.command == .flush
        let event = Request(
            id: RequestID(UInt64(jobs[job].generation) << 32 | UInt64(job)), kind: kind(request),
            offset: isFlush ? 0 : request.offset, length: isFlush ? 0 : UInt64(request.length),
            isForcedUnitAccess: request.flags.contains(.fua), mayDeallocate: !request.flags.contains(.noHole),
            buffer: BufferID(UInt32(job)))
        deliver(.request(event), to: jobs[job].mirror)
    }

    /// A job that never started, or whose client is gone.
    mutating func dropJob(_ job: Int) {
        giveOwn(job)
        if let late = jobs[job].late { giveBack(late) }
        freeJob(job)
    }

    /// The request's own buffer, as soon as no disk has it any more.
    private mutating func giveOwn(_ job: Int) {
        guard let buffer = jobs[job].buffer else { return }
        if jobs[job].isOwnPinned {
            hold(ClientBuffer(buffer: buffer, isLarge: jobs[job].isLarge), at: jobs[job].ownMemory)
        } else {
            giveBuffer(buffer, isLarge: jobs[job].isLarge)
        }
    }

    mutating func freeJob(_ job: Int) {
        jobs[job].isUsed = false
        jobs[job].buffer = nil
        jobs[job].memory = 0
        freeJobs.append(job)
        hasFreed = true
    }

    // MARK: replies

    mutating func reply(_ id: RequestID, _ status: ReplyStatus) {
        let job = Int(id.value & 0xFFFF_FFFF)
        precondition(jobs[job].isUsed && UInt64(jobs[job].generation) == id.value >> 32)
        if let kind = IOMeter.Kind(jobs[job].request.command) {
            mirrors[jobs[job].mirror].meter.count(
                kind, bytes: UInt64(jobs[job].request.length), from: jobs[job].completeAt, to: now.nanoseconds)
        }
        if status == .allAllocated {
            extents.removeAll(keepingCapacity: true)
            encodeExtents(job)
        }
        if jobs[job].operations > 0 || jobs[job].hasCopies { settleMemory(of: job) }
        if jobs[job].origin < 0 { ended(job, status) } else { sendReply(job, status) }
    }

    /// - Returns: nil if the client is gone; then nobody needs the job any more.
    private mutating func clientOfEnded(_ job: Int) -> Connection? {
        routes[jobs[job].route].inFlight -= 1
        guard let connection = connections[jobs[job].connection],
            connection.generation == jobs[job].connectionGeneration
        else {
            dropJob(job)
            return nil
        }
        connection.requestsInFlight -= 1
        wantSend(connection)
        return connection
    }

    mutating func endedNotFast(_ job: Int) {
        guard let connection = clientOfEnded(job) else { return }
        replyFailure(connection, job, .enotsup, .notFast)
    }

    /// The mirror has done with a request of a client of this reactor.
    mutating func ended(_ job: Int, _ status: ReplyStatus) {
        guard let connection = clientOfEnded(job) else { return }
        let request = jobs[job].request
        switch status {
        case .ok, .allAllocated: replySuccess(connection, job)
        case .ioError: replyFailure(connection, job, .eio, .ioError)
        case .noSpace:
            // Reading needs no space: whoever says so has another trouble.
            let isRead = request.command == .read
            replyFailure(connection, job, isRead ? .eio : .enospc, isRead ? .ioError : .noSpace)
        case .shuttingDown:
            // No answer is better than an error: the kernel asks again over a new connection, of the next server, but
            // tells a file system of any error at once.
            dropJob(job)
            endAfterReplies(connection)
        }
    }

    private mutating func replySuccess(_ connection: Connection, _ job: Int) {
        let request = jobs[job].request
        var reply: OutgoingReply
        switch request.command {
        case .read where request.length > 0:
            reply = OutgoingReply(cookie: request.cookie, .data(offset: request.offset))
            reply.isLarge = jobs[job].isLarge
            reply.payloadOffset = jobs[job].payloadOffset
            reply.payloadBytes = Int(request.length)
        case .blockStatus:
            let count = jobs[job].extentCount
            let context = connection.session.allocationContextID ?? 0
            reply = OutgoingReply(cookie: request.cookie, .extents(count: count, contextID: context))
            reply.payloadBytes = count * ReplyEncoder.extentBytes
        case .read, .write, .flush, .trim, .cache, .writeZeroes:
            endJob(connection, job)
            queueSuccess(connection, request)
            return
        }
        if let late = jobs[job].late {
            reply.late = late
            if let buffer = jobs[job].buffer { connection.bytesInFlight -= buffer.bytes }
            giveOwn(job)
        } else {
            reply.payload = jobs[job].buffer
        }
        freeJob(job)
        connection.replies.append(reply)
    }

    private mutating func replyFailure(_ connection: Connection, _ job: Int, _ error: NBDError, _ reason: RefusalReason)
    {
        let cookie = jobs[job].request.cookie
        endJob(connection, job)
        queueFailure(connection, cookie: cookie, error, reason)
    }

    /// The buffer is not needed for the reply.
    private mutating func endJob(_ connection: Connection, _ job: Int) {
        if let buffer = jobs[job].buffer { connection.bytesInFlight -= buffer.bytes }
        dropJob(job)
    }

    private mutating func queueSuccess(_ connection: Connection, _ request: ClientRequest) {
        connection.replies.append(OutgoingReply(cookie: request.cookie, .success))
        wantSend(connection)
    }

    private mutating func queueFailure(
        _ connection: Connection, cookie: UInt64, _ error: NBDError, _ reason: RefusalReason
    ) {
        connection.replies.append(OutgoingReply(cookie: cookie, .failure(error, reason)))
        wantSend(connection)
    }
}
