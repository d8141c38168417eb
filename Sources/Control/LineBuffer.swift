/// Bytes of a stream, to be taken out line by line.
package struct LineBuffer: Sendable {
    private let limitBytes: Int
    private var bytes: [UInt8] = []
    /// Where the first line begins that was not taken yet.
    private var start = 0
    /// No line ends before this.
    private var searched = 0

    /// - Parameter limitBytes: how much may be held at once, whole lines and the beginning of one.
    package init(limitBytes: Int) { self.limitBytes = limitBytes }

    package var heldBytes: Int { bytes.count - start }

    /// - Returns: false if that would be too much; nothing is taken then, and the stream can't be understood any more.
    package mutating func append(_ chunk: ArraySlice<UInt8>) -> Bool {
        guard chunk.count <= limitBytes - heldBytes else { return false }
        if start > 0 {
            bytes.removeFirst(start)
            searched -= start
            start = 0
        }
        bytes.append(contentsOf: chunk)
        return true
    }

    /// The next whole line without its end; nil if there is none.
    package mutating func nextLine() -> [UInt8]? {
        guard let end = bytes[searched...].firstIndex(of: UInt8(ascii: "\n")) else {
            searched = bytes.count
            return nil
        }
        defer {
            start = end + 1
            searched = start
        }
        return Array(bytes[start..<end])
    }
}
