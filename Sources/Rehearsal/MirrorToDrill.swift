package import Control

/// A mirror as its server describes it: what to look at, and whether it held still meanwhile.
package struct MirrorToDrill {
    package var name: String
    package var bytes: UInt64
    package var plexes: [PlexToDrill]

    package init(_ report: StatusReport.Mirror) {
        name = report.name
        bytes = report.size
        plexes = report.plexes.map { PlexToDrill($0, mirror: report.name) }
    }
}

package struct PlexToDrill {
    static let copyCheck = "copy"

    package var index: Int
    /// Where the data lie; nil: its disk is not there.
    package var disk: String?
    /// Whether the disk alone has everything.
    var copy: DrillReport.Check
    var isInSync: Bool

    init(_ plex: StatusReport.Plex, mirror: String) {
        index = plex.index
        disk = plex.dataDisk ?? plex.disk
        isInSync = plex.state == "in-sync"
        copy = Self.judge(plex, mirror)
    }

    private static func judge(_ plex: StatusReport.Plex, _ mirror: String) -> DrillReport.Check {
        guard plex.state == "in-sync" else {
            let reason = plex.reason.map { ": \($0)" } ?? ""
            return DrillReport.Check(
                copyCheck, .fail, "is \(plex.state)\(reason)",
                action: "plexus status \(mirror) says what to do; drill again when it is in sync")
        }
        if plex.remapped > 0 {
            return DrillReport.Check(
                copyCheck, .fail,
                "\(plex.remapped) blocks of 4 KiB lie in the spare pool: without Plexus the disk gives something else in their place",
                action:
                    "plexus reactivate \(mirror) \(plex.index) puts them back where the disk takes them, plexus examine lists them; else plexus replace \(mirror) \(plex.index) NEWDISK"
            )
        }
        if let bad = plex.badRanges.first {
            let more = plex.badRanges.count > 1 ? " and \(plex.badRanges.count - 1) more ranges" : ""
            return DrillReport.Check(
                copyCheck, .fail, "\(bad[1]) bytes at \(bad[0])\(more) can't be read from it",
                action: "plexus replace \(mirror) \(plex.index) NEWDISK")
        }
        let risk = plex.atRisk ? ", at risk (see plexus status)" : ""
        return DrillReport.Check(copyCheck, .pass, "in sync, every block in its own place\(risk)")
    }
}

/// What changes when somebody writes to a mirror or to its plexes.
///
/// Requests are counted when they have ended. One that was under way at the first look has ended before the second, or is
/// waited for there: see `hasRequests`.
package struct Stillness: Equatable {
    private struct Writes: Equatable {
        var requests: UInt64
        var bytes: UInt64

        init(_ latency: StatusReport.Latency?) {
            requests = (latency?.write.requests ?? 0) + (latency?.zero.requests ?? 0)
            bytes = (latency?.write.bytes ?? 0) + (latency?.zero.bytes ?? 0)
        }
    }

    private struct Plex: Equatable {
        var uuid: String
        var disk: String?
        var state: String
        var remapped: Int
        var badRanges: [[UInt64]]
        var writes: Writes
    }

    private var server: Int32
    private var uuid: String
    private var isSuspended: Bool
    private var writes: Writes
    private var plexes: [Plex]

    package init(_ report: StatusReport.Mirror, server: Int32) {
        self.server = server
        uuid = report.uuid
        isSuspended = report.state == "suspended"
        writes = Writes(report.latency)
        plexes = report.plexes.map {
            Plex(
                uuid: $0.uuid, disk: $0.disk, state: $0.state, remapped: $0.remapped, badRanges: $0.badRanges,
                // A plex that is being rebuilt is written all the time, and nothing is read from it here.
                writes: Writes($0.state == "in-sync" ? $0.latency : nil))
        }
    }

    /// - Returns: whether anything is under way that may be a write.
    package static func hasRequests(_ report: StatusReport.Mirror) -> Bool {
        report.queueDepth ?? 0 > 0 || report.plexes.contains { $0.state == "in-sync" && $0.queueDepth ?? 0 > 0 }
    }

    /// - Returns: nil if nothing has changed since.
    package func disturbance(since earlier: Stillness) -> (reason: String, action: String)? {
        guard self != earlier else { return nil }
        var quiet = self
        quiet.writes = earlier.writes
        if quiet.plexes.count == earlier.plexes.count {
            for index in plexes.indices { quiet.plexes[index].writes = earlier.plexes[index].writes }
        }
        if quiet == earlier {
            return (
                "the mirror was written during the drill",
                "unmount it or freeze it (fsfreeze -f MOUNTPOINT, then -u) and run again"
            )
        }
        return (
            "the mirror or one of its plexes changed its state during the drill", "see plexus status, and run again"
        )
    }
}
