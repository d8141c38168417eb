import TestSupport
import Testing
import URing

private let pageBytes = 4096

/// What the pool promises, without a thought for speed: which pages are free.
private struct PageModel {
    var isTaken: [Bool]
    let largestBytes: Int

    init(capacityBytes: Int, largestBytes: Int) {
        isTaken = Array(repeating: false, count: capacityBytes / pageBytes)
        self.largestBytes = largestBytes
    }

    /// The next power of two of at least a page.
    static func pieceBytes(_ bytes: Int) -> Int {
        var piece = pageBytes
        while piece < bytes { piece *= 2 }
        return piece
    }

    /// Free pieces are always merged, so one is there exactly where an aligned run of its length is free.
    func hasRoom(for bytes: Int) -> Bool {
        let piece = Self.pieceBytes(bytes)
        guard piece <= largestBytes else { return false }
        let pages = piece / pageBytes
        return stride(from: 0, to: isTaken.count, by: pages).contains { start in
            !isTaken[start..<start + pages].contains(true)
        }
    }

    /// - Returns: whether all of these pages were in the other state before.
    mutating func mark(_ buffer: PooledBuffer, taken: Bool) -> Bool {
        let first = buffer.offset / pageBytes
        let range = first..<first + Self.pieceBytes(buffer.bytes) / pageBytes
        guard range.upperBound <= isTaken.count, !isTaken[range].contains(taken) else { return false }
        for page in range { isTaken[page] = taken }
        return true
    }

    var usedBytes: Int { isTaken.count { $0 } * pageBytes }
}

@Suite struct BufferPoolTests {
    /// Sizes from one byte to twice the largest piece, skewed to small ones, as requests are.
    private static func draw(_ random: inout XorShift, largestBytes: Int) -> Int {
        let ceiling = Int.random(in: 1...largestBytes, using: &random)
        switch Int.random(in: 0..<8, using: &random) {
        case 0: return PageModel.pieceBytes(ceiling)
        case 1: return PageModel.pieceBytes(ceiling) + 1
        case 2: return largestBytes + Int.random(in: 1...largestBytes, using: &random)
        case 3: return ceiling
        default: return Int.random(in: 0...min(ceiling, 64 << 10), using: &random)
        }
    }

    @Test(arguments: [
        (1, 1 << 20, 1 << 20), (2, 4 << 20, 1 << 20), (3, 3 << 20, 1 << 20), (4, 64 << 10, 4096),
        (5, 2 << 20, 64 << 10),
    ])
    func randomTakingAndGivingMatchesAPageByPageModel(seed: Int, capacityBytes: Int, largestBytes: Int) throws {
        var random = XorShift(seed: UInt64(seed))
        var pool = try BufferPool(capacityBytes: capacityBytes, largestBytes: largestBytes)
        var model = PageModel(capacityBytes: capacityBytes, largestBytes: largestBytes)
        var live: [(buffer: PooledBuffer, stamp: UInt64)] = []
        var refusals = 0
        for step in 0..<3000 {
            // The tendency changes, so that the pool runs full and runs empty.
            let isTaking = Int.random(in: 0..<10, using: &random) < (step / 300 % 2 == 0 ? 7 : 3)
            if isTaking || live.isEmpty {
                let bytes = Self.draw(&random, largestBytes: largestBytes)
                let expected = model.hasRoom(for: bytes)
                let taken = pool.take(bytes: bytes)
                try #require((taken != nil) == expected, "seed \(seed), step \(step), \(bytes) bytes")
                guard let buffer = taken else {
                    refusals += 1
                    continue
                }
                #expect(buffer.bytes == bytes)
                #expect(buffer.offset % PageModel.pieceBytes(bytes) == 0)
                let wasFree = model.mark(buffer, taken: true)
                try #require(wasFree, "seed \(seed), step \(step): overlap")
                let stamp = random.next()
                unsafe pool.pointer(buffer).storeBytes(of: stamp, as: UInt64.self)
                live.append((buffer, stamp))
            } else {
                let (buffer, stamp) = live.remove(at: Int.random(in: 0..<live.count, using: &random))
                let found = unsafe pool.pointer(buffer).load(as: UInt64.self)
                #expect(found == stamp, "seed \(seed), step \(step): somebody wrote into this piece")
                let wasTaken = model.mark(buffer, taken: false)
                #expect(wasTaken)
                pool.give(buffer)
            }
            let used = pool.usedBytes
            try #require(used == model.usedBytes, "seed \(seed), step \(step)")
        }
        #expect(refusals > 0, "the pool was never exhausted: the workload is too small")
        for (buffer, _) in live { pool.give(buffer) }
        try expectWhole(&pool, largestBytes: largestBytes)
    }

