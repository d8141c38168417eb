import Control
import Glibc
import TestSupport
import Testing

@testable import MirrorServer

/// One after the other: making a socket changes the umask of the process for a moment.
@Suite(.serialized) struct ListenerTests {
    private func withListener(_ path: String, _ body: (Listener) throws -> Void) throws {
        let listener = try Listener.unix(path)
        defer { listener.shut() }
        try body(listener)
    }

    private func withClient(_ path: String, _ body: (Int32) throws -> Void) throws {
        var address = try #require(UnixAddress(path: path))
        let client = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        try #require(client >= 0)
        defer { close(client) }
        let result = unsafe address.withPointer { unsafe connect(client, $0, $1) }
        try #require(result == 0)
        try body(client)
    }

    /// What a killed server leaves behind.
    private func leaveDeadSocket(_ path: String) throws {
        var address = try #require(UnixAddress(path: path))
        let file = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        try #require(file >= 0)
        defer { close(file) }
        let result = unsafe address.withPointer { unsafe bind(file, $0, $1) }
        try #require(result == 0 && listen(file, 1) == 0)
    }

    @Test func socketIsForItsOwnerOnlyAndTheUmaskIsAsBefore() throws {
        try withTemporaryDirectory { directory in
            let mask = umask(0o022)
            defer { umask(mask) }
            try withListener("\(directory)/socket") { listener in
                let facts = try #require(FileFacts("\(directory)/socket"))
                #expect(facts.isSocket && facts.mode == 0o600)
                #expect(!listener.isTCP && listener.path == "\(directory)/socket")
            }
            let now = umask(0o022)
            #expect(now == 0o022)
            #expect(FileFacts("\(directory)/socket") == nil, "it goes with the listener")
        }
    }

    @Test func deadSocketIsReplaced() throws {
        try withTemporaryDirectory { directory in
            let path = "\(directory)/socket"
            try leaveDeadSocket(path)
            try withListener(path) { listener in
                try withClient(path) { _ in
                    let client = try #require(listener.accept())
                    close(client)
                }
            }
        }
    }

    @Test func liveSocketIsRefusedAndGoesOn() throws {
        try withTemporaryDirectory { directory in
            let path = "\(directory)/socket"
            try withListener(path) { listener in
                let error = try refusal { _ = try Listener.unix(path) }
                #expect(error.description.contains("is in use by another server"))
                while let probe = listener.accept() { close(probe) }
                try withClient(path) { _ in
                    let client = try #require(listener.accept())
                    close(client)
                }
            }
        }
    }

    @Test func regularFileIsRefusedAndLeftAlone() throws {
        try withTemporaryDirectory { directory in
            let path = "\(directory)/file"
            try write([1, 2, 3], to: path)
            let error = try refusal { _ = try Listener.unix(path) }
            #expect(error.description == "\(path): exists and is no socket; choose another path")
            try #expect(bytes(of: path) == [1, 2, 3])
        }
    }

    @Test func symbolicLinkIsRefusedAndLeftAlone() throws {
        try withTemporaryDirectory { directory in
            let path = "\(directory)/link"
            try #require(unsafe symlink("\(directory)/target", path) == 0)
            #expect(throws: DiskError.self) { _ = try Listener.unix(path) }
            #expect(FileFacts(path) != nil && FileFacts("\(directory)/target") == nil)
        }
    }

    @Test func absentDirectoryAndLongPathAreNamed() throws {
        let absent = try refusal { _ = try Listener.unix("/nonexistent/socket") }
        #expect(absent.description.contains("No such file or directory; another path: --socket, --control"))
        let long = "/tmp/" + String(repeating: "x", count: 103)
        try #expect(refusal { _ = try Listener.unix(long) }.description.contains("at most 107 bytes"))
    }

    @Test func clientsAreAcceptedInTurnWithoutBlocking() throws {
        try withTemporaryDirectory { directory in
            let path = "\(directory)/socket"
            try withListener(path) { listener in
                #expect(listener.accept() == nil)
                try withClient(path) { _ in
                    let client = try #require(listener.accept())
                    defer { close(client) }
                    #expect(fcntl(client, F_GETFL) & O_NONBLOCK != 0)
                    #expect(fcntl(client, F_GETFD) & FD_CLOEXEC != 0)
                    #expect(listener.accept() == nil)
                }
            }
        }
    }

    @Test func addressOfTheNetworkIsListenedOn() throws {
        let listeners = try Listener.tcp("127.0.0.1:0")
        defer { for listener in listeners { listener.shut() } }
        #expect(listeners.count == 1 && listeners[0].isTCP && listeners[0].path == nil)
        #expect(listeners[0].accept() == nil)
    }

    @Test func portAloneMeansThisMachineOnly() throws {
        let listeners = try Listener.tcp("0")
        defer { for listener in listeners { listener.shut() } }
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe getsockname(listeners[0].file, $0, &length)
            }
        }
        #expect(result == 0 && UInt32(bigEndian: address.sin_addr.s_addr) == 0x7F00_0001)
    }

    @Test func portThatIsNoneIsRefused() throws {
        let error = try refusal { _ = try Listener.tcp("127.0.0.1:none") }
        #expect(error.description.hasPrefix("--listen 127.0.0.1:none: "))
    }
}
