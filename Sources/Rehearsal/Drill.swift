/// Rehearses the loss of all disks but one, for each in turn: would it do alone, as a plain disk without Plexus?
///
/// Disks are opened for reading only. Whatever wants to write, a checker that replays a journal or a booting system, writes to
/// a view of the disk.
package struct Drill {
    static let tableCheck = "partition table"
    static let systemCheck = "EFI system partition"
    static let bootCheck = "boot"
    static let sameCheck = "same as others"

    package var mirror: MirrorToDrill
    /// Nil: nothing is booted.
    package var boot: Boot?
    package var workspace: Workspace
    /// Is told what begins.
    package var progress: (String) -> Void

    package init(
        _ mirror: MirrorToDrill, boot: Boot?, workspace: Workspace, progress: @escaping (String) -> Void = { _ in }
    ) {
        self.mirror = mirror
        self.boot = boot
        self.workspace = workspace
        self.progress = progress
    }

    /// What was found on one disk; compared with the others' at the end.
    struct Findings {
        var checks: [DrillReport.Check]
        /// Nil: nothing was read, or not all of it.
        var layout: DiskLayout?
    }

    package func run() throws(Interrupted) -> [DrillReport.Plex] {
        var findings: [Findings] = []
        for plex in mirror.plexes { findings.append(try look(at: plex)) }
        let layouts = mirror.plexes.indices.compactMap { index in
            findings[index].layout.map { (plex: mirror.plexes[index].index, layout: $0) }
        }
        return mirror.plexes.indices.map { index in
            let plex = mirror.plexes[index]
            var checks = findings[index].checks
            if let layout = findings[index].layout,
                let check = layout.comparison(with: layouts.filter { $0.plex != plex.index })
            {
                checks.append(check)
            }
            return DrillReport.Plex(index: plex.index, disk: plex.disk, checks: checks)
        }
    }

    private func look(at plex: PlexToDrill) throws(Interrupted) -> Findings {
        // Of a plex that is out of date, or being written, nothing else says much.
        guard plex.isInSync, let path = plex.disk else { return Findings(checks: [plex.copy]) }
        let disk: DiskFile
        let layout: DiskLayout
        do throws(Unreadable) {
            disk = try DiskFile(path)
            layout = try DiskLayout(disk, disk.bytes(mirror.bytes))
        } catch {
            return Findings(checks: [
                plex.copy, DrillReport.Check("disk", .fail, error.description, action: replaceAction(plex)),
            ])
        }
        guard let link = workspace.link(to: path) else {
            return Findings(checks: [
                plex.copy, DrillReport.Check("disk", .skipped, "no link can be made in \(workspace.path)"),
            ])
        }
        var checks = [plex.copy, layout.tableCheck(disk, repair: replaceAction(plex))]
        for stretch in layout.stretches {
            progress("plex \(plex.index), \(stretch.name)")
            checks.append(try check(stretch, disk, link, plex))
        }
        progress("plex \(plex.index), \(Self.systemCheck)")
        checks.append(try checkSystemPartition(layout, disk, link))
        // Without a system partition there is nothing to start, and that has been said.
        if let boot, layout.table?.systemPartition != nil {
            progress("plex \(plex.index), boot")
            let blockBytes = layout.table?.blockBytes ?? 512
            let verdict = try boot.run(link, disk, blockBytes: blockBytes, in: workspace)
            checks.append(DrillReport.Check(Self.bootCheck, verdict.outcome, verdict.text, action: verdict.action))
        }
        return Findings(checks: checks, layout: layout)
    }

    private func replaceAction(_ plex: PlexToDrill) -> String {
        "if the other plexes are good: plexus break \(mirror.name) \(plex.index) --nokeep, then plexus add \(mirror.name) DISK copies it anew"
    }

    private func check(
        _ stretch: DiskLayout.Stretch, _ disk: DiskFile, _ link: String, _ plex: PlexToDrill
    ) throws(Interrupted) -> DrillReport.Check {
        guard let content = stretch.content else {
            return DrillReport.Check(stretch.name, .info, "holds no file system that is known")
        }
        guard content.type != Content.contradictory else {
            return DrillReport.Check(
                stretch.name, .fail, "holds the signatures of several file systems", action: "wipefs lists them")
        }
        let head: [UInt8]
        do throws(Unreadable) {
            let count = min(stretch.count, UInt64(FileSystemCheck.headBytes))
            head = try disk.bytes(mirror.bytes).read(at: stretch.offset, count: Int(count))
        } catch {
            return DrillReport.Check(stretch.name, .fail, error.description, action: replaceAction(plex))
        }
        let task = FileSystemCheck(
            workspace: workspace, link: link, offset: stretch.offset, count: stretch.count, head: head)
        guard let verdict = try task.run(content.type) else {
            return DrillReport.Check(stretch.name, .info, content.text)
        }
        return DrillReport.Check(
            stretch.name, verdict.outcome, "\(content.text): \(verdict.text)", action: verdict.action)
    }

    private func checkSystemPartition(
        _ layout: DiskLayout, _ disk: DiskFile, _ link: String
    ) throws(Interrupted) -> DrillReport.Check {
        let name = Self.systemCheck
        // Without one this is a disk for data, which is no fault unless it is meant to boot.
        guard let partition = layout.table?.systemPartition else {
            return DrillReport.Check(
                name, boot == nil ? .info : .fail, "not bootable: no EFI system partition",
                action: boot == nil ? nil : "drill without --boot, or install a system through the mirror")
        }
        if disk.isPartition {
            return DrillReport.Check(
                name, .fail, "\(disk.path) is a partition, and no firmware looks for partitions in it",
                action: "give the mirror whole disks")
        }
        switch try SystemPartition.find(link, offset: partition.offset, in: workspace) {
        case .lacking(let text): return DrillReport.Check(name, .skipped, text)
        case .unreadable(let text):
            return DrillReport.Check(
                name, .fail, "partition \(partition.number) can't be read: \(text)",
                action: "make it anew on the mirror")
        case .found(let system): return try judge(system, partition)
        }
    }

    private func judge(_ system: SystemPartition, _ partition: Partition) throws(Interrupted) -> DrillReport.Check {
        let others = system.otherLoaders.prefix(8).joined(separator: ", ")
        guard let loader = system.ownLoader else {
            let known = others.isEmpty ? "" : "; \(others) starts only where the firmware has an entry for it"
            return DrillReport.Check(
                Self.systemCheck, .fail, "partition \(partition.number) has no \(SystemPartition.ownLoader)\(known)",
                action:
                    "in the installed system: grub-install --removable, or bootctl install; see also plexus bootentries \(mirror.name)"
            )
        }
        if let fault = try system.fault(of: loader) {
            return DrillReport.Check(
                Self.systemCheck, .fail, "partition \(partition.number): \(loader) \(fault)",
                action: "install the boot loader anew, on the mirror")
        }
        let more = others.isEmpty ? "" : "; also \(others)"
        return DrillReport.Check(Self.systemCheck, .pass, "partition \(partition.number): \(loader)\(more)")
    }
}
