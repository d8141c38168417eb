internal import DequeModule
internal import MirrorCore
internal import NBDProtocol

/// A mirror as the sockets of one reactor see it: what it is, where it runs, and what they have asked of it.
struct Route {
    let export: ExportDescription
    let place: MirrorPlace
    /// Requests of these sockets that the mirror has; all that it has, for no other reactor serves any.
    var inFlight = 0
    /// Jobs of writes that are received but found no room.
    var waitingJobs = Deque<Int>()
    var isStopped = false

    private let capacity = Limits().requests

    init(export: ExportDescription, place: MirrorPlace) {
        self.export = export
        self.place = place
    }

    var name: String { export.name }
    /// For a job that waits.
    var mayStart: Bool { inFlight < capacity }
    /// For a new one.
    var hasRoom: Bool { mayStart && waitingJobs.isEmpty }
}

/// Which reactor a mirror runs on, and its index there. Neither changes.
struct MirrorPlace: BitwiseCopyable, Hashable {
    var reactor: Int
    var index: Int
}
