import Glibc
import TestSupport
import Testing
import URing

/// A file that is gone when the test ends.
private func withFile(_ body: (Int32) throws -> Void) throws {
    try withTemporaryDirectory { directory in
        let file = unsafe open("\(directory)/file", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        try #require(file >= 0)
        defer { close(file) }
        try body(file)
    }
}

private func withSocketPair(_ body: (_ near: Int32, _ far: Int32) throws -> Void) throws {
    var files: [Int32] = [-1, -1]
    let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
    try #require(unsafe socketpair(AF_UNIX, kind, 0, &files) == 0)
    defer { for file in files { close(file) } }
    try body(files[0], files[1])
}

/// Submits, and reaps until so many completions have come.
private func collect(_ ring: borrowing Ring, _ count: Int) throws -> [Completion] {
    var all: [Completion] = []
    _ = try waitUntil("\(count) completions, have \(all.count)") {
        ring.submitAndWait(timeoutMilliseconds: 100)
        for _ in 0..<ring.completionCount { all.append(ring.takeCompletion()) }
        return all.count >= count ? true : nil
    }
    return all
}

private func collectOne(_ ring: borrowing Ring) throws -> Completion {
    let all = try collect(ring, 1)
    try #require(all.count == 1)
    return all[0]
}

private func expectNothing(_ ring: borrowing Ring) {
    #expect(ring.completionCount == 0)
}

private func send(_ text: String, to file: Int32) {
    let bytes = Array(text.utf8)
    #expect(unsafe write(file, bytes, bytes.count) == bytes.count)
}

private func receive(from file: Int32) -> Int {
    var bytes = [UInt8](repeating: 0, count: 64)
    return unsafe read(file, &bytes, bytes.count)
}

@Suite struct RingTests {
    @Test func writtenBytesAreReadBackAndUserDataIsEchoed() throws {
        let ring = try Ring(entries: 8)
        var pool = try BufferPool(capacityBytes: 64 << 10, largestBytes: 64 << 10)
        let source = try takePiece(&pool, bytes: 8192)
        let target = try takePiece(&pool, bytes: 8192)
        unsafe pool.pointer(source).initializeMemory(as: UInt8.self, repeating: 0xA7, count: 8192)
        try withFile { file in
            unsafe ring.prepareWrite(
                file, from: pool.pointer(source), count: 8192, offset: 4096, isDurable: false, userData: .max)
            let written = try collectOne(ring)
            #expect(written.userData == .max && written.result == 8192 && !written.hasMore)
            unsafe ring.prepareRead(file, into: pool.pointer(target), count: 8192, offset: 4096, userData: 7 << 56 | 1)
            let read = try collectOne(ring)
            #expect(read.userData == 7 << 56 | 1 && read.result == 8192)
            let difference = unsafe memcmp(pool.pointer(source), pool.pointer(target), 8192)
            #expect(difference == 0)
        }
    }

    @Test func readAcrossTheEndIsShortAndBehindItIsEmpty() throws {
        let ring = try Ring(entries: 8)
        var pool = try BufferPool(capacityBytes: 64 << 10, largestBytes: 64 << 10)
        let buffer = try takePiece(&pool, bytes: 8192)
        try withFile { file in
            try #require(ftruncate(file, 5000) == 0)
            unsafe ring.prepareRead(file, into: pool.pointer(buffer), count: 4096, offset: 4096, userData: 1)
            let across = try collectOne(ring)
            #expect(across.result == 904)
            unsafe ring.prepareRead(file, into: pool.pointer(buffer), count: 4096, offset: 8192, userData: 2)
            let behind = try collectOne(ring)
            #expect(behind.result == 0)
        }
    }

    @Test func durableWriteAndDataSyncSucceed() throws {
        let ring = try Ring(entries: 8)
        var pool = try BufferPool(capacityBytes: 4096, largestBytes: 4096)
        let buffer = try takePiece(&pool, bytes: 4096)
        try withFile { file in
            unsafe ring.prepareWrite(
                file, from: pool.pointer(buffer), count: 4096, offset: 0, isDurable: true, userData: 11)
            let written = try collectOne(ring)
            #expect(written.userData == 11 && written.result == 4096)
            ring.prepareDataSync(file, userData: 12)
            let synced = try collectOne(ring)
            #expect(synced.userData == 12 && synced.result == 0)
        }
    }

    @Test func allocationExtendsTheFile() throws {
        let ring = try Ring(entries: 8)
        try withFile { file in
            ring.prepareAllocate(file, mode: 0, offset: 0, length: 1 << 20, userData: 21)
            let allocated = try collectOne(ring)
            #expect(allocated.userData == 21 && allocated.result == 0)
            #expect(lseek(file, 0, SEEK_END) == 1 << 20)
        }
    }

    @Test func badDescriptorComesBackAsANegativeErrorNumber() throws {
        let ring = try Ring(entries: 8)
        var pool = try BufferPool(capacityBytes: 4096, largestBytes: 4096)
        let buffer = try takePiece(&pool, bytes: 4096)
        unsafe ring.prepareRead(-1, into: pool.pointer(buffer), count: 4096, offset: 0, userData: 1)
        unsafe ring.prepareWrite(
            -1, from: pool.pointer(buffer), count: 4096, offset: 0, isDurable: false, userData: 2)
        ring.prepareDataSync(-1, userData: 3)
        ring.prepareAllocate(-1, mode: 0, offset: 0, length: 4096, userData: 4)
        ring.preparePoll(-1, events: UInt32(POLLIN), userData: 5)
        let all = try collect(ring, 5)
        #expect(all.map(\.userData).sorted() == [1, 2, 3, 4, 5])
        for completion in all { #expect(completion.result == -EBADF, "operation \(completion.userData)") }
    }

    @Test func errorOfOneOperationLeavesTheOthersAlone() throws {
        let ring = try Ring(entries: 8)
        try withFile { file in
            ring.prepareDataSync(file, userData: 1)
            ring.prepareAllocate(file, mode: 0x7FFF, offset: 0, length: 4096, userData: 2)
            ring.prepareDataSync(file, userData: 3)
            let results = Dictionary(uniqueKeysWithValues: try collect(ring, 3).map { ($0.userData, $0.result) })
            #expect(results == [1: 0, 2: -EOPNOTSUPP, 3: 0])
        }
    }

    @Test func multishotPollReportsEachArrival() throws {
        let ring = try Ring(entries: 8)
        try withSocketPair { near, far in
            ring.preparePoll(near, events: UInt32(POLLIN), userData: 31)
            for round in 1...3 {
                send("x", to: far)
                let completion = try collectOne(ring)
                #expect(completion.userData == 31 && completion.hasMore, "round \(round)")
                #expect(completion.result & Int32(POLLIN) != 0)
                #expect(receive(from: near) == 1)
            }
        }
    }

    @Test func pollOnceEndsWithItsFirstEvent() throws {
        let ring = try Ring(entries: 8)
        try withSocketPair { near, _ in
            ring.preparePollOnce(near, events: UInt32(POLLOUT), userData: 41)
            let completion = try collectOne(ring)
            #expect(completion.userData == 41 && !completion.hasMore)
            #expect(completion.result & Int32(POLLOUT) != 0)
        }
    }

    @Test func removedPollIsCanceledAndReportsNothingMore() throws {
        let ring = try Ring(entries: 8)
        try withSocketPair { near, far in
            ring.preparePoll(near, events: UInt32(POLLIN), userData: 51)
            ring.preparePollRemoval(of: 51, userData: 52)
            let all = try collect(ring, 2)
            let results = Dictionary(uniqueKeysWithValues: all.map { ($0.userData, $0) })
            #expect(results[51]?.result == -ECANCELED)
            #expect(results[51]?.hasMore == false)
            #expect(results[52]?.result == 0)
            send("x", to: far)
            ring.submitAndWait(timeoutMilliseconds: 0)
            expectNothing(ring)
        }
    }

    @Test func removalOfAPollThatIsNotThereSaysSo() throws {
        let ring = try Ring(entries: 8)
        ring.preparePollRemoval(of: 61, userData: 62)
        let completion = try collectOne(ring)
        #expect(completion.userData == 62 && completion.result == -ENOENT)
    }

    /// With nothing to wait for, both return; how soon is the kernel's affair.
    @Test(arguments: [0, 1, 20]) func waitEndsWithItsTimeout(milliseconds: Int) throws {
        let ring = try Ring(entries: 8)
        ring.submitAndWait(timeoutMilliseconds: milliseconds)
        expectNothing(ring)
    }

    @Test func timeoutLeavesAPendingPollPending() throws {
        let ring = try Ring(entries: 8)
        try withSocketPair { near, far in
            ring.preparePoll(near, events: UInt32(POLLIN), userData: 71)
            ring.submitAndWait(timeoutMilliseconds: 5)
            expectNothing(ring)
            send("x", to: far)
            let completion = try collectOne(ring)
            #expect(completion.userData == 71)
        }
    }

    /// 4 entries, 16 completions: the queue is handed over while it is filled, and the kernel keeps what does
    /// not fit into the completion queue.
    @Test func moreOperationsThanTheQueuesHoldAllComplete() throws {
        let ring = try Ring(entries: 4)
        let count = 100
        var pool = try BufferPool(capacityBytes: 1 << 20, largestBytes: 1 << 20)
        let buffer = try takePiece(&pool, bytes: count * 4096)
        for index in 0..<count {
            unsafe pool.pointer(buffer, at: index * 4096)
                .initializeMemory(as: UInt8.self, repeating: UInt8(index), count: 4096)
        }
        try withFile { file in
            for index in 0..<count {
                unsafe ring.prepareWrite(
                    file, from: pool.pointer(buffer, at: index * 4096), count: 4096, offset: UInt64(index) * 4096,
                    isDurable: false, userData: UInt64(index))
            }
            let all = try collect(ring, count)
            #expect(all.map(\.userData).sorted() == Array(0..<UInt64(count)))
            #expect(all.allSatisfy { $0.result == 4096 })
            var block = [UInt8](repeating: 0xFF, count: 4096)
            for index in 0..<count {
                #expect(unsafe pread(file, &block, 4096, off_t(index) * 4096) == 4096)
                #expect(block.allSatisfy { $0 == UInt8(index) }, "block \(index)")
            }
        }
    }

    @Test func completionsAreTakenOneAtATimeOldestFirst() throws {
        let ring = try Ring(entries: 512)
        try withSocketPair { near, _ in
            for index in 0..<300 {
                ring.preparePollOnce(near, events: UInt32(POLLOUT), userData: UInt64(index))
            }
            ring.submitAndWait(timeoutMilliseconds: 0)
            #expect(ring.completionCount == 300)
            let seen = (0..<300).map { _ in ring.takeCompletion().userData }
            #expect(seen == Array(0..<300))
            #expect(ring.completionCount == 0)
        }
    }

    @Test func ringThatCannotBeMadeThrows() {
        #expect(throws: SystemError("io_uring_setup", number: EINVAL)) { _ = try Ring(entries: 0) }
    }

    @Test func errorNamesTheCallAndTheReason() {
        let error = SystemError("mmap", number: ENOMEM)
        #expect(error.description == "mmap: Cannot allocate memory")
    }
}
