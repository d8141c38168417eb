internal import DequeModule
internal import NBDProtocol

/// A mirror as the sockets of one reactor see it: what it is, where it runs, and what they have asked of it.
struct Route: ~Copyable {
    let export: ExportDescription
    let place: MirrorPlace
    /// Requests of these sockets that the mirror takes at once. The shares of all reactors together are what it has
    /// room for.
    let share: Int
    /// Of these, how many it has.
    var inFlight = 0
    /// Jobs of writes that are received but found no room.
    var waitingJobs = Deque<Int>()
    var isStopped = false

    init(export: ExportDescription, place: MirrorPlace, share: Int) {
        self.export = export
        self.place = place
        self.share = share
    }

    var name: String { export.name }
    var hasRoom: Bool { inFlight < share && waitingJobs.isEmpty }
}

/// Which reactor a mirror runs on, and its index there. Neither changes.
struct MirrorPlace: BitwiseCopyable, Hashable {
    var reactor: Int
    var index: Int
}
