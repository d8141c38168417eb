internal import MirrorCore

/// Stands in for chance in runs that leave nothing to it (`Exploration`, `Injection`): in which order disks
/// answer, and which operation fails.
struct Pilot {
    /// Whose answer comes first when all plexes are asked at once.
    enum Order: Int, CaseIterable { case lowestFirst, highestFirst }

    /// What an operation is to suffer.
    struct Trouble {
        var plan: Flight.Plan
        /// From then on the disk answers nothing but ENXIO.
        var vanishes = false
    }

    var order = Order.lowestFirst
    /// What ENOSPC means depends on it.
    var isBlockDevice = false
    /// The next write of a client's data to the disk fails so.
    var failingWrite: (disk: Int, effect: SimulatedDisk.Landing)?
    /// Told each operation that counts: its number, from 1, and the time.
    var trouble: (Int, DiskOperation, UInt64) -> Trouble? = { _, _, _ in nil }
    var isCounting = false
    var calls = 0

    /// Long enough that all plexes' answers to one request differ in time, by order of plex.
    func delay(_ disk: Int) -> UInt64 {
        switch order {
        case .lowestFirst: 10_000 + UInt64(disk) * 1000
        case .highestFirst: 10_000 + UInt64(7 - disk) * 1000
        }
    }

    mutating func draw(_ operation: DiskOperation, _ disk: Int, now: UInt64) -> Trouble {
        if isCounting { calls += 1 }
        if isCounting, let trouble = trouble(calls, operation, now) { return trouble }
        if let failing = failingWrite, failing.disk == disk, operation.request.value > 0 {
            switch operation.kind {
            case .write, .deallocate, .zero:
                failingWrite = nil
                return Trouble(plan: .fail(errorNumber: 5, effect: failing.effect))
            case .read, .flush, .writeMetadata, .queryAllocation, .compare, .checksum, .findData: break
            }
        }
        return Trouble(plan: .succeed)
    }
}

extension Limits {
    /// Everything soon, so that a run comes to rest after few events; several windows to a copy.
    static var steered: Limits {
        var limits = Limits()
        limits.writeDeadlineNanoseconds = 0
        limits.bitsPerPage = Geometry.bitsPerPage
        limits.requests = 16
        limits.internalRequests = 8
        limits.resyncWindowsIdle = 1
        limits.resyncWindowBytes = UInt64(2 * Geometry.blockBytes)
        limits.resyncWindowBytesBusy = limits.resyncWindowBytes
        limits.resyncRetryNanoseconds = 200_000_000
        limits.repairRetryNanoseconds = 2_000_000_000
        limits.commonFailureRetryNanoseconds = 100_000_000
        limits.cleanAfterNanoseconds = 200_000_000
        return limits
    }
}

extension Profile {
    /// No chance anywhere: a `Pilot` decides.
    init(steeredPlexes: Int, blocks: Int) {
        plexes = steeredPlexes
        dataBlocks = blocks
        regionBlocks = 1
        depth = 0
        tickNanoseconds = 100_000_000
    }
}
