import ArgumentParser
import Attachment
import Glibc

struct Detach: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Detach a mirror's block device, after everything is written.",
        discussion: """
            Refuses while something stands on it: a mounted file system, swap space, another block device, a program that has it
            open.
            """)

    @Argument(help: "The mirror, or /dev/nbdN.")
    var name: String

    @Flag(help: "Though the server is gone, or programs have it open: what was not written yet is lost.")
    var force = false

    func run() throws {
        try reporting {
            guard getuid() == 0 else { throw Failure("only root may detach block devices: sudo plexus detach \(name)") }
            do throws(AttachmentError) {
                print(try Detaching.detach(name, isForced: force))
            } catch {
                throw Failure(error.description)
            }
        }
    }
}
