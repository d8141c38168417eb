internal import Bytes

extension MutableRawSpan {
    /// Copies the UTF-8 bytes of `text` to `offset`; all of them must fit.
    ///
    /// - Returns: the number of bytes written.
    mutating func storeText(_ text: StaticString, at offset: Int) -> Int {
        precondition(offset >= 0 && text.utf8CodeUnitCount <= byteCount - offset)
        var position = offset
        // The buffer is a constant of the program and is left behind when the loop ends.
        text.withUTF8Buffer { buffer in
            for index in buffer.indices {
                unsafe storeBigEndian(buffer[index], at: position)
                position += 1
            }
        }
        return position - offset
    }
}

extension [UInt8] {
    /// The UTF-8 bytes of `text`; for handshakes, for it allocates.
    init(text: StaticString) {
        self.init(text.description.utf8)
    }
}
