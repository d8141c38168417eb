import ArgumentParser
import Control
import MirrorServer

struct Examine: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show what lies on disks, without writing, locking or a server.",
        discussion: "Several disks together also show whether they would start as a mirror.")

    @Argument(help: "Files or block devices.")
    var disks: [String]

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        try reporting {
            let report = Examination(disks: disks.map(absolute))
            if json { print(try plexus.json(report)) } else { show(report) }
            let errors = report.disks.compactMap(\.error)
            if !errors.isEmpty {
                for error in errors { printError(error) }
                throw ExitCode(1)
            }
        }
    }

    private func show(_ report: Examination) {
        for disk in report.disks where disk.error == nil {
            if let mirror = disk.spareOf {
                print("\(disk.disk): spare of mirror \(disk.name ?? "?") (\(mirror)), since \(disk.updated ?? "?")")
                continue
            }
            let index = disk.index.map(String.init) ?? "?"
            print("\(disk.disk): plex \(index) of mirror \(disk.name ?? "?") (\(disk.mirror ?? "?"))")
            if let data = disk.dataDisk { print("  metadata of \(data)") }
            print("  plex \(disk.plex ?? "?"), role \(disk.role ?? "?"), \(disk.clean == true ? "clean" : "not clean")")
            print("  generation \(disk.generation ?? "?"), epoch \(disk.epoch ?? 0), superblock \(disk.sequence ?? 0)")
            print(
                "  data \(disk.size ?? 0) bytes, disk \(disk.diskSize ?? 0) bytes, region \(disk.regionSize ?? 0) bytes"
            )
            print("  last written \(disk.updated ?? "?") by \(disk.host ?? "?"); \(disk.events) events")
            if let parent = disk.parentMirror { print("  broken off mirror \(parent)") }
            if let bitmap = disk.bitmap {
                let damaged = bitmap.damagedPages > 0 ? ", \(bitmap.damagedPages) pages unreadable" : ""
                print("  intent bitmap: \(bitmap.dirty) of \(bitmap.regions) regions dirty\(damaged)")
            }
            if let remaps = disk.remaps {
                let damaged = remaps.isDamaged ? "; the table is damaged" : ""
                print(
                    "  spare pool: \(remaps.blocks.count) blocks in use, \(remaps.free) of \(remaps.slots) free, \(remaps.dead) bad\(damaged)"
                )
                for block in remaps.blocks { print("  4096 bytes of data at \(block[0]) lie at \(block[1])") }
            }
            if let scrub = disk.scrub { show(scrub) }
            for member in disk.members {
                let missed = member.missedRegions.map { ", missed \($0) regions" } ?? ""
                for bad in member.badRanges {
                    print("  plex \(member.index) does not hold \(bad[1]) bytes at \(bad[0])")
                }
                print("  knows plex \(member.index) \(member.plex): \(member.role)\(missed)")
            }
            for past in disk.history {
                print("  before \(past.ended): generation \(past.generation), ended by \(past.reason)")
            }
        }
        for verdict in report.verdicts { print("mirror \(verdict.name): \(verdict.verdict): \(verdict.text)") }
    }

    private func show(_ scrub: ScrubLedgerReport) {
        let unlisted = scrub.unrecorded > 0 ? " (\(scrub.unrecorded) of them not listed)" : ""
        let running = scrub.running ? ", one has got to \(scrub.position)" : ""
        print(
            "  scrub: \(scrub.mismatches) blocks differ\(unlisted); last finished \(scrub.lastFinished ?? "never")\(running); \(scrub.repaired) repaired, \(scrub.unreadable) unreadable"
        )
        for entry in scrub.entries { print("  \(entry.line)") }
    }
}
