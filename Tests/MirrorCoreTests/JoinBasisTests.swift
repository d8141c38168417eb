import MirrorFormat
import Testing

@testable import MirrorCore

extension JoinBasis {
    fileprivate var evidence: PlexEvidence? { if case .evidence(let evidence) = self { evidence } else { nil } }
    fileprivate var reason: String? { if case .everything(let reason) = self { reason } else { nil } }
}

/// 64 regions of 64 KiB in one page; plex 1 comes back to plex 0.
@Suite struct JoinBasisTests {
    private static let fresh = freshRecord(regionBytes: 64 << 10)

    private func basis(
        of own: Record, joining record: Record, _ change: (inout DiskImage) -> Void = { _ in }
    ) throws -> JoinBasis {
        let found = try foundWithPages(1, own, change)
        return JoinBasis(found.superblock, found.pages, joining: record)
    }

    private func list(_ set: RegionSet?) -> [Int] {
        set.map { set in (0..<set.count).filter { set.contains($0) } } ?? []
    }

    // MARK: a plex of this mirror

    @Test func memberShowsItsEpochItsPagesAndItsOwnBits() throws {
        let own = Self.fresh.changed {
            $0.epoch = 5
            $0.isClean = false
        }
        let basis = try basis(of: own, joining: own.next(2, roles: [1: .failed])) {
            $0.setPage(sheet: 0, regions: [4, 60], sequence: 33, of: own)
        }
        let evidence = try #require(basis.evidence)
        #expect(evidence.epoch == 5 && evidence.sequence == 33 && evidence.listsItselfInSync)
        #expect(list(evidence.changes) == [4, 60])
    }

    @Test func memberThatKnowsItIsOutDoesNotListItself() throws {
        let record = Self.fresh.next(2, roles: [1: .failed])
        #expect(try basis(of: record, joining: record).evidence?.listsItselfInSync == false)
    }

    @Test func damagedPageOfAnUncleanMemberCountsAsChangedInFull() throws {
        // The bitmap alone: a map that no record names is not asked.
        for (isClean, expected) in [(false, 64), (true, 0)] {
            let basis = try basis(of: Self.fresh.changed { $0.isClean = isClean }, joining: Self.fresh) {
                $0.damagePage(sheet: 0)
            }
            #expect(basis.evidence?.changes.population == expected)
        }
    }

    @Test func memberWithoutAnyReadablePageGetsEverything() throws {
        let basis = try basis(of: Self.fresh, joining: Self.fresh) { image in
            for sheet in 0..<8 { image.damagePage(sheet: sheet) }
        }
        #expect(basis.reason == "its bitmap can't be read")
        let notRead = JoinBasis(try found(1, Self.fresh).superblock, nil, joining: Self.fresh)
        #expect(notRead.reason == "its bitmap can't be read")
    }

    @Test func memberLastUsedBySoftwareWithoutBitmapGetsEverything() throws {
        var found = try foundWithPages(1, Self.fresh)
        found.superblock.tracksWrites = false
        let basis = JoinBasis(found.superblock, found.pages, joining: Self.fresh)
        #expect(basis.reason == "it was last used by a version that counted no missed writes")
    }

    @Test func plexOfAnotherMirrorGetsEverything() throws {
        let other = Self.fresh.changed { $0.mirror = MirrorUUID(UUID128(high: 5, low: 5)) }
        #expect(try basis(of: other, joining: Self.fresh).reason == "it belonged to another mirror")
    }

    /// Seed 45880: it had gone on alone, and then lost the superblocks that told of it.
    @Test func memberWhosePagesAreOfAnEraThatItsSuperblockDoesNotKnowGetsEverything() throws {
        let later = Self.fresh.next(7)
        let record = Self.fresh.next(2, roles: [1: .failed])
        for (era, expected) in [(later, true), (Self.fresh, false), (record, false)] {
            let basis = try basis(of: Self.fresh, joining: record) {
                $0.setPage(sheet: 0, regions: [4], sequence: 33, of: era)
            }
            #expect((basis.reason == "its bitmap was written in a later state than its superblocks show") == expected)
        }
    }

    /// The era in which it was expelled ended with epoch 1. Epoch 2 may be a record that nobody else got.
    @Test func memberThatWentOnInAnEraAfterItsEndIsAnotherSide() throws {
        let record = Self.fresh.next(2, roles: [1: .failed])
        let cutOff = Self.fresh.changed { $0.epoch = 2 }
        #expect(try basis(of: cutOff, joining: record).evidence?.epoch == 2)
        let wentOn = Self.fresh.changed { $0.epoch = 3 }
        let reason = try basis(of: wentOn, joining: record).reason
        #expect(reason == "nobody counted what it changed while it went on alone")
    }

    // MARK: a copy that was broken off

    private func copy(_ change: (inout Record) -> Void = { _ in }) throws -> JoinBasis {
        var own = freshRecord([.inSync], regionBytes: 64 << 10).changed {
            $0.mirror = MirrorUUID(UUID128(high: 7, low: 7))
            $0.parent = Record.Ancestry(mirror: Self.fresh.mirror, generation: era(1), epoch: 12)
        }
        change(&own)
        // The bitmap is the one of the mirror that it came from.
        var image = DiskImage(try found(1, Self.fresh).superblock)
        image.setPage(sheet: 0, regions: [9], sequence: 44, of: Self.fresh)
        let superblock = Superblock(
            record: own, plex: plexUUID(1), sequence: 9, layout: image.layout, writer: .none)
        return JoinBasis(superblock, image.pages(of: superblock, mirror: own.parent?.mirror), joining: Self.fresh)
    }

