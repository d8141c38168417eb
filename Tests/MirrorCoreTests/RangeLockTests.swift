import TestSupport
import Testing

@testable import MirrorCore

/// What the lock promises, written as plainly as possible: a request waits for every earlier one, holding or
/// waiting, that overlaps it, unless both only read.
private struct NaiveLock {
    struct Entry {
        var owner: UInt32
        var blocks: Range<UInt64>
        var isExclusive: Bool
        var isHeld: Bool
    }

    var entries: [Entry] = []

    private func conflict(_ left: Entry, _ right: Entry) -> Bool {
        left.blocks.overlaps(right.blocks) && (left.isExclusive || right.isExclusive)
    }

    private func isBlocked(_ position: Int) -> Bool {
        entries[..<position].contains { conflict($0, entries[position]) }
    }

    mutating func acquire(owner: UInt32, offset: UInt64, length: UInt64, isExclusive: Bool) -> Bool {
        let blocks = offset / 4096..<(offset + length + 4095) / 4096
        entries.append(Entry(owner: owner, blocks: blocks, isExclusive: isExclusive, isHeld: false))
        entries[entries.count - 1].isHeld = !isBlocked(entries.count - 1)
        return entries[entries.count - 1].isHeld
    }

    mutating func release(owner: UInt32) -> [UInt32] {
        entries.removeAll { $0.owner == owner }
        var granted: [UInt32] = []
        for position in entries.indices where !entries[position].isHeld && !isBlocked(position) {
            entries[position].isHeld = true
            granted.append(entries[position].owner)
        }
        return granted
    }

    /// No two that conflict hold at once.
    var isExclusionKept: Bool {
        let held = entries.filter(\.isHeld)
        return held.indices.allSatisfy { first in
            held[(first + 1)...].allSatisfy { !conflict(held[first], $0) }
        }
    }
}

/// A reference to a lock, so that it can be asked inside an expectation.
private final class Lock {
    private var lock = RangeLock(capacity: 64)
    var count: Int { lock.count }

    func acquire(_ owner: UInt32, _ offset: UInt64, _ length: UInt64, isExclusive: Bool) -> Bool {
        lock.acquire(owner: owner, offset: offset, length: length, isExclusive: isExclusive)
    }

    func release(_ owner: UInt32) -> [UInt32] {
        var granted: [UInt32] = []
        lock.release(owner: owner, granted: &granted)
        return granted
    }
}

@Suite struct RangeLockTests {
    @Test(arguments: [1, 2, 3, 4, 5, 6, 7, 8] as [UInt64])
    func agreesWithANaiveModelOnRandomRequests(seed: UInt64) {
        var random = XorShift(seed: seed &* 0x9E37_79B9)
        let lock = Lock()
        var model = NaiveLock()
        var owner: UInt32 = 0
        // Few blocks: everything overlaps. Many: hardly anything does.
        let span: UInt64 = [4, 8, 32, 512][Int(seed % 4)] * 4096
        for _ in 0..<4000 {
            let held = model.entries.filter(\.isHeld)
            if held.isEmpty || (model.entries.count < 40 && random.next() % 2 == 0) {
                owner += 1
                let offset = UInt64.random(in: 0..<span, using: &random)
                let length = UInt64.random(in: 1...16_384, using: &random)
                let isExclusive = random.next() % 3 != 0
                let got = lock.acquire(owner, offset, length, isExclusive: isExclusive)
                let expected = model.acquire(
                    owner: owner, offset: offset, length: length, isExclusive: isExclusive)
                #expect(got == expected)
            } else if let next = held.randomElement(using: &random) {
                let granted = lock.release(next.owner)
                let expected = model.release(owner: next.owner)
                #expect(granted == expected)
                // Numbers of owners grow with time: oldest first.
                #expect(granted == granted.sorted())
            }
            #expect(model.isExclusionKept && lock.count == model.entries.count)
        }
        drain(lock, &model)
    }

    /// When all that hold let go, everyone gets a turn: nobody starves.
    private func drain(_ lock: Lock, _ model: inout NaiveLock) {
        while let next = model.entries.first(where: \.isHeld) {
            let granted = lock.release(next.owner)
            let expected = model.release(owner: next.owner)
            #expect(granted == expected)
        }
        #expect(model.entries.isEmpty && lock.count == 0)
    }

    @Test func readerBehindAWaitingWriterDoesNotOvertakeIt() {
        let lock = Lock()
        #expect(lock.acquire(1, 0, 8192, isExclusive: false))
        #expect(!lock.acquire(2, 4096, 4096, isExclusive: true))
        #expect(!lock.acquire(3, 4096, 4096, isExclusive: false))
        // This one overlaps readers only.
        #expect(lock.acquire(4, 0, 4096, isExclusive: false))
        #expect(lock.release(4).isEmpty)
        #expect(lock.release(1) == [2])
        #expect(lock.release(2) == [3])
    }

    @Test func rangesThatDoNotOverlapNeverWait() {
        let lock = Lock()
        for owner in UInt32(0)..<64 {
            #expect(lock.acquire(owner, UInt64(owner) * 4096, 4096, isExclusive: true))
        }
        #expect(lock.count == 64)
    }

    @Test func rangesInOneBlockOverlapAlthoughTheirBytesDoNot() {
        let lock = Lock()
        #expect(lock.acquire(1, 0, 1, isExclusive: true))
        #expect(!lock.acquire(2, 4095, 1, isExclusive: true))
        #expect(!lock.acquire(3, 4095, 2, isExclusive: false))
        #expect(lock.acquire(4, 8192, 1, isExclusive: true))
    }

    @Test func manyReadersAreGrantedTogetherOldestFirst() {
        let lock = Lock()
        #expect(lock.acquire(9, 0, 1 << 20, isExclusive: true))
        for owner in UInt32(0)..<4 {
            #expect(!lock.acquire(owner, 4096, 4096, isExclusive: false))
        }
        #expect(lock.release(9) == [0, 1, 2, 3])
    }
}
