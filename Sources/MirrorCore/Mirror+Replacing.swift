internal import MirrorFormat

/// A new plex takes the place of another one: the old one serves until the new one is in sync, and is forgotten then. What
/// is on record survives restarts: `Member.replaces`.
extension Mirror {
    /// Why `plex` can't be copied to in order to take the place of `replaced`; nil if it can.
    func objection(toReplacing replaced: PlexIndex, by plex: PlexIndex) -> String? {
        guard replaced != plex, record[replaced].role != .absent else {
            return "mirror \(record.name) has no plex \(replaced) to be replaced"
        }
        if let other = record.configured.members.first(where: { $0 != plex && record[$0].replaces == replaced }) {
            return
                "plex \(replaced) is being replaced by plex \(other) already; to give that up: plexus break \(record.name) \(other) --nokeep"
        }
        return nil
    }

    /// Orders what is to follow when a plex that replaces another one is in sync. Also at ticks, for a restart may lie in
    /// between, and the order may have been refused: the new plex could be the worse one by then.
    mutating func forgetReplaced() {
        guard phase == .running, !isReadOnly, !isRemoving else { return }
        let ready = mutant == .replacedTooEarly ? working.union(recovering) : working
        for plex in ready.members {
            guard let replaced = record[plex].replaces, objection(toLosing: replaced) == nil else { continue }
            accept(.own, .remove(replaced))
            return
        }
    }

    /// An order of our own stands in the queue, or is being carried out.
    private var isRemoving: Bool { running?.id == .own || waitingCommands.contains { $0.0 == .own } }
}
