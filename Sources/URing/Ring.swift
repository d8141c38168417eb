internal import CLibURing
internal import Glibc

/// An error number of the operating system, with the call that returned it.
package struct SystemError: Error, CustomStringConvertible, Equatable {
    package var number: Int32
    package var call: String

    package init(_ call: String, number: Int32) {
        self.call = call
        self.number = number
    }

    package var text: String { unsafe String(cString: strerror(number)) }
    package var description: String { "\(call): \(text)" }
}

/// What io_uring reports for one operation.
package struct Completion: BitwiseCopyable {
    /// As given to the `prepare` call.
    package var userData: UInt64
    /// Bytes or events, or a negative error number.
    package var result: Int32
    /// More completions will come for the same operation (multishot poll).
    package var hasMore: Bool
}

/// One io_uring with its queues; used from one thread.
///
/// `struct io_uring` is referenced by the kernel and must not move: it lives on the heap, owned by this value.
/// Source: io_uring(7), liburing 2.3.
@safe package struct Ring: ~Copyable {
    private let ring: UnsafeMutablePointer<io_uring>
    /// Threads of the kernel for operations that can't be done without waiting, such as fdatasync.
    private static let workers: UInt32 = 256
    /// Completions are worked off when this thread asks for them, and not by interrupting it (Linux 6.1); or at least
    /// without an interrupt of the processor (5.19).
    private static let preferredSetup = [
        UInt32(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN), UInt32(IORING_SETUP_COOP_TASKRUN), 0,
    ]
    private static let asynchronous: UInt8 = 1 << 4  // IOSQE_ASYNC, <linux/io_uring.h>

    /// - Parameter entries: length of the submission queue; more operations than that can be in flight.
    package init(entries: UInt32) throws(SystemError) {
        // Stored only once it is set up: a value whose members are all there is torn down when its init throws.
        let allocated = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
        unsafe allocated.initialize(to: io_uring())
        var result: Int32 = 0
        for flags in Self.preferredSetup {
            var parameters = io_uring_params()
            parameters.flags = UInt32(IORING_SETUP_CQSIZE) | UInt32(IORING_SETUP_CLAMP) | flags
            parameters.cq_entries = entries * 4
            result = unsafe io_uring_queue_init_params(entries, allocated, &parameters)
            if result != -EINVAL { break }
        }
        guard result == 0 else {
            unsafe allocated.deallocate()
            throw SystemError("io_uring_setup", number: -result)
        }
        unsafe ring = allocated
        // By default four per processor: that many operations on one disk that hangs would hold up the flushes of
        // all others. A kernel that knows no such limit keeps its own.
        var workers: (UInt32, UInt32) = (Self.workers, Self.workers)
        _ = unsafe withUnsafeMutablePointer(to: &workers) { pointer in
            unsafe pointer.withMemoryRebound(to: UInt32.self, capacity: 2) {
                unsafe io_uring_register_iowq_max_workers(ring, $0)
            }
        }
    }

    deinit {
        unsafe io_uring_queue_exit(ring)
        unsafe ring.deallocate()
    }

    /// A free submission entry; hands what is queued to the kernel first where the queue is full.
    private func entry() -> UnsafeMutablePointer<io_uring_sqe> {
        while true {
            if let entry = unsafe io_uring_get_sqe(ring) { return unsafe entry }
            _ = unsafe io_uring_submit(ring)
        }
    }

    /// - Parameter mayHang: not begun on the calling thread, which a file system such as FUSE could block.
    package func prepareRead(
        _ file: Int32, into buffer: UnsafeMutableRawPointer, count: Int, offset: UInt64, mayHang: Bool = false,
        userData: UInt64
    ) {
        let entry = unsafe entry()
        unsafe io_uring_prep_read(entry, file, buffer, UInt32(count), offset)
        if mayHang { unsafe entry.pointee.flags |= Self.asynchronous }
        unsafe entry.pointee.user_data = userData
    }

    /// - Parameters:
    ///   - isDurable: with RWF_DSYNC.
    ///   - mayHang: see `prepareRead`.
    package func prepareWrite(
        _ file: Int32, from buffer: UnsafeRawPointer, count: Int, offset: UInt64, isDurable: Bool,
        mayHang: Bool = false,
        userData: UInt64
    ) {
        let entry = unsafe entry()
        unsafe io_uring_prep_write(entry, file, buffer, UInt32(count), offset)
        if mayHang { unsafe entry.pointee.flags |= Self.asynchronous }
        if isDurable { unsafe entry.pointee.rw_flags = 2 }  // RWF_DSYNC, <linux/fs.h>
        unsafe entry.pointee.user_data = userData
    }

    package func prepareDataSync(_ file: Int32, userData: UInt64) {
        let entry = unsafe entry()
        unsafe io_uring_prep_fsync(entry, file, UInt32(IORING_FSYNC_DATASYNC))
        unsafe entry.pointee.user_data = userData
    }

    package func prepareAllocate(_ file: Int32, mode: Int32, offset: UInt64, length: UInt64, userData: UInt64) {
        let entry = unsafe entry()
        unsafe io_uring_prep_fallocate(entry, file, mode, off_t(offset), off_t(length))
        unsafe entry.pointee.user_data = userData
    }

    /// Completes each time one of the poll(2) `events` becomes true anew; edge triggered.
    package func preparePoll(_ file: Int32, events: UInt32, userData: UInt64) {
        let entry = unsafe entry()
        unsafe io_uring_prep_poll_multishot(entry, file, events)
        unsafe entry.pointee.user_data = userData
    }

    package func preparePollOnce(_ file: Int32, events: UInt32, userData: UInt64) {
        let entry = unsafe entry()
        unsafe io_uring_prep_poll_add(entry, file, events)
        unsafe entry.pointee.user_data = userData
    }

    /// Ends the poll that was prepared with `target` as its user data; it holds the file open otherwise.
    package func preparePollRemoval(of target: UInt64, userData: UInt64) {
        let entry = unsafe entry()
        unsafe io_uring_prep_poll_remove(entry, target)
        unsafe entry.pointee.user_data = userData
    }

    /// Hands everything prepared to the kernel and waits for a completion.
    ///
    /// - Parameter timeoutMilliseconds: 0: do not wait.
    package func submitAndWait(timeoutMilliseconds: Int) {
        if timeoutMilliseconds == 0 {
            _ = unsafe io_uring_submit_and_get_events(ring)
            return
        }
        var timeout = __kernel_timespec()
        timeout.tv_sec = Int64(timeoutMilliseconds / 1000)
        timeout.tv_nsec = Int64(timeoutMilliseconds % 1000) * 1_000_000
        var first: UnsafeMutablePointer<io_uring_cqe>?
        // Interrupted or timed out: both mean "look at the queue", which the caller does anyway.
        _ = unsafe io_uring_submit_and_wait_timeout(ring, &first, 1, &timeout, nil)
    }

    /// How many completions there are to take.
    package var completionCount: Int { unsafe Int(io_uring_cq_ready(ring)) }

    /// The oldest completion; there must be one.
    package func takeCompletion() -> Completion {
        var entry: UnsafeMutablePointer<io_uring_cqe>?
        _ = unsafe io_uring_peek_cqe(ring, &entry)
        guard let entry = unsafe entry else { preconditionFailure("no completion to take") }
        let completion = unsafe Completion(
            userData: entry.pointee.user_data, result: entry.pointee.res,
            hasMore: entry.pointee.flags & UInt32(1 << 1) != 0)  // IORING_CQE_F_MORE
        unsafe io_uring_cq_advance(ring, 1)
        return completion
    }
}
