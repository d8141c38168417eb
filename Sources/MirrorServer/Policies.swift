/// What the server does by itself. May change while it runs, see SIGHUP.
struct Policies: Sendable {
    /// Disks that were named; where to look for those that are missing.
    var disks: [String] = []
    /// A plex whose disk comes back takes part again.
    var rejoins = true
    /// So long after it went, and not sooner.
    var rejoinSeconds: UInt64 = 10
    /// A plex that is out for so long is replaced by a spare.
    var spareSeconds: UInt64 = 300
    var scrubs = ScrubPolicy()
    /// A plex that owes a write for so long is given up if another one does not; 0: never.
    var writeDeadlineSeconds: UInt64 = 2
}
