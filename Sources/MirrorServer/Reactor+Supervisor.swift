internal import BasicContainers
internal import MirrorCore

/// What the service manager is told: in which state the mirrors are, and that all loops run. Found out at ticks, never on
/// the way of a request, and not at all where there is no service manager.
extension Reactor {
    /// To be called at each tick.
    mutating func tellSupervisor() {
        guard group.isSupervised else { return }
        group.mailboxes[place].ticked(at: now.nanoseconds)
        if now.nanoseconds >= nextConditionsAt {
            nextConditionsAt = now.nanoseconds + limits.conditionNanoseconds
            noteConditions()
        }
        guard isFirst else { return }
        if unopened == 0, !isStopping { supervisor.tell(status: supervisorStatus()) }
        // A loop that hangs, of whichever thread, does not come here, or not for long.
        let patience = (supervisor.watchdogNanoseconds ?? 0) / 2
        supervisor.tick(
            now: now.nanoseconds, isAlive: group.allTicked(since: now.nanoseconds - min(patience, now.nanoseconds)))
    }

    /// Of the mirrors that run here, for the first reactor.
    mutating func noteConditions() {
        guard group.isSupervised else { return }
        for index in mirrors.indices {
            let condition = mirrors[index].condition()
            group.note(mirrors[index].name, condition.reason.map { "\(condition.state): \($0)" } ?? condition.state)
        }
    }

    /// At the start, and after the configuration was read again.
    mutating func tellReady() {
        noteConditions()
        supervisor.tell(status: supervisorStatus(), with: "READY=1")
    }

    /// For example `2 mirrors: data healthy; photos degraded: plex 1 (/srv/b.img) failed: ...`.
    private func supervisorStatus() -> String {
        var texts = group.conditions.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
        texts += refused.map { "\($0.name) not served (\($0.state)): \($0.reason)" }
        let count = texts.count == 1 ? "1 mirror" : "\(texts.count) mirrors"
        if let fault = settings.fault { texts.append("the configuration is not taken over: \(fault)") }
        return "\(count): \(texts.joined(separator: "; "))"
    }
}
