import MirrorFormat
import TestSupport
import Testing

@testable import MirrorCore

@Suite struct BufferPlanTests {
    struct Case: Sendable {
        var kind: RequestKind
        var offset: UInt64
        var length: UInt64
        /// Body offset and length, payload offset, cuts head, cuts tail, bytes of the buffer.
        var body: (UInt64, UInt64)
        var payload: UInt64
        var cuts: (Bool, Bool)
        var buffer: UInt64
    }

    static let cases: [Case] = [
        Case(kind: .write, offset: 0, length: 4096, body: (0, 4096), payload: 0, cuts: (false, false), buffer: 4096),
        Case(
            kind: .write, offset: 5000, length: 1000, body: (4096, 4096), payload: 904, cuts: (true, true),
            buffer: 12_288),
        Case(
            kind: .write, offset: 4096, length: 1, body: (4096, 4096), payload: 0, cuts: (false, true), buffer: 12_288),
        Case(
            kind: .write, offset: 8191, length: 1, body: (4096, 4096), payload: 4095, cuts: (true, false),
            buffer: 12_288),
        Case(
            kind: .write, offset: 4095, length: 2, body: (0, 8192), payload: 4095, cuts: (true, true), buffer: 16_384),
        Case(
            kind: .write, offset: 512, length: 8192, body: (0, 12_288), payload: 512, cuts: (true, true),
            buffer: 20_480),
        Case(
            kind: .write, offset: 4096, length: 5000, body: (4096, 8192), payload: 0, cuts: (false, true),
            buffer: 16_384),
        Case(
            kind: .read, offset: 5000, length: 1000, body: (4096, 4096), payload: 904, cuts: (true, true), buffer: 4096),
        Case(kind: .read, offset: 4095, length: 2, body: (0, 8192), payload: 4095, cuts: (true, true), buffer: 8192),
        Case(
            kind: .zeroes, offset: 5000, length: 1 << 20, body: (4096, (1 << 20) + 4096), payload: 904,
            cuts: (true, true), buffer: 8192),
        Case(
            kind: .zeroes, offset: 8192, length: 1 << 20, body: (8192, 1 << 20), payload: 0, cuts: (false, false),
            buffer: 0),
        Case(kind: .trim, offset: 5000, length: 1000, body: (4096, 4096), payload: 904, cuts: (true, true), buffer: 0),
        Case(kind: .flush, offset: 0, length: 0, body: (0, 0), payload: 0, cuts: (false, false), buffer: 0),
        Case(kind: .read, offset: 100, length: 0, body: (0, 0), payload: 100, cuts: (false, false), buffer: 0),
        Case(
            kind: .allocation, offset: 1, length: 4096, body: (0, 8192), payload: 1, cuts: (true, true), buffer: 0),
    ]

    @Test(arguments: cases) func requestIsWidenedToWholeBlocks(_ row: Case) {
        let plan = BufferPlan(row.kind, offset: row.offset, length: row.length)
        #expect(plan.bodyOffset == row.body.0 && plan.bodyLength == row.body.1)
        #expect(plan.payloadOffset == row.payload)
        #expect(plan.cutsHead == row.cuts.0 && plan.cutsTail == row.cuts.1)
        #expect(plan.bufferBytes == row.buffer)
    }

    @Test func payloadAlwaysLiesInsideTheBody() {
        var random = XorShift(seed: 0xB0F)
        for _ in 0..<10_000 {
            let (offset, length) = (random.next() % (1 << 40), 1 + random.next() % (32 << 20))
            let plan = BufferPlan(.write, offset: offset, length: length)
            let isInside =
                plan.bodyOffset % 4096 == 0 && plan.bodyLength % 4096 == 0
                && plan.bodyOffset + plan.payloadOffset == offset && plan.payloadOffset < 4096
                && plan.payloadOffset + length <= plan.bodyLength
                && plan.payloadOffset + length > plan.bodyLength - 4096
            #expect(isInside, "\(offset) \(length)")
        }
    }
}

@Suite struct DiskFailureTests {
    @Test(
        arguments: [
            (5, .media), (121, .media), (61, .media), (84, .media), (999, .media), (0, .media), (-1, .media),
            (28, .noSpace), (122, .noSpace), (27, .noSpace), (11, .transient), (4, .transient), (12, .transient),
            (16, .transient), (22, .unsupported), (95, .unsupported), (6, .gone), (19, .gone), (9, .gone), (107, .gone),
            (103, .gone), (116, .gone),
        ] as [(Int32, DiskErrorKind)])
    func errorNumberOfAFileIsClassified(number: Int32, kind: DiskErrorKind) {
        #expect(DiskFailure(errorNumber: number, isBlockDevice: false) == DiskFailure(kind: kind, errorNumber: number))
        // A pulled disk whose descriptor is open answers "no space".
        let onDisk: DiskErrorKind = kind == .noSpace ? .gone : kind
        #expect(DiskFailure(errorNumber: number, isBlockDevice: true).kind == onDisk)
    }

    @Test func transferOfNothingMeansTheDeviceIsGone() { #expect(DiskFailure.truncated.kind == .gone) }
}

@Suite struct DiskTagTests {
    @Test func everyPartComesBack() {
        for owner in [DiskTag.Owner.request, .commit, .eventLog, .detach] {
            for plex in 0..<8 {
                for (slot, number) in [(0, UInt32(0)), (65_535, .max), (1047, 7)] {
                    let made = DiskTag(owner: owner, plex: PlexIndex(plex), slot: slot, generation: number)
                    let tag = DiskTag(raw: made.raw)
                    #expect(tag.owner == owner && tag.plex == PlexIndex(plex))
                    #expect(tag.slot == slot && tag.generation == number)
                }
            }
        }
    }

    @Test func windowBuffersAreNamedApartFromClients() {
        for index in 0..<8 { #expect(BufferID.window(index).windowIndex == index) }
        #expect(
            BufferID.none.windowIndex == nil && BufferID(0).windowIndex == nil && BufferID(65_535).windowIndex == nil)
    }
}

@Suite struct EntropyTests {
    @Test func sameSeedGivesTheSameNumbers() {
        var (first, second, other) = (Entropy(1, 2, 3, 4), Entropy(1, 2, 3, 4), Entropy(1, 2, 3, 5))
        var differences = 0
        for _ in 0..<100 {
            let value = first.nextUUID()
            #expect(value == second.nextUUID())
            if value != other.nextUUID() { differences += 1 }
        }
        #expect(differences > 98)
    }

    /// The generator's own reference code, seeded with 1, 2, 3, 4.
    @Test func matchesTheReferenceImplementation() {
        var entropy = Entropy(1, 2, 3, 4)
        let numbers = (0..<4).map { _ in entropy.next() }
        #expect(numbers == [11_520, 0, 1_509_978_240, 1_215_971_899_390_074_240])
    }

    @Test func zeroSeedDoesNotGetStuck() {
        var entropy = Entropy(0, 0, 0, 0)
        let numbers = Set((0..<64).map { _ in entropy.next() })
        #expect(numbers.count > 32)
    }
}
