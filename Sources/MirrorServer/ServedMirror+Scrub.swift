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

    /// What scrubs found, in the order in which it lies on the disks.
    func scrubReport() -> ScrubReport {
        let status = mirror.status().scrub
        let entries = mirror.scrubLedger.entries.compactMap(\.self).sorted {
            ($0.offset, $0.firstSeen) < ($1.offset, $1.firstSeen)
        }
        return ScrubReport(
            mirror: name, running: status?.isRunning ?? false, lastFinished: time(status?.lastFinished ?? 0),
            mismatches: status?.mismatches ?? 0, unrecorded: status?.unrecorded ?? 0,
            entries: entries.map { report($0) })
    }

    private func report(_ entry: Mismatch) -> ScrubReport.Entry {
        ScrubReport.Entry(
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

    private func time(_ unixNanoseconds: UInt64) -> String? { unixNanoseconds == 0 ? nil : isoTime(unixNanoseconds) }
}
