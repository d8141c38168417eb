import MirrorFormat
import Testing

@testable import MirrorCore

@Suite struct RegressionTests {
    /// R6.
    @Test func slowIdleFlushDoesNotVouchForAWriteThatCameAfterIt() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.tick()
        bench.tick(afterMilliseconds: 5000)
        #expect(bench.waiting(.flush).count == 2)
        // The disks take long. A write comes, and is done.
        bench.send(1, .write)
        bench.settle(holding: { $0.kind == .flush })
        #expect(bench.replies[1] == .ok)
        bench.tick(afterMilliseconds: 5000)
        bench.settle(holding: { $0.kind == .flush })
        // The flush issued before the write ends. It says nothing about the write.
        bench.complete(.flush, on: 0)
        bench.complete(.flush, on: 1)
        bench.settle(holding: { $0.kind == .flush })
        #expect(bench.intent(0) == [0] && bench.intent(1) == [0])
    }

    /// R11. A disk that took the second try and was then lost must not pass for one that went on alone.
    @Test func recordThatIsTriedInAnotherVersionSaysHowManyWereTriedBefore() throws {
        let bench = try MirrorBench()
        bench.settle()
        let epoch = bench.record.epoch
        bench.send(2, .read, 1 << 20)
        bench.send(1, .write)
        bench.settle(holding: { $0.kind == .read }, failing: { $0.isSuperblock ? .media : nil })
        #expect(bench.record.epoch == epoch + 1 && bench.replies[1] == nil)
        // The same again keeps its number, another one does not.
        bench.tick(afterMilliseconds: 10_000)
        bench.settle(holding: { $0.kind == .read }, failing: { $0.isSuperblock ? .media : nil })
        #expect(bench.record.epoch == epoch + 1 && bench.record.unconfirmed == 0)
        #expect(bench.complete(.read, on: 0, failing: .media) || bench.complete(.read, on: 1, failing: .media))
        bench.tick(afterMilliseconds: 10_000)
        bench.settle(failing: { $0.isSuperblock ? .media : nil })
        #expect(bench.record.epoch == epoch + 2 && bench.record.unconfirmed == 1)
        bench.tick(afterMilliseconds: 10_000)
        bench.settle()
        #expect(bench.recorded(0)?.epoch == epoch + 2 && bench.recorded(1)?.unconfirmed == 1)
        #expect(bench.replies[1] == .ok)
        bench.command(.takeOffline(PlexIndex(1)))
        bench.settle()
        #expect(bench.recorded(0)?.epoch == epoch + 3 && bench.recorded(0)?.unconfirmed == 0)
    }

    /// R8.
    @Test func breakWhoseFlushFailsExpelsThePlex() throws {
        let bench = try MirrorBench()
        bench.dirty()
        bench.command(.breakOff(PlexIndex(1), name: "c"))
        bench.settle(failing: { $0.kind == .flush ? .media : nil })
        #expect(bench.recorded(0)?.inSync == set(0))
    }

    /// `Effect.stopped`: "nothing more will come; all disks are released".
    @Test func stoppedComesAfterTheLastRelease() throws {
        let bench = try MirrorBench(freshRecord([.inSync, .inSync, .inSync]))
        bench.dirty()
        bench.send(1, .write)
        bench.settle(failing: { $0.plex == 2 ? .media : nil })
        bench.tick()
        #expect(!bench.waiting(.writeMetadata).isEmpty)
        bench.command(.stop)
        bench.settle(holding: { $0.kind == .writeMetadata && !$0.isSuperblock })
        bench.settle()
        #expect(bench.trace.last == .stopped)
    }

    /// a name that no superblock can carry.
    @Test(arguments: ["", "a\0b"]) func breakToANameThatCannotBeReadBackIsRefused(name: String) throws {
        let bench = try MirrorBench()
        let id = bench.command(.breakOff(PlexIndex(1), name: name))
        bench.settle()
        #expect(bench.answers[id]?.isRefused == true)
        if case .found(let superblock) = bench.scan(1) { #expect(superblock.record.name == name) }
    }

    @Test func breakToANameTooLongIsRefused() async {
        await #expect(processExitsWith: .success) {
            let bench = try MirrorBench()
            bench.command(.breakOff(PlexIndex(1), name: String(repeating: "n", count: 64)))
            bench.settle()
        }
    }

    /// more eras than the ring of history holds.
    @Test func plexThatHasBeenOutForLongDoesNotStopTheMirrorFromStarting() throws {
        var record = freshRecord([.inSync, .inSync, .inSync])
        let old = record
        record = record.next(2, roles: [1: .offline])
        for number in UInt64(3)...20 {
            record = record.next(number, because: .brokenOff, roles: [2: .brokenOff])
            record = record.changed { $0[PlexIndex(2)].role = .inSync }
        }
        let verdict = assemble([try found(0, record), try found(1, old), try found(2, record)])
        #expect(verdict.assembly?.current == set(0, 2), "\(String(describing: verdict.refusal))")
    }

    /// a client's flush on the wire while a plex is promoted, failing on the old plex only.
    @Test func flushFailureIsNotBlamedOnAPlexThatWasNotAsked() throws {
        let bench = try MirrorBench(freshRecord([.inSync, .failed]), present: set(0))
        bench.dirty()
        bench.send(1, .flush, 0, 0)
        bench.command(.join(PlexIndex(1), try newDisk()))
        bench.tick()
        bench.settle(holding: { $0.kind == .flush && $0.plex == 0 })
        #expect(bench.record.inSync == set(0, 1))
        bench.complete(.flush, on: 0, failing: .media)
        bench.settle()
        bench.send(2, .flush, 0, 0)
        bench.settle()
        #expect(bench.replies[2] == .ok)
    }

    /// R10. The flush of the promotion was issued before a window was copied again.
    @Test func promotionIsNotFlushedBeforeItsLastWindow() throws {
        let bench = try MirrorBench(freshRecord([.inSync, .failed]), present: set(0))
        bench.dirty()
        bench.command(.join(PlexIndex(1), try newDisk()))
        bench.tick()
        bench.settle(holding: { $0.kind == .flush })
        #expect(bench.waiting(.flush).map(\.plex) == [1])
        // A write fails on the source and succeeds on the target: the window is copied again.
        bench.send(1, .write, 4096)
        bench.settle(holding: { $0.kind == .flush }, failing: { $0.plex == 0 && $0.kind == .write ? .media : nil })
        bench.tick()
        bench.clearTrace()
        bench.settle(holding: { $0.kind == .flush })
        bench.complete(.flush, on: 1)
        bench.settle(holding: { $0.kind == .flush })
        #expect(bench.record.inSync == set(0), "promoted; flushes since the copy: \(bench.submitted(.flush).count)")
    }

    /// A stop gave up while windows of the resync were being read, and then wrote them to a disk that was closed.
    @Test func stopThatCannotBeRecordedWaitsForTheWindowsOfTheResync() throws {
        var limits = Limits()
        limits.resyncWindowsIdle = 2
        let bench = try MirrorBench(freshRecord([.inSync, .failed]), present: set(0), limits: limits)
        bench.command(.join(PlexIndex(1), try newDisk()))
        bench.tick()
        bench.settle(holding: { $0.kind == .read })
        #expect(bench.waiting(.read).count == 2)
        // The dirty mark for this write is on its way when the stop comes, and can't be written.
        bench.send(1, .write, 3 << 20)
        bench.command(.stop)
        let dead: (MirrorBench.Operation) -> DiskFailure? = { $0.isSuperblock && $0.plex == 0 ? .media : nil }
        bench.settle(holding: { $0.kind == .read }, failing: dead)
        #expect(bench.replies[1] == .ioError && !bench.isStopped && bench.released.isEmpty)
        bench.settle(failing: dead)
        bench.tick(afterMilliseconds: 1000)
        bench.settle(failing: dead)
        #expect(bench.isStopped)
        let closed = try #require(bench.position { $0 == .release(PlexIndex(1)) })
        let late = bench.trace[closed...].contains { step in
            if case .submit(let operation) = step { operation.plex == 1 } else { false }
        }
        #expect(!late)
    }

    /// Two servers were cut off in the middle of the update of the same number; the sectors of both made a fork.
    @Test func serverDoesNotUseTheNumberThatTheLastOneMayHaveBegun() throws {
        let bench = try MirrorBench()
        bench.dirty()
        for plex in 0...1 {
            guard case .found(let superblock) = bench.scan(plex) else { throw Missing() }
            // It was 1: the other pair of copies, but not number 2.
            #expect(superblock.sequence > 2 && superblock.sequence % 2 == 0)
        }
    }
}
