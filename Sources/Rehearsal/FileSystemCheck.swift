internal import Bytes
internal import Glibc

/// Whether a file system is whole, by its own checker, on a view that the checker may write to.
struct FileSystemCheck {
    /// Big and slow disks take their time.
    private static let limitSeconds = 12.0 * 3600

    struct Verdict {
        var outcome: DrillReport.Outcome
        var text: String
        var action: String?

        static func skipped(_ text: String) -> Verdict { Verdict(outcome: .skipped, text: text) }
    }

    var workspace: Workspace
    /// To the disk, in the workspace.
    var link: String
    var offset: UInt64
    var count: UInt64
    /// The first bytes of the file system.
    var head: [UInt8]

    static let headBytes = 4096

    /// - Returns: nil for what is no file system.
    func run(_ type: String) throws(Interrupted) -> Verdict? {
        switch type {
        case "ext2", "ext3", "ext4":
            try checked("e2fsck", of: "e2fsprogs") { view, tool throws(Interrupted) in try ext(view, tool) }
        case "xfs": try checked("xfs_repair", of: "xfsprogs") { view, tool throws(Interrupted) in try xfs(view, tool) }
        case "vfat": try checked("fsck.fat", of: "dosfstools") { view, tool throws(Interrupted) in try fat(view, tool) }
        case "btrfs":
            try checked("btrfs", of: "btrfs-progs") { view, tool throws(Interrupted) in try btrfs(view, tool) }
        case "swap": nil
        default: .skipped("no checker of \(type) is known here; a drill with --boot tells more")
        }
    }

    private func checked(
        _ tool: String, of package: String, _ body: (View, String) throws(Interrupted) -> Verdict
    ) throws(Interrupted) -> Verdict {
        guard let found = Program.find(tool) else { return .skipped("install \(tool) (\(package))") }
        switch try View.open(link, offset: offset, count: count, in: workspace) {
        case .failure(let lacking): return .skipped(lacking.description)
        case .success(let view): return try body(view, found)
        }
    }

    private func perform(_ tool: String, _ arguments: [String]) throws(Interrupted) -> (
        end: Program.End, lines: [String]
    ) {
        let program = Program(tool, arguments, in: workspace)
        let end = try program.wait(limitSeconds: Self.limitSeconds)
        return (end, program.lines)
    }

    /// A file system in use has a journal to be replayed, and files that are open though deleted: what every mount does, done
    /// on the view. Then everything is looked at, and nothing must be left to repair.
    private func ext(_ view: View, _ tool: String) throws(Interrupted) -> Verdict {
        let span = unsafe head.span.bytes
        let state: UInt16 = span.loadLittleEndian(at: 1024 + 0x3A)
        let incompatible: UInt32 = span.loadLittleEndian(at: 1024 + 0x60)
        let readOnlyCompatible: UInt32 = span.loadLittleEndian(at: 1024 + 0x64)
        let lastOrphan: UInt32 = span.loadLittleEndian(at: 1024 + 0xE8)
        if state & 2 != 0 {
            return damaged(["the kernel has found errors in it and marked it"], tool: "e2fsck -f")
        }
        let needsRecovery = incompatible & 0x4 != 0
        // RO_COMPAT_ORPHAN_PRESENT
        let hasOrphans = lastOrphan != 0 || readOnlyCompatible & 0x1_0000 != 0
        if needsRecovery || hasOrphans {
            let (end, lines) = try perform(tool, ["-p", view.path])
            guard end == .exit(0) || end == .exit(1) else { return verdict(end, lines, tool: "e2fsck -f") }
            // Repairs beyond that, which e2fsck makes when it is time for a regular check: "... FIXED."
            let repaired = lines.filter { line in
                !line.contains("orphan")
                    && ["FIXED.", "CLEARED.", "SALVAGED.", "RECREATED."].contains { line.hasSuffix($0) }
            }
            if !repaired.isEmpty { return damaged(repaired, tool: "e2fsck -f") }
        }
        let (end, lines) = try perform(tool, ["-f", "-n", view.path])
        guard end == .exit(0) else { return verdict(end, lines, tool: "e2fsck -f") }
        return Verdict(
            outcome: .pass,
            text: needsRecovery ? "journal replayed, clean" : hasOrphans ? "deleted files let go, clean" : "clean")
    }

