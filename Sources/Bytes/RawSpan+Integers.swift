/// Checked loads of integers from raw bytes.
///
/// Every wire and disk structure of the project is read through these: the byte order is in the name, the
/// bounds check is here and stays on in release builds.
extension RawSpan {
    /// The integer stored with its least significant byte first.
    ///
    /// - Parameter offset: in bytes; the integer must lie inside the span, or the program stops.
    @inlinable
    package func loadLittleEndian<Value: FixedWidthInteger & BitwiseCopyable>(
        at offset: Int, as type: Value.Type = Value.self
    ) -> Value {
        precondition(offset >= 0 && offset <= byteCount - MemoryLayout<Value>.size)
        return unsafe Value(littleEndian: unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: Value.self))
    }

    /// The integer stored with its most significant byte first (network order).
    ///
    /// - Parameter offset: in bytes; the integer must lie inside the span, or the program stops.
    @inlinable
    package func loadBigEndian<Value: FixedWidthInteger & BitwiseCopyable>(
        at offset: Int, as type: Value.Type = Value.self
    ) -> Value {
        precondition(offset >= 0 && offset <= byteCount - MemoryLayout<Value>.size)
        return unsafe Value(bigEndian: unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: Value.self))
    }

    package var isZero: Bool { !(0..<byteCount).contains { loadLittleEndian(at: $0, as: UInt8.self) != 0 } }
}

/// Checked stores, the mirror image of the loads above.
extension MutableRawSpan {
    @inlinable
    package mutating func storeLittleEndian<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at offset: Int)
    {
        precondition(offset >= 0 && offset <= byteCount - MemoryLayout<Value>.size)
        unsafe storeBytes(of: value.littleEndian, toUncheckedByteOffset: offset, as: Value.self)
    }

    @inlinable
    package mutating func storeBigEndian<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at offset: Int) {
        precondition(offset >= 0 && offset <= byteCount - MemoryLayout<Value>.size)
        unsafe storeBytes(of: value.bigEndian, toUncheckedByteOffset: offset, as: Value.self)
    }

    /// Copies `source` to `offset`; the whole of it must fit.
    package mutating func storeBytes(_ source: RawSpan, at offset: Int) {
        precondition(offset >= 0 && source.byteCount <= byteCount - offset)
        unsafe withUnsafeMutableBytes { target in
            unsafe source.withUnsafeBytes { bytes in
                guard let start = bytes.baseAddress, let target = target.baseAddress else { return }
                unsafe (target + offset).copyMemory(from: start, byteCount: bytes.count)
            }
        }
    }

    package mutating func clear() {
        for index in 0..<byteCount { storeLittleEndian(UInt8(0), at: index) }
    }
}

/// Appending integers to a growing message; for handshakes and other rare things, never per request.
extension [UInt8] {
    package mutating func appendBigEndian<Value: FixedWidthInteger>(_ value: Value) {
        var shift = Value.bitWidth
        while shift > 0 {
            shift -= 8
            append(UInt8(truncatingIfNeeded: value >> Value(shift)))
        }
    }
}
