internal import Bytes
internal import CLinux
internal import Glibc
internal import MirrorCore
internal import MirrorFormat

/// The intent bitmap and the missed-write maps of a disk, for start-up and commands.
extension Disk {
    /// Everything that can be read; what can't counts as unreadable in the result.
    ///
    /// - Parameter mirror: whose pages they should be; nil: that of the superblock.
    func pages(of superblock: Superblock, mirror: MirrorUUID? = nil) -> FoundPages {
        var found = FoundPages(of: superblock, mirror: mirror)
        for sheet in 0..<FoundPages.sheetCount { read(sheet, of: superblock.layout, into: &found) }
        return found
    }

    private func read(_ sheet: Int, of layout: Layout, into found: inout FoundPages) {
        let count = found.pagesPerSheet
        let perChunk = 256
        for first in stride(from: 0, to: count, by: perChunk) {
            let pages = min(perChunk, count - first)
            let offset = layout.pageOffset(sheet: sheet, index: first)
            if let bytes = try? read(at: offset, count: pages * BitmapPage.byteCount) {
                for page in 0..<pages {
                    let block = Array(bytes[page * BitmapPage.byteCount..<(page + 1) * BitmapPage.byteCount])
                    found.take(sheet: sheet, page: first + page, bytes: unsafe block.span.bytes)
                }
                continue
            }
            // A bad sector costs its own page only.
            for page in first..<first + pages {
                let offset = layout.pageOffset(sheet: sheet, index: page)
                guard let block = try? read(at: offset, count: BitmapPage.byteCount) else { continue }
                found.take(sheet: sheet, page: page, bytes: unsafe block.span.bytes)
            }
        }
    }

    /// Writes all pages anew: empty, or with all intent bits set where the disks' contents are not known to be equal.
    func writePages(of record: Record, layout: Layout) throws(DiskError) {
        let regions = Int(layout.regionCount)
        let dirty = RegionSet(count: regions, isFull: !record.isClean)
        let pages = max(1, (regions + BitmapPage.bitCount - 1) / BitmapPage.bitCount)
        for sheet in 0..<FoundPages.sheetCount {
            for page in 0..<pages {
                var block = [UInt8](repeating: 0, count: BitmapPage.byteCount)
                do {
                    var span = block.mutableSpan
                    var bytes = unsafe span.mutableBytes
                    let words = sheet == 0 ? dirty.page(page) : []
                    BitmapPage(
                        sheet: UInt8(sheet), index: UInt64(page), sequence: 1, lastClear: 0,
                        generation: record.generation, absence: 0
                    ).encode(mirror: record.mirror, words: words.span, into: &bytes)
                }
                try write(block, at: layout.pageOffset(sheet: sheet, index: page))
            }
        }
    }

    // MARK: copies that were broken off

    /// A copy that was broken off can be mounted like any disk, and nothing of ours sees what is written then. A file
    /// keeps the time of its last change: it is set to the moment that the copy's superblock names.
    func stampIfBrokenOff() {
        guard !isBlockDevice, case .found(let superblock)? = try? scan(), superblock.record.parent != nil,
            superblock.record.epoch == 1
        else { return }
        var times = [
            timespec(tv_sec: 0, tv_nsec: 1_073_741_822),  // UTIME_OMIT, <sys/stat.h>
            Self.time(superblock.record.updatedTime),
        ]
        unsafe futimens(file, &times)
    }

    /// Why the disk may have been written to after that moment; nil: it was not.
    func objection(toUntouchedSince unixNanoseconds: UInt64) -> String? {
        if isBlockDevice { return "a block device does not tell whether it was written to meanwhile" }
        var information = stat()
        let time = Self.time(unixNanoseconds)
        guard unsafe fstat(file, &information) == 0, information.st_mtim.tv_sec == time.tv_sec,
            information.st_mtim.tv_nsec == time.tv_nsec
        else { return "its file was written to after it was broken off" }
        return nil
    }

    private static func time(_ unixNanoseconds: UInt64) -> timespec {
        timespec(tv_sec: Int(unixNanoseconds / 1_000_000_000), tv_nsec: Int(unixNanoseconds % 1_000_000_000))
    }
}
