import CLibNBD
import Glibc
import TestSupport

/// What libnbd said.
struct NBDError: Error, CustomStringConvertible {
    var call: String
    var number: Int32
    var text: String
    var description: String { "\(call): \(text) (errno \(number))" }

    /// Of the call that has just failed on this thread.
    init(_ call: String) {
        self.call = call
        number = nbd_get_errno()
        text = unsafe nbd_get_error().map { unsafe String(cString: $0) } ?? "unknown"
    }
}

/// One connection through libnbd; used from one thread.
@safe final class NBDClient {
    private let handle: OpaquePointer

    /// Before the connection is made.
    struct Wishes {
        var structuredReplies = true
        var contexts = ["base:allocation"]
        /// Off: what the server must refuse reaches the server.
        var checksRequests = true
    }

    init(_ uri: String, _ wishes: Wishes = Wishes()) throws {
        guard let handle = unsafe nbd_create() else { throw NBDError("nbd_create") }
        unsafe self.handle = handle
        unsafe nbd_set_request_structured_replies(handle, wishes.structuredReplies)
        for context in wishes.contexts { unsafe nbd_add_meta_context(handle, context) }
        if !wishes.checksRequests { unsafe nbd_set_strict_mode(handle, 0) }
        try check("nbd_connect_uri", unsafe nbd_connect_uri(handle, uri))
    }

    deinit { unsafe nbd_close(handle) }

    @discardableResult
    private func check<Value: SignedInteger>(_ call: String, _ value: Value) throws -> Value {
        guard value >= 0 else { throw NBDError(call) }
        return value
    }

    // MARK: what was agreed

    var size: Int { get throws { Int(try check("nbd_get_size", unsafe nbd_get_size(handle))) } }

    var hasStructuredReplies: Bool { unsafe nbd_get_structured_replies_negotiated(handle) == 1 }

    func canContext(_ name: String) -> Bool { unsafe nbd_can_meta_context(handle, name) == 1 }

    var canMultipleConnections: Bool { unsafe nbd_can_multi_conn(handle) == 1 }
    var canFlush: Bool { unsafe nbd_can_flush(handle) == 1 }
    var canForceUnitAccess: Bool { unsafe nbd_can_fua(handle) == 1 }
    var canTrim: Bool { unsafe nbd_can_trim(handle) == 1 }
    var canZero: Bool { unsafe nbd_can_zero(handle) == 1 }
    var isReadOnly: Bool { unsafe nbd_is_read_only(handle) == 1 }

    /// Minimum, preferred, maximum.
    var blockSizes: [Int] {
        [LIBNBD_SIZE_MINIMUM, LIBNBD_SIZE_PREFERRED, LIBNBD_SIZE_MAXIMUM].map {
            Int(unsafe nbd_get_block_size(handle, Int32($0)))
        }
    }

    // MARK: one request at a time

