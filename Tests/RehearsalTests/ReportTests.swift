import Control
import Foundation
import Testing

@testable import Rehearsal

@Suite struct DrillReportTests {
    private func plex(_ outcomes: DrillReport.Outcome...) -> DrillReport.Plex {
        DrillReport.Plex(
            index: 0, disk: "/a",
            checks: outcomes.enumerated().map { .init($0 == 0 ? "copy" : "partition \($0)", $1, "text", action: "do") })
    }

    @Test(arguments: [
        ([DrillReport.Outcome.pass, .info], DrillReport.Outcome.pass, 0), ([.pass, .skipped], .inconclusive, 2),
        ([.skipped, .fail], .fail, 1), ([.inconclusive], .inconclusive, 2), ([.info], .pass, 0),
    ]) func worstCheckCounts(outcomes: [DrillReport.Outcome], whole: DrillReport.Outcome, code: Int) {
        let checks = outcomes.map { DrillReport.Check("c", $0, "") }
        let report = DrillReport(mirror: "m", plexes: [plex(.pass), .init(index: 1, disk: nil, checks: checks)])
        #expect((report.outcome, report.exitCode) == (whole, Int32(code)))
    }

    @Test func mirrorWithoutPlexesIsNoPass() {
        #expect(DrillReport(mirror: "m", plexes: []).exitCode == 2)
    }

    @Test func afterWritesOnlyTheStateOfAPlexCounts() {
        let disturbance = (reason: "written", action: "again")
        let report = DrillReport(
            mirror: "m", plexes: [plex(.pass, .pass, .fail, .info, .skipped)], disturbance: disturbance)
        #expect(
            report.plexes[0].checks.map(\.outcome) == [.pass, .inconclusive, .inconclusive, .inconclusive, .skipped])
        #expect((report.outcome, report.exitCode, report.reason) == (.inconclusive, 2, "written"))
        #expect(DrillReport(mirror: "m", plexes: [plex(.fail, .pass)], disturbance: disturbance).exitCode == 1)
    }

    @Test func absentValuesAreNullInJSON() throws {
        let report = DrillReport(
            mirror: "m", plexes: [.init(index: 1, disk: nil, checks: [.init("copy", .pass, "good")])])
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        let text = String(decoding: try encoder.encode(report), as: UTF8.self)
        #expect(
            text
                == #"{"action":null,"mirror":"m","outcome":"pass","plexes":[{"checks":[{"action":null,"name":"copy","outcome":"pass","text":"good"}],"disk":null,"index":1,"outcome":"pass"}],"reason":null,"version":1}"#
        )
    }
}

