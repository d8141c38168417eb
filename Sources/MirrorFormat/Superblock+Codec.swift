internal import Bytes

/// Encoding and decoding of the 4 KiB described at `Superblock`.
///
/// Member, 88 bytes: 16 plex UUID, 1 role, 1 missed-write map (255: none), 1 failed operation, 1 plex that it replaces
/// (plus one; 0: none), 4 error number, 8 offset of the failure, 8 time of it, 8 zero, 8 read errors, 8 write errors,
/// 8 corrected, 8 spared, 1 has a remap table (0 or 1), 1 is write-mostly (0 or 1), 6 zero.
///
/// Missed-write map of a member, 32 bytes: 8 id, 8 epoch, 8 last clear, 1 starts full (0 or 1), 7 zero.
///
/// Bad range, 16 bytes: 8 offset, 4 blocks of 4 KiB, 1 plex, 3 zero.
///
/// Past generation, 48 bytes: 16 generation, 8 epoch, 8 end time, 1 reason, 1 in-sync set, 14 zero.
extension Superblock {
    private static let areaTable = 384
    private static let areaCapacity = 12
    private static let memberTable = 704
    private static let memberBytes = 88
    private static let historyTable = 1472
    private static let historyBytes = 48
    private static let mapTable = 2240
    private static let mapBytes = 32
    private static let badRangeTable = 2496
    private static let badRangeBytes = 16
    private static let noPlex: UInt8 = 255
    private static let noMap: UInt8 = 255

    /// Writes copy number `copy` into the first 4,096 bytes of `bytes`.
    package func encode(copy: Int, into bytes: inout MutableRawSpan) {
        precondition(bytes.byteCount >= Self.byteCount && record.name.utf8.count <= Self.maximumNameBytes)
        for offset in stride(from: 0, to: Self.byteCount, by: 8) { bytes.storeLittleEndian(UInt64(0), at: offset) }
        bytes.storeLittleEndian(Self.magic, at: 0)
        bytes.storeLittleEndian(Self.formatMajor, at: 8)
        bytes.storeLittleEndian(Self.formatMinor, at: 10)
        let features =
            (tracksWrites ? Self.writeTracking : 0) | (record.badRanges.isEmpty ? 0 : Self.badRangeList)
            | (record.members.contains(where: \.isRemapped) ? Self.remapping : 0)
        bytes.storeLittleEndian(features, at: 32)
        bytes.storeLittleEndian(UInt8(copy), at: 40)
        bytes.storeLittleEndian(UInt8(layout.areas.count), at: 41)
        bytes.storeLittleEndian(UInt8(record.members.count), at: 42)
        bytes.storeLittleEndian(UInt8(record.history.count), at: 43)
        let flags: UInt8 =
            (record.isClean ? 1 : 0) | (record.pinned == nil ? 0 : 2) | (record.parent == nil ? 0 : 4)
        bytes.storeLittleEndian(flags, at: 44)
        bytes.storeLittleEndian(record.pinned?.value ?? Self.noPlex, at: 45)
        bytes.storeLittleEndian(UInt16(record.name.utf8.count), at: 46)
        bytes.storeLittleEndian(sequence, at: 48)
        bytes.store(record.mirror.bits, at: 56)
        bytes.store(plex.bits, at: 72)
        bytes.store(record.name, at: 88, capacity: 64)
        bytes.storeLittleEndian(record.dataBytes, at: 152)
        bytes.storeLittleEndian(layout.diskBytes, at: 160)
        bytes.storeLittleEndian(record.regionBytes, at: 168)
        bytes.storeLittleEndian(record.epoch, at: 176)
        bytes.store(record.generation.bits, at: 184)
        bytes.storeLittleEndian(record.createdTime, at: 200)
        bytes.storeLittleEndian(record.updatedTime, at: 208)
        bytes.store(writer.bootID, at: 216)
        bytes.store(writer.host, at: 232, capacity: 64)
        if let parent = record.parent {
            bytes.store(parent.mirror.bits, at: 296)
            bytes.store(parent.generation.bits, at: 312)
            bytes.storeLittleEndian(parent.epoch, at: 328)
        }
        bytes.storeLittleEndian(record.unconfirmed, at: 336)
        bytes.storeLittleEndian(UInt16(record.badRanges.count), at: 344)
        encodeTables(into: &bytes)
        let position = Layout.superblockOffset(copy: copy, diskBytes: layout.diskBytes)
        let sum = checksum(
            of: bytes.bytes.extracting(0..<Self.byteCount), field: 12, mirror: record.mirror, position: position)
        bytes.storeLittleEndian(sum, at: 12)
    }

