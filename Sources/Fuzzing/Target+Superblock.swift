internal import Bytes
internal import MirrorFormat

extension Target {
    static let superblock = structure("superblock", cost: 2) { input in
        let superblock = input.superblock()
        let copy = input.below(Layout.superblockCopies)
        let diskBytes = superblock.layout.diskBytes
        return Specimen(
            bytes: superblock.encoded(copy: copy),
            seal: { sealSuperblock(&$0, copy: copy, diskBytes: diskBytes) },
            recode: { decodeSuperblock($0, copy: copy, diskBytes: diskBytes)?.encoded(copy: copy) })
    }

    static let page = structure("page") { input in
        let mirror = MirrorUUID(input.uuid())
        let sheet = UInt8(input.below(8))
        let index = UInt64(input.below(520))
        let page = BitmapPage(
            sheet: sheet, index: index, sequence: input.count(), lastClear: input.count(),
            generation: Generation(input.uuid()), absence: input.number())
        var bits = [UInt64](repeating: 0, count: BitmapPage.wordCount)
        for _ in 0..<input.below(8) { bits[input.below(bits.count)] = input.number() }
        return Specimen(
            bytes: page.encoded(mirror: mirror, words: bits), seal: { sealPage(&$0, mirror: mirror) },
            recode: { bytes in
                guard
                    let decoded = BitmapPage(
                        decoding: unsafe bytes.span.bytes, mirror: mirror, sheet: sheet, index: index)
                else { return nil }
                let bits = (0..<BitmapPage.wordCount).map { unsafe BitmapPage.word($0, of: bytes.span.bytes) }
                return decoded.encoded(mirror: mirror, words: bits)
            })
    }

    static let event = structure("event") { input in
        let mirror = MirrorUUID(input.uuid())
        return Specimen(
            bytes: input.event().encoded(mirror: mirror), seal: { sealEvent(&$0, mirror: mirror) },
            recode: { EventRecord(decoding: unsafe $0.span.bytes, mirror: mirror)?.encoded(mirror: mirror) })
    }
}

func decodeSuperblock(_ bytes: [UInt8], copy: Int, diskBytes: UInt64) -> Superblock? {
    try? Superblock(decoding: unsafe bytes.span.bytes, copy: copy, diskBytes: diskBytes)
}

/// The checksum of the table at `Superblock`.
func sealSuperblock(_ bytes: inout [UInt8], copy: Int, diskBytes: UInt64) {
    bytes.replaceSubrange(12..<16, with: [0, 0, 0, 0])
    var crc = CRC32C()
    unsafe crc.update(bytes.span.bytes.extracting(56..<72))
    crc.update(littleEndian: Layout.superblockOffset(copy: copy, diskBytes: diskBytes))
    unsafe crc.update(bytes.span.bytes)
    bytes.replaceSubrange(12..<16, with: littleEndian(crc.value))
}

/// The checksum of the table at `EventRecord`.
private func sealEvent(_ bytes: inout [UInt8], mirror: MirrorUUID) {
    bytes.replaceSubrange(4..<8, with: [0, 0, 0, 0])
    var crc = CRC32C()
    crc.update(littleEndian: mirror.bits.high)
    crc.update(littleEndian: mirror.bits.low)
    unsafe crc.update(bytes.span.bytes)
    bytes.replaceSubrange(4..<8, with: littleEndian(crc.value))
}

/// The checksum of the table at `BitmapPage`.
func sealPage(_ bytes: inout [UInt8], mirror: MirrorUUID) {
    bytes.replaceSubrange(8..<12, with: [0, 0, 0, 0])
    var crc = CRC32C()
    crc.update(littleEndian: mirror.bits.high)
    crc.update(littleEndian: mirror.bits.low)
    unsafe crc.update(bytes.span.bytes)
    bytes.replaceSubrange(8..<12, with: littleEndian(crc.value))
}

func littleEndian(_ value: UInt32) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
}

extension Superblock {
    /// The 4 KiB of one copy.
    func encoded(copy: Int) -> [UInt8] {
        // What lay there before must not shine through.
        var bytes = [UInt8](repeating: 0xEE, count: Superblock.byteCount)
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        encode(copy: copy, into: &raw)
        return bytes
    }
}

