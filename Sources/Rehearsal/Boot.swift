internal import Foundation
internal import Glibc

/// Starts a disk alone in an emulated computer, and waits for what it says on its serial port.
///
/// The computer has UEFI firmware that knows nothing of the disk, no network and no other disk. It sees the disk as it is, with
/// Plexus' areas at the end; what it writes goes to a temporary file.
package struct Boot {
    package enum Bus: String, CaseIterable, Sendable {
        case virtio, nvme, sata

        fileprivate var device: String {
            switch self {
            case .virtio: "virtio-blk-pci,drive=view,bootindex=0"
            case .nvme: "nvme,drive=view,serial=plexus,bootindex=0"
            case .sata: "ide-hd,drive=view,bus=ide.0,bootindex=0"
            }
        }
    }

    package var expected: String
    package var limitSeconds: Double
    package var bus: Bus
    package var memoryMiB: Int

    package init(expected: String, limitSeconds: Double, bus: Bus, memoryMiB: Int) {
        self.expected = expected
        self.limitSeconds = limitSeconds
        self.bus = bus
        self.memoryMiB = memoryMiB
    }

    private static let shownLines = 5
    /// A console that says this much says it again and again.
    private static let mostConsoleBytes = 64 << 20

    /// Code and an empty memory of settings, as distributions name them.
    private static let firmwares = [
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
        ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
        ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
        ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
        ("/usr/share/qemu/edk2-x86_64-code.fd", "/usr/share/qemu/edk2-i386-vars.fd"),
    ]

    private enum Ending {
        case found, timeUp
        case ended(Program.End, said: String)
        case noView(String)
    }

    /// - Parameters:
    ///   - link: to the disk, in the workspace.
    ///   - blockBytes: what its partition table counts in.
    func run(
        _ link: String, _ disk: DiskFile, blockBytes: UInt64, in workspace: Workspace
    ) throws(Interrupted) -> FileSystemCheck.Verdict {
        #if !arch(x86_64)
            return .skipped("disks are booted on x86_64 only so far")
        #else
            guard let qemu = Program.find("qemu-system-x86_64") else {
                return .skipped("install qemu-system-x86_64 (qemu-system-x86)")
            }
            guard let image = Program.find("qemu-img") else { return .skipped("install qemu-img (qemu-utils)") }
            let isThere = { (path: String) in unsafe access(path, R_OK) == 0 }
            guard let firmware = Self.firmwares.first(where: { isThere($0.0) && isThere($0.1) }) else {
                return .skipped("install UEFI firmware for QEMU (ovmf)")
            }
            guard blockBytes == 512 else {
                return .skipped(
                    "only disks with blocks of 512 bytes are booted, its partition table counts in \(blockBytes)")
            }
            let computer = Computer(
                qemu: qemu, image: image, firmware: firmware, link: link, disk: disk)
            let console = workspace.newPath("console")
            var ending = Ending.timeUp
            for isVirtual in Self.hasVirtualisation ? [true, false] : [false] {
                unsafe unlink(console)
                ending = try start(computer, isVirtual, console, workspace)
                // Some computers offer KVM and can't keep the promise. Emulation is slow, and works.
                if case .ended(let end, _) = ending, end != .exit(0) { continue }
                break
            }
            return verdict(ending, console)
        #endif
    }

    private struct Computer {
        var qemu: String
        var image: String
        var firmware: (code: String, settings: String)
        var link: String
        var disk: DiskFile
    }

    /// The processor must be able to, too: where the kernel only emulates that, it takes longer than QEMU's own emulation.
    private static var hasVirtualisation: Bool {
        guard unsafe access("/dev/kvm", R_OK | W_OK) == 0 else { return false }
        let flags = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?.split(separator: "\n")
            .first { $0.hasPrefix("flags") }?.split(separator: " ")
        return flags?.contains { $0 == "vmx" || $0 == "svm" } ?? false
    }

    private func start(
        _ computer: Computer, _ isVirtual: Bool, _ console: String, _ workspace: Workspace
    ) throws(Interrupted) -> Ending {
        let changes = workspace.newPath("changes")
        let settings = workspace.newPath("settings")
        let length = lseek(computer.disk.file, 0, SEEK_END)
        guard length > 0 else { return .noView("the disk has no size") }
        let overlay = Program(
            computer.image, ["create", "-q", "-f", "qcow2", changes, String(length & ~511)], in: workspace)
        guard try overlay.wait(limitSeconds: 60) == .exit(0) else {
            return .noView(overlay.lines.last ?? "qemu-img failed")
        }
        guard (try? FileManager.default.copyItem(atPath: computer.firmware.settings, toPath: settings)) != nil else {
            return .noView("no room in \(workspace.path)")
        }
        defer {
            unsafe unlink(changes)
            unsafe unlink(settings)
        }
        let program = Program(computer.qemu, words(computer, isVirtual, changes, settings, console), in: workspace)
        defer { program.end() }
        let limit = Patience.nowSeconds + limitSeconds
        var watch = ConsoleWatch(console, expected: expected)
        while true {
            let end = program.poll()
            if watch.hasFound() { return .found }
            if let end { return .ended(end, said: program.lines.last ?? "") }
            if Patience.nowSeconds > limit || watch.seenBytes > Self.mostConsoleBytes { return .timeUp }
            try Patience.wait(milliseconds: 250)
        }
    }

    private func words(
        _ computer: Computer, _ isVirtual: Bool, _ changes: String, _ settings: String, _ console: String
    ) -> [String] {
        func node(_ options: [String: Any]) -> [String] {
            let data = (try? JSONSerialization.data(withJSONObject: options, options: .sortedKeys)) ?? Data()
            return ["-blockdev", String(decoding: data, as: UTF8.self)]
        }
        func file(_ name: String, _ path: String, readOnly: Bool) -> [String] {
            node(["driver": "file", "node-name": name, "filename": path, "read-only": readOnly])
        }
        // A server holds the disk: no lock of QEMU's, and no way to write.
        let plex: [String: Any] = [
            "driver": computer.disk.isBlockDevice ? "host_device" : "file", "node-name": "plex",
            "filename": computer.link, "locking": "off", "read-only": true, "auto-read-only": false,
        ]
        return [
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-name", "plexus-drill",
            "-machine", "q35,vmport=off,hpet=off,pflash0=code,pflash1=settings", "-m", String(memoryMiB), "-smp", "1",
        ]
            // Emulated, "erms" makes the guest copy memory bytewise, five times slower; the others cost time as well.
            + (isVirtual
                ? ["-accel", "kvm", "-cpu", "host"] : ["-accel", "tcg", "-cpu", "max,-erms,-smap,-smep,-la57"])
            + file("code", computer.firmware.code, readOnly: true) + file("settings", settings, readOnly: false)
            + node(plex) + node(["driver": "raw", "node-name": "disk", "file": "plex", "read-only": true])
            + file("changes", changes, readOnly: false)
            + node(["driver": "qcow2", "node-name": "view", "file": "changes", "backing": "disk"])
            + ["-device", bus.device, "-device", "virtio-rng-pci"]
            + ["-serial", "file:\(console.replacingOccurrences(of: ",", with: ",,"))"]
    }

    private func verdict(_ ending: Ending, _ console: String) -> FileSystemCheck.Verdict {
        let lines = ConsoleWatch.lines(console)
        let end = lines.suffix(Self.shownLines).joined(separator: " | ")
        let said = lines.isEmpty ? "its console said nothing" : "its console ended with: \(end)"
        let wanted = "\"\(printable(expected))\""
        switch ending {
        case .found: return .init(outcome: .pass, text: "alone in a computer with UEFI it says \(wanted)")
        case .timeUp:
            return .init(
                outcome: .fail, text: "did not say \(wanted) within \(Int(limitSeconds)) s; \(said)",
                action:
                    "if it does boot, let it use the serial port (console=ttyS0 for its kernel), give it more time (--timeout), or wait for another text (--expect)"
            )
        case .ended(.exit(0), _):
            return .init(
                outcome: .fail, text: "left off, or started anew, before it said \(wanted); \(said)",
                action:
                    "its console tells why; where it does not, let it use the serial port (console=ttyS0 for its kernel)"
            )
        case .ended(let end, let said): return .skipped("QEMU failed (\(end)): \(said)")
        case .noView(let reason): return .skipped("there is no view of it to boot: \(reason)")
        }
    }
}