    private func encodeTables(into bytes: inout MutableRawSpan) {
        precondition(layout.areas.count <= Self.areaCapacity)
        for (index, area) in layout.areas.enumerated() {
            let base = Self.areaTable + index * 24
            bytes.storeLittleEndian(area.kind.rawValue, at: base)
            bytes.storeLittleEndian(area.offset, at: base + 8)
            bytes.storeLittleEndian(area.length, at: base + 16)
        }
        for (index, member) in record.members.enumerated() {
            let base = Self.memberTable + index * Self.memberBytes
            bytes.store(member.uuid.bits, at: base)
            bytes.storeLittleEndian(member.role.rawValue, at: base + 16)
            bytes.storeLittleEndian(member.missedWriteMap?.slot ?? Self.noMap, at: base + 17)
            bytes.storeLittleEndian(member.cause.operation.rawValue, at: base + 18)
            bytes.storeLittleEndian(member.replaces.map { $0.value + 1 } ?? 0, at: base + 19)
            bytes.storeLittleEndian(member.cause.errorNumber, at: base + 20)
            bytes.storeLittleEndian(member.cause.offset, at: base + 24)
            bytes.storeLittleEndian(member.cause.time, at: base + 32)
            bytes.storeLittleEndian(member.readErrors, at: base + 48)
            bytes.storeLittleEndian(member.writeErrors, at: base + 56)
            bytes.storeLittleEndian(member.corrected, at: base + 64)
            bytes.storeLittleEndian(member.spared, at: base + 72)
            bytes.storeLittleEndian(UInt8(member.isRemapped ? 1 : 0), at: base + 80)
            bytes.storeLittleEndian(UInt8(member.isWriteMostly ? 1 : 0), at: base + 81)
            guard let map = member.missedWriteMap else { continue }
            let entry = Self.mapTable + index * Self.mapBytes
            bytes.storeLittleEndian(map.id, at: entry)
            bytes.storeLittleEndian(map.epoch, at: entry + 8)
            bytes.storeLittleEndian(map.lastClear, at: entry + 16)
            bytes.storeLittleEndian(UInt8(map.startsFull ? 1 : 0), at: entry + 24)
        }
        for (index, past) in record.history.enumerated() {
            let base = Self.historyTable + index * Self.historyBytes
            bytes.store(past.generation.bits, at: base)
            bytes.storeLittleEndian(past.epoch, at: base + 16)
            bytes.storeLittleEndian(past.endTime, at: base + 24)
            bytes.storeLittleEndian(past.reason.rawValue, at: base + 32)
            bytes.storeLittleEndian(past.inSync.mask, at: base + 33)
        }
        precondition(record.badRanges.count <= Record.badRangeCapacity)
        for (index, range) in record.badRanges.enumerated() {
            let base = Self.badRangeTable + index * Self.badRangeBytes
            bytes.storeLittleEndian(range.offset, at: base)
            bytes.storeLittleEndian(range.blocks, at: base + 8)
            bytes.storeLittleEndian(range.plex.value, at: base + 12)
        }
    }

