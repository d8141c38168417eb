import Foundation
import Testing

/// House rule 1: the core has no I/O, clock, randomness or threads, and what would bring them is not imported.
@Suite struct PurityTests {
    @Test(arguments: ["Bytes", "NBDProtocol", "MirrorFormat", "MirrorCore"])
    func coreModuleImportsNothingFromThePlatform(module: String) throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let folder = root.appendingPathComponent("Sources/\(module)")
        let files = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasSuffix(".swift") }
        #expect(files.count >= 2)
        // The processor is not the platform: a checksum by its instruction is a function like any other.
        let allowed: Set<Substring> = module == "Bytes" ? ["CProcessor"] : ["Bytes", "MirrorFormat"]
        for file in files {
            let text = try String(contentsOf: folder.appendingPathComponent(file), encoding: .utf8)
            for line in text.split(separator: "\n") {
                let words = line.split(separator: " ")
                guard let position = words.firstIndex(of: "import"), position <= 2,
                    words[..<position].allSatisfy({
                        $0.hasPrefix("@") || $0 == "package" || $0 == "internal" || $0 == "public"
                    })
                else { continue }
                #expect(allowed.contains(words[words.count - 1]), "\(module)/\(file): \(line)")
            }
        }
    }
}
