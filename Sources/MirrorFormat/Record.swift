/// A plex's place in its mirror. Raw values are on disk: never renumber.
package enum Role: UInt8, Sendable, CaseIterable, BitwiseCopyable {
    /// The slot of the member table is free.
    case absent = 0
    /// Holds every acknowledged write.
    case inSync = 1
    /// Being rebuilt; nothing may be read from it. Its missed-write map says what is still to be copied.
    case recovering = 2
    /// Was in sync and has missed writes since.
    case stale = 3
    /// Taken out by the user for a while (`plexus offline`); misses writes.
    case offline = 4
    /// Expelled after an error.
    case failed = 5
    /// Broken off as a copy of its own (`plexus break --keep`); may be joined again.
    case brokenOff = 6
}

/// What was being done when a plex failed. Raw values are on disk.
package enum FailedOperation: UInt8, Sendable, BitwiseCopyable {
    case none = 0
    case read = 1
    case write = 2
    case flush = 3
    case zero = 4
    case metadata = 5
    case absence = 6
    case user = 7
    /// What was written was read back and was not the same, or could not be read.
    case verification = 8
}

/// Why a plex is not in sync: enough to print the sentence again after a restart.
package struct FailureCause: Sendable, Hashable, BitwiseCopyable {
    package var operation: FailedOperation
    /// The operating system's error number; 0 where there was none.
    package var errorNumber: Int32
    package var offset: UInt64
    /// Nanoseconds since 1970.
    package var time: UInt64

    package init(operation: FailedOperation, errorNumber: Int32 = 0, offset: UInt64 = 0, time: UInt64 = 0) {
        self.operation = operation
        self.errorNumber = errorNumber
        self.offset = offset
        self.time = time
    }

    package static let none = FailureCause(operation: .none)
}

/// Where the regions are counted that a plex misses, and what its disk must show for that count to hold.
///
/// The plex misses every region in this map and every region whose intent bit is set, and no other, provided
/// that its disk is in the state in which it left: see `PlexEvidence` in MirrorCore.
package struct MissedWriteMap: Sendable, Hashable, BitwiseCopyable {
    /// Which of the seven maps; 0 through 6.
    package var slot: UInt8
    /// Drawn at random when the count began; the map's pages carry it. A page with another number was not
    /// written since: it stands for `startsFull`.
    package var id: UInt64
    /// Every region counts as missed until a page says otherwise: for a disk that is copied in full.
    package var startsFull: Bool
    /// The epoch of the last record that the plex surely has.
    package var epoch: UInt64
    /// The number of the last page write that cleared a bit when the plex left. A disk without any page as new
    /// as that was set back to an earlier state.
    package var lastClear: UInt64

    package init(slot: UInt8, id: UInt64, startsFull: Bool, epoch: UInt64, lastClear: UInt64) {
        self.slot = slot
        self.id = id
        self.startsFull = startsFull
        self.epoch = epoch
        self.lastClear = lastClear
    }
}

/// One plex as all superblocks of the mirror describe it.
package struct Member: Sendable, Hashable, BitwiseCopyable {
    package var uuid: PlexUUID
    package var role: Role
    /// Nil: nothing is missed, or nobody counts and a join copies everything.
    package var missedWriteMap: MissedWriteMap?
    package var cause: FailureCause
    package var readErrors: UInt64
    package var writeErrors: UInt64
    package var corrected: UInt64
    package var spared: UInt64
    /// Some blocks lie elsewhere: the remap table on its disk says which (`RemapTable`).
    package var isRemapped: Bool
    /// It gets every write; it is read only where no other plex can be.
    package var isWriteMostly: Bool
    /// The plex that is forgotten as soon as this one is in sync.
    package var replaces: PlexIndex?

    package init(uuid: PlexUUID, role: Role) {
        self.uuid = uuid
        self.role = role
        missedWriteMap = nil
        cause = .none
        readErrors = 0
        writeErrors = 0
        corrected = 0
        spared = 0
        isRemapped = false
        isWriteMostly = false
        replaces = nil
    }

    package static let absent = Member(uuid: PlexUUID(.zero), role: .absent)
}

/// Why a generation ended and the next began. Raw values are on disk.
package enum GenerationReason: UInt8, Sendable, BitwiseCopyable {
    case created = 0
    case expelled = 1
    case startedDegraded = 2
    case memberBehind = 3
    case brokenOff = 4
    case takenOffline = 5
    case removed = 6
    case resolved = 7
}

