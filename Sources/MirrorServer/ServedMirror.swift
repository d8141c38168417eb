internal import Bytes
internal import Control
internal import Foundation
internal import MirrorCore
internal import MirrorFormat
internal import NBDProtocol
internal import URing

/// One running mirror with its disks.
struct ServedMirror: ~Copyable {
    var mirror: Mirror
    /// By plex index; nil: not open.
    private(set) var disks: [Disk?]
    /// What operations need of the same: for the data, and for what lies in files of its own.
    var channels = InlineArray<8, DiskChannel?>(repeating: nil)
    private var metadataChannels = InlineArray<8, DiskChannel?>(repeating: nil)
    /// The path that a plex was last seen under.
    var paths: [String?]
    /// Buffers of the resync.
    var windowMemory: [UInt]
    let windowBytes: Int
    /// What `plexus events` shows, oldest first.
    var events: [EventRecord]
    var isStopped = false
    var returning = ReturnWatch()
    /// Plexes whose disks this server has had open.
    private(set) var hadOpen = PlexSet.empty
    /// Stand by, in the order in which they are taken.
    var spares: [HotSpare] = []
    /// Who waits for its only plex's disk to become a plain one.
    var dissolver: (asker: UInt64, plex: PlexIndex)?
    /// In force.
    var scrubPolicy = ScrubPolicy()
    var writeDeadlineSeconds = Policies().writeDeadlineSeconds
    /// Was told of something since `endBatch`.
    var isInBatch = false
    /// Of what clients asked for.
    var meter = IOMeter()
    /// Of what was asked of the disks, by plex index.
    var plexMeters = Array(repeating: IOMeter(), count: PlexSet.capacity)
    let export: ExportDescription

    static let eventsKept = 4096

    init(
        mirror: consuming Mirror, disks: [Disk?], events: [EventRecord], limits: Limits
    ) throws(SystemError) {
        windowBytes = Int(limits.resyncWindowBytes)
        windowMemory = []
        for _ in 0..<limits.resyncWindowsIdle { windowMemory.append(LateMemory.allocate(windowBytes)) }
        self.disks = disks
        for (index, disk) in disks.enumerated() {
            channels[index] = disk?.channel
            metadataChannels[index] = disk?.metadata?.channel
            if disk != nil { hadOpen.insert(PlexIndex(index)) }
        }
        self.events = events
        paths = disks.map { $0?.path }
        let status = mirror.status()
        export = ExportDescription(
            name: status.record.name, summary: "Plexus mirror \(status.record.name) \(status.record.mirror)",
            sizeBytes: status.record.dataBytes, isReadOnly: status.isReadOnly,
            canFastZero: disks.allSatisfy { $0?.channel.zeroesFast ?? true }, isRotational: false)
        self.mirror = mirror
    }

    static let lastStandText =
        "the files of all good plexes are deleted or cut off: what is still open of them is lost when the server stops"

    var name: String { export.name }

    var zeroesFast: Bool { channels.indices.allSatisfy { channels[$0]?.zeroesFast ?? true } }

    /// It is not served after all.
    func shutDisks() {
        for case let disk? in disks { disk.shut() }
        for spare in spares { spare.disk.shut() }
    }

    /// - Parameter disk: nil: the plex has none any more.
    mutating func setDisk(_ disk: Disk?, of plex: PlexIndex) {
        if disk != nil { hadOpen.insert(plex) }
        disks[Int(plex.value)] = disk
        channels[Int(plex.value)] = disk?.channel
        metadataChannels[Int(plex.value)] = disk?.metadata?.channel
    }

    /// Where an operation goes; nil: the disk is not open.
    func channel(_ operation: DiskOperation) -> DiskChannel? {
        let index = Int(operation.plex.value)
        guard let channel = channels[index], operation.offset >= channel.end else { return channels[index] }
        return metadataChannels[index]
    }

    /// The disk, or the file with its metadata, does not know this way of zeroing.
    mutating func canNot(punch: Bool, _ operation: DiskOperation) {
        let index = Int(operation.plex.value)
        let isOfMetadata = operation.offset >= channels[index]?.end ?? .max
        guard var channel = isOfMetadata ? metadataChannels[index] : channels[index] else { return }
        if punch { channel.canPunch = false } else { channel.canZeroRange = false }
        if isOfMetadata { metadataChannels[index] = channel } else { channels[index] = channel }
    }

    mutating func append(_ event: EventRecord) {
        events.append(event)
        if events.count > Self.eventsKept { events.removeFirst(events.count - Self.eventsKept) }
    }

    /// Who is meant by an index, a disk path or a plex UUID.
    func plex(named text: String) -> PlexIndex? {
        let record = mirror.record
        if let number = Int(text), number >= 0, number < PlexSet.capacity {
            return record[PlexIndex(number)].role == .absent ? nil : PlexIndex(number)
        }
        if let uuid = UUID128(text) { return record.index(of: PlexUUID(uuid)) }
        let named = paths.firstIndex(of: text) ?? disks.firstIndex { $0?.dataPath == text }
        guard let index = named, record[PlexIndex(index)].role != .absent else { return nil }
        return PlexIndex(index)
    }

    // MARK: reports

    /// As reports tell it.
    func condition() -> (state: String, reason: String?) { condition(mirror.status()) }

