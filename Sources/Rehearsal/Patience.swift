internal import Glibc

/// The user, or the system, wants the program to end: everything that was made is taken away on the way out.
package struct Interrupted: Error {
    package var signal: Int32
}

/// Waiting in which signals are noticed: they are blocked, and taken up here. SIGKILL aside nothing ends the program before
/// it has cleaned up.
package enum Patience {
    private static var signals: sigset_t {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGCHLD] { unsafe sigaddset(&set, signal) }
        return set
    }

    /// To be called before there are other threads.
    package static func begin() {
        var set = signals
        unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
        // SIGCHLD would not be kept for us where the parent has it ignored.
        signal(SIGCHLD, SIG_DFL)
    }

    /// Until a process that was started has ended, or the time is up.
    package static func wait(milliseconds: Int) throws(Interrupted) {
        var set = signals
        var time = timespec(tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000)
        let number = unsafe sigtimedwait(&set, nil, &time)
        if number > 0, number != SIGCHLD { throw Interrupted(signal: number) }
    }

    /// Where cleaning up must not be disturbed.
    static func sleep(milliseconds: Int) { usleep(UInt32(milliseconds) * 1000) }

    static var nowSeconds: Double {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}
