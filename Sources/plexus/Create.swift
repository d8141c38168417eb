import ArgumentParser
import Foundation
import MirrorServer

struct Create: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a mirror of two or more disks.",
        discussion: """
            Data lies at offset 0 of each disk, Plexus' own area at its end. Files that do not exist are created
            sparse when --size is given. Disks that hold data are refused. New files are equal from the start;
            disks that existed are made equal when the mirror is first served. With --from one disk keeps its data, which
            become the mirror's; the others are copied to when it is served.
            """)

    @Argument(help: "The mirror's name, also the name of its NBD export.")
    var name: String

    @Argument(help: "Two to eight files or block devices, that of --from not among them.")
    var disks: [String] = []

    @Option(help: "A disk with data, which stay where they are. A file is made longer by what Plexus needs.")
    var from: String?

    @Option(
        help: """
            A new file for Plexus' own data, where the disk of --from has no room for them. It stands for that disk from then
            on: it is what is given to plexus serve. It must not lie on that disk.
            """)
    var metadata: String?

    @Option(help: "Size of the mirror, such as 64M or 10G. Default: as large as the smallest disk allows.")
    var size: ByteSize?

    @Option(help: "Size of a region, a power of two from 64K to 64M.")
    var region: ByteSize?

    @Option(help: "Space set aside for sparing bad sectors.")
    var spares: ByteSize?

    @Option(help: "One of the disks, to be read only where no other can be. Several times for several.")
    var writeMostly: [String] = []

    @Flag(help: "Say what would be written, and write nothing.")
    var plan = false

    @Flag(help: "Overwrite disks that hold data.")
    var force = false

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        for disk in writeMostly where !(disks + [from].compactMap { $0 }).contains(disk) {
            throw ValidationError("--write-mostly \(disk): is none of the mirror's disks")
        }
        guard metadata != nil, from == nil else { return }
        throw ValidationError("--metadata is about the disk of --from")
    }

    func run() throws {
        try reporting {
            var formatter = MirrorFormatter(name: name, disks: ((from.map { [$0] } ?? []) + disks).map(absolute))
            formatter.keepsFirst = from != nil
            formatter.metadataFile = metadata.map(absolute)
            formatter.sizeBytes = size?.bytes
            formatter.regionBytes = region?.bytes
            formatter.spareBytes = spares?.bytes
            formatter.force = force
            formatter.writeMostly = Set(writeMostly.map(absolute))
            let outcome = try formatter.run(writes: !plan)
            if json { print(try Report(name, outcome, isPlan: plan).text) } else { tell(outcome) }
        }
    }

    private func tell(_ outcome: MirrorFormatter.Outcome) {
        for one in outcome.plans {
            let verb = plan ? "would be" : "is"
            let what = one.isNew ? "a new sparse file" : one.keptBytes != nil ? "a disk with data" : "an existing disk"
            print("\(one.path) \(verb) plex of \(name): \(what) of \(one.diskBytes) bytes, data 0 to \(one.dataBytes)")
            if let file = one.metadataFile { print("  its metadata \(plan ? "would lie" : "lie") in \(file)") }
            if let old = one.overwrites { print("  \(plan ? "would overwrite" : "overwrote") \(old)") }
            if plan { for area in one.areas { print("  \(area.name): \(area.length) bytes at \(area.offset)") } }
        }
        guard !plan else { return }
        print("mirror \(name) (\(outcome.uuid)): \(ByteSize.text(outcome.plans[0].dataBytes))")
        if let kept = outcome.plans.first(where: { $0.keptBytes != nil }) {
            print(
                "the data of \(kept.path) are its contents\(outcome.needsResync ? "; they are copied when it is served" : "")"
            )
        } else if outcome.needsResync {
            print("the disks are made equal when it is first served; that copies all of plex 0")
        }
        print("next: plexus serve \(outcome.plans.map(\.disk).joined(separator: " "))")
    }

    private struct Report: Encodable {
        struct Disk: Encodable {
            var disk: String
            var dataDisk: String?
            var isNew: Bool
            var diskSize: UInt64
            var overwrites: String?
        }
        var version = 1
        var name: String
        var uuid: String
        var plan: Bool
        var size: UInt64
        var regionSize: UInt64
        var disks: [Disk]

        init(_ name: String, _ outcome: MirrorFormatter.Outcome, isPlan: Bool) {
            self.name = name
            uuid = outcome.uuid
            plan = isPlan
            size = outcome.plans[0].dataBytes
            regionSize = outcome.plans[0].regionBytes
            disks = outcome.plans.map {
                Disk(
                    disk: $0.disk, dataDisk: $0.metadataFile == nil ? nil : $0.path, isNew: $0.isNew,
                    diskSize: $0.diskBytes,
                    overwrites: $0.overwrites)
            }
        }

        var text: String { get throws { try plexus.json(self) } }
    }
}