    private func condition(_ status: MirrorStatus) -> (state: String, reason: String?) {
        guard !returning.isLastStand else {
            let state = status.state == .healthy ? .degraded : status.state
            return (isStopped && status.state != .healthy ? "offline" : state.rawValue, Self.lastStandText)
        }
        return (isStopped ? "offline" : status.state.rawValue, status.reason.map { withPaths($0) })
    }

    /// Without what the sockets know: clients, and requests that wait for room.
    func report() -> StatusReport.Mirror {
        let status = mirror.status()
        let condition = condition(status)
        var report = StatusReport.Mirror(
            name: name, uuid: status.record.mirror.description, size: status.record.dataBytes, state: condition.state)
        report.reason = condition.reason
        report.action = status.action
        if returning.isLastStand {
            report.action = "add a disk: plexus add \(name) DISK; or copy the contents away from a client"
        }
        report.generation = status.record.generation.description
        report.epoch = status.record.epoch
        report.readOnly = status.isReadOnly
        report.bitmap = StatusReport.Bitmap(
            regionSize: status.record.regionBytes, regions: status.regions, dirty: status.dirtyRegions)
        report.resync = status.resync.map {
            var resync = StatusReport.Resync(
                plex: $0.plex.map { Int($0.value) }, done: $0.done, total: $0.total,
                bytesPerSecond: $0.bytesPerSecond, etaSeconds: $0.etaSeconds, paused: $0.isPaused, reason: $0.reason,
                limit: $0.limit, running: $0.isRunning)
            resync.verify = $0.isVerifying
            resync.priority = $0.priority.text
            return resync
        }
        report.scrub = status.scrub.map { self.report($0) }
        report.hotSpares = spares.map {
            StatusReport.HotSpare(disk: $0.disk.path, state: $0.disk.hasVanished ? "missing" : "ready")
        }
        report.queueDepth = mirror.requestsInFlight
        report.latency = StatusReport.Latency(
            read: meter.report(.read), write: meter.report(.write), zero: meter.report(.zero),
            flush: meter.report(.flush))
        report.plexes = status.plexes.map { plexReport($0) }
        return report
    }

    private func plexReport(_ plex: MirrorStatus.PlexStatus) -> StatusReport.Plex {
        let index = Int(plex.index.value)
        let disk = plex.isOpen ? disks[index] : nil
        var report = StatusReport.Plex(
            index: index, uuid: plex.member.uuid.description, disk: paths[index], state: plex.state,
            reason: plex.reason.map { timed($0, plex.member.cause) },
            io: disk.map { $0.isDirect ? "direct" : "buffered" },
            readErrors: plex.member.readErrors, writeErrors: plex.member.writeErrors,
            corrected: plex.member.corrected, spared: plex.member.spared, sparesFree: UInt64(plex.sparesFree))
        report.remapped = plex.remapped
        report.slow = plex.isSlow
        report.writeMostly = plex.member.isWriteMostly
        report.unanswered = plex.unanswered
        report.hedgedReads = plex.hedgedReads
        if let objection = returning.objections[index] {
            report.reason = [report.reason, objection].compactMap { $0 }.joined(separator: "; ")
        }
        report.atRisk = plex.isAtRisk
        report.badRanges = plex.badRanges.map { [$0.offset, $0.length] }
        report.dataDisk = disks[index]?.metadata?.dataPath
        report.replaces = plex.member.replaces.map { Int($0.value) }
        report.queueDepth = plex.operationsInFlight
        let meter = plexMeters[index]
        report.latency = StatusReport.Latency(
            read: meter.report(.read), write: meter.report(.write), zero: meter.report(.zero),
            flush: meter.report(.flush), metadata: meter.report(.metadata))
        report.missedBytes = plex.missedRegions.map {
            min(UInt64($0) * mirror.record.regionBytes, mirror.record.dataBytes)
        }
        return report
    }

    private func timed(_ text: String, _ cause: FailureCause) -> String {
        cause.time == 0 || cause.operation == .none ? text : "\(text), \(isoTime(cause.time))"
    }

    /// "plex 1 failed: ..." becomes "plex 1 (/srv/b.img) failed: ...".
    func withPaths(_ text: String) -> String {
        var reason = text
        for (index, path) in paths.enumerated() {
            guard let path else { continue }
            reason = reason.replacingOccurrences(of: "plex \(index) ", with: "plex \(index) (\(path)) ")
        }
        return reason
    }

    func report(_ event: EventRecord) -> EventReport {
        EventReport(
            sequence: event.sequence, time: isoTime(event.time), code: event.code.text, mirror: name,
            plex: event.plex.map { Int($0.value) }, offset: event.offset, length: event.length,
            errno: event.errorNumber, generation: event.generation.description, epoch: event.epoch, text: event.text)
    }
}

/// ISO 8601 with seconds, UTC.
func isoTime(_ unixNanoseconds: UInt64) -> String {
    Date(timeIntervalSince1970: Double(unixNanoseconds / 1_000_000_000)).ISO8601Format()
}

/// A mirror that was found but is not served, and why.
struct RefusedMirror {
    var name: String
    var uuid: String
    var size: UInt64
    var state: String
    var reason: String
    var action: String
    /// After a split brain.
    var split: SplitReport?

    init(_ record: Record, state: String, reason: String, action: String) {
        name = record.name
        uuid = record.mirror.description
        size = record.dataBytes
        self.state = state
        self.reason = reason
        self.action = action
    }

    var report: StatusReport.Mirror {
        var report = StatusReport.Mirror(name: name, uuid: uuid, size: size, state: state)
        report.reason = reason
        report.action = action
        return report
    }
}
