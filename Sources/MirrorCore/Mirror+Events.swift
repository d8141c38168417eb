internal import Bytes
package import MirrorFormat

/// The end of the event log, kept for writing to plexes and for whoever follows it.
struct EventLog {
    let capacity: Int
    /// Oldest first; at most `capacity`.
    var recent: [EventRecord]
    var lastSequence: UInt64
    /// Not yet taken by the driver.
    var fresh: [EventRecord] = []

    init(capacity: Int, recent: [EventRecord]) {
        precondition(capacity % EventRecord.perBlock == 0)
        self.capacity = capacity
        self.recent = Array(recent.suffix(capacity))
        lastSequence = recent.last?.sequence ?? 0
    }

    mutating func append(_ event: EventRecord) {
        lastSequence = event.sequence
        recent.append(event)
        if recent.count > capacity { recent.removeFirst(recent.count - capacity) }
        fresh.append(event)
    }
}

extension Mirror {
    package mutating func takeEvents() -> [EventRecord] {
        defer { eventLog.fresh.removeAll() }
        return eventLog.fresh
    }

    mutating func log(
        _ code: EventCode, plex: PlexIndex? = nil, errorNumber: Int32 = 0, offset: UInt64 = 0, length: UInt64 = 0,
        text: String
    ) {
        eventLog.append(
            EventRecord(
                sequence: eventLog.lastSequence + 1, time: now.unixNanoseconds, code: code, plex: plex,
                errorNumber: errorNumber, offset: offset, length: length, generation: record.generation,
                epoch: record.epoch, text: text))
        emit(.events)
    }

    /// Writes the next block of the log on every plex that lags behind. Lazy: no acknowledgement depends on it.
    mutating func pumpEventLog() {
        guard !isReadOnly, phase != .stopped else { return }
        for plex in working.union(recovering).members {
            let index = Int(plex.value)
            guard plexes[index].eventsThrough < eventLog.lastSequence, !plexes[index].eventWriteInFlight,
                !plexes[index].eventLogDisabled, !plexes[index].isReleasing,
                let area = plexes[index].attachment?.layout.area(.eventLog)
            else { continue }
            let oldest = eventLog.recent.first?.sequence ?? 0
            let next = max(plexes[index].eventsThrough + 1, oldest)
            let slots = area.length / UInt64(EventRecord.byteCount)
            let block = (next % slots) / UInt64(EventRecord.perBlock)
            plexes[index].eventWriteInFlight = true
            plexes[index].eventLogWritten = eventLog.lastSequence
            submitMetadata(
                owner: .eventLog, plex: plex, slot: Int(block), generation: UInt32(truncatingIfNeeded: next),
                offset: area.offset + block * Limits.blockBytes)
        }
    }

    /// The block that holds the record whose sequence ends in the tag's generation.
    func encodeEventBlock(_ operation: DiskOperation, into bytes: inout MutableRawSpan) {
        for offset in stride(from: 0, to: Int(Limits.blockBytes), by: 8) {
            bytes.storeLittleEndian(UInt64(0), at: offset)
        }
        let bounds = eventBlock(of: operation.tag)
        for event in eventLog.recent where bounds.contains(event.sequence) {
            let slot = Int(event.sequence - bounds.lowerBound)
            event.encode(mirror: record.mirror, into: &bytes, at: slot * EventRecord.byteCount)
        }
    }

    /// Sequences that share a block: 16 in a row, aligned.
    private func eventBlock(of tag: DiskTag) -> Range<UInt64> {
        let perBlock = UInt64(EventRecord.perBlock)
        let high = eventLog.lastSequence & ~UInt64(UInt32.max)
        let sequence = high | UInt64(tag.generation)
        let start = sequence / perBlock * perBlock
        return start..<start + perBlock
    }

    mutating func eventLogCompleted(_ tag: DiskTag, _ result: DiskResult) {
        let index = Int(tag.plex.value)
        plexes[index].eventWriteInFlight = false
        switch result {
        case .transferred:
            plexes[index].eventsThrough = min(eventBlock(of: tag).upperBound - 1, plexes[index].eventLogWritten)
        case .failed(let failure):
            // The log is a service, not a promise: a plex is not given up for it.
            plexes[index].lastFailure = failure
            plexes[index].eventLogDisabled = true
        }
    }
}
