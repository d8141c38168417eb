import Bytes
import TestSupport
import Testing

@testable import MirrorFormat

/// What a test that needs a value that must be there says instead of `!`.
struct Missing: Error {}

extension Superblock {
    /// The 4 KiB of one copy.
    func encoded(copy: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: Superblock.byteCount)
        do {
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            encode(copy: copy, into: &raw)
        }
        return bytes
    }

    static func decoded(
        _ bytes: [UInt8], copy: Int, diskBytes: UInt64
    ) -> Result<Superblock, SuperblockError> {
        do throws(SuperblockError) {
            return .success(try unsafe Superblock(decoding: bytes.span.bytes, copy: copy, diskBytes: diskBytes))
        } catch {
            return .failure(error)
        }
    }

    func with(sequence: UInt64, _ change: (inout Record) -> Void = { _ in }) -> Superblock {
        var other = self
        other.sequence = sequence
        change(&other.record)
        return other
    }
}

/// The last 64 KiB of a disk.
struct SuperblockArea {
    var bytes = [UInt8](repeating: 0, count: Int(Layout.superblockAreaBytes))
    var diskBytes: UInt64

    static func start(_ copy: Int) -> Int { copy * Int(Layout.superblockSpacingBytes) }

    /// As the server updates: two of the four copies.
    mutating func write(_ superblock: Superblock) {
        let copies = Superblock.copies(ofSequence: superblock.sequence)
        write(superblock, copy: copies.0)
        write(superblock, copy: copies.1)
    }

    mutating func write(_ superblock: Superblock, copy: Int) { put(superblock.encoded(copy: copy), copy: copy) }

    mutating func put(_ block: [UInt8], copy: Int) {
        bytes.replaceSubrange(Self.start(copy)..<Self.start(copy) + block.count, with: block)
    }

    func copy(_ copy: Int) -> [UInt8] { Array(bytes[Self.start(copy)..<Self.start(copy) + Superblock.byteCount]) }

    func copies() -> SuperblockCopies { unsafe SuperblockScan.copies(area: bytes.span.bytes, diskBytes: diskBytes) }

    func scan() -> SuperblockScan { unsafe SuperblockScan.scan(area: bytes.span.bytes, diskBytes: diskBytes) }
}

/// Makes the checksum right again after a change: gets hostile contents past the first line of defence.
func sealed(_ bytes: [UInt8], copy: Int, diskBytes: UInt64) -> [UInt8] {
    var bytes = bytes
    bytes.store(UInt32(0), at: 12)
    var crc = CRC32C()
    for word in [load(bytes, 56), load(bytes, 64), Layout.superblockOffset(copy: copy, diskBytes: diskBytes)] {
        crc.update(littleEndian: word)
    }
    unsafe crc.update(bytes.span.bytes)
    bytes.store(crc.value, at: 12)
    return bytes
}

func load(_ bytes: [UInt8], _ offset: Int) -> UInt64 {
    unsafe bytes.span.bytes.loadLittleEndian(at: offset, as: UInt64.self)
}

extension [UInt8] {
    mutating func store<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at offset: Int) {
        var span = mutableSpan
        var raw = unsafe span.mutableBytes
        raw.storeLittleEndian(value, at: offset)
    }

    /// Rows of 16 bytes that are not all zero, as `offset: hex`.
    var nonZeroRows: [(Int, String)] {
        stride(from: 0, to: count, by: 16).compactMap { start in
            let row = self[start..<Swift.min(start + 16, count)]
            guard row.contains(where: { $0 != 0 }) else { return nil }
            return (start, row.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined())
        }
    }
}

extension XorShift {
    /// A count that a decoder believes.
    mutating func count() -> UInt64 { next() >> 2 }

    mutating func uuid() -> UUID128 { UUID128(high: next(), low: next()) }

    mutating func text(atMost bytes: Int, atLeast minimum: Int = 0) -> String {
        let wanted = Int.random(in: minimum...bytes, using: &self)
        var text = ""
        while text.utf8.count < wanted {
            let next = ["a", "Z", "7", "-", "é", "日", "𝄞"].randomElement(using: &self) ?? "a"
            text += text.utf8.count + next.utf8.count <= wanted ? next : "x"
        }
        return text
    }

    /// - Parameter slot: of its missed-write map, if it has one; no two plexes share one.
    mutating func member(slot: UInt8) -> Member {
        var member = Member(
            uuid: PlexUUID(uuid()), role: Role.allCases.filter { $0 != .absent }.randomElement(using: &self) ?? .stale)
        if slot < Layout.missedWriteMapCount, Bool.random(using: &self) {
            member.missedWriteMap = MissedWriteMap(
                slot: slot, id: next(), startsFull: Bool.random(using: &self), epoch: count(), lastClear: count())
        }
        member.cause = FailureCause(
            operation: FailedOperation(rawValue: UInt8.random(in: 0...8, using: &self)) ?? .none,
            errorNumber: Int32(truncatingIfNeeded: next()), offset: next(), time: next())
        member.readErrors = count()
        member.writeErrors = count()
        member.corrected = count()
        member.spared = count()
        return member
    }

    mutating func record(dataBytes: UInt64, regionBytes: UInt64) -> Record {
        let slots = (UInt8(0)..<8).shuffled(using: &self)
        var record = Record(
            mirror: MirrorUUID(uuid()), name: text(atMost: 63, atLeast: 1), dataBytes: dataBytes,
            regionBytes: regionBytes, generation: Generation(uuid()),
            members: slots.prefix(Int.random(in: 1...8, using: &self)).map { member(slot: $0) }, time: next())
        for _ in 0..<Int.random(in: 0...16, using: &self) {
            record.epoch = count()
            record.begin(
                Generation(uuid()),
                because: GenerationReason(rawValue: UInt8.random(in: 0...7, using: &self)) ?? .created,
                inSync: PlexSet(mask: UInt8.random(in: 0...255, using: &self)), time: next())
        }
        record.epoch = count()
        record.unconfirmed = UInt64.random(in: 0...record.epoch, using: &self)
        record.updatedTime = next()
        record.isClean = Bool.random(using: &self)
        record.pinned = Bool.random(using: &self) ? PlexIndex(Int.random(in: 0..<8, using: &self)) : nil
        if Bool.random(using: &self) {
            record.parent = Record.Ancestry(mirror: MirrorUUID(uuid()), generation: Generation(uuid()), epoch: next())
        }
        for _ in 0..<([0, 0, 1, Record.badRangeCapacity].randomElement(using: &self) ?? 0) {
            let block = UInt64.random(in: 0..<dataBytes / 4096, using: &self)
            record.badRanges.append(
                BadRange(
                    plex: PlexIndex(Int.random(in: 0..<8, using: &self)), offset: block * 4096,
                    blocks: UInt32.random(in: 1...UInt32(dataBytes / 4096 - block), using: &self)))
        }
        return record
    }

    mutating func superblock() throws -> Superblock {
        let data = UInt64.random(in: 256...(1 << 20), using: &self) * 4096
        let disk = data + 8 << 20 + UInt64.random(in: 0..<4096, using: &self)
        let layout = try Layout(diskBytes: disk, dataBytes: data, regionBytes: nil, spareBytes: nil)
        let record = record(dataBytes: data, regionBytes: layout.regionBytes)
        guard let plex = Array(record.configured.members).randomElement(using: &self) else { throw Missing() }
        return Superblock(
            record: record, plex: record[plex].uuid, sequence: count(), layout: layout,
            writer: Superblock.Writer(bootID: uuid(), host: text(atMost: 64)))
    }
}
