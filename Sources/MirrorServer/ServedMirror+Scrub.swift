internal import Control
internal import MirrorCore
internal import MirrorFormat

extension ServedMirror {
    func report(_ scrub: MirrorStatus.ScrubStatus) -> StatusReport.Scrub {
        StatusReport.Scrub(
            running: scrub.isRunning, lastFinished: time(scrub.lastFinished), mismatches: scrub.mismatches,
            done: scrub.done, total: scrub.total, bytesPerSecond: scrub.bytesPerSecond, etaSeconds: scrub.etaSeconds,
            waiting: scrub.waiting, limit: scrub.limit, repair: scrub.manner.repairs, repaired: scrub.repaired,
            unreadable: scrub.unreadable)
    }

    func scrubReport() -> ScrubReport {
        let status = mirror.status().scrub
        return ScrubReport(
            mirror: name, running: status?.isRunning ?? false, lastFinished: time(status?.lastFinished ?? 0),
            mismatches: status?.mismatches ?? 0, unrecorded: status?.unrecorded ?? 0,
            entries: mirror.scrubLedger.reports)
    }
}

extension ScrubLedgerReport {
    /// Nil: no scrub has left anything there.
    init?(_ ledger: ScrubLedger) {
        guard ledger.sequences.contains(where: { $0 > 0 }) else { return nil }
        let (state, reports) = (ledger.state, ledger.reports)
        self.init(
            running: state.isRunning, position: state.position, started: time(state.started),
            lastFinished: time(state.lastFinished),
            mismatches: UInt64(reports.count { $0.state == "open" }) + state.unrecorded,
            unrecorded: state.unrecorded, unreadable: state.unreadable, repaired: state.repaired, entries: reports)
    }
}

extension ScrubLedger {
    /// What scrubs found, in the order in which it lies on the disks.
    fileprivate var reports: [ScrubReport.Entry] {
        entries.compactMap(\.self).sorted { ($0.offset, $0.firstSeen) < ($1.offset, $1.firstSeen) }
            .map { ScrubReport.Entry($0) }
    }
}

extension ScrubReport.Entry {
    fileprivate init(_ entry: Mismatch) {
        self.init(
            offset: entry.offset, length: Layout.blockBytes, verdict: entry.odd.isEmpty ? "differs" : "minority",
            versions: entry.plexes.members.map { plex in
                let digits = String(entry.checksums[Int(plex.value)], radix: 16)
                return ScrubReport.Version(
                    plex: Int(plex.value), crc32c: String(repeating: "0", count: 8 - digits.count) + digits,
                    odd: entry.odd.contains(plex))
            },
            firstSeen: isoTime(entry.firstSeen), lastSeen: isoTime(entry.lastSeen),
            state: entry.isOpen ? "open" : entry.source == nil ? "gone" : "repaired", closed: time(entry.closed),
            source: entry.source.map { Int($0.value) })
    }
}

private func time(_ unixNanoseconds: UInt64) -> String? { unixNanoseconds == 0 ? nil : isoTime(unixNanoseconds) }