    /// Survives any 4,096 bytes.
    ///
    /// - Parameters:
    ///   - copy: which of the four was read.
    ///   - diskBytes: size of the disk it was read from; the checksum is bound to the position.
    package init(decoding bytes: RawSpan, copy: Int, diskBytes: UInt64) throws(SuperblockError) {
        precondition(bytes.byteCount >= Self.byteCount)
        guard bytes.loadLittleEndian(at: 0, as: UInt64.self) == Self.magic else { throw .noMagic }
        // The major number comes before the checksum: a later format may place its checksum elsewhere.
        let major = bytes.loadLittleEndian(at: 8, as: UInt16.self)
        guard major <= Self.formatMajor else { throw .futureFormat(major: major) }
        let mirror = MirrorUUID(bytes.loadUUID(at: 56))
        let position = Layout.superblockOffset(copy: copy, diskBytes: diskBytes)
        let sum = checksum(of: bytes.extracting(0..<Self.byteCount), field: 12, mirror: mirror, position: position)
        guard sum == bytes.loadLittleEndian(at: 12, as: UInt32.self) else { throw .checksum }
        let unknown = bytes.loadLittleEndian(at: 32, as: UInt64.self) & ~Self.knownIncompatible
        guard unknown == 0 else { throw .unknownIncompatibleFeature(bit: unknown.trailingZeroBitCount) }
        guard major == Self.formatMajor else { throw .inconsistent("format major \(major)") }
        guard bytes.loadLittleEndian(at: 40, as: UInt8.self) == UInt8(copy) else { throw .inconsistent("copy index") }
        guard bytes.loadLittleEndian(at: 160, as: UInt64.self) == diskBytes else { throw .inconsistent("disk size") }
        let areas = try Self.decodeAreas(bytes)
        let dataBytes = bytes.loadLittleEndian(at: 152, as: UInt64.self)
        let regionBytes = bytes.loadLittleEndian(at: 168, as: UInt64.self)
        guard Layout.canRead(regionBytes: regionBytes, dataBytes: dataBytes) else {
            throw .inconsistent("region or data size")
        }
        layout = Layout(diskBytes: diskBytes, dataBytes: dataBytes, regionBytes: regionBytes, areas: areas)
        // The superblocks are where they are found, whatever the table says; a log without a record can't be a ring.
        guard layout.isSound,
            layout.area(.superblocks)?.offset == Layout.superblockOffset(copy: 0, diskBytes: diskBytes),
            layout.area(.superblocks)?.length == Layout.superblockAreaBytes,
            layout.area(.eventLog)?.length ?? 0 > 0, layout.hasRoomForMaps
        else { throw .inconsistent("areas") }
        tracksWrites = bytes.loadLittleEndian(at: 32, as: UInt64.self) & Self.writeTracking != 0
        plex = PlexUUID(bytes.loadUUID(at: 72))
        sequence = bytes.loadLittleEndian(at: 48, as: UInt64.self)
        let host = try bytes.loadText(at: 232, count: 64)
        writer = Writer(bootID: bytes.loadUUID(at: 216), host: host)
        record = try Self.decodeRecord(bytes, mirror: mirror)
        guard sequence <= Self.maximumCount, record.epoch <= Self.maximumCount, record.unconfirmed <= record.epoch
        else { throw .inconsistent("sequence or epoch") }
        guard record.index(of: plex) != nil else { throw .inconsistent("plex is not in its own member table") }
        mustStayReadOnly = bytes.loadLittleEndian(at: 24, as: UInt64.self) & ~Self.knownReadOnlyCompatible != 0
    }

    private static func decodeRecord(_ bytes: RawSpan, mirror: MirrorUUID) throws(SuperblockError) -> Record {
        let nameBytes = Int(bytes.loadLittleEndian(at: 46, as: UInt16.self))
        guard nameBytes > 0, nameBytes <= maximumNameBytes else { throw .inconsistent("name") }
        let members = try decodeMembers(bytes)
        let name = try bytes.loadText(at: 88, count: nameBytes)
        guard !name.isEmpty else { throw .inconsistent("name") }
        var record = Record(
            mirror: mirror, name: name,
            dataBytes: bytes.loadLittleEndian(at: 152), regionBytes: bytes.loadLittleEndian(at: 168),
            generation: Generation(bytes.loadUUID(at: 184)), members: members,
            time: bytes.loadLittleEndian(at: 200))
        record.updatedTime = bytes.loadLittleEndian(at: 208)
        record.epoch = bytes.loadLittleEndian(at: 176)
        record.unconfirmed = bytes.loadLittleEndian(at: 336)
        let flags = bytes.loadLittleEndian(at: 44, as: UInt8.self)
        record.isClean = flags & 1 != 0
        if flags & 2 != 0 {
            let pinned = bytes.loadLittleEndian(at: 45, as: UInt8.self)
            guard pinned < PlexSet.capacity else { throw .inconsistent("pinned plex") }
            record.pinned = PlexIndex(Int(pinned))
        }
        if flags & 4 != 0 {
            record.parent = Record.Ancestry(
                mirror: MirrorUUID(bytes.loadUUID(at: 296)), generation: Generation(bytes.loadUUID(at: 312)),
                epoch: bytes.loadLittleEndian(at: 328))
        }
        record.history = try decodeHistory(bytes)
        record.badRanges = try decodeBadRanges(bytes, dataBytes: record.dataBytes)
        return record
    }

