/// One valid example of a structure of fixed size, and how to read it back.
struct Specimen {
    var bytes: [UInt8]
    /// Makes the checksum right again after a change, to get hostile contents past the first line of defence.
    var seal: (inout [UInt8]) -> Void
    /// Decodes and encodes again; nil if the decoder refuses.
    var recode: ([UInt8]) -> [UInt8]?
}

extension Target {
    /// A structure on disk: what was written is read back; what was damaged is refused; what was made up, with the
    /// right checksum, is refused or understood in a way that can be written and read again.
    static func structure(
        _ name: String, cost: Int = 1, _ make: @escaping @Sendable (inout Input) -> Specimen
    ) -> Target {
        Target(name, cost: cost) { input throws(Finding) in
            let specimen = make(&input)
            var bytes = specimen.bytes
            switch input.below(4) {
            case 0:
                input.show("valid \(name)", bytes)
                try require(specimen.recode(bytes) == bytes, "what was written is not read back", bytes)
                return "valid"
            case 1:
                bytes = input.bytes(bytes.count)
                input.show("random \(name)", bytes)
                try require(specimen.recode(bytes) == nil, "random bytes are accepted", bytes)
                return "random"
            case 2:
                input.damage(&bytes)
                input.show("damaged \(name)", bytes)
                let isSame = bytes == specimen.bytes
                try require(specimen.recode(bytes) == nil || isSame, "damage is not noticed", bytes)
                return isSame ? "valid" : "damaged"
            default:
                input.damage(&bytes)
                specimen.seal(&bytes)
                input.show("hostile \(name)", bytes)
                guard let first = specimen.recode(bytes) else { return "refused" }
                try require(specimen.recode(first) == first, "what was accepted can't be written and read again", bytes)
                return "accepted"
            }
        }
    }
}
