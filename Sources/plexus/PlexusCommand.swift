import ArgumentParser
import MirrorServer

/// `plexus`; one file per verb.
@main
struct PlexusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plexus",
        abstract: "A mirrored virtual disk in user space, served over NBD.",
        discussion: """
            Typical: plexus create data a.img b.img --size 10G; plexus serve a.img b.img; then attach the URI it
            prints with nbd-client, nbdfuse, qemu or any other NBD client. Look at it with plexus status.
            """,
        version: plexusVersion,
        subcommands: [
            Create.self, Serve.self, Status.self, Top.self, Examine.self, Add.self, Replace.self, Spare.self,
            Break.self, Join.self, Resolve.self, Offline.self, Online.self, Clear.self, Reactivate.self,
            WriteMostly.self, Resync.self,
            Scrub.self, Wait.self, Stop.self, Attach.self, Detach.self,
            Drill.self, BootEntries.self, Dissolve.self, Events.self,
        ])
}
