internal import Bytes
internal import MirrorFormat

extension Target {
    static let scrubLedger = structure("scrub ledger") { input in
        let mirror = MirrorUUID(input.uuid())
        let page = input.below(ScrubLedger.pageCount)
        return Specimen(
            bytes: input.scrubLedger(page).encoded(page, mirror), seal: { sealPage(&$0, mirror: mirror) },
            recode: { bytes in
                var ledger = ScrubLedger()
                guard unsafe ledger.take(page: page, bytes: bytes.span.bytes, mirror: mirror) else { return nil }
                return ledger.encoded(page, mirror)
            })
    }
}

extension ScrubLedger {
    fileprivate func encoded(_ page: Int, _ mirror: MirrorUUID) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: ScrubLedger.pageBytes)
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        encode(page: page, mirror: mirror, into: &raw)
        return bytes
    }
}

extension Input {
    /// With something on the page.
    fileprivate mutating func scrubLedger(_ page: Int) -> ScrubLedger {
        var ledger = ScrubLedger()
        var state = ScrubState()
        state.isRunning = oneIn(2)
        state.readsHoles = oneIn(2)
        state.repairs = oneIn(2)
        state.preferred = oneIn(2) ? PlexIndex(below(PlexSet.capacity)) : nil
        state.position = number()
        state.started = number() | 1
        state.lastFinished = number()
        state.found = count()
        state.unreadable = count()
        state.repaired = count()
        state.unrecorded = count()
        ledger.change { $0 = state }
        let first = max(0, page - 1) * ScrubLedger.entriesPerPage
        for _ in 0...below(5) { ledger[first + below(ScrubLedger.entriesPerPage)] = mismatch() }
        return ledger
    }

    private mutating func mismatch() -> Mismatch {
        let plexes = PlexSet(mask: byte() | 1)
        var mismatch = Mismatch(
            offset: number(), plexes: plexes, odd: PlexSet(mask: byte()).intersection(plexes),
            checksums: (0..<PlexSet.capacity).map { _ in UInt32(truncatingIfNeeded: number()) }, time: number())
        mismatch.lastSeen = number()
        mismatch.closed = oneIn(2) ? number() : 0
        mismatch.source = oneIn(2) ? PlexIndex(below(PlexSet.capacity)) : nil
        return mismatch
    }
}
