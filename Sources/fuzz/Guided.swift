internal import CLibFuzzer
internal import Fuzzing
internal import Glibc

/// The target that libFuzzer calls: it passes nothing but the bytes.
nonisolated(unsafe) private var guidedTarget: Target?

/// Hands the target over to libFuzzer, which ends the process. Returns only if it is not part of this build.
func runGuided(_ target: Target, _ arguments: [String]) {
    unsafe guidedTarget = target
    // The words have to live as long as the process.
    var words: [UnsafeMutablePointer<CChar>?] = unsafe (["fuzz"] + arguments).map { unsafe strdup($0) } + [nil]
    unsafe run_libfuzzer(Int32(words.count - 1), &words) { data, count in
        let bytes = unsafe [UInt8](UnsafeBufferPointer(start: data, count: count))
        var input = Input(bytes: bytes)
        do throws(Finding) {
            _ = try unsafe guidedTarget?.run(&input)
        } catch {
            say("\(error.text)\n\(hexDump(error.bytes))")
            abort()
        }
        return 0
    }
}
