/// What happens to bytes that lie on a disk or travel over a wire.
extension Input {
    /// Changes the bytes in place, mostly a little; may by chance leave them as they were.
    mutating func damage(_ bytes: inout [UInt8]) {
        guard !bytes.isEmpty else { return }
        for _ in 0...below(3) { damageOnce(&bytes) }
    }

    private mutating func damageOnce(_ bytes: inout [UInt8]) {
        let place = below(bytes.count)
        switch below(7) {
        case 0: bytes[place] ^= 1 << UInt8(below(8))
        case 1: bytes[place] = byte()
        case 2: overwrite(&bytes, at: place, count: 1 + below(32)) { _ in 0 }
        case 3:
            let first = bytes[place]
            overwrite(&bytes, at: place, count: 1 + below(8)) { _ in first }
        case 4:
            let other = below(bytes.count)
            let source = bytes
            overwrite(&bytes, at: place, count: 1 + below(64)) { source[(other + $0) % source.count] }
        default: putNumber(into: &bytes)
        }
    }

    /// A whole integer where one may lie: fields on disk and wire are aligned to their size.
    mutating func putNumber(into bytes: inout [UInt8], below limit: Int = .max) {
        let size = 1 << below(4)
        let end = min(limit, bytes.count)
        guard end >= size else { return }
        let place = below(end / size) * size
        let value = number()
        for index in 0..<size { bytes[place + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
    }

    private func overwrite(_ bytes: inout [UInt8], at place: Int, count: Int, _ value: (Int) -> UInt8) {
        for index in 0..<min(count, bytes.count - place) { bytes[place + index] = value(index) }
    }

    /// As `damage`, for bytes of any length: may also cut, drop, repeat or insert.
    mutating func mangle(_ bytes: inout [UInt8], dictionary: [String]) {
        for _ in 0...below(4) {
            let place = below(bytes.count + 1)
            let end = min(bytes.count, place + 1 + below(16))
            switch below(6) {
            case 0: bytes.removeSubrange(place..<end)
            case 1: bytes.insert(contentsOf: Array(bytes[place..<end]), at: place)
            case 2: bytes.insert(contentsOf: Array(pick(dictionary).utf8), at: place)
            case 3: bytes.insert(byte(), at: place)
            case 4: bytes.removeSubrange(place...)
            default: damage(&bytes)
            }
        }
    }
}
