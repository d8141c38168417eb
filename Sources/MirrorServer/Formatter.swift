internal import Bytes
internal import Glibc
internal import MirrorCore
internal import MirrorFormat
internal import NBDProtocol

/// `plexus create`: checks everything first, then writes.
package struct MirrorFormatter {
    package var name: String
    package var disks: [String]
    package var sizeBytes: UInt64?
    package var regionBytes: UInt64?
    package var spareBytes: UInt64?
    package var force = false
    /// The first disk's data become the mirror's; the others are copied to when it is served.
    package var keepsFirst = false
    /// Where the metadata of the disk go that keeps its data; nil: behind the data.
    package var metadataFile: String?

    /// Of the disks: to be read only where no other can be.
    package var writeMostly: Set<String> = []

    package init(name: String, disks: [String]) {
        self.name = name
        self.disks = disks
    }

    /// What would be written on one disk.
    package struct Plan: Sendable {
        package var path: String
        package var isNew: Bool
        /// Its data stay; so long it was before.
        package var keptBytes: UInt64?
        /// Where its metadata go, if not on it.
        package var metadataFile: String?
        package var diskBytes: UInt64
        package var dataBytes: UInt64
        package var regionBytes: UInt64
        /// What `--force` overwrites.
        package var overwrites: String?
        package var areas: [(name: String, offset: UInt64, length: UInt64)]
        /// What the plex is called by from then on.
        package var disk: String { metadataFile ?? path }
    }

    package struct Outcome: Sendable {
        package var uuid: String
        package var plans: [Plan]
        /// The disks held other data: they are made equal when first served.
        package var needsResync: Bool
    }

    /// - Parameter writes: false for `--plan`: every check, no write.
    package func run(writes: Bool) throws(DiskError) -> Outcome {
        try checkName()
        guard disks.count >= (keepsFirst ? 1 : 2) else { throw DiskError("a mirror needs at least two disks") }
        guard disks.count <= PlexSet.capacity else {
            throw DiskError("a mirror has at most \(PlexSet.capacity) plexes")
        }
        try Disk.checkDistinct(disks)
        guard Set(disks).count == disks.count else { throw DiskError("a disk is named twice") }
        let existing = disks.filter { unsafe access($0, F_OK) == 0 }
        var open: [String: Disk] = [:]
        defer { for disk in open.values { disk.shut() } }
        for path in existing {
            let disk = try Disk.open(path, .readWrite)
            open[path] = disk
            if disk.metadata != nil, !isKept(path) {
                throw DiskError("\(path): is the metadata file of \(disk.dataPath); name that disk, or remove the file")
            }
        }
        let overwritten = try checkContents(open)
        let dataBytes = try keepsFirst ? sizeOfKept(open) : chooseSize(open)
        let plans = try plan(open, dataBytes: dataBytes, overwritten: overwritten)
        let needsResync = keepsFirst ? disks.count > 1 : !existing.isEmpty
        guard writes else { return Outcome(uuid: "", plans: plans, needsResync: needsResync) }
        let created = try createMissing(plans, into: &open)
        do throws(DiskError) {
            if keepsFirst { try makeRoom(plans[0], &open) }
            let uuid = try write(plans, open, isClean: keepsFirst || existing.isEmpty)
            return Outcome(uuid: uuid, plans: plans, needsResync: needsResync)
        } catch {
            for path in created { unsafe unlink(path) }
            if keepsFirst, let first = open[disks[0]] { Self.giveBackRoom(first, plans[0]) }
            throw error
        }
    }

    private func checkName() throws(DiskError) {
        let bytes = name.utf8.count
        let isPlain = name.unicodeScalars.allSatisfy { $0.value >= 32 && $0.value != 127 && $0 != "/" }
        guard bytes > 0, bytes <= Superblock.maximumNameBytes, isPlain, name.first != " ", name.last != " ",
            ExportDescription.accepts(name: name)
        else {
            throw DiskError(
                "\(name): a mirror's name has 1 to \(Superblock.maximumNameBytes) bytes, no slash and no control characters"
            )
        }
        if let regionBytes,
            regionBytes.nonzeroBitCount != 1 || regionBytes < Layout.minimumRegionBytes
                || regionBytes > Layout.maximumRegionBytes
        {
            throw DiskError(Self.regionText(regionBytes))
        }
        for path in disks where unsafe access(path, F_OK) != 0 { try checkParent(of: path) }
        guard let metadataFile else { return }
        guard keepsFirst else {
            throw DiskError("--metadata goes with --from: it is about the disk that keeps its data")
        }
        try Disk.checkMetadataFile(metadataFile)
        try checkParent(of: metadataFile)
    }

    private func checkParent(of path: String) throws(DiskError) {
        let parent = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
        guard unsafe access(parent.isEmpty ? "/" : parent, W_OK) == 0 else {
            throw DiskError("\(path): can't be created: \(errorText(errno))")
        }
    }

    /// What `--force` would destroy, by path; refused without it.
    private func checkContents(_ open: [String: Disk]) throws(DiskError) -> [String: String] {
        var found: [String: String] = [:]
        for path in open.keys.sorted() {
            guard let disk = open[path] else { continue }
            switch try disk.scan() {
            case .found(let superblock): found[path] = "plex of mirror \(superblock.record.name)"
            case .damaged: found[path] = "damaged Plexus metadata"
            case .futureFormat, .unknownFeature, .forked: found[path] = "Plexus metadata of another version"
            case .none:
                if !isKept(path), let signature = try Signature.find(on: disk) { found[path] = signature }
            }
            if isKept(path), let what = found[path] {
                throw DiskError(
                    "\(path): is a \(what) already; serve it, or make it a plain disk again with plexus dissolve")
            }
            if let what = found[path], !force {
                throw DiskError("\(path): holds \(what); its contents would be lost. To overwrite it: --force")
            }
        }
        return found
    }

    private func chooseSize(_ open: [String: Disk]) throws(DiskError) -> UInt64 {
        if open.count < disks.count, sizeBytes == nil {
            let missing = disks.first { open[$0] == nil } ?? ""
            throw DiskError("\(missing): does not exist; to create it as a sparse file give --size")
        }
        var largest = UInt64.max
        var smallestPath = ""
        for path in open.keys.sorted() {
            guard let disk = open[path] else { continue }
            let capacity = Layout.capacity(ofDisk: disk.bytes, regionBytes: regionBytes, spareBytes: spareBytes)
            guard let capacity else {
                throw DiskError("\(path): is too small: \(disk.bytes) bytes do not hold the metadata and 1 MiB of data")
            }
            if capacity < largest {
                largest = capacity
                smallestPath = path
            }
        }
        guard let sizeBytes else { return largest }
        try checkSize(sizeBytes, smallestPath, capacity: largest)
        return sizeBytes
    }

    /// - Parameter capacity: of the smallest disk, that of the path.
    func checkSize(_ bytes: UInt64, _ path: String, capacity: UInt64) throws(DiskError) {
        guard bytes % Layout.blockBytes == 0, bytes >= Layout.minimumDataBytes else {
            throw DiskError("--size \(bytes): must be a multiple of 4096 and at least 1 MiB")
        }
        guard bytes <= capacity else {
            throw DiskError("\(path): can carry \(capacity) bytes beside the metadata, less than --size \(bytes)")
        }
    }

    private func isKept(_ path: String) -> Bool { keepsFirst && path == disks[0] }

    private func plan(
        _ open: [String: Disk], dataBytes: UInt64, overwritten: [String: String]
    ) throws(DiskError) -> [Plan] {
        var plans: [Plan] = []
        for path in disks {
            let diskBytes: UInt64
            if let disk = open[path] {
                if isKept(path), metadataFile != nil {
                    diskBytes = try newFileBytes(dataBytes)
                } else {
                    let isToGrow = isKept(path) && !disk.isBlockDevice
                    diskBytes = isToGrow ? max(disk.bytes, try newFileBytes(dataBytes)) : disk.bytes
                }
            } else {
                diskBytes = try newFileBytes(dataBytes)
            }
            let layout = try layout(path, diskBytes: diskBytes, dataBytes: dataBytes)
            plans.append(
                Plan(
                    path: path, isNew: open[path] == nil, keptBytes: isKept(path) ? open[path]?.bytes : nil,
                    metadataFile: isKept(path) ? metadataFile : nil, diskBytes: diskBytes, dataBytes: dataBytes,
                    regionBytes: layout.regionBytes, overwrites: overwritten[path],
                    areas: layout.areas.map { ("\($0.kind)", $0.offset, $0.length) }))
        }
        return plans
    }

    /// A new file is as large as its data and metadata need.
    private func newFileBytes(_ dataBytes: UInt64) throws(DiskError) -> UInt64 {
        do throws(LayoutError) {
            let bytes = try Layout.diskBytes(forData: dataBytes, regionBytes: regionBytes, spareBytes: spareBytes)
            if let bytes { return bytes }
        } catch {
            if case .regionSizeInvalid(let bytes) = error { throw DiskError(Self.regionText(bytes)) }
        }
        throw DiskError("--size \(dataBytes): can't be laid out")
    }

    private static func regionText(_ bytes: UInt64) -> String {
        "--region \(bytes): must be a power of two from 64K to 64M, and so large that there are less than \(Layout.maximumRegions) regions"
    }

    private func layout(_ path: String, diskBytes: UInt64, dataBytes: UInt64) throws(DiskError) -> Layout {
        do throws(LayoutError) {
            return try Layout(
                diskBytes: diskBytes, dataBytes: dataBytes, regionBytes: regionBytes, spareBytes: spareBytes)
        } catch {
            switch error {
            case .diskTooSmall(let has, let needs):
                throw DiskError("\(path): is too small: it has \(has) bytes, \(needs) are needed")
            case .regionSizeInvalid(let bytes): throw DiskError(Self.regionText(bytes))
            }
        }
    }

    private func createMissing(_ plans: [Plan], into open: inout [String: Disk]) throws(DiskError) -> [String] {
        var created: [String] = []
        do throws(DiskError) {
            for plan in plans where plan.isNew {
                let tail = plan.areas.map(\.offset).min() ?? plan.dataBytes
                try Disk.create(
                    plan.path, bytes: plan.diskBytes, allocatedFrom: tail,
                    advice: "; choose a smaller --size or another file system")
                created.append(plan.path)
                open[plan.path] = try Disk.open(plan.path, .readWrite)
            }
        } catch {
            for path in created { unsafe unlink(path) }
            throw error
        }
        return created
    }

    private func write(_ plans: [Plan], _ open: [String: Disk], isClean: Bool) throws(DiskError) -> String {
        var entropy = systemEntropy()
        let time = wallClock()
        let members = plans.map {
            let isBehind = keepsFirst && !isKept($0.path)
            var member = Member(uuid: PlexUUID(entropy.nextUUID()), role: isBehind ? .recovering : .inSync)
            member.isWriteMostly = writeMostly.contains($0.path)
            return member
        }
        let first = plans[0]
        var record = Record(
            mirror: MirrorUUID(entropy.nextUUID()), name: name, dataBytes: first.dataBytes,
            regionBytes: first.regionBytes, generation: Generation(entropy.nextUUID()), members: members, time: time)
        // Disks that existed hold who knows what: they count as different until one is copied to the others.
        record.isClean = isClean
        // What can fail fails here, before any disk says that it belongs to the mirror. The disk whose data are kept comes
        // last: the others are nothing without it.
        let ordered = keepsFirst ? Array(zip(plans, members).reversed()) : Array(zip(plans, members))
        for (plan, _) in ordered {
            guard let disk = open[plan.path] else { continue }
            try Self.blank(disk, layout: try layout(plan.path, diskBytes: plan.diskBytes, dataBytes: plan.dataBytes))
        }
        for (plan, member) in ordered {
            guard let disk = open[plan.path] else { continue }
            let layout = try layout(plan.path, diskBytes: plan.diskBytes, dataBytes: plan.dataBytes)
            try disk.writePages(of: record, layout: layout)
            try Self.stamp(disk, layout: layout, record: record, plex: member.uuid)
        }
        return record.mirror.description
    }

    /// Zeroes the private areas, the superblocks' too: they have their space from then on.
    private static func blank(_ disk: Disk, layout: Layout) throws(DiskError) {
        for area in layout.areas where area.kind != .sparePool { try disk.clear(area.offset, area.length) }
        try disk.flush()
    }

    /// All four superblock copies.
    private static func stamp(_ disk: Disk, layout: Layout, record: Record, plex: PlexUUID) throws(DiskError) {
        for copy in 0..<Layout.superblockCopies {
            let sequence: UInt64 = copy % 2 == 0 ? 2 : 1
            let superblock = Superblock(
                record: record, plex: plex, sequence: sequence, layout: layout, writer: systemWriter())
            var block = [UInt8](repeating: 0, count: Superblock.byteCount)
            do {
                var span = block.mutableSpan
                var bytes = unsafe span.mutableBytes
                superblock.encode(copy: copy, into: &bytes)
            }
            try disk.write(block, at: Layout.superblockOffset(copy: copy, diskBytes: disk.bytes))
        }
        try disk.flush()
    }
}