@Suite struct StillnessTests {
    private func latency(writes: UInt64) -> StatusReport.Latency {
        func report(_ requests: UInt64) throws -> LatencyReport {
            try JSONDecoder().decode(
                LatencyReport.self,
                from: Data(#"{"requests":\#(requests),"bytes":\#(requests * 512),"histogram":[]}"#.utf8))
        }
        do {
            return StatusReport.Latency(
                read: try report(writes * 7), write: try report(writes), zero: try report(0), flush: try report(writes))
        } catch {
            preconditionFailure("\(error)")
        }
    }

    private func mirror(writes: UInt64 = 5, _ change: (inout StatusReport.Mirror) -> Void = { _ in })
        -> StatusReport.Mirror
    {
        var mirror = StatusReport.Mirror(name: "data", uuid: "u", size: 1 << 20, state: "healthy")
        mirror.latency = latency(writes: writes)
        mirror.plexes = (0..<2).map { index in
            var plex = StatusReport.Plex(
                index: index, uuid: "p\(index)", disk: "/\(index)", state: "in-sync", reason: nil, io: nil,
                readErrors: 0,
                writeErrors: 0, corrected: 0, spared: 0, sparesFree: 0)
            plex.latency = latency(writes: writes)
            return plex
        }
        change(&mirror)
        return mirror
    }

    private func disturbance(_ now: StatusReport.Mirror, server: Int32 = 1) -> String? {
        Stillness(now, server: server).disturbance(since: Stillness(mirror(), server: 1))?.reason
    }

    @Test func readsFlushesAndClientsAreNoDisturbance() {
        #expect(disturbance(mirror()) == nil)
        let read = mirror { mirror in
            mirror.clients = 3
            mirror.latency?.read = latency(writes: 9).read
            mirror.plexes[0].latency?.read = latency(writes: 9).read
            mirror.plexes[1].latency?.flush = latency(writes: 9).flush
            mirror.plexes[1].latency?.metadata = latency(writes: 9).write
        }
        #expect(disturbance(read) == nil)
    }

    @Test func writesAreADisturbance() {
        let said = "the mirror was written during the drill"
        #expect(disturbance(mirror(writes: 6)) == said)
        #expect(disturbance(mirror { $0.latency?.zero = latency(writes: 1).write }) == said)
        // A repair, or a block that is put back: no client wrote.
        #expect(disturbance(mirror { $0.plexes[1].latency?.write = latency(writes: 6).write }) == said)
    }

    @Test func changesOfStateAreADisturbance() {
        let said = "the mirror or one of its plexes changed its state during the drill"
        #expect(disturbance(mirror(), server: 2) == said)
        #expect(disturbance(mirror { $0.plexes[1].state = "failed" }) == said)
        #expect(disturbance(mirror { $0.plexes[1].remapped = 1 }) == said)
        #expect(disturbance(mirror { $0.plexes.removeLast() }) == said)
        #expect(disturbance(mirror { $0.state = "suspended" }) == said)
    }

    @Test func requestsUnderWayAreSeen() {
        #expect(!Stillness.hasRequests(mirror()))
        #expect(Stillness.hasRequests(mirror { $0.queueDepth = 1 }))
        #expect(Stillness.hasRequests(mirror { $0.plexes[0].queueDepth = 1 }))
        #expect(
            !Stillness.hasRequests(
                mirror { mirror in
                    mirror.plexes[0].state = "rebuilding"
                    mirror.plexes[0].queueDepth = 1
                }))
    }

    @Test func stateOfAPlexIsJudged() {
        func judge(_ change: (inout StatusReport.Plex) -> Void) -> DrillReport.Check {
            MirrorToDrill(mirror { change(&$0.plexes[1]) }).plexes[1].copy
        }
        #expect(judge { _ in }.outcome == .pass)
        for state in ["stale", "rebuilding", "missing", "failed", "offline", "foreign"] {
            #expect(judge { $0.state = state }.outcome == .fail)
        }
        let remapped = judge { $0.remapped = 3 }
        #expect(remapped.outcome == .fail && remapped.text.hasPrefix("3 blocks of 4 KiB lie in the spare pool"))
        #expect(remapped.action?.contains("plexus reactivate data 1") == true)
        let bad = judge { $0.badRanges = [[4096, 8192], [65536, 4096]] }
        #expect(bad.outcome == .fail && bad.text == "8192 bytes at 4096 and 1 more ranges can't be read from it")
    }
}

@Suite struct SystemPartitionTests {
    /// "MZ", at 0x3C where "PE" lies, and behind that the machine.
    private func image(machine: UInt16, at place: UInt32 = 0x80) -> [UInt8] {
        var image = [UInt8](repeating: 0, count: 512)
        store(UInt16(0x5A4D), 0, &image)
        store(place, 0x3C, &image)
        store(UInt32(0x4550), 0x80, &image)
        store(machine, 0x84, &image)
        return image
    }

    @Test func programsForOtherMachinesAreNone() {
        #expect(SystemPartition.fault(ofImage: image(machine: 0x8664), machine: "X64") == nil)
        #expect(SystemPartition.fault(ofImage: image(machine: 0xAA64), machine: "AA64") == nil)
        #expect(
            SystemPartition.fault(ofImage: image(machine: 0xAA64), machine: "X64")
                == "is a program for AA64, not for X64")
        #expect(
            SystemPartition.fault(ofImage: image(machine: 0x1234), machine: "X64")
                == "is a program for machine type 0x1234, not for X64")
        #expect(SystemPartition.fault(ofImage: image(machine: 0x8664, at: .max), machine: "X64") == "is no EFI program")
        #expect(SystemPartition.fault(ofImage: image(machine: 0x8664, at: 507), machine: "X64") == "is no EFI program")
        for count in [0, 1, 63] {
            #expect(
                SystemPartition.fault(ofImage: Array(image(machine: 0x8664).prefix(count)), machine: "X64")
                    == "is no program")
        }
    }

    @Test func commandsAreQuotedForAShell() {
        #expect(
            BootEntries.command("/dev/sda", 1, "data plex 0", "\\EFI\\debian\\shimx64.efi")
                == #"efibootmgr --create --edd 3 --disk /dev/sda --part 1 --label 'data plex 0' --loader '\EFI\debian\shimx64.efi'"#
        )
        #expect(BootEntries.quoted("a'; rm -rf ~; '") == #"'a'\''; rm -rf ~; '\'''"#)
        #expect(BootEntries.quoted("") == "''")
    }

    @Test func textOfOthersCanNotControlATerminal() {
        #expect(printable("\u{1B}[2J\u{1B}[0;32mok\u{1B}[0m \u{7}\u{9B}31mdone\n") == "ok 31mdone")
        #expect(printable(String(repeating: "x", count: 5000)).count == 400)
    }
}
