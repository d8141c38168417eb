internal import Bytes
internal import Foundation

/// What an EFI system partition has to boot from, as mtools reads it, which needs neither root nor a mount.
///
/// Firmware that knows nothing of the disk starts `\EFI\BOOT\BOOTX64.EFI` (UEFI 2.10, section 3.5.1.1); every other loader
/// needs an entry in the memory of that one machine.
struct SystemPartition {
    private static let limitSeconds = 120.0

    /// Of UEFI's name for an architecture, and of its PE images.
    private static let machines: [String: UInt16] = [
        "X64": 0x8664, "IA32": 0x014C, "AA64": 0xAA64, "ARM": 0x01C2, "RISCV64": 0x5064, "LOONGARCH64": 0x6264,
    ]

    #if arch(arm64)
        static let ownMachine = "AA64"
    #else
        static let ownMachine = "X64"
    #endif

    static let ownLoader = "\\EFI\\BOOT\\BOOT\(ownMachine).EFI"

    /// As firmware writes them: `\EFI\debian\shimx64.efi`.
    var loaders: [String]
    private var workspace: Workspace
    private var image: String

    enum Finding {
        case found(SystemPartition)
        /// A tool is missing.
        case lacking(String)
        case unreadable(String)
    }

    /// - Parameter link: to the disk, in the workspace.
    static func find(
        _ link: String, offset: UInt64, in workspace: Workspace
    ) throws(Interrupted) -> Finding {
        guard let mdir = Program.find("mdir") else { return .lacking("install mdir (mtools)") }
        // Only reads: mdir opens an image for reading.
        let image = "\(link)@@\(offset)"
        let program = Program(mdir, ["-i", image, "-b", "-/", "::/"], in: workspace)
        let end = try program.wait(limitSeconds: limitSeconds)
        let lines = program.lines
        guard end == .exit(0) else { return .unreadable(lines.last ?? "mdir: \(end)") }
        let loaders = lines.filter { $0.hasPrefix("::/") && $0.lowercased().hasSuffix(".efi") }.map {
            $0.dropFirst(2).replacingOccurrences(of: "/", with: "\\")
        }
        return .found(SystemPartition(loaders: loaders.sorted(), workspace: workspace, image: image))
    }

    /// The one that firmware of this computer's kind starts by itself; FAT does not tell cases apart.
    var ownLoader: String? { loaders.first { $0.uppercased() == Self.ownLoader } }

    var otherLoaders: [String] { loaders.filter { $0 != ownLoader } }

    /// The one to be named in an entry: an installed system's own, its signed first stage before others, and what any firmware
    /// would find by itself last.
    var entryLoader: String? {
        let suffix = Self.ownMachine.lowercased() + ".efi"
        let named = otherLoaders.filter {
            $0.lowercased().hasPrefix("\\efi\\") && !$0.lowercased().hasPrefix("\\efi\\boot\\")
                && $0.lowercased().hasSuffix(suffix)
        }
        let order = ["shim", "grub", "systemd-boot"]
        for name in order {
            if let found = named.first(where: { $0.lowercased().contains("\\\(name)") }) { return found }
        }
        return ownLoader
    }

    /// - Returns: what is wrong with the loader's first bytes; nil if it is a program for its kind of machine.
    func fault(of loader: String) throws(Interrupted) -> String? {
        guard let mcopy = Program.find("mcopy") else { return "can't be read: install mcopy (mtools)" }
        let copy = workspace.newPath("loader")
        let source = "::" + loader.replacingOccurrences(of: "\\", with: "/")
        let program = Program(mcopy, ["-n", "-i", image, source, copy], in: workspace)
        defer { try? FileManager.default.removeItem(atPath: copy) }
        guard try program.wait(limitSeconds: Self.limitSeconds) == .exit(0) else {
            return "can't be read: \(program.lines.last ?? "mcopy failed")"
        }
        let head = (try? FileHandle(forReadingAtPath: copy)?.read(upToCount: 4096)).map { [UInt8]($0) } ?? []
        return Self.fault(ofImage: head)
    }

    /// - Parameter head: the first bytes: "MZ", at 0x3C where "PE\0\0" lies, and behind that the machine (Microsoft, "PE Format").
    static func fault(ofImage head: [UInt8], machine: String = ownMachine) -> String? {
        let span = unsafe head.span.bytes
        guard span.byteCount >= 0x40, span.loadLittleEndian(at: 0, as: UInt16.self) == 0x5A4D else {
            return "is no program"
        }
        let place = Int(span.loadLittleEndian(at: 0x3C, as: UInt32.self))
        guard place <= span.byteCount - 6, span.loadLittleEndian(at: place, as: UInt32.self) == 0x4550 else {
            return "is no EFI program"
        }
        let found: UInt16 = span.loadLittleEndian(at: place + 4)
        guard found == machines[machine] else {
            let name = machines.first { $0.value == found }?.key ?? "machine type 0x\(String(found, radix: 16))"
            return "is a program for \(name), not for \(machine)"
        }
        return nil
    }
}
