import TestSupport
import Testing

@testable import MirrorFormat

@Suite struct RecordTests {
    private func record() -> Record {
        Record(
            mirror: Golden.mirror, name: "r", dataBytes: 1 << 20, regionBytes: 1 << 20,
            generation: Generation(UUID128(high: 0, low: 1)),
            members: [
                Member(uuid: PlexUUID(UUID128(high: 1, low: 1)), role: .inSync),
                Member(uuid: PlexUUID(UUID128(high: 2, low: 2)), role: .stale),
            ], time: 5)
    }

    @Test func beginMovesThePresentEraToTheFrontOfTheHistory() {
        var record = record()
        record.epoch = 7
        record.begin(Generation(UUID128(high: 0, low: 2)), because: .expelled, inSync: PlexSet(mask: 3), time: 99)
        #expect(record.generation == Generation(UUID128(high: 0, low: 2)) && record.epoch == 7)
        #expect(
            record.history == [
                PastGeneration(
                    generation: Generation(UUID128(high: 0, low: 1)), epoch: 7, endTime: 99, reason: .expelled,
                    inSync: PlexSet(mask: 3))
            ])
    }

    @Test func historyKeepsTheSixteenNewestEras() {
        var record = record()
        for number in UInt64(2)...40 {
            record.epoch += 1
            record.begin(Generation(UUID128(high: 0, low: number)), because: .expelled, inSync: .empty, time: 0)
            #expect(record.history.count == min(Int(number) - 1, 16))
        }
        #expect(record.history.map(\.generation.bits.low) == Array((24...39).reversed()))
        #expect(record.knows(Generation(UUID128(high: 0, low: 24))))
        #expect(!record.knows(Generation(UUID128(high: 0, low: 23))))
        #expect(record.knows(record.generation))
    }

    @Test func setsFollowTheRoles() {
        var record = record()
        #expect(record.members.count == 8 && record.inSync == PlexSet(mask: 1) && record.configured == PlexSet(mask: 3))
        record[PlexIndex(1)].role = .inSync
        #expect(record.inSync == PlexSet(mask: 3) && record.plexes(in: .stale).isEmpty)
        record[PlexIndex(0)] = .absent
        #expect(record.configured == PlexSet(mask: 2))
    }

    /// The era ended with epoch 7. A record of epoch 8 may be one that power failed on; who has written another did go on.
    @Test(arguments: [(1, true), (7, true), (8, true), (9, false), (1000, false)] as [(UInt64, Bool)])
    func recordOfAPastEraIsAnAncestorUpToOneEpochBehindItsEnd(epoch: UInt64, isAncestor: Bool) {
        var other = record()
        other.epoch = epoch
        var record = record()
        record.epoch = 7
        for number in UInt64(2)...5 {
            record.begin(Generation(UUID128(high: 0, low: number)), because: .expelled, inSync: .empty, time: 0)
            record.epoch += 100
        }
        #expect(record.descends(from: other) == isAncestor && record.knows(other.generation))
        // It is of the same era, whoever is ahead.
        other.generation = record.generation
        #expect(record.descends(from: other))
        other.generation = Generation(UUID128(high: 0, low: 99))
        #expect(!record.descends(from: other) && !record.knows(other.generation))
    }

    /// Epochs 8 and 9 were tried and reached nobody as far as the server knew; epoch 10 is the one this disk has.
    @Test(
        arguments: [(10, 0, false), (10, 1, false), (10, 2, true), (11, 2, false), (11, 3, true)]
            as [(UInt64, UInt64, Bool)])
    func triesThatReachedNobodyAreNoProofOfGoingOn(epoch: UInt64, unconfirmed: UInt64, isAncestor: Bool) {
        var other = record()
        other.epoch = epoch
        other.unconfirmed = unconfirmed
        var record = record()
        record.epoch = 7
        record.begin(Generation(UUID128(high: 0, low: 2)), because: .expelled, inSync: .empty, time: 0)
        #expect(record.descends(from: other) == isAncestor)
    }

    @Test func indexOfAnAbsentMemberIsNil() {
        var record = record()
        #expect(record.index(of: PlexUUID(UUID128(high: 2, low: 2))) == PlexIndex(1))
        #expect(record.index(of: PlexUUID(.zero)) == nil)
        record[PlexIndex(1)].role = .absent
        #expect(record.index(of: PlexUUID(UUID128(high: 2, low: 2))) == nil)
    }
}

@Suite struct UUID128Tests {
    @Test func descriptionIsTheInverseOfParsing() {
        var random = XorShift(seed: 0x1D)
        for _ in 0..<1000 {
            let uuid = random.uuid()
            #expect(uuid.description.count == 36)
            #expect(UUID128(uuid.description) == uuid && UUID128(uuid.description.uppercased()) == uuid)
        }
    }

    @Test func descriptionGroupsDigitsLikeAUUID() {
        #expect(Golden.mirror.description == "00112233-4455-6677-8899-aabbccddeeff")
        #expect(UUID128.zero.description == "00000000-0000-0000-0000-000000000000")
    }

    @Test(arguments: [
        "", "-", "0011223344556677889900aabbccddeeff", "00112233-4455-6677-8899-aabbccddeef",
        "00112233-4455-6677-8899-aabbccddeeff0", "00112233-4455-6677-8899-aabbccddeefg",
        "00112233-4455-6677-8899-aabbccddeef\u{e9}", "----00112233445566778899aabbccddeeff",
        "001122334455-6677-8899-aabb-ccddeeff", "{0112233-4455-6677-8899-aabbccddeeff",
    ])
    func anythingElseIsNoUUID(text: String) { #expect(UUID128(text) == nil) }

    @Test func orderIsThatOfTheText() {
        var random = XorShift(seed: 0x1E)
        for _ in 0..<1000 {
            let (first, second) = (random.uuid(), random.uuid())
            #expect((first < second) == (first.description < second.description))
        }
    }
}

@Suite struct PlexSetTests {
    @Test func algebraAgreesWithSetsForAllMasks() {
        func naive(_ set: PlexSet) -> Set<PlexIndex> { Set(set.members) }
        for left in UInt8.min...UInt8.max {
            let first = PlexSet(mask: left)
            let members = Array(first.members)
            #expect(members == (0..<PlexSet.capacity).map { PlexIndex($0) }.filter { first.contains($0) })
            #expect(first.count == members.count && first.isEmpty == members.isEmpty)
            #expect(first.first == members.first)
            var visited: [PlexIndex] = []
            first.forEach { visited.append($0) }
            #expect(visited == members)
            for right in stride(from: UInt8(0), through: 255, by: 5) {
                let second = PlexSet(mask: right)
                let agrees =
                    naive(first.union(second)) == naive(first).union(naive(second))
                    && naive(first.intersection(second)) == naive(first).intersection(naive(second))
                    && naive(first.subtracting(second)) == naive(first).subtracting(naive(second))
                    && first.isSubset(of: second) == naive(first).isSubset(of: naive(second))
                #expect(agrees, "\(left) \(right)")
            }
        }
    }

    @Test func insertAndRemoveChangeOneMember() {
        var set = PlexSet.empty
        for index in 0..<8 { set.insert(PlexIndex(index)) }
        #expect(set.mask == 255 && set.count == 8)
        set.remove(PlexIndex(3))
        set.remove(PlexIndex(3))
        #expect(!set.contains(PlexIndex(3)) && set.count == 7 && PlexSet(PlexIndex(3)).mask == 8)
    }

    @Test func indexBeyondSevenStopsTheProgram() async {
        await #expect(processExitsWith: .failure) { _ = PlexIndex(8) }
    }
}
