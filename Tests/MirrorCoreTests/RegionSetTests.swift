import TestSupport
import Testing

@testable import MirrorCore

/// Does the same with a set of numbers, slowly and obviously.
private struct Model {
    let count: Int
    var members: Set<Int> = []

    func next(from region: Int) -> Int? { members.filter { $0 >= region }.min() }

    func endOfRun(from region: Int, limit: Int) -> Int {
        (region..<limit).first { !members.contains($0) } ?? limit
    }

    /// Word `index` of 64 regions.
    func word(_ index: Int) -> UInt64 {
        members.filter { $0 / 64 == index }.reduce(0) { $0 | 1 << UInt64($1 % 64) }
    }
}

@Suite struct RegionSetTests {
    /// Around the sizes of one and two words, and a few words.
    private static let counts = [1, 2, 63, 64, 65, 127, 128, 129, 400]

    private func agrees(_ set: RegionSet, _ model: Model) -> Bool {
        set.count == model.count && set.population == model.members.count && set.isEmpty == model.members.isEmpty
            && (0..<model.count).allSatisfy { set.contains($0) == model.members.contains($0) }
            && set.words.indices.allSatisfy { set.words[$0] == model.word($0) }
    }

    private func random(_ count: Int, using random: inout XorShift) -> (RegionSet, Model) {
        var set = RegionSet(count: count)
        var model = Model(count: count)
        // Few members as often as many.
        let chance = [2, 8, 64].randomElement(using: &random) ?? 2
        for region in 0..<count where Int.random(in: 0..<chance, using: &random) == 0 {
            set.insert(region)
            model.members.insert(region)
        }
        return (set, model)
    }

    private func range(_ count: Int, using random: inout XorShift) -> Range<Int> {
        let start = Int.random(in: 0...count, using: &random)
        return start..<Int.random(in: start...count, using: &random)
    }

    @Test(arguments: counts) func changesAgreeWithASetOfNumbers(count: Int) {
        var random = XorShift(seed: 0x5E7 + UInt64(count))
        var (set, model) = self.random(count, using: &random)
        for round in 0..<600 {
            let region = Int.random(in: 0..<count, using: &random)
            switch random.next() % 7 {
            case 0:
                set.insert(region)
                model.members.insert(region)
            case 1:
                set.remove(region)
                model.members.remove(region)
            case 2:
                let range = range(count, using: &random)
                set.insert(range)
                model.members.formUnion(range)
            case 3:
                let other = self.random(count, using: &random)
                set.formUnion(other.0)
                model.members.formUnion(other.1.members)
            case 4:
                let other = self.random(count, using: &random)
                set.formIntersection(other.0)
                model.members.formIntersection(other.1.members)
            case 5:
                let other = self.random(count, using: &random)
                set.subtract(other.0)
                model.members.subtract(other.1.members)
            default:
                changeWord(&set, &model, region / 64, random.next())
            }
            #expect(agrees(set, model), "round \(round)")
        }
    }

    /// Bits beyond the last region stay out.
    private func changeWord(_ set: inout RegionSet, _ model: inout Model, _ word: Int, _ bits: UInt64) {
        let named = (0..<64).filter { bits >> UInt64($0) & 1 != 0 }.map { word * 64 + $0 }.filter { $0 < model.count }
        if bits % 3 == 0 {
            set.setWord(word, bits)
            model.members = model.members.filter { $0 / 64 != word }
        } else {
            set.insertWord(word, bits)
        }
        model.members.formUnion(named)
    }

    @Test(arguments: counts) func questionsAgreeWithASetOfNumbers(count: Int) {
        var random = XorShift(seed: 0x5E8 + UInt64(count))
        for round in 0..<150 {
            let (set, model) = self.random(count, using: &random)
            let (other, otherModel) = self.random(count, using: &random)
            let range = range(count, using: &random)
            let region = Int.random(in: 0..<count, using: &random)
            let limit = Int.random(in: region...count, using: &random)
            let agrees =
                set.containsAll(of: range) == model.members.isSuperset(of: range)
                && set.containsAny(of: range) == !model.members.isDisjoint(with: range)
                && set.isSubset(of: other) == model.members.isSubset(of: otherModel.members)
                && (set == other) == (model.members == otherModel.members)
                && set.next(from: region) == model.next(from: region)
                && set.endOfRun(from: region, limit: limit) == model.endOfRun(from: region, limit: limit)
            #expect(agrees, "round \(round), range \(range), region \(region), limit \(limit)")
        }
    }

    @Test(arguments: counts) func fullSetHasEveryRegionAndNoMore(count: Int) {
        let set = RegionSet(count: count, isFull: true)
        #expect(set.population == count && set.containsAll(of: 0..<count) && set.next(from: count) == nil)
        #expect(set.isSubset(of: set) && RegionSet(count: count).isSubset(of: set))
        #expect(!set.isSubset(of: RegionSet(count: count)))
    }

    @Test func emptyRangeIsContainedInFullAndNotInPart() {
        let set = RegionSet(count: 100)
        for region in [0, 63, 64, 100] {
            #expect(set.containsAll(of: region..<region) && !set.containsAny(of: region..<region))
        }
    }

    @Test func pageHasTheWordsOfItsShare() {
        var set = RegionSet(count: 40_000)
        set.insert(32_255)
        set.insert(32_256)
        set.insert(39_999)
        #expect(set.page(0).count == 504 && set.page(0).last == 1 << 63)
        #expect(set.page(1).count == 121 && set.page(1).first == 1 && set.page(1).last == 1 << 63)
        #expect(set.page(2).isEmpty)
    }
}