    func read(at offset: Int, count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: count)
        try check("nbd_pread", unsafe nbd_pread(handle, &bytes, count, UInt64(offset), 0))
        return bytes
    }

    func write(_ bytes: [UInt8], at offset: Int, flags: UInt32 = 0) throws {
        try check("nbd_pwrite", unsafe nbd_pwrite(handle, bytes, bytes.count, UInt64(offset), flags))
    }

    func zero(at offset: Int, count: Int, flags: UInt32 = 0) throws {
        try check("nbd_zero", unsafe nbd_zero(handle, UInt64(count), UInt64(offset), flags))
    }

    func trim(at offset: Int, count: Int, flags: UInt32 = 0) throws {
        try check("nbd_trim", unsafe nbd_trim(handle, UInt64(count), UInt64(offset), flags))
    }

    func flush() throws { try check("nbd_flush", unsafe nbd_flush(handle, 0)) }

    func shutdown() throws { try check("nbd_shutdown", unsafe nbd_shutdown(handle, 0)) }

    /// A piece of the export and its flags (1 hole, 2 zeroes).
    struct Extent: Equatable {
        var count: Int
        var flags: UInt32
    }

    /// Of `base:allocation`.
    func extents(at offset: Int, count: Int) throws -> [Extent] {
        final class Collector { var extents: [Extent] = [] }
        let collector = Collector()
        let callback = unsafe nbd_extent_callback(
            callback: { user, _, _, entries, number, _ in
                guard let user = unsafe user, let entries = unsafe entries else { return -1 }
                let collector = unsafe Unmanaged<Collector>.fromOpaque(user).takeUnretainedValue()
                for index in stride(from: 0, to: number, by: 2) {
                    let extent = unsafe Extent(count: Int(entries[index]), flags: entries[index + 1])
                    collector.extents.append(extent)
                }
                return 0
            },
            user_data: Unmanaged.passUnretained(collector).toOpaque(), free: nil)
        _ = try withExtendedLifetime(collector) {
            try check("nbd_block_status", unsafe nbd_block_status(handle, UInt64(count), UInt64(offset), callback, 0))
        }
        return collector.extents
    }

    // MARK: several requests at once

    enum Command: Equatable {
        case read, write, zero, trim, flush
    }

    struct Operation {
        var command: Command
        var offset = 0
        /// What is written, or where to read to.
        var bytes: [UInt8] = []
        var count = 0
        var flags: UInt32 = 0
        /// Nil: it was answered without an error.
        var error: NBDError?
    }

    /// Sends all of them at once and waits for all of the answers.
    ///
    /// - Throws: only if the answers do not come; what the server said is in each operation.
    func perform(_ operations: inout [Operation]) throws {
        let total = operations.reduce(0) { $0 + $1.bytes.count }
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(total, 1), alignment: 16)
        defer { unsafe memory.deallocate() }
        var cookies: [Int64] = []
        var start = 0
        for index in operations.indices {
            let count = operations[index].bytes.count
            let piece = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[start..<start + count])
            unsafe piece.copyBytes(from: operations[index].bytes)
            let cookie = unsafe submit(operations[index], piece)
            if cookie < 0 { operations[index].error = NBDError("submitting") }
            cookies.append(cookie)
            start += count
        }
        let clock = ContinuousClock()
        let end = clock.now.advanced(by: .seconds(60))
        while unsafe nbd_aio_in_flight(handle) > 0, clock.now < end {
            if unsafe nbd_poll(handle, 1000) < 0 { break }
        }
        start = 0
        for index in operations.indices {
            let count = operations[index].bytes.count
            let isDone = cookies[index] < 0 ? -1 : unsafe nbd_aio_command_completed(handle, UInt64(cookies[index]))
            if isDone == 0 { throw Missing("an answer to \(operations[index].command) at \(operations[index].offset)") }
            if isDone < 0, operations[index].error == nil {
                operations[index].error = NBDError("\(operations[index].command)")
            }
            if operations[index].command == .read {
                operations[index].bytes = unsafe [UInt8](memory[start..<start + count])
            }
            start += count
        }
    }

    private func submit(_ operation: Operation, _ piece: UnsafeMutableRawBufferPointer) -> Int64 {
        let none = unsafe nbd_completion_callback(callback: nil, user_data: nil, free: nil)
        let (offset, count, flags) = (UInt64(operation.offset), UInt64(operation.count), operation.flags)
        switch operation.command {
        case .read: return unsafe nbd_aio_pread(handle, piece.baseAddress, piece.count, offset, none, flags)
        case .write: return unsafe nbd_aio_pwrite(handle, piece.baseAddress, piece.count, offset, none, flags)
        case .zero: return unsafe nbd_aio_zero(handle, count, offset, none, flags)
        case .trim: return unsafe nbd_aio_trim(handle, count, offset, none, flags)
        case .flush: return unsafe nbd_aio_flush(handle, none, 0)
        }
    }
}
