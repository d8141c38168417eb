import Testing

@testable import Control

@Suite struct LineBufferTests {
    private func text(_ line: [UInt8]?) -> String? { line.map { String(decoding: $0, as: UTF8.self) } }

    @Test func linesComeOutWholeHoweverTheyCameIn() {
        for size in 1...12 {
            var buffer = LineBuffer(limitBytes: 100)
            var lines: [String] = []
            var rest = Array("one\n\ntwo\nthr".utf8)[...]
            while !rest.isEmpty {
                let isTaken = buffer.append(rest.prefix(size))
                #expect(isTaken)
                rest = rest.dropFirst(size)
                while let line = text(buffer.nextLine()) { lines.append(line) }
            }
            #expect(lines == ["one", "", "two"] && buffer.heldBytes == 3)
        }
    }

    @Test func limitCountsWhatIsNotYetTaken() {
        var buffer = LineBuffer(limitBytes: 8)
        func append(_ text: String) -> Bool { buffer.append(Array(text.utf8)[...]) }
        func line() -> String? { text(buffer.nextLine()) }
        let whole = [append("abc\ndefg"), append("x")]
        #expect(whole == [true, false])
        let first = line()
        #expect(first == "abc" && buffer.heldBytes == 4)
        let rest = [append("hij\n"), append("x")]
        #expect(rest == [true, false])
        let lines = [line(), line()]
        #expect(lines == ["defghij", nil] && buffer.heldBytes == 0)
    }
}