    private static func decodeAreas(_ bytes: RawSpan) throws(SuperblockError) -> [Area] {
        let count = Int(bytes.loadLittleEndian(at: 41, as: UInt8.self))
        guard count <= areaCapacity else { throw .inconsistent("area count") }
        var areas: [Area] = []
        for index in 0..<count {
            let base = areaTable + index * 24
            // An area of a kind that this version does not know belongs to a compatible feature: it is
            // not ours to touch, and forgetting it when we write would lose it.
            guard let kind = AreaKind(rawValue: bytes.loadLittleEndian(at: base, as: UInt32.self)) else {
                throw .inconsistent("area kind")
            }
            areas.append(
                Area(
                    kind: kind, offset: bytes.loadLittleEndian(at: base + 8),
                    length: bytes.loadLittleEndian(at: base + 16)))
        }
        return areas
    }

    private static func decodeMembers(_ bytes: RawSpan) throws(SuperblockError) -> [Member] {
        guard bytes.loadLittleEndian(at: 42, as: UInt8.self) == UInt8(PlexSet.capacity) else {
            throw .inconsistent("member count")
        }
        var members: [Member] = []
        var usedSlots: Set<UInt8> = []
        for index in 0..<PlexSet.capacity {
            let base = memberTable + index * memberBytes
            guard let role = Role(rawValue: bytes.loadLittleEndian(at: base + 16)),
                let operation = FailedOperation(rawValue: bytes.loadLittleEndian(at: base + 18))
            else { throw .inconsistent("member \(index)") }
            var member = Member(uuid: PlexUUID(bytes.loadUUID(at: base)), role: role)
            member.missedWriteMap = try decodeMap(bytes, index, slot: bytes.loadLittleEndian(at: base + 17))
            if let slot = member.missedWriteMap?.slot, !usedSlots.insert(slot).inserted {
                // The pages carry the number of one absence: the other plex would seem to have missed nothing.
                throw .inconsistent("map of \(index)")
            }
            let replaced = Int(bytes.loadLittleEndian(at: base + 19, as: UInt8.self))
            guard replaced <= PlexSet.capacity, replaced != index + 1 else {
                throw .inconsistent("member \(index) replaces \(replaced - 1)")
            }
            member.replaces = replaced == 0 ? nil : PlexIndex(replaced - 1)
            member.cause = FailureCause(
                operation: operation, errorNumber: bytes.loadLittleEndian(at: base + 20),
                offset: bytes.loadLittleEndian(at: base + 24), time: bytes.loadLittleEndian(at: base + 32))
            member.readErrors = min(bytes.loadLittleEndian(at: base + 48), maximumCount)
            member.writeErrors = min(bytes.loadLittleEndian(at: base + 56), maximumCount)
            member.corrected = min(bytes.loadLittleEndian(at: base + 64), maximumCount)
            member.spared = min(bytes.loadLittleEndian(at: base + 72), maximumCount)
            let remapped = bytes.loadLittleEndian(at: base + 80, as: UInt8.self)
            guard remapped <= 1 else { throw .inconsistent("member \(index) is remapped \(remapped)") }
            member.isRemapped = remapped == 1
            member.isWriteMostly = bytes.loadLittleEndian(at: base + 81, as: UInt8.self) & 1 == 1
            members.append(member)
        }
        return members
    }