    @Test func copyThatWasNeverServedShowsTheStateInWhichItLeft() throws {
        let evidence = try #require(try copy().evidence)
        #expect(evidence.epoch == 12 && evidence.sequence == 44 && evidence.changes.isEmpty)
        #expect(evidence.listsItselfInSync)
    }

    @Test func copyThatWasServedGetsEverything() throws {
        let used = "it was used as a mirror of its own"
        #expect(try copy { $0.epoch = 2 }.reason == used)
        #expect(try copy { $0.isClean = false }.reason == used)
    }

    @Test func copyOfACopyGetsEverything() throws {
        let stranger = MirrorUUID(UUID128(high: 8, low: 8))
        #expect(try copy { $0.parent?.mirror = stranger }.reason != nil)
        #expect(try copy { $0.parent = nil }.reason != nil)
    }
}

/// Both sides went on alone; what the returning one wrote since has to be copied back over it.
@Suite struct JoinBasisAfterASplitTests {
    private static let fresh = freshRecord([.inSync, .inSync, .inSync], regionBytes: 64 << 10)
    /// The side that is kept: plexes 0 and 2.
    private static let kept = fresh.next(2, roles: [1: .failed])

    /// Plex 1 alone; it recorded at this epoch, in the era of this number, that the others are gone.
    private func alone(_ number: UInt64 = 3, slot: UInt8 = 1, epoch: UInt64 = 1) -> Record {
        Self.fresh.next(number, roles: [0: .failed, 2: .failed]).changed { record in
            record[PlexIndex(0)].missedWriteMap = MissedWriteMap(
                slot: slot, id: 100 + UInt64(slot), startsFull: false, epoch: epoch, lastClear: 0)
        }
    }

    private func basis(of own: Record, _ change: (inout DiskImage) -> Void = { _ in }) throws -> JoinBasis {
        let found = try foundWithPages(1, own, change)
        return JoinBasis(found.superblock, found.pages, joining: Self.kept)
    }

    private func list(_ set: RegionSet?) -> [Int] {
        set.map { set in (0..<set.count).filter { set.contains($0) } } ?? []
    }

    @Test func changesAreItsOwnBitsAndWhatItCountedForTheKeptSide() throws {
        let own = alone().changed { $0.isClean = false }
        let evidence = try #require(
            try basis(of: own) { image in
                image.setPage(sheet: 0, regions: [3], of: own)
                image.setPage(sheet: 2, regions: [20, 21], absence: 101, of: own)
                // Of an earlier absence, and of nobody.
                image.setPage(sheet: 3, regions: [40], absence: 99, of: own)
            }.evidence)
        #expect(list(evidence.changes) == [3, 20, 21])
    }

    @Test func damagedPageOfThatMapCountsInFull() throws {
        let evidence = try basis(of: alone()) { $0.damagePage(sheet: 2) }.evidence
        #expect(evidence?.changes.population == 64)
    }

    @Test func mapsOfSeveralPlexesOfTheKeptSideAreUnited() throws {
        let own = alone().changed { record in
            record[PlexIndex(2)].missedWriteMap = MissedWriteMap(
                slot: 4, id: 104, startsFull: false, epoch: 1, lastClear: 0)
        }
        let evidence = try basis(of: own) { image in
            image.setPage(sheet: 2, regions: [20], absence: 101, of: own)
            image.setPage(sheet: 5, regions: [30], absence: 104, of: own)
        }.evidence
        #expect(list(evidence?.changes) == [20, 30])
    }

    /// It went on alone in two steps: what it counts since the second is not all.
    @Test func mapThatBeganAfterTheSidesPartedIsNotEnough() throws {
        var own = Self.fresh.next(3, roles: [2: .failed])
        own = own.next(4, roles: [0: .failed]).changed { record in
            record[PlexIndex(0)].missedWriteMap = MissedWriteMap(
                slot: 1, id: 101, startsFull: false, epoch: 2, lastClear: 0)
        }
        #expect(try basis(of: own).reason == "nobody counted what it changed while it went on alone")
    }

    @Test func mapOfTheFirstThatLeftIsEnoughAlthoughAnotherLeftLater() throws {
        var own = Self.fresh.next(3, roles: [2: .failed]).changed { record in
            record[PlexIndex(2)].missedWriteMap = MissedWriteMap(
                slot: 0, id: 100, startsFull: false, epoch: 1, lastClear: 0)
        }
        own = own.next(4, roles: [0: .failed]).changed { record in
            record[PlexIndex(0)].missedWriteMap = MissedWriteMap(
                slot: 1, id: 101, startsFull: false, epoch: 2, lastClear: 0)
        }
        let evidence = try basis(of: own) { image in
            image.setPage(sheet: 1, regions: [20, 30], absence: 100, of: own)
            image.setPage(sheet: 2, regions: [30], absence: 101, of: own)
        }.evidence
        #expect(list(evidence?.changes) == [20, 30])
    }

    @Test func sideThatCountedNothingGetsEverything() throws {
        let own = Self.fresh.next(3, roles: [0: .failed, 2: .failed])
        #expect(try basis(of: own).reason == "nobody counted what it changed while it went on alone")
    }

    @Test func sideWithoutACommonAncestorGetsEverything() throws {
        let own = alone().changed { $0.history = [] }
        #expect(try basis(of: own).reason == "nobody counted what it changed while it went on alone")
    }
}
