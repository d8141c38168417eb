internal import Bytes
package import MirrorFormat

/// What one plex has of the scrub's ledger.
struct LedgerCopy {
    /// By page; the largest number: nobody knows what lies there.
    var sequences = InlineArray<9, UInt64>(repeating: 0)
    /// The page that is being written.
    var writing: Int?
    var writingSequence: UInt64 = 0
    /// It failed once: the ledger is a service, and no plex is given up for it.
    var isDisabled = false

    var isUnknown: Bool { sequences[0] == .max }

    /// Of a plex that joins: its disk may tell of another side of a split, or of another life.
    static let unknown = LedgerCopy(sequences: InlineArray(repeating: .max))
}

/// The ledger is written lazily, to all plexes in use: no acknowledgement depends on it. Entries come before the state,
/// so that a scrub goes on behind a difference only if that is on record.
extension Mirror {
    /// How far it got is written now and then; what it found, at once.
    mutating func recordScrub() {
        guard scrub.isBehind, now.nanoseconds - scrub.recordedAt >= limits.scrubRecordNanoseconds else { return }
        scrub.recordedAt = now.nanoseconds
        scrub.record()
    }

    mutating func pumpScrubLedger() {
        guard !isReadOnly, phase != .stopped else { return }
        for plex in working.union(recovering).members { writeLedger(plex) }
    }

    private mutating func writeLedger(_ plex: PlexIndex) {
        let index = Int(plex.value)
        guard !plexes[index].isReleasing, !plexes[index].ledger.isDisabled, plexes[index].ledger.writing == nil,
            let attachment = plexes[index].attachment
        else { return }
        let sequences = scrub.ledger.sequences
        // A mirror that was never scrubbed needs no ledger. A page that was never written is none wherever it lies.
        guard sequences.contains(where: { $0 > 0 }) || plexes[index].ledger.isUnknown else { return }
        let pages = sequences.indices.reversed().filter { sequences[$0] != plexes[index].ledger.sequences[$0] }
        guard let page = pages.first else { return }
        plexes[index].ledger.writing = page
        plexes[index].ledger.writingSequence = sequences[page]
        submitMetadata(
            owner: .scrub, plex: plex, slot: page, generation: 0,
            offset: ScrubLedger.pageOffset(page, diskBytes: attachment.layout.diskBytes))
    }

    mutating func ledgerCompleted(_ tag: DiskTag, _ result: DiskResult) {
        let index = Int(tag.plex.value)
        plexes[index].ledger.writing = nil
        switch result {
        case .transferred:
            plexes[index].ledger.sequences[tag.slot] = plexes[index].ledger.writingSequence
            if phase == .running, working.union(recovering).contains(tag.plex) { writeLedger(tag.plex) }
        case .failed(let failure):
            // What is to be tried again is, at the next tick.
            if failure.kind != .transient { plexes[index].ledger.isDisabled = true }
        }
    }

    // MARK: what users are told

    package var scrubLedger: ScrubLedger { scrub.ledger }

    func scrubStatus() -> MirrorStatus.ScrubStatus? {
        let state = scrub.state
        guard state.started > 0 else { return nil }
        let total = record.dataBytes
        let waiting = state.isRunning ? scrubObstacle : nil
        let rate = state.isRunning && waiting == nil ? scrub.pace.bytesPerSecond : 0
        return MirrorStatus.ScrubStatus(
            isRunning: state.isRunning, lastFinished: state.lastFinished, mismatches: scrub.mismatches,
            unrecorded: state.unrecorded, done: state.position, total: total, bytesPerSecond: rate,
            etaSeconds: rate > 0 ? (total - state.position + rate - 1) / rate : nil, waiting: waiting,
            limit: scrub.pace.limit,
            manner: ScrubManner(
                readsHoles: state.readsHoles, repairs: state.repairs, preferred: state.preferred),
            repaired: state.repaired, unreadable: state.unreadable)
    }
}
