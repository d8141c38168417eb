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
        for plex in record.configured.members where mayForgetReplaced(plex) && objection(toLosing: plex) == nil {
            accept(.own, .remove(plex))
            return
        }
    }

    /// Another has taken its place. A good plex of a mirror that lacks one besides is kept until that is back or given up:
    /// the move from one disk to another must not leave fewer good copies than there were.
    func mayForgetReplaced(_ plex: PlexIndex) -> Bool {
        // Perhaps the old one can be read there after all.
        guard let successor = successor(of: plex), record.badRanges(of: successor).isEmpty else { return false }
        return !working.contains(plex) || working.count > 2 || record.configured.count <= 2
            || mutant == .replacedTooEarly
    }

    /// Who has taken the place of the plex, and is good.
    func successor(of plex: PlexIndex) -> PlexIndex? {
        let ready = mutant == .replacedTooEarly ? working.union(recovering) : working
        return ready.filter { record[$0].replaces == plex }.first
    }

    /// Nobody is to take its place any more: it went another way, or another disk has its number.
    ///
    /// - Parameter heir: whom it was to replace itself; whoever was to replace it does that now.
    mutating func forgetReplacing(_ plex: PlexIndex, leaving heir: PlexIndex? = nil) {
        for other in record.configured.members where record[other].replaces == plex {
            record[other].replaces = heir == other ? nil : heir
        }
    }

    /// An order of our own stands in the queue, or is being carried out.
    private var isRemoving: Bool { running?.id == .own || waitingCommands.contains { $0.0 == .own } }
}
