import Foundation
import Synchronization
import TestSupport

/// Whether workers should go on, and how far they are.
final class Progress: Sendable {
    private let stopped = Atomic(false)
    private let count = Atomic(0)

    var isStopped: Bool { stopped.load(ordering: .acquiring) }
    var total: Int { count.load(ordering: .acquiring) }

    func stop() { stopped.store(true, ordering: .releasing) }
    func add(_ number: Int) { count.add(number, ordering: .releasing) }
}

/// Runs `worker` on so many threads while `meanwhile` runs here.
///
/// Whatever is thrown, all threads have ended when this returns: `progress` is stopped, and a worker that
/// looks at it after each answer ends soon.
func withWorkers<Value: Sendable>(
    _ count: Int, _ progress: Progress, _ worker: @escaping @Sendable (Int) throws -> Value,
    meanwhile: () throws -> Void
) throws -> [Value] {
    let results = SharedResults<Value>()
    let group = DispatchGroup()
    for index in 0..<count {
        group.enter()
        Thread.detachNewThread {
            let result = Result { try worker(index) }
            // One that failed ends the others: they would only hide it.
            if case .failure = result { progress.stop() }
            results.set(result, index)
            group.leave()
        }
    }
    let outcome = Result { try meanwhile() }
    progress.stop()
    group.wait()
    let values = try results.ordered()
    try outcome.get()
    return values
}

private final class SharedResults<Value: Sendable>: Sendable {
    private let values = Mutex<[Int: Result<Value, any Error>]>([:])

    func set(_ result: Result<Value, any Error>, _ index: Int) { values.withLock { $0[index] = result } }

    /// - Throws: the error of the first worker that failed.
    func ordered() throws -> [Value] {
        try values.withLock { all in try all.sorted { $0.key < $1.key }.map { try $0.value.get() } }
    }
}
