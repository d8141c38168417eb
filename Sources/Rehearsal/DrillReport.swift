/// `plexus drill --json`, version 1. Keys are added to, never renamed; what has no value is null, not absent.
package struct DrillReport: Codable, Sendable {
    package enum Outcome: String, Codable, Sendable {
        case pass, fail
        /// It was looked at, and what was found may not be what is there: the mirror was written meanwhile.
        case inconclusive
        /// It was not looked at; the text says what is missing.
        case skipped
        /// Worth knowing, neither good nor bad.
        case info
    }

    package struct Check: Codable, Sendable, Equatable {
        package var name: String
        package var outcome: Outcome
        package var text: String
        /// What to do.
        package var action: String?

        init(_ name: String, _ outcome: Outcome, _ text: String, action: String? = nil) {
            self.name = name
            self.outcome = outcome
            self.text = text
            self.action = action
        }

        package func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(name, forKey: .name)
            try container.encode(outcome, forKey: .outcome)
            try container.encode(text, forKey: .text)
            try container.encode(action, forKey: .action)
        }
    }

    package struct Plex: Codable, Sendable {
        package var index: Int
        /// That its data lie on; null: none is there.
        package var disk: String?
        package var outcome: Outcome
        package var checks: [Check]

        init(index: Int, disk: String?, checks: [Check]) {
            self.index = index
            self.disk = disk
            self.checks = checks
            outcome = Self.outcome(of: checks)
        }

        /// A check that was not done is no pass.
        static func outcome(of checks: [Check]) -> Outcome {
            if checks.contains(where: { $0.outcome == .fail }) { return .fail }
            return checks.contains { $0.outcome == .inconclusive || $0.outcome == .skipped } ? .inconclusive : .pass
        }

        package func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(index, forKey: .index)
            try container.encode(disk, forKey: .disk)
            try container.encode(outcome, forKey: .outcome)
            try container.encode(checks, forKey: .checks)
        }
    }

    package var version = 1
    package var mirror: String
    /// `pass`: every plex alone would do. `inconclusive`: at least one check could not be done.
    package var outcome: Outcome
    /// Why it is inconclusive as a whole, and what to do.
    package var reason: String?
    package var action: String?
    package var plexes: [Plex]

    /// - Parameter disturbance: why nothing that was read counts.
    package init(mirror: String, plexes found: [Plex], disturbance: (reason: String, action: String)? = nil) {
        self.mirror = mirror
        reason = disturbance?.reason
        action = disturbance?.action
        plexes = disturbance == nil ? found : found.map(\.doubted)
        if plexes.contains(where: { $0.outcome == .fail }) {
            outcome = .fail
        } else if plexes.isEmpty || disturbance != nil || plexes.contains(where: { $0.outcome != .pass }) {
            outcome = .inconclusive
        } else {
            outcome = .pass
        }
    }

    package var exitCode: Int32 {
        switch outcome {
        case .pass: 0
        case .fail: 1
        case .inconclusive, .skipped, .info: 2
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(version, forKey: .version)
        try container.encode(mirror, forKey: .mirror)
        try container.encode(outcome, forKey: .outcome)
        try container.encode(reason, forKey: .reason)
        try container.encode(action, forKey: .action)
        try container.encode(plexes, forKey: .plexes)
    }
}

extension DrillReport.Plex {
    /// What the server says of the plex stays; what was read from its disk, good or bad, may have changed under the reader.
    fileprivate var doubted: Self {
        DrillReport.Plex(
            index: index, disk: disk,
            checks: checks.map { check in
                var check = check
                if check.name != PlexToDrill.copyCheck, check.outcome != .skipped {
                    check.outcome = .inconclusive
                    check.action = nil
                }
                return check
            })
    }
}
