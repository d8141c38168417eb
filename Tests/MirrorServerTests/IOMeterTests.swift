import Control
import MirrorCore
import NBDProtocol
import Testing

@testable import MirrorServer

@Suite struct IOMeterTests {
    @Test func kindsAreCountedApart() {
        var meter = IOMeter()
        #expect(IOMeter.Kind.allCases.allSatisfy { meter.report($0).requests == 0 })
        for kind in IOMeter.Kind.allCases {
            for _ in 0...kind.rawValue { meter.count(kind, bytes: 4096, nanoseconds: UInt64(kind.rawValue + 1) * 1000) }
        }
        for kind in IOMeter.Kind.allCases {
            let (report, number) = (meter.report(kind), kind.rawValue + 1)
            #expect(report.requests == UInt64(number) && report.bytes == UInt64(number) * 4096)
            #expect(report.maxMicroseconds == Double(number))
        }
    }

    @Test func everyCommandOfAClientHasItsKind() {
        let kinds = NBDProtocol.Command.allCases.map { IOMeter.Kind($0) }
        #expect(kinds == [.read, .write, .flush, .zero, nil, .zero, nil])
        #expect(IOMeter.Kind(DiskOperation.Kind.writeMetadata) == .metadata)
        #expect(IOMeter.Kind(DiskOperation.Kind.queryAllocation) == nil)
    }
}
