import TestSupport
import Testing

@testable import MirrorFormat

@Suite struct ScrubLedgerTests {
    /// Made by another program, from the tables in the source.
    private static let state: [(Int, String)] = [
        (0, "504c45585553534cc77e344700000100"),
        (16, "07000000000000000000000000000000"),
        (64, "05010000000000000030120000000000"),
        (80, "00002a36fe9c9717000069c60b167417"),
        (96, "03000000000000000200000000000000"),
        (112, "01000000000000000500000000000000"),
    ]
    private static let entries: [(Int, String)] = [
        (0, "504c45585553534c75c351a301000100"),
        (16, "02000000000000000000000000000000"),
        (64, "00500000000000000b00000000000000"),
        (80, "0c000000000000000000000000000000"),
        (96, "0704ff00000000001111111111111111"),
        (112, "22222222000000000000000000000000"),
        (208, "00700000000000000d00000000000000"),
        (224, "0e000000000000000f00000000000000"),
        (240, "03000100000000000100000002000000"),
    ]

    private static func mismatch(_ offset: UInt64, _ plexes: UInt8, odd: UInt8, _ sums: [UInt32], time: UInt64)
        -> Mismatch
    {
        Mismatch(
            offset: offset, plexes: PlexSet(mask: plexes), odd: PlexSet(mask: odd),
            checksums: sums + Array(repeating: 0, count: 8 - sums.count), time: time)
    }

    /// The ledger of the golden bytes.
    private static var golden: ScrubLedger {
        var ledger = ScrubLedger()
        for _ in 0..<6 { ledger.change { $0.started += 1 } }
        ledger.change {
            $0.isRunning = true
            $0.repairs = true
            $0.preferred = PlexIndex(1)
            $0.position = 0x123000
            $0.started = 1_700_000_000_000_000_000
            $0.lastFinished = 1_690_000_000_000_000_000
            $0.found = 3
            $0.unreadable = 2
            $0.repaired = 1
            $0.unrecorded = 5
        }
        var first = mismatch(0x5000, 7, odd: 4, [0x1111_1111, 0x1111_1111, 0x2222_2222], time: 11)
        first.lastSeen = 12
        var third = mismatch(0x7000, 3, odd: 0, [1, 2], time: 13)
        third.lastSeen = 14
        third.closed = 15
        third.source = PlexIndex(1)
        ledger[0] = first
        ledger[2] = third
        return ledger
    }

    private func encode(_ ledger: ScrubLedger, _ page: Int, _ mirror: MirrorUUID = Golden.mirror) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: ScrubLedger.pageBytes)
        do {
            var span = bytes.mutableSpan
            var raw = unsafe span.mutableBytes
            ledger.encode(page: page, mirror: mirror, into: &raw)
        }
        return bytes
    }

    private func take(_ bytes: [UInt8], _ page: Int, into ledger: inout ScrubLedger) -> Bool {
        unsafe ledger.take(page: page, bytes: bytes.span.bytes, mirror: Golden.mirror)
    }

    @Test func goldenPagesEncodeToTheDocumentedBytes() {
        for (page, wanted) in [Self.state, Self.entries].enumerated() {
            let rows = encode(Self.golden, page).nonZeroRows
            for (got, wanted) in zip(rows, wanted) {
                #expect(got.0 == wanted.0 && got.1 == wanted.1, "row \(got.0): \(got.1), documented \(wanted.1)")
            }
            #expect(rows.count == wanted.count, "\(rows)")
        }
    }

    @Test func whatWasWrittenIsReadBack() {
        var ledger = ScrubLedger()
        #expect(take(encode(Self.golden, 0), 0, into: &ledger) && take(encode(Self.golden, 1), 1, into: &ledger))
        #expect(ledger == Self.golden)
        var full = ScrubLedger()
        for place in 0..<ScrubLedger.capacity {
            full[place] = Self.mismatch(UInt64(place) << 12, 3, odd: 0, [UInt32(place), 1], time: 1)
        }
        var read = ScrubLedger()
        for page in 1..<ScrubLedger.pageCount { #expect(take(encode(full, page), page, into: &read)) }
        #expect(read == full && read.sequences == [0, 56, 56, 56, 56, 56, 56, 56, 56])
    }

    @Test func pagesLieBetweenTheCopiesOfTheSuperblockAndTouchNone() {
        let disk: UInt64 = 64 << 20
        let pages = (0..<ScrubLedger.pageCount).map { ScrubLedger.pageOffset($0, diskBytes: disk) }
        let copies = (0..<Layout.superblockCopies).map { Layout.superblockOffset(copy: $0, diskBytes: disk) }
        #expect(Set(pages).count == ScrubLedger.pageCount && Set(pages).isDisjoint(with: copies))
        #expect(pages.allSatisfy { $0 > copies[0] && $0 < copies[3] && $0 % 4096 == 0 })
    }

    @Test func anyChangedByteMakesItNoPage() {
        for page in 0..<2 {
            let whole = encode(Self.golden, page)
            for position in whole.indices {
                var bytes = whole
                bytes[position] ^= 1
                var ledger = ScrubLedger()
                #expect(!take(bytes, page, into: &ledger) && ledger == ScrubLedger(), "byte \(position)")
            }
        }
    }

    @Test func pageOfAnotherMirrorOrAnotherPlaceIsNone() {
        var ledger = ScrubLedger()
        let other = MirrorUUID(UUID128(high: 1, low: 2))
        #expect(!take(encode(Self.golden, 0, other), 0, into: &ledger))
        #expect(!take(encode(Self.golden, 1), 2, into: &ledger) && !take([], 0, into: &ledger))
        #expect(!take([UInt8](repeating: 0, count: 4096), 0, into: &ledger) && ledger == ScrubLedger())
    }

    @Test func newestPageCountsWhateverTheOrder() {
        var newer = Self.golden
        newer[0] = nil
        var older = Self.golden
        older.change { $0.position = 0x200000 }
        for order in [[newer, older], [older, newer]] {
            var merged = ScrubLedger()
            var taken = ScrubLedger()
            for ledger in order {
                merged.merge(ledger)
                for page in 0..<2 { #expect(take(encode(ledger, page), page, into: &taken)) }
            }
            #expect(merged == taken && merged[0] == nil && merged[2] != nil && merged.state.position == 0x200000)
        }
    }

    @Test func whatLiesBeyondTheMirrorIsDropped() {
        var ledger = Self.golden
        ledger[5] = Self.mismatch(0x5001, 3, odd: 0, [], time: 1)
        ledger.confine(to: 0x6000)
        #expect(ledger[0] != nil && ledger[2] == nil && ledger[5] == nil && ledger.state.position == 0x6000)
    }

    @Test func bytesAtRandomAreSurvived() {
        var random = XorShift(seed: 5)
        for _ in 0..<500 {
            let bytes = (0..<4096).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            var ledger = ScrubLedger()
            #expect(!take(bytes, Int(random.next() % 9), into: &ledger))
        }
    }
}
