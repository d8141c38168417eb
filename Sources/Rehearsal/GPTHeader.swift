internal import Bytes

/// Why a header is not to be used.
struct GPTFault: Error, CustomStringConvertible {
    var description: String
    /// Nothing there looks like a header.
    var isAbsence = false

    init(_ description: String, isAbsence: Bool = false) {
        self.description = description
        self.isAbsence = isAbsence
    }
}

/// One of the two headers of a GPT. All integers are little-endian; blocks are those of the disk.
///
/// | offset | bytes | |
/// |---|---|---|
/// | 0 | 8 | "EFI PART" |
/// | 8 | 4 | revision |
/// | 12 | 4 | length of the header in bytes, 92 to one block |
/// | 16 | 4 | CRC-32 of that length, with zeroes here |
/// | 24 | 8 | block in which this header lies |
/// | 32 | 8 | block in which the other lies |
/// | 40, 48 | 8 | first and last block that partitions may have |
/// | 56 | 16 | GUID of the disk |
/// | 72 | 8 | first block of the entries |
/// | 80, 84 | 4 | number of entries; bytes of each, 128 x a power of two |
/// | 88 | 4 | CRC-32 of all entries |
///
/// Source: UEFI 2.10, section 5.3.2.
struct GPTHeader {
    /// 128 entries of 128 bytes are usual; more than this is damage.
    static let mostEntriesBytes = 4 << 20

    /// What both headers must have in common.
    struct Identity: Equatable {
        var disk: GUID
        var firstUsable: UInt64
        var lastUsable: UInt64
        var entryCount: Int
        var entryBytes: Int
    }

    var alternateBlock: UInt64
    var identity: Identity
    var entriesBlock: UInt64
    var entriesChecksum: UInt32

    var firstUsable: UInt64 { identity.firstUsable }
    var lastUsable: UInt64 { identity.lastUsable }
    var entryCount: Int { identity.entryCount }
    var entryBytes: Int { identity.entryBytes }
    var entriesBytes: Int { entryCount * entryBytes }

    /// - Parameters:
    ///   - span: one block.
    ///   - blocks: of the mirror.
    init(_ span: RawSpan, at block: UInt64, blocks: UInt64) throws(GPTFault) {
        guard span.loadLittleEndian(at: 0, as: UInt64.self) == 0x5452_4150_2049_4645 else {
            throw GPTFault("block \(block) holds none", isAbsence: true)
        }
        let length = Int(span.loadLittleEndian(at: 12, as: UInt32.self))
        guard length >= 92, length <= span.byteCount else { throw GPTFault("its length is \(length) bytes") }
        var bytes: [UInt8] = (0..<length).map { span.loadLittleEndian(at: $0) }
        bytes.replaceSubrange(16..<20, with: [0, 0, 0, 0])
        guard CRC32.checksum(of: bytes) == span.loadLittleEndian(at: 16) else {
            throw GPTFault("the checksum of block \(block) is wrong")
        }
        let own: UInt64 = span.loadLittleEndian(at: 24)
        guard own == block else { throw GPTFault("it lies in block \(block) and says \(own)") }
        alternateBlock = span.loadLittleEndian(at: 32)
        let entryCount = Int(span.loadLittleEndian(at: 80, as: UInt32.self))
        let entryBytes = Int(span.loadLittleEndian(at: 84, as: UInt32.self))
        guard entryBytes >= 128, entryBytes.nonzeroBitCount == 1, entryCount > 0,
            entryCount <= Self.mostEntriesBytes / entryBytes
        else { throw GPTFault("it has \(entryCount) entries of \(entryBytes) bytes") }
        identity = Identity(
            disk: GUID(span, at: 56), firstUsable: span.loadLittleEndian(at: 40),
            lastUsable: span.loadLittleEndian(at: 48), entryCount: entryCount, entryBytes: entryBytes)
        entriesBlock = span.loadLittleEndian(at: 72)
        entriesChecksum = span.loadLittleEndian(at: 88)
        guard identity.lastUsable < blocks else {
            throw GPTFault("partitions may reach to block \(identity.lastUsable), and the mirror has only \(blocks)")
        }
        let needed = UInt64((entryCount * entryBytes + span.byteCount - 1) / span.byteCount)
        guard entriesBlock >= 2, entriesBlock < blocks, needed <= blocks - entriesBlock else {
            throw GPTFault("its \(needed) blocks of entries begin at block \(entriesBlock) of \(blocks)")
        }
    }
}
