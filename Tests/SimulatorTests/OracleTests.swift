internal import Testing

@testable import Simulator

/// The judge is judged first.
@Suite("Oracle")
struct OracleTests {
    private func write(_ oracle: inout Oracle, _ number: UInt32) -> UInt32 {
        oracle.issue(0..<1, write: number, isZero: false)
    }

    private func legal(_ oracle: Oracle) -> [UInt32] {
        [0, 1, 2, 3].filter { oracle.isLegal($0 == 0 ? 0 : Geometry.stamp(write: $0, cell: 0), at: 0) }
    }

    @Test func unansweredWriteMayOrMayNotBeSeen() {
        var oracle = Oracle(cellCount: 1)
        _ = write(&oracle, 1)
        #expect(legal(oracle) == [0, 1])
    }

    @Test func acknowledgedWriteHidesOlderOnesUntilThePowerFails() {
        var oracle = Oracle(cellCount: 1)
        let issue = write(&oracle, 1)
        oracle.acknowledge(0..<1, issue: issue, isDurable: false)
        #expect(legal(oracle) == [1])
        oracle.crash(powerLost: false)
        #expect(legal(oracle) == [1])
        oracle.crash(powerLost: true)
        #expect(legal(oracle) == [0, 1])
    }

    @Test func flushedAndForcedWritesSurviveThePower() {
        var oracle = Oracle(cellCount: 1)
        let first = write(&oracle, 1)
        oracle.acknowledge(0..<1, issue: first, isDurable: false)
        oracle.flushed(since: oracle.clock)
        oracle.crash(powerLost: true)
        #expect(legal(oracle) == [1])
        let second = write(&oracle, 2)
        oracle.acknowledge(0..<1, issue: second, isDurable: true)
        oracle.crash(powerLost: true)
        #expect(legal(oracle) == [2])
    }

    @Test func flushCoversOnlyWhatWasAcknowledgedWhenItWasIssued() {
        var oracle = Oracle(cellCount: 1)
        let issue = write(&oracle, 1)
        let moment = oracle.clock
        oracle.acknowledge(0..<1, issue: issue, isDurable: false)
        oracle.flushed(since: moment)
        oracle.crash(powerLost: true)
        #expect(legal(oracle) == [0, 1])
    }

    @Test func valueSeenAfterACrashIsTheOnlyOneForEver() {
        var oracle = Oracle(cellCount: 1)
        _ = write(&oracle, 1)
        oracle.crash(powerLost: true)
        oracle.beginStart()
        oracle.observe(0, at: 0, pins: true)
        #expect(legal(oracle) == [0])
        oracle.crash(powerLost: true)
        #expect(legal(oracle) == [0])
    }

    @Test func strayValueIsReadInTurnWithTheRightOneUntilTheCellIsWrittenAgain() {
        var oracle = Oracle(cellCount: 2)
        let first = write(&oracle, 1)
        oracle.haunt(0, with: [0], from: .write(issue: first))
        oracle.acknowledge(0..<1, issue: first, isDurable: false)
        oracle.flushed(since: oracle.clock)
        for stamp in legal(oracle) { oracle.observe(stamp, at: 0, pins: true) }
        #expect(legal(oracle) == [0, 1] && oracle.isHaunted(0) && !oracle.isHaunted(1))
        let second = write(&oracle, 2)
        oracle.acknowledge(0..<1, issue: second, isDurable: false)
        #expect(legal(oracle) == [2])
        oracle.crash(powerLost: true)
        #expect(legal(oracle) == [0, 1, 2])
        let third = write(&oracle, 3)
        oracle.acknowledge(0..<1, issue: third, isDurable: true)
        #expect(legal(oracle) == [3] && !oracle.isHaunted(0))
    }

    @Test func writeThatWaitsForACopyOverwritesWhatTheCopyMissed() {
        var oracle = Oracle(cellCount: 1)
        let waiting = write(&oracle, 1)
        oracle.haunt(0, with: [Geometry.stamp(write: 3, cell: 0)], from: .copy)
        #expect(legal(oracle) == [0, 1, 3])
        oracle.acknowledge(0..<1, issue: waiting, isDurable: true)
        #expect(legal(oracle) == [1] && !oracle.isHaunted(0))
    }

    @Test func failedWriteLeavesBothValues() {
        var oracle = Oracle(cellCount: 1)
        let issue = write(&oracle, 1)
        oracle.fail(0..<1, issue: issue)
        #expect(legal(oracle) == [0, 1])
        let next = write(&oracle, 2)
        oracle.acknowledge(0..<1, issue: next, isDurable: false)
        #expect(legal(oracle) == [2])
    }
}
