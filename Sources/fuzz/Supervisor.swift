internal import ArgumentParser
internal import Glibc

/// Which seed a process is working on, where its parent sees it even when the process is gone: a file of eight bytes
/// that both have mapped.
@safe struct Progress {
    private let memory: UnsafeMutablePointer<UInt64>

    init(path: String) throws {
        let file = unsafe open(path, O_RDWR | O_CLOEXEC)
        guard file >= 0 else { throw ValidationError("\(path): can't be opened") }
        defer { close(file) }
        guard ftruncate(file, 8) == 0, let address = unsafe mmap(nil, 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0),
            unsafe address != MAP_FAILED
        else { throw ValidationError("\(path): can't be mapped") }
        unsafe memory = address.bindMemory(to: UInt64.self, capacity: 1)
    }

    var seed: UInt64 {
        get { unsafe memory.pointee }
        nonmutating set { unsafe memory.pointee = newValue }
    }
}

/// Runs one target in a process of its own and tells how that ended.
struct Supervisor {
    let target: String

    /// Of its own processor time, so that a busy machine makes no hangs. No input takes a hundredth of this.
    private static let busySeconds = 30.0
    /// For one that waits for something, which no target has to.
    private static let idleSeconds = 600.0

    private enum End {
        case good, broken
        case trap(signal: Int32)
        case hang
    }

    /// - Returns: whether everything held.
    func run(_ arguments: [String]) throws -> Bool {
        var template = Array("/tmp/plexus-fuzz-XXXXXX".utf8CString)
        let file = unsafe mkstemp(&template)
        guard file >= 0 else { throw ValidationError("no temporary file") }
        close(file)
        let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { unsafe unlink(path) }
        let progress = try Progress(path: path)
        let end = try wait(for: try start(arguments + ["--progress", path]), progress)
        switch end {
        case .good: return true
        case .broken: break
        case .trap(let signal): say("\(target): seed \(progress.seed) ended in signal \(signal)")
        case .hang: say("\(target): seed \(progress.seed) hangs")
        }
        let replay = ["--replay", "\(progress.seed)"]
        say("replay: swift run -c release fuzz --target \(target) \(replay.joined(separator: " "))")
        if case .trap = end {
            // Once more, to print what was decoded when it happened.
            var status: Int32 = 0
            unsafe waitpid(try start(replay), &status, 0)
        }
        return false
    }

    private func start(_ arguments: [String]) throws -> pid_t {
        var words: [UnsafeMutablePointer<CChar>?] =
            unsafe (["fuzz", "--target", target] + arguments).map { unsafe strdup($0) } + [nil]
        defer { unsafe words.forEach { unsafe free($0) } }
        var child: pid_t = 0
        guard unsafe posix_spawn(&child, "/proc/self/exe", nil, nil, &words, environ) == 0 else {
            throw ValidationError("can't start a process")
        }
        return child
    }

    private func wait(for child: pid_t, _ progress: Progress) throws -> End {
        let clock = ContinuousClock()
        var seed = progress.seed
        var since = clock.now
        var busyBefore = 0.0
        while true {
            var status: Int32 = 0
            if unsafe waitpid(child, &status, WNOHANG) == child {
                // The macros of <sys/wait.h>: the low seven bits are the signal, the next byte is the exit code.
                if status & 0x7F != 0 { return .trap(signal: status & 0x7F) }
                return status == 0 ? .good : .broken
            }
            if progress.seed != seed {
                seed = progress.seed
                since = clock.now
                busyBefore = processorSeconds(child)
            } else if processorSeconds(child) - busyBefore > Self.busySeconds
                || clock.now - since > .seconds(Self.idleSeconds)
            {
                kill(child, SIGKILL)
                unsafe waitpid(child, &status, 0)
                return .hang
            }
            usleep(20_000)
        }
    }

    private func processorSeconds(_ process: pid_t) -> Double {
        var clock = clockid_t()
        var time = timespec()
        guard unsafe clock_getcpuclockid(process, &clock) == 0, unsafe clock_gettime(clock, &time) == 0 else {
            return 0
        }
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}