    private static func decodeMap(
        _ bytes: RawSpan, _ index: Int, slot: UInt8
    ) throws(SuperblockError) -> MissedWriteMap? {
        guard slot != noMap else { return nil }
        let entry = mapTable + index * mapBytes
        let start = bytes.loadLittleEndian(at: entry + 24, as: UInt8.self)
        let map = MissedWriteMap(
            slot: slot, id: bytes.loadLittleEndian(at: entry), startsFull: start == 1,
            epoch: bytes.loadLittleEndian(at: entry + 8), lastClear: bytes.loadLittleEndian(at: entry + 16))
        guard UInt64(slot) < Layout.missedWriteMapCount, start <= 1, map.epoch <= maximumCount,
            map.lastClear <= maximumCount
        else { throw .inconsistent("map of \(index)") }
        return map
    }

    private static func decodeBadRanges(
        _ bytes: RawSpan, dataBytes: UInt64
    ) throws(SuperblockError) -> [BadRange] {
        let count = Int(bytes.loadLittleEndian(at: 344, as: UInt16.self))
        guard count <= Record.badRangeCapacity else { throw .inconsistent("bad ranges") }
        var ranges: [BadRange] = []
        for index in 0..<count {
            let base = badRangeTable + index * badRangeBytes
            let plex = bytes.loadLittleEndian(at: base + 12, as: UInt8.self)
            guard plex < PlexSet.capacity else { throw .inconsistent("bad range \(index)") }
            let range = BadRange(
                plex: PlexIndex(Int(plex)), offset: bytes.loadLittleEndian(at: base),
                blocks: bytes.loadLittleEndian(at: base + 8))
            guard range.offset % Layout.blockBytes == 0, range.blocks > 0, range.offset < dataBytes,
                range.length <= dataBytes - range.offset
            else { throw .inconsistent("bad range \(index)") }
            ranges.append(range)
        }
        return ranges
    }

    private static func decodeHistory(_ bytes: RawSpan) throws(SuperblockError) -> [PastGeneration] {
        let count = Int(bytes.loadLittleEndian(at: 43, as: UInt8.self))
        guard count <= Record.historyCapacity else { throw .inconsistent("history") }
        var history: [PastGeneration] = []
        for index in 0..<count {
            let base = historyTable + index * historyBytes
            let epoch = bytes.loadLittleEndian(at: base + 16, as: UInt64.self)
            guard let reason = GenerationReason(rawValue: bytes.loadLittleEndian(at: base + 32)), epoch <= maximumCount
            else { throw .inconsistent("history \(index)") }
            history.append(
                PastGeneration(
                    generation: Generation(bytes.loadUUID(at: base)), epoch: epoch,
                    endTime: bytes.loadLittleEndian(at: base + 24), reason: reason,
                    inSync: PlexSet(mask: bytes.loadLittleEndian(at: base + 33))))
        }
        return history
    }
}

extension RawSpan {
    func loadUUID(at offset: Int) -> UUID128 {
        UUID128(high: loadLittleEndian(at: offset), low: loadLittleEndian(at: offset + 8))
    }

    /// UTF-8 up to the first zero byte.
    func loadText(at offset: Int, count: Int) throws(SuperblockError) -> String {
        var bytes: [UInt8] = []
        for index in 0..<count {
            let byte = loadLittleEndian(at: offset + index, as: UInt8.self)
            if byte == 0 { break }
            bytes.append(byte)
        }
        guard let text = String(validating: bytes, as: UTF8.self) else { throw .inconsistent("text") }
        return text
    }
}

extension MutableRawSpan {
    mutating func store(_ uuid: UUID128, at offset: Int) {
        storeLittleEndian(uuid.high, at: offset)
        storeLittleEndian(uuid.low, at: offset + 8)
    }

    /// Stores as many whole characters as fit; the rest of the field stays zero.
    ///
    /// - Returns: how many bytes that were.
    @discardableResult
    mutating func store(_ text: String, at offset: Int, capacity: Int) -> Int {
        var index = 0
        for character in text {
            let bytes = Array(character.utf8)
            guard index + bytes.count <= capacity else { break }
            for byte in bytes {
                storeLittleEndian(byte, at: offset + index)
                index += 1
            }
        }
        return index
    }
}
