internal import MirrorCore
internal import MirrorFormat

extension Disk {
    /// What can be read of the scrub's ledger of the superblock's mirror.
    func scrubLedger(of superblock: Superblock) -> ScrubLedger {
        var ledger = ScrubLedger()
        for page in 0..<ScrubLedger.pageCount {
            let offset = ScrubLedger.pageOffset(page, diskBytes: bytes)
            guard let block = try? read(at: offset, count: ScrubLedger.pageBytes) else { continue }
            ledger.take(page: page, bytes: unsafe block.span.bytes, mirror: superblock.record.mirror)
        }
        return ledger
    }
}
