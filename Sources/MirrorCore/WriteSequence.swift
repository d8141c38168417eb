/// Tells a writer that goes on from region to region from one that jumps about among a few of them. Looked at when a region
/// is touched for the first time in a while.
struct WriteSequence {
    /// Where the last writes ended; of writers that write side by side each finds its own.
    private var ends = InlineArray<8, UInt64>(repeating: .max)
    private var oldest = 0
    /// Regions that a writer came into from the one before.
    private var entered: RegionSet

    init(regionCount: Int) { entered = RegionSet(count: regionCount) }

    mutating func note(end: UInt64) {
        ends[oldest] = end
        oldest = (oldest + 1) % 8
    }

    mutating func forget() { entered = RegionSet(count: entered.count) }

    /// A write begins that touches these regions, not all of which were touched lately. It comes from the region before
    /// if it goes on where one of the last ended, but for an eighth of a region: several connections may change the order
    /// of requests that follow each other.
    ///
    /// Example: 4 KiB at random in 16 regions of 1 MiB. One of the eight last writes ended within 128 KiB with a
    /// chance of 8 x 256 KiB / 16 MiB, that is 1/8, and an eighth of the first touches lies at a region's beginning: one in
    /// 64 is taken for a writer that comes along, and two of them in a row are rare.
    ///
    /// - Returns: how many regions in a row were come into; 0: none.
    mutating func enter(_ regions: Range<Int>, offset: UInt64, regionBytes: UInt64, limit: Int) -> Int {
        let slack = regionBytes / 8
        guard goesOn(at: offset, slack) else { return 0 }
        let isAtBeginning = offset - UInt64(regions.lowerBound) * regionBytes <= slack
        let first = isAtBeginning ? regions.lowerBound : regions.lowerBound + 1
        guard first < regions.upperBound else { return 0 }
        entered.insert(first..<regions.upperBound)
        var start = regions.upperBound
        while start > 0, regions.upperBound - start < limit, entered.contains(start - 1) { start -= 1 }
        return regions.upperBound - start
    }

    private func goesOn(at offset: UInt64, _ slack: UInt64) -> Bool {
        for index in ends.indices where ends[index] != .max {
            if ends[index] <= offset + slack, offset <= ends[index] + slack { return true }
        }
        return false
    }
}
