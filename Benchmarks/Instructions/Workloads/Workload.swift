/// A piece of the hot path, to be done many times and measured from outside.
package struct Workload: Sendable {
    /// Does the work `count` times.
    ///
    /// - Returns: a number that depends on all of it, so that the compiler can leave nothing out.
    package typealias Work = (_ count: Int) -> UInt64

    /// `area, what` in words: it heads a line of the tables.
    package let name: String
    /// That it neither allocates nor counts references is a rule of the house. `scripts/instructions` holds it to that.
    package let isAllocationFree: Bool
    /// Everything that is allocated once.
    package let prepare: @Sendable () throws -> Work

    init(_ name: String, isAllocationFree: Bool = true, prepare: @escaping @Sendable () throws -> Work) {
        self.name = name
        self.isAllocationFree = isAllocationFree
        self.prepare = prepare
    }

    package static let all = protocolWorkloads + formatWorkloads + structureWorkloads + coreWorkloads
}

/// Where the next request goes: scattered, the same in each run, and no two alike before `count` of them.
struct Scatter: BitwiseCopyable {
    private let mask: UInt64
    private var step: UInt64 = 0

    /// - Parameter count: a power of two.
    init(count: UInt64) {
        precondition(count.nonzeroBitCount == 1)
        mask = count - 1
    }

    /// An odd factor permutes the numbers below a power of two.
    mutating func next() -> UInt64 {
        step &+= 1
        return (step &* 0x9E37_79B1) & mask
    }
}