/// Looks for a text in what a console has said so far.
private struct ConsoleWatch {
    private let path: String
    private let expected: Data
    private var tail = Data()
    private(set) var seenBytes = 0

    init(_ path: String, expected: String) {
        self.path = path
        self.expected = Data(expected.utf8)
    }

    mutating func hasFound() -> Bool {
        guard let file = FileHandle(forReadingAtPath: path) else { return false }
        defer { try? file.close() }
        try? file.seek(toOffset: UInt64(seenBytes))
        while let piece = try? file.read(upToCount: 1 << 20), !piece.isEmpty {
            seenBytes += piece.count
            tail.append(piece)
            if tail.range(of: expected) != nil { return true }
            // The text may come in two pieces.
            tail = Data(tail.suffix(expected.count))
        }
        return false
    }

    /// Without what moves cursors and clears screens.
    static func lines(_ path: String) -> [String] {
        guard let file = FileHandle(forReadingAtPath: path) else { return [] }
        let length = (try? file.seekToEnd()) ?? 0
        try? file.seek(toOffset: length - min(length, 16 << 10))
        let data = (try? file.readToEnd()) ?? Data()
        return String(decoding: data, as: UTF8.self).split(whereSeparator: \.isNewline).map {
            printable($0).trimmingCharacters(in: .whitespaces)
        }.filter { !$0.isEmpty }
    }
}
