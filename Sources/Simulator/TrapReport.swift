internal import Glibc

/// Tells which run it was if the engine traps: a trap ends the process, and with it the loop that knows.
///
/// A signal handler may call little more than write(2) (signal-safety(7)), so the line is made ready before
/// each run. The handler has a stack of its own, for endless recursion ends as SIGSEGV with no stack left.
package enum TrapReport {
    private static let capacity = 160
    private static let stackBytes = 64 << 10
    /// The line, and how many bytes of it there are.
    nonisolated(unsafe) private static let line = UnsafeMutablePointer<UInt8>.allocate(capacity: capacity)
    nonisolated(unsafe) private static let count = UnsafeMutablePointer<Int>.allocate(capacity: 1)

    /// From here on a trap prints the line set last, then ends the process as it would have.
    package static func install() {
        unsafe count.initialize(to: 0)
        unsafe line.initialize(repeating: 0, count: capacity)
        var stack = unsafe stack_t()
        // Never freed: it has to outlive everything.
        unsafe stack.ss_sp = UnsafeMutableRawPointer.allocate(byteCount: stackBytes, alignment: 16)
        unsafe stack.ss_size = stackBytes
        unsafe sigaltstack(&stack, nil)
        var action = sigaction()
        unsafe action.__sigaction_handler.sa_handler = { number in
            _ = unsafe write(STDERR_FILENO, TrapReport.line, TrapReport.count.pointee)
            // The handler is reset by now: this ends the process as if it had never been there.
            _ = raise(number)
        }
        action.sa_flags = Int32(bitPattern: UInt32(SA_RESETHAND)) | SA_ONSTACK
        for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGABRT] { unsafe sigaction(number, &action, nil) }
    }

    /// - Parameter run: what to type to see it again; ASCII, cut at 140 bytes.
    package static func name(_ run: String) {
        var length = 0
        for byte in "trapped in \(run)\n".utf8.prefix(capacity - 1) {
            unsafe line[length] = byte
            length += 1
        }
        unsafe count.pointee = length
    }
}
