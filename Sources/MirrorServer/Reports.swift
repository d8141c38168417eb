internal import Control

/// What one reactor knows of what was asked: its part of an answer.
struct GatheredReports {
    var mirrors: [StatusReport.Mirror] = []
    /// By the name of the mirror: clients, and requests that wait for room. Their sockets may be on another reactor
    /// than the mirror.
    var clients: [String: Int] = [:]
    var waiting: [String: Int] = [:]
    var events: [EventReport] = []

    mutating func add(_ part: GatheredReports) {
        mirrors += part.mirrors
        clients.merge(part.clients, uniquingKeysWith: +)
        waiting.merge(part.waiting, uniquingKeysWith: +)
        events += part.events
    }

    /// With the counts of all reactors.
    func complete() -> [StatusReport.Mirror] {
        mirrors.map { mirror in
            var report = mirror
            report.clients = clients[mirror.name] ?? 0
            report.queueDepth = (report.queueDepth ?? 0) + (waiting[mirror.name] ?? 0)
            return report
        }
    }
}

/// An answer for which all reactors are asked.
struct Gathering {
    var request: ControlRequest
    /// Key of the control connection.
    var asker: UInt64
    /// The reactors that have not answered yet.
    var missing: Set<Int>
    var reports = GatheredReports()
    /// For one that follows: what came after its reactor had answered.
    var later: [EventReport] = []
}
