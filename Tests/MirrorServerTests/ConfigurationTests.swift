import TestSupport
import Testing

@testable import MirrorServer

/// `plexus serve --config`.
@Suite struct ConfigurationTests {
    private func options(_ text: String, _ given: ServerOptions = ServerOptions()) throws -> ServerOptions {
        try withTemporaryDirectory { directory in
            let path = "\(directory)/plexus.toml"
            try write(Array(text.utf8), to: path)
            var options = given
            try Configuration(path: path).complete(&options)
            return options
        }
    }

    /// What the refusal says behind the path of the file.
    private func refusedText(_ text: String) throws -> String {
        let description = try refusal { _ = try options(text) }.description
        return String(description.drop { $0 != ":" }.dropFirst(2))
    }

    private static let full = """
        # A comment.
        disks = ["/dev/sda", "/dev/sdb"]
        socket = "/run/plexus/nbd.sock"
        listen = ["127.0.0.1:10809", "[::1]:10809"]
        control = "/run/plexus/control.sock"
        default = "data"
        degraded = true
        read-only = true
        threads = 4
        on-event = "/usr/sbin/tell"
        auto-rejoin = false
        rejoin-delay = 60
        spare-delay = 600
        write-deadline = 5
        scrub-every = "30d"
        scrub-limit = "20M"
        lock-memory = true
        """

    @Test func everySettingIsTaken() throws {
        let options = try options(Self.full)
        #expect(options.disks == ["/dev/sda", "/dev/sdb"])
        #expect(options.onEvent == "/usr/sbin/tell")
        #expect(options.socket == "/run/plexus/nbd.sock" && options.control == "/run/plexus/control.sock")
        #expect(options.listen == ["127.0.0.1:10809", "[::1]:10809"])
        #expect(options.defaultMirror == "data" && options.allowDegraded && options.isReadOnly)
        #expect(options.threads == 4 && options.autoRejoin == false && options.rejoinSeconds == 60)
        #expect(options.spareSeconds == 600 && options.writeDeadlineSeconds == 5)
        #expect(options.scrubSeconds == 2_592_000 && options.scrubLimit == 20 << 20)
        #expect(options.lockMemory == true)
    }

    @Test func commandLineDecides() throws {
        var given = ServerOptions()
        given.disks = ["/dev/sdc"]
        given.socket = "/tmp/socket"
        given.listen = ["10809"]
        given.control = "/tmp/control"
        given.defaultMirror = "other"
        given.threads = 2
        given.lockMemory = false
        let options = try options(Self.full, given)
        #expect(options.disks == ["/dev/sdc"] && options.socket == "/tmp/socket" && options.listen == ["10809"])
        #expect(options.control == "/tmp/control" && options.defaultMirror == "other" && options.threads == 2)
        #expect(options.lockMemory == false)
    }

    @Test(arguments: ["", "# nothing\n", "degraded = false\nread-only = false"]) func emptyFileChangesNothing(
        text: String
    ) throws {
        let options = try options(text)
        #expect(options.disks.isEmpty && options.socket == nil && options.listen.isEmpty && options.control == nil)
        #expect(options.defaultMirror == nil && !options.allowDegraded && !options.isReadOnly)
        #expect(options.threads == nil && options.lockMemory == nil)
    }

    @Test func oneAddressNeedsNoList() throws {
        try #expect(options(#"listen = "127.0.0.1:1""#).listen == ["127.0.0.1:1"])
    }

    @Test(arguments: ["disk", "Disks", "readonly", "read_only"]) func unknownKeyIsNamedWithTheKnown(key: String) throws
    {
        let known =
            "auto-rejoin, control, default, degraded, disks, listen, lock-memory, on-event, read-only, rejoin-delay, scrub-every, scrub-limit, socket, spare-delay, threads, write-deadline"
        try #expect(refusedText("\n# here\n\(key) = true") == "line 3: unknown key \(key); known: \(known)")
    }

    @Test(arguments: [0, 65, 999_999_999]) func threadsHaveBounds(threads: Int) throws {
        try #expect(refusedText("threads = \(threads)") == "line 1: threads: \(threads) threads: allowed are 1 to 64")
    }

    @Test func delaysHaveBounds() throws {
        try #expect(
            refusedText("rejoin-delay = 86401") == "line 1: rejoin-delay: 86401 seconds: allowed are 0 to 86400")
    }

    @Test(arguments: [
        #"disks = "/dev/sda""#, "socket = 3", "control = true", "default = []", #"degraded = "yes""#, "read-only = 1",
        "listen = true", "socket = 1.5", "control = 2026-11-21", "default = { a = 1 }",
        "threads = true", "auto-rejoin = 1", "lock-memory = 1", "rejoin-delay = true", #"threads = "2""#,
        "threads = 2.5", "threads = -1",
        "socket = 1",
    ])
    func valueOfTheWrongKindIsRefused(line: String) throws {
        let key = String(line.prefix { $0 != " " })
        try #expect(refusedText(line) == "line 1: \(key): has a value of the wrong kind")
    }

    @Test(arguments: ["disks = [1, 2]", #"listen = ["a", true]"#]) func listMustHoldTexts(line: String) throws {
        let key = String(line.prefix { $0 != " " })
        try #expect(refusedText(line) == "line 1: \(key): must hold texts only")
    }

    @Test(arguments: [
        "disks =", "= 1", "[", "disks = [\"a\"", "degraded = true\ndegraded = false", "degraded = maybe",
        "[\n", "[[=", "disks = [}", "[disks]\na = 1", "a.b = 1",
    ])
    func badTOMLIsRefused(text: String) throws {
        let text = try refusedText(text)
        #expect(text.hasPrefix("line ") && text.contains(": is no valid TOML: "))
    }

    @Test func absentFileIsNamed() throws {
        let error = try refusal { _ = try Configuration(path: "/nonexistent/plexus.toml") }
        #expect(error.description.hasPrefix("/nonexistent/plexus.toml: the configuration can't be read"))
    }

    @Test(arguments: ["", "30", "d", "0d", "-1d", "1.5h", "30 d", "30D", "4000d", "99999999999999999999h", "soon"])
    func timesThatAreNoneAreRefused(text: String) throws {
        #expect(try refusedText("scrub-every = \"\(text)\"").contains("scrub-every: \(text) is no time such as 30d"))
        #expect(ScrubPolicy.seconds(text) == nil)
    }

    @Test func timesAndRatesHaveUnits() {
        #expect(ScrubPolicy.seconds("30d") == 2_592_000 && ScrubPolicy.seconds("12h") == 43_200)
        #expect(ScrubPolicy.seconds("90m") == 5400 && ScrubPolicy.seconds("3650d") == 315_360_000)
        #expect(
            ScrubPolicy.bytes("512") == 512 && ScrubPolicy.bytes("4K") == 4096 && ScrubPolicy.bytes("2G") == 2 << 30)
        for text in ["", "0", "M", "-1", "1.5M", "20m", "1T", "99999999999G"] {
            #expect(ScrubPolicy.bytes(text) == nil)
        }
    }
}
