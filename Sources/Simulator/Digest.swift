/// A fingerprint of 64 bits for telling states apart: of ten million states two would be taken for one with a
/// chance of one in 370,000.
struct Digest {
    private(set) var value: UInt64 = 0x9E37_79B9_7F4A_7C15

    mutating func add(_ word: UInt64) {
        // The mixing of MurmurHash3's finaliser (Appleby, 2011), a word at a time.
        value = (value ^ word) &* 0xFF51_AFD7_ED55_8CCD
        value ^= value >> 32
    }
}