    /// Everything that was given back has become the largest pieces again.
    private func expectWhole(_ pool: inout BufferPool, largestBytes: Int) throws {
        let (used, capacity) = (pool.usedBytes, pool.capacityBytes)
        #expect(used == 0)
        var offsets: Set<Int> = []
        while let buffer = pool.take(bytes: largestBytes) { offsets.insert(buffer.offset) }
        #expect(offsets == Set(stride(from: 0, to: capacity, by: largestBytes)))
    }

    @Test func pieceOfAnySizeStartsOnAPage() throws {
        var pool = try BufferPool(capacityBytes: 1 << 20, largestBytes: 1 << 20)
        for bytes in [0, 1, 4095, 4096, 4097, 100_000] {
            let buffer = try takePiece(&pool, bytes: bytes)
            let address = unsafe UInt(bitPattern: pool.pointer(buffer))
            #expect(address % 4096 == 0)
        }
    }

    @Test(arguments: [
        (0, 4096), (1, 4096), (4096, 4096), (4097, 8192), (12_000, 16_384), (65_536, 65_536), (65_537, 131_072),
    ])
    func sizeIsRoundedUpToAPowerOfTwo(bytes: Int, piece: Int) throws {
        var pool = try BufferPool(capacityBytes: 1 << 20, largestBytes: 1 << 20)
        let taken = pool.take(bytes: bytes)
        let used = pool.usedBytes
        #expect(taken?.bytes == bytes)
        #expect(used == piece)
    }

    @Test func exhaustedPoolGivesNothingUntilAPieceComesBack() throws {
        var pool = try BufferPool(capacityBytes: 64 << 10, largestBytes: 16 << 10)
        var pieces: [PooledBuffer] = []
        while let piece = pool.take(bytes: 16 << 10) { pieces.append(piece) }
        #expect(pieces.count == 4)
        let one = pool.take(bytes: 1)
        #expect(one == nil)
        pool.give(pieces[2])
        let again = pool.take(bytes: 10_000)
        #expect(again?.offset == pieces[2].offset)
    }

    @Test func pieceLargerThanTheLargestIsRefusedByAnEmptyPool() throws {
        var pool = try BufferPool(capacityBytes: 1 << 20, largestBytes: 64 << 10)
        for bytes in [65_537, 131_072, 1 << 20, Int.max] {
            let piece = pool.take(bytes: bytes)
            #expect(piece == nil, "\(bytes) bytes")
        }
        let used = pool.usedBytes
        #expect(used == 0)
    }

    /// Pieces of two neighbouring largest ones must not be merged: together they would be larger than allowed.
    @Test func neighboursOfTheLargestSizeStayApart() throws {
        var pool = try BufferPool(capacityBytes: 32 << 10, largestBytes: 16 << 10)
        for _ in 0..<3 {
            var pieces: [PooledBuffer] = []
            while let piece = pool.take(bytes: 4096) { pieces.append(piece) }
            #expect(pieces.count == 8)
            for piece in pieces.reversed() { pool.give(piece) }
        }
        try expectWhole(&pool, largestBytes: 16 << 10)
    }

    @Test func lowestAddressesAreUsedFirst() throws {
        var pool = try BufferPool(capacityBytes: 1 << 20, largestBytes: 64 << 10)
        let first = pool.take(bytes: 64 << 10)
        let second = pool.take(bytes: 64 << 10)
        #expect(first?.offset == 0)
        #expect(second?.offset == 64 << 10)
    }

    @Test func pointerBehindThePieceStopsTheProgram() async {
        await #expect(processExitsWith: .failure) {
            var pool = try BufferPool(capacityBytes: 1 << 20, largestBytes: 1 << 20)
            guard let buffer = pool.take(bytes: 100) else { return }
            _ = unsafe pool.pointer(buffer, at: 101)
        }
    }
}
