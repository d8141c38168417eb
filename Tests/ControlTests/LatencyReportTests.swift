import Foundation
import Testing

@testable import Control

@Suite struct LatencyReportTests {
    private func report(_ nanoseconds: [UInt64], bytes: UInt64 = 0) -> LatencyReport {
        var counts = [UInt64](repeating: 0, count: LatencyScale.bucketCount)
        for time in nanoseconds { counts[LatencyScale.bucket(nanoseconds: time)] += 1 }
        return LatencyReport(bytes: bytes, counts: counts, longest: nanoseconds.max() ?? 0)
    }

    @Test func everyTimeLiesBelowTheEndOfItsIntervalAndNotBelowTheOneBefore() {
        var time: UInt64 = 1
        while time < 130_000_000_000 {
            for near in [time - 1, time, time + 1] {
                let bucket = LatencyScale.bucket(nanoseconds: near)
                #expect(near < LatencyScale.upperNanoseconds(bucket), "\(near)")
                #expect(bucket == 0 || near >= LatencyScale.upperNanoseconds(bucket - 1), "\(near)")
            }
            time += time / 7 + 1
        }
        #expect(LatencyScale.bucket(nanoseconds: .max) == LatencyScale.bucketCount - 1)
    }

    @Test func intervalsGrowByAnEighthAtMost() {
        for bucket in 8..<LatencyScale.bucketCount {
            let (end, before) = (LatencyScale.upperNanoseconds(bucket), LatencyScale.upperNanoseconds(bucket - 1))
            #expect(end > before && (end - before) * 8 <= before)
        }
    }

    @Test func quantilesAreThoseOfTheTimes() throws {
        let one = report((1...1000).map { UInt64($0) * 1000 }, bytes: 7)
        #expect(one.requests == 1000 && one.bytes == 7 && one.maxMicroseconds == 1000)
        for (found, wanted) in [(one.p50Microseconds, 500.0), (one.p99Microseconds, 990), (one.p999Microseconds, 999)] {
            let found = try #require(found)
            #expect(found >= wanted && found <= wanted * 1.125)
        }
    }

    @Test func oneSlowRequestIsTheLongestAndNothingElse() throws {
        let one = report(Array(repeating: 10_000, count: 999) + [5_000_000_000])
        #expect(one.maxMicroseconds == 5_000_000)
        #expect(try #require(one.p999Microseconds) < 12)
    }

    @Test func nothingHasNoTimes() throws {
        let none = report([])
        #expect(none.requests == 0 && none.p50Microseconds == nil && none.maxMicroseconds == nil)
        let text = String(decoding: try JSONEncoder().encode(none), as: UTF8.self)
        #expect(text.contains(#""p50Microseconds":null"#))
    }

    @Test func differenceIsWhatWasAdded() {
        let early = report([1000, 1000, 64_000_000], bytes: 10)
        let late = report([1000, 1000, 64_000_000, 2000, 2000, 3000], bytes: 22)
        let added = late.since(early)
        #expect(added.requests == 3 && added.bytes == 12)
        // The longest ever is older: of the last ones only their interval is known.
        #expect(added.maxMicroseconds.map { $0 >= 3 && $0 < 3.5 } == true)
        #expect(late.since(late).requests == 0 && late.since(late).maxMicroseconds == nil)
        #expect(late.since(nil) == late)
    }

    @Test func reportOfAnotherServerIsNotSubtracted() {
        let late = report([1000], bytes: 5)
        #expect(late.since(report([1000, 1000], bytes: 10)) == late)
        #expect(late.since(report([9000], bytes: 5)) == late)
    }

    @Test func reportIsDecodedAsItWasEncoded() throws {
        let one = report([1000, 2_000_000], bytes: 3)
        #expect(try JSONDecoder().decode(LatencyReport.self, from: JSONEncoder().encode(one)) == one)
    }
}
