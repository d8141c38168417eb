/// A stretch of one plex that holds nothing: when it was copied to no plex could read it. Whole blocks of 4 KiB.
package struct BadRange: Sendable, Hashable, BitwiseCopyable {
    package var plex: PlexIndex
    package var offset: UInt64
    package var blocks: UInt32

    package init(plex: PlexIndex, offset: UInt64, blocks: UInt32) {
        self.plex = plex
        self.offset = offset
        self.blocks = blocks
    }

    package var length: UInt64 { UInt64(blocks) * Layout.blockBytes }
    package var end: UInt64 { offset + length }
}

extension Record {
    /// What the superblock has room for.
    package static let badRangeCapacity = 96

    package func isBad(_ plex: PlexIndex, offset: UInt64, length: UInt64) -> Bool {
        badRanges.contains { $0.plex == plex && $0.offset < offset + length && offset < $0.end }
    }

    package func badRanges(of plex: PlexIndex) -> [BadRange] { badRanges.filter { $0.plex == plex } }

    /// Blocks that lie side by side become one range.
    ///
    /// - Parameter offsets: of blocks, ascending.
    package mutating func setBad(_ plex: PlexIndex, blocks offsets: [UInt64]) {
        badRanges.removeAll { $0.plex == plex }
        badRanges += Self.runs(of: offsets).map { run in
            BadRange(
                plex: plex, offset: run.lowerBound,
                blocks: UInt32((run.upperBound - run.lowerBound) / Layout.blockBytes))
        }
    }

    /// Of blocks that lie side by side, in bytes.
    ///
    /// - Parameter offsets: ascending.
    package static func runs(of offsets: [UInt64]) -> [Range<UInt64>] {
        var runs: [Range<UInt64>] = []
        for offset in offsets {
            let end = offset + Layout.blockBytes
            if let last = runs.last, last.upperBound == offset {
                runs[runs.count - 1] = last.lowerBound..<end
            } else {
                runs.append(offset..<end)
            }
        }
        return runs
    }

    /// The plex holds this stretch from now on.
    ///
    /// - Returns: false: what is left would be more ranges than there is room for; nothing is changed.
    package mutating func heal(_ plex: PlexIndex, offset: UInt64, length: UInt64) -> Bool {
        var result: [BadRange] = []
        let end = offset + length
        for range in badRanges {
            guard range.plex == plex, range.offset < end, offset < range.end else {
                result.append(range)
                continue
            }
            if range.offset < offset {
                let blocks = UInt32((offset - range.offset) / Layout.blockBytes)
                result.append(BadRange(plex: plex, offset: range.offset, blocks: blocks))
            }
            if end < range.end {
                result.append(
                    BadRange(plex: plex, offset: end, blocks: UInt32((range.end - end) / Layout.blockBytes)))
            }
        }
        guard result.count <= Self.badRangeCapacity else { return false }
        badRanges = result
        return true
    }
}
