internal import CLinux
internal import Glibc
internal import URing

/// Keeps this process from ever waiting for memory that only its own writing can free.
///
/// The danger: a mirror is attached to the machine that serves it, memory runs short, and the kernel writes dirty pages of
/// that mirror to get some back. The server needs memory to take these writes. If it has to wait for memory itself, for a
/// page of its own that was thrown out or for an allocation that waits for the very same writes, nothing ever goes on.
///
/// So all that it has is locked into memory and backed by pages at once, and so will be all that it maps from now on
/// (mlockall(2): buffer pools are mapped at start, and by that filled in). And what the kernel allocates on its behalf does
/// not wait for writeback (PR_SET_IO_FLUSHER, prctl(2), Linux 5.6): that is of a thread, and of those that it begins,
/// the workers of io_uring among them. To be called before there are other threads or rings.
///
/// All or nothing: who asks for this counts on it, and would find out that half of it is missing by a machine that hangs.
///
/// - Throws: `DiskError` where the system refuses one of them; nothing is served then.
package func stayInMemory() throws(DiskError) {
    let advice =
        "run as root, with CAP_SYS_RESOURCE (AmbientCapabilities= in a unit of systemd), or without --lock-memory"
    guard plexus_prctl(PR_SET_IO_FLUSHER, 1) == 0 else {
        let why = errno == EINVAL ? "Linux 5.6 or newer is needed" : advice
        throw DiskError("--lock-memory: PR_SET_IO_FLUSHER: \(errorText(errno)); \(why)")
    }
    // A limit would not show here but later: an allocation that exceeds it fails, while clients are served.
    var unlimited = rlimit(rlim_cur: rlim_t.max, rlim_max: rlim_t.max)
    guard unsafe setrlimit(__rlimit_resource_t(8), &unlimited) == 0 else {  // RLIMIT_MEMLOCK
        throw DiskError("--lock-memory: RLIMIT_MEMLOCK can't be lifted: \(errorText(errno)); \(advice)")
    }
    guard mlockall(Int32(MCL_CURRENT) | Int32(MCL_FUTURE)) == 0 else {
        throw DiskError("--lock-memory: mlockall: \(errorText(errno)); \(advice)")
    }
    // What the capability was for is done: programs that are run for events are to have none.
    dropAmbientCapabilities()
}

/// Runs a program that is to be able to do the same: the server that takes over.
func withRightToStayInMemory<Result>(_ body: () -> Result) -> Result {
    // Where it can't be handed on, for this one has it by being root or not at all, the program has it so or not at all.
    _ = plexus_hand_on_resource_capability()
    defer { dropAmbientCapabilities() }
    return body()
}

private func dropAmbientCapabilities() { _ = plexus_prctl(PR_CAP_AMBIENT, UInt(PR_CAP_AMBIENT_CLEAR_ALL)) }
