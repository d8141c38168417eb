internal import Glibc
internal import MirrorCore
internal import MirrorFormat

/// Entropy, clocks and names from the operating system.
func systemEntropy() -> Entropy {
    var source = SystemRandomNumberGenerator()
    return Entropy(source.next(), source.next(), source.next(), source.next())
}

/// Nanoseconds since 1970.
func wallClock() -> UInt64 { readClock(CLOCK_REALTIME) }

func currentInstant() -> Instant {
    Instant(nanoseconds: readClock(CLOCK_MONOTONIC), unixNanoseconds: readClock(CLOCK_REALTIME))
}

private func readClock(_ clock: Int32) -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(clock, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// The signals that a server takes as messages: all of them stop it in good order, but for SIGUSR2, and for SIGHUP where that means
/// to read the configuration again.
func stopSignals(isHangUpAmong: Bool) -> sigset_t {
    var set = sigset_t()
    unsafe sigemptyset(&set)
    unsafe sigaddset(&set, SIGTERM)
    unsafe sigaddset(&set, SIGINT)
    unsafe sigaddset(&set, SIGUSR2)
    // A terminal that is closed stops the server in good order too, unless it was started with nohup.
    var hangUp = sigaction()
    let isKept = unsafe sigaction(SIGHUP, nil, &hangUp) != 0 || hangUp.__sigaction_handler.sa_handler != nil
    if isHangUpAmong || !isKept { unsafe sigaddset(&set, SIGHUP) }
    return set
}

func systemWriter() -> Superblock.Writer {
    var name = [CChar](repeating: 0, count: 65)
    _ = unsafe gethostname(&name, 64)
    let host = String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    var text = ""
    let file = unsafe open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC)
    if file >= 0 {
        var bytes = [UInt8](repeating: 0, count: 36)
        let count = unsafe read(file, &bytes, 36)
        close(file)
        if count == 36 { text = String(decoding: bytes, as: UTF8.self) }
    }
    return Superblock.Writer(bootID: UUID128(text) ?? .zero, host: host)
}