/// An era that has passed.
package struct PastGeneration: Sendable, Hashable, BitwiseCopyable {
    package var generation: Generation
    /// The last epoch of that era.
    package var epoch: UInt64
    /// When it ended, nanoseconds since 1970.
    package var endTime: UInt64
    /// Why it ended.
    package var reason: GenerationReason
    /// Who held every acknowledged write during it.
    package var inSync: PlexSet

    package init(generation: Generation, epoch: UInt64, endTime: UInt64, reason: GenerationReason, inSync: PlexSet) {
        self.generation = generation
        self.epoch = epoch
        self.endTime = endTime
        self.reason = reason
        self.inSync = inSync
    }
}

/// The state of a mirror, the same on every plex that is up to date (3-correctness, "State").
package struct Record: Sendable, Hashable {
    package static let historyCapacity = 16

    package var mirror: MirrorUUID
    package var name: String
    package var dataBytes: UInt64
    package var regionBytes: UInt64
    package var generation: Generation
    package var epoch: UInt64
    /// How many records right before this one were written, as different tries, without one of them being known to be
    /// durable anywhere: nothing rests on them.
    package var unconfirmed: UInt64
    /// Newest first, at most `historyCapacity`.
    package var history: [PastGeneration]
    /// Eight slots; a plex's index is its slot.
    package var members: [Member]
    /// No write was in flight and everything was flushed when this was written.
    package var isClean: Bool
    /// Where dirty regions are read from until they are equal again (R7).
    package var pinned: PlexIndex?
    package var createdTime: UInt64
    package var updatedTime: UInt64
    /// What plexes in sync do not hold nevertheless, at most `badRangeCapacity`.
    package var badRanges: [BadRange]
    /// Set on a plex that was broken off: the mirror, generation and epoch that it came from.
    package var parent: Ancestry?

    package struct Ancestry: Sendable, Hashable, BitwiseCopyable {
        package var mirror: MirrorUUID
        package var generation: Generation
        package var epoch: UInt64
        package init(mirror: MirrorUUID, generation: Generation, epoch: UInt64) {
            self.mirror = mirror
            self.generation = generation
            self.epoch = epoch
        }
    }

    package init(
        mirror: MirrorUUID, name: String, dataBytes: UInt64, regionBytes: UInt64, generation: Generation,
        members: [Member], time: UInt64
    ) {
        precondition(members.count <= PlexSet.capacity)
        self.mirror = mirror
        self.name = name
        self.dataBytes = dataBytes
        self.regionBytes = regionBytes
        self.generation = generation
        epoch = 1
        unconfirmed = 0
        history = []
        self.members = members + Array(repeating: .absent, count: PlexSet.capacity - members.count)
        isClean = true
        pinned = nil
        createdTime = time
        updatedTime = time
        parent = nil
        badRanges = []
    }

    package var inSync: PlexSet { plexes(in: .inSync) }
    package var configured: PlexSet {
        PlexSet(mask: members.indices.reduce(0) { members[$1].role == .absent ? $0 : $0 | 1 << UInt8($1) })
    }

    package func plexes(in role: Role) -> PlexSet {
        PlexSet(mask: members.indices.reduce(0) { members[$1].role == role ? $0 | 1 << UInt8($1) : $0 })
    }

    package func index(of uuid: PlexUUID) -> PlexIndex? {
        members.firstIndex { $0.role != .absent && $0.uuid == uuid }.map { PlexIndex($0) }
    }

    package subscript(plex: PlexIndex) -> Member {
        get { members[Int(plex.value)] }
        set { members[Int(plex.value)] = newValue }
    }

    /// Ends the present era: it moves into the history, and `next` begins.
    package mutating func begin(_ next: Generation, because reason: GenerationReason, inSync: PlexSet, time: UInt64) {
        let past = PastGeneration(
            generation: generation, epoch: epoch, endTime: time, reason: reason, inSync: inSync)
        history.insert(past, at: 0)
        if history.count > Self.historyCapacity { history.removeLast(history.count - Self.historyCapacity) }
        generation = next
    }

    /// Whether this record knows `other`'s era.
    package func knows(_ other: Generation) -> Bool {
        generation == other || history.contains { $0.generation == other }
    }

    /// Whether all that `other` says was known when this record was written, as far as the history tells.
    ///
    /// An era that went on after the moment in which ours left it is another side's. By one epoch it may have: a
    /// record that some disks got and others did not before power failed, and nothing rests on that. Nor on those that
    /// were tried before it in vain.
    package func descends(from other: Record) -> Bool {
        if generation == other.generation { return true }
        guard let past = history.first(where: { $0.generation == other.generation }) else { return false }
        return other.epoch <= past.epoch + 1 + other.unconfirmed
    }
}
