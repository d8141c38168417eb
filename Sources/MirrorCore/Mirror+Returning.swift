package import MirrorFormat

/// Disks that vanish, and plexes that come back without being asked for.
extension Mirror {
    /// Failed, or absent at the start. Not those that a user took out.
    package var plexesOut: PlexSet {
        guard phase == .running, !isReadOnly else { return .empty }
        return record.configured.filter { record[$0].role == .failed || record[$0].role == .stale }
    }

    /// Of these the ones whose disk nothing holds any more.
    package var plexesThatMayReturn: PlexSet {
        plexesOut.filter { plexes[Int($0.value)].attachment == nil }
    }

    /// Hold every acknowledged write.
    package var goodPlexes: PlexSet { working }

    /// Why the disk of such a plex is not taken back before a user says so; nil: it is.
    ///
    /// A disk may be overwritten unasked only if it is behind, never if it went its own way, and only where the count of
    /// what it missed holds: a disk that has to be copied in full has something to explain.
    ///
    /// - Parameters:
    ///   - superblock: of the disk.
    ///   - pages: nil if they could not be read.
    ///   - failures: how often the plex has failed within `Limits.distrustNanoseconds`.
    package func objection(
        toReturnOf plex: PlexIndex, _ superblock: Superblock, _ pages: FoundPages?, failures: Int
    ) -> String? {
        let own = superblock.record
        guard own.mirror == record.mirror, superblock.plex == record[plex].uuid else { return "it is another disk" }
        guard plexesThatMayReturn.contains(plex) else { return "it is not out" }
        guard record.descends(from: own) else { return "it went on without this mirror (split brain)" }
        guard superblock.layout.fits(record) else { return "it is laid out for another size" }
        guard failures < limits.failuresUntilDistrusted else { return "it failed \(failures) times within an hour" }
        switch JoinBasis(superblock, pages, joining: record) {
        case .everything(let reason): return "everything would have to be copied, because \(reason)"
        case .evidence(let evidence):
            return objection(toDelta: plex, evidence).map { "everything would have to be copied, because \($0)" }
        }
    }

    /// A plex that was out is there again. Whoever was to take its place stays beside it: it may be the one that is good
    /// when another fails.
    mutating func returned(_ plex: PlexIndex) {
        let successors = record.configured.filter { record[$0].replaces == plex }
        forgetReplacing(plex)
        let text = successors.isEmpty ? "" : "; plex \(list(successors)) does not take its place any more"
        log(.plexReturned, plex: plex, text: "plex \(plex) is back\(text)")
    }

    /// The driver found that a disk is not there any more, though nothing was asked of it. The last good plex stays, as
    /// after any error: what is still open of it may be all there is.
    mutating func vanished(_ plex: PlexIndex) {
        guard phase == .running, !isReadOnly, working != PlexSet(plex) else { return }
        expel(plex, operation: .absence, .absent, offset: 0)
    }
}
