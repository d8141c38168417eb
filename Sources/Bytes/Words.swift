/// Whole runs of 64-bit words, as bitmaps need them: a page of 504 words is some hundred instructions, where word by word,
/// each with its checks, it would be several thousand.
extension MutableRawSpan {
    /// Stores each word with its least significant byte first.
    ///
    /// - Parameter offset: in bytes; all of the words must fit behind it, or the program stops.
    package mutating func storeLittleEndian(_ words: Span<UInt64>, at offset: Int) {
        #if _endian(little)
            unsafe storeBytes(words.bytes, at: offset)
        #else
            for index in words.indices { storeLittleEndian(words[index], at: offset + index * 8) }
        #endif
    }
}

extension MutableSpan where Element == UInt64 {
    /// Replaces the first words.
    ///
    /// - Parameter source: no longer than this span.
    package mutating func copy(_ source: Span<UInt64>) {
        precondition(source.count <= count)
        unsafe withUnsafeMutableBufferPointer { target in
            unsafe source.withUnsafeBufferPointer { words in
                guard let from = words.baseAddress, let to = target.baseAddress else { return }
                unsafe to.update(from: from, count: words.count)
            }
        }
    }

    /// Sets the bits of `source` that `mask` has, too, in the words from `first` on.
    ///
    /// - Parameters:
    ///   - source: all of it must fit behind `first`, or the program stops.
    ///   - mask: of the same length.
    package mutating func formUnion(_ source: Span<UInt64>, at first: Int, maskedBy mask: Span<UInt64>) {
        precondition(first >= 0 && source.count <= count - first && source.count == mask.count)
        unsafe withUnsafeMutableBufferPointer { target in
            unsafe source.withUnsafeBufferPointer { words in
                unsafe mask.withUnsafeBufferPointer { mask in
                    guard let words = words.baseAddress, let mask = mask.baseAddress, let base = target.baseAddress
                    else { return }
                    let target = unsafe base + first
                    for index in 0..<source.count { unsafe target[index] |= words[index] & mask[index] }
                }
            }
        }
    }
}