extension BitmapPage {
    func encoded(mirror: MirrorUUID, words: [UInt64]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: BitmapPage.byteCount)
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        encode(mirror: mirror, words: words.span, into: &raw)
        return bytes
    }
}

extension EventRecord {
    func encoded(mirror: MirrorUUID) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: EventRecord.byteCount)
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        encode(mirror: mirror, into: &raw, at: 0)
        return bytes
    }
}

/// Valid contents, at random.
extension Input {
    /// A count that decoders believe.
    mutating func count() -> UInt64 { number() >> 3 }

    mutating func uuid() -> UUID128 { UUID128(high: take(8), low: nextNumber()) }

    /// - Parameter limit: in bytes of UTF-8.
    mutating func text(atMost limit: Int, atLeast minimum: Int = 0) -> String {
        let wanted = within(minimum...limit)
        var text = ""
        while text.utf8.count < wanted {
            let next = pick(["a", "Z", "7", "-", "é", "日", "𝄞"])
            text += text.utf8.count + next.utf8.count <= wanted ? next : "x"
        }
        return text
    }

    mutating func superblock() -> Superblock {
        let dataBytes = UInt64(within(256...1 << 20)) * Layout.blockBytes
        let diskBytes = dataBytes + 8 << 20 + UInt64(below(4096))
        guard let layout = try? Layout(diskBytes: diskBytes, dataBytes: dataBytes, regionBytes: nil, spareBytes: nil)
        else { preconditionFailure("8 MiB hold the private area of 4 GiB") }
        let record = record(layout)
        return Superblock(
            record: record, plex: record[pick(record.configured.members)].uuid, sequence: count(),
            layout: layout, writer: Superblock.Writer(bootID: uuid(), host: text(atMost: 64)))
    }

    private mutating func record(_ layout: Layout) -> Record {
        var record = Record(
            mirror: MirrorUUID(uuid()), name: text(atMost: Superblock.maximumNameBytes, atLeast: 1),
            dataBytes: layout.dataBytes, regionBytes: layout.regionBytes, generation: Generation(uuid()),
            members: members(), time: number())
        for _ in 0..<below(Record.historyCapacity + 1) {
            record.epoch = count()
            record.begin(
                Generation(uuid()), because: GenerationReason(rawValue: UInt8(below(7))) ?? .created,
                inSync: PlexSet(mask: byte()), time: number())
        }
        record.epoch = count()
        record.updatedTime = number()
        record.isClean = oneIn(2)
        record.pinned = oneIn(2) ? pick(record.configured.members) : nil
        if oneIn(2) {
            record.parent = Record.Ancestry(
                mirror: MirrorUUID(uuid()), generation: Generation(uuid()), epoch: number())
        }
        return record
    }

    private mutating func members() -> [Member] {
        // No two maps in one slot.
        var slots = Array(0..<UInt8(Layout.missedWriteMapCount))
        shuffle(&slots)
        return (0...below(PlexSet.capacity)).map { member(slot: $0 < slots.count && oneIn(2) ? slots[$0] : nil) }
    }

    private mutating func member(slot: UInt8?) -> Member {
        var member = Member(uuid: PlexUUID(uuid()), role: pick(Role.allCases.filter { $0 != .absent }))
        member.missedWriteMap = slot.map {
            MissedWriteMap(slot: $0, id: number(), startsFull: oneIn(2), epoch: count(), lastClear: count())
        }
        member.cause = FailureCause(
            operation: FailedOperation(rawValue: UInt8(below(9))) ?? .none,
            errorNumber: Int32(truncatingIfNeeded: number()), offset: number(), time: number())
        member.readErrors = count()
        member.writeErrors = count()
        member.corrected = count()
        member.spared = count()
        return member
    }

    mutating func event() -> EventRecord {
        EventRecord(
            sequence: count(), time: number(), code: pick(EventCode.allCases),
            plex: oneIn(2) ? PlexIndex(below(PlexSet.capacity)) : nil,
            errorNumber: Int32(truncatingIfNeeded: number()), offset: number(), length: number(),
            generation: Generation(uuid()), epoch: number(), text: text(atMost: EventRecord.textCapacity))
    }
}
