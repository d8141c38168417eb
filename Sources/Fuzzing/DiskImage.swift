internal import MirrorFormat

/// What the superblock area of one disk holds, and what is known of where that came from.
struct DiskImage {
    /// One of the four copies.
    struct Block {
        var bytes: [UInt8]
        /// All that was ever written here, wholly or in part, or moved here: the bytes may be one of these.
        var origins: [Origin]
    }

    /// A superblock as it was written, on whatever disk.
    struct Origin {
        var superblock: Superblock
        var copy: Int
        /// Position in the mirror's one true history; 0: not part of it.
        var serial: Int
        var bytes: [UInt8]

        init(_ superblock: Superblock, copy: Int, serial: Int = 0) {
            self.superblock = superblock
            self.copy = copy
            self.serial = serial
            bytes = superblock.encoded(copy: copy)
        }
    }

    let diskBytes: UInt64
    var blocks = Array(repeating: Block.blank, count: Layout.superblockCopies)

    /// The copies that a reader may believe: written to this place of a disk of this size, and unchanged since.
    var whole: [Origin] {
        blocks.indices.compactMap { copy in
            blocks[copy].origins.first {
                $0.copy == copy && $0.superblock.layout.diskBytes == diskBytes && $0.bytes == blocks[copy].bytes
            }
        }
    }

    /// What a reader must find; nil if the copies leave nothing, or contradict one another.
    var newest: Origin? {
        guard !isContradictory else { return nil }
        return whole.max { $0.superblock.sequence < $1.superblock.sequence }
    }

    /// Two contents under the highest number, or another plex's superblock: whoever wrote that, it is not one server.
    var isContradictory: Bool {
        let whole = whole
        return isForked || whole.contains { $0.superblock.plex != whole[0].superblock.plex }
    }

    var isForked: Bool {
        let whole = whole
        guard let highest = whole.map(\.superblock.sequence).max() else { return false }
        let latest = whole.filter { $0.superblock.sequence == highest }
        return latest.contains {
            $0.superblock != latest[0].superblock && $0.superblock.plex == latest[0].superblock.plex
        }
    }

    /// The last 64 KiB of the disk.
    var area: [UInt8] {
        var area = [UInt8](repeating: 0, count: Int(Layout.superblockAreaBytes))
        for (copy, block) in blocks.enumerated() {
            let start = copy * Int(Layout.superblockSpacingBytes)
            area.replaceSubrange(start..<start + Superblock.byteCount, with: block.bytes)
        }
        return area
    }

    /// Scans the area and holds the result against what is known.
    func scan() throws(Finding) -> SuperblockScan {
        let area = area
        let result = unsafe SuperblockScan.scan(area: area.span.bytes, diskBytes: diskBytes)
        switch result {
        case .found(let superblock):
            try require(!isContradictory, "copies that contradict one another are believed", area)
            try require(superblock == newest?.superblock, "it is not the newest good copy that is found", area)
        case .forked: try require(isContradictory, "a fork is seen where there is none", area)
        case .none, .damaged: try require(whole.isEmpty, "good copies are overlooked", area)
        case .futureFormat: try require(whole.isEmpty || futureCount > 1, "a future format is imagined", area)
        case .unknownFeature: throw Finding("an unknown feature is imagined", area)
        }
        return result
    }

    /// Copies that say of themselves that they are of a later format: not bound to a checksum.
    private var futureCount: Int {
        blocks.count { $0.bytes.starts(with: Array("PLEXUSSB".utf8)) && ($0.bytes[8] > 1 || $0.bytes[9] > 0) }
    }
}

extension DiskImage.Block {
    static let blank = DiskImage.Block(bytes: [UInt8](repeating: 0, count: Superblock.byteCount), origins: [])

    init(_ origin: DiskImage.Origin) { self.init(bytes: origin.bytes, origins: [origin]) }

    /// Takes over those sectors of `other` whose bit is set: a write that was cut off.
    mutating func tear(_ other: DiskImage.Block, sectors: UInt8) {
        let sectorBytes = Superblock.byteCount / 8
        for sector in 0..<8 where sectors & (1 << UInt8(sector)) != 0 {
            let range = sector * sectorBytes..<(sector + 1) * sectorBytes
            bytes.replaceSubrange(range, with: other.bytes[range])
        }
        // Sectors that are the same in both, or that come later, can make either of them whole.
        origins += other.origins
    }
}

extension Target {
    /// The 64 KiB of one disk with any mixture of copies, whole, damaged, moved and foreign.
    static let scan = Target("scan", cost: 4) { input throws(Finding) in
        let first = input.superblock()
        var image = DiskImage(diskBytes: first.layout.diskBytes)
        var versions = [first]
        for _ in 0..<input.below(3) { versions.append(input.version(of: first)) }
        for copy in image.blocks.indices where !input.oneIn(6) {
            let version = input.pick(versions)
            let isHome = Superblock.copies(ofSequence: version.sequence)
            let place = input.oneIn(8) ? input.below(4) : copy
            guard input.oneIn(8) || place != copy || isHome.0 == copy || isHome.1 == copy else { continue }
            image.blocks[copy] = DiskImage.Block(DiskImage.Origin(version, copy: place))
            if input.oneIn(3) { input.damage(&image.blocks[copy].bytes) }
        }
        input.show("superblock area", image.area)
        let result = try image.scan()
        let area = image.area
        let cut = input.below(area.count + 1)
        _ = unsafe SuperblockScan.scan(area: area.span.bytes.extracting(0..<cut), diskBytes: image.diskBytes)
        _ = unsafe SuperblockScan.scan(area: area.span.bytes, diskBytes: input.number())
        return result.word
    }
}

extension SuperblockScan {
    var word: String {
        switch self {
        case .none: "none"
        case .found: "found"
        case .damaged: "damaged"
        case .futureFormat: "future"
        case .unknownFeature: "feature"
        case .forked: "forked"
        }
    }
}

extension Input {
    /// Another superblock that may well lie beside this one: an update, a fork, another plex, another disk.
    fileprivate mutating func version(of superblock: Superblock) -> Superblock {
        var other = superblock
        switch below(5) {
        case 0: other.record.epoch ^= 1
        case 1: other.plex = other.record[pick(other.record.configured.members)].uuid
        case 2: other.record.mirror = MirrorUUID(uuid())
        case 3: other = self.superblock()
        default: break
        }
        if !oneIn(4) { other.sequence = superblock.sequence &+ UInt64(1 + below(3)) }
        return other
    }
}
