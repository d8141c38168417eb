/// How contents are modelled: by the cell.
///
/// A sector of 512 bytes, the unit in which power loss tears, is three cells: its first byte, the 510
/// between, its last byte. A cell holds a 32-bit stamp: which write put it there (upper 20 bits) and which
/// cell it was meant for (lower 12), or 0 for zeroes. Clients' requests start and end at cell borders only.
/// That covers aligned, 512-byte, 1-byte and 511-byte edges, and an engine that cuts at any other place
/// is caught at once, while a disk of 128 KiB takes 768 words and a block of 4 KiB moves as 24 words.
enum Geometry {
    static let sectorBytes = 512
    static let cellsPerSector = 3
    static let sectorsPerBlock = 8
    static let blockBytes = 4096
    static let cellBits: UInt32 = 12
    /// A bitmap of more than one page on a disk of some dozen blocks.
    static let bitsPerPage = 64

    /// The cell that starts at the byte; nil where no cell starts.
    static func cell(atByte byte: Int) -> Int? {
        let sector = byte / sectorBytes
        switch byte % sectorBytes {
        case 0: return sector * cellsPerSector
        case 1: return sector * cellsPerSector + 1
        case 511: return sector * cellsPerSector + 2
        default: return nil
        }
    }

    static func byte(ofCell cell: Int) -> Int {
        let offsets = (0, 1, 511)
        let base = cell / cellsPerSector * sectorBytes
        switch cell % cellsPerSector {
        case 0: return base + offsets.0
        case 1: return base + offsets.1
        default: return base + offsets.2
        }
    }

    static func stamp(write: UInt32, cell: Int) -> UInt32 { write << cellBits | UInt32(cell) }
}