    /// Frozen or mounted it has something in its log, without which the rest is not what it is meant to be.
    private func xfs(_ view: View, _ tool: String) throws(Interrupted) -> Verdict {
        let (end, lines) = try perform(tool, ["-n", view.path])
        if lines.contains(where: { $0.contains("valuable metadata changes in a log") }) {
            return Verdict(
                outcome: .skipped,
                text: "was not unmounted, and only the kernel replays the log of xfs",
                action: "unmount it and run again")
        }
        guard end == .exit(0) else { return verdict(end, lines, tool: "xfs_repair") }
        return Verdict(outcome: .pass, text: "clean")
    }

    /// A mounted one is marked as such, in its boot sector: that mark is taken away on the view, for it is no damage.
    private func fat(_ view: View, _ tool: String) throws(Interrupted) -> Verdict {
        // 65 in FAT32, which has no 16-bit length of its tables; else 37.
        let place = head[22] == 0 && head[23] == 0 ? 65 : 37
        let isInUse = head[place] & 1 != 0
        if isInUse, !write(head[place] & ~1, at: place, of: view) {
            return .skipped("the view of the disk can't be written: \(errorText(errno))")
        }
        let (end, lines) = try perform(tool, ["-n", view.path])
        guard end == .exit(0) else { return verdict(end, lines, tool: "fsck.fat") }
        return Verdict(outcome: .pass, text: isInUse ? "was not unmounted, otherwise clean" : "clean")
    }

    private func btrfs(_ view: View, _ tool: String) throws(Interrupted) -> Verdict {
        let (end, lines) = try perform(tool, ["check", "--readonly", view.path])
        guard end == .exit(0) else { return verdict(end, lines, tool: "btrfs check") }
        return Verdict(outcome: .pass, text: "clean")
    }

    private func write(_ byte: UInt8, at offset: Int, of view: View) -> Bool {
        let file = unsafe open(view.path, O_WRONLY | O_CLOEXEC)
        guard file >= 0 else { return false }
        defer { close(file) }
        var byte = byte
        return unsafe pwrite(file, &byte, 1, off_t(offset)) == 1
    }

    /// What a checker that is not content has to say; one that did not come to an end says nothing about the disk.
    private func verdict(_ end: Program.End, _ lines: [String], tool: String) -> Verdict {
        switch end {
        // 8, 16, 32: it could not do its work, was called wrongly, was interrupted (fsck(8)).
        case .exit(let code) where tool == "e2fsck -f" && code & 0b11_1000 != 0 && code & 4 == 0:
            .skipped("\(tool) could not look at it: \(lines.last ?? "exit code \(code)")")
        case .exit(127), .exit(126): .skipped("\(tool) can't be run: \(lines.last ?? "")")
        case .exit, .tooMuchOutput: damaged(lines, tool: tool)
        case .signal(let number): .skipped("\(tool) was ended by signal \(number)")
        case .tooLong: .skipped("\(tool) did not end within 12 hours")
        case .notStarted(let reason): .skipped("\(tool) can't be run: \(reason)")
        }
    }

    /// Of what may be thousands of complaints the first that are some.
    private func damaged(_ lines: [String], tool: String) -> Verdict {
        let noise = ["Pass ", "Phase ", "e2fsck ", "fsck.fat ", "Warning!  ", "Opening filesystem"]
        let complaints = lines.filter { line in !noise.contains { line.hasPrefix($0) } }
        let shown = complaints.prefix(3).joined(separator: "; ")
        let more = complaints.count > 3 ? "; and more" : ""
        return Verdict(
            outcome: .fail, text: "is damaged: \(shown)\(more)",
            action:
                "plexus scrub tells where plexes differ; if all fail alike run \(tool) on the mirror, else replace this one"
        )
    }
}
