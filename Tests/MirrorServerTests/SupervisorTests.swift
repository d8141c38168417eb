import Glibc
import Testing

@testable import MirrorServer

/// What is told to a service manager; with a real socket: Tests/RealClients/test_supervisor.py.
@Suite struct SupervisorTests {
    private func supervisor(_ variables: [String: String]) -> Supervisor {
        Supervisor(environment: variables)
    }

    @Test func watchdogIsForTheProcessThatIsNamed() {
        let socket = ["NOTIFY_SOCKET": "/run/notify"]
        #expect(supervisor(socket).watchdogNanoseconds == nil)
        let watched = socket.merging(["WATCHDOG_USEC": "3000000"]) { $1 }
        #expect(supervisor(watched).watchdogNanoseconds == 3_000_000_000)
        #expect(supervisor(watched.merging(["WATCHDOG_PID": "\(getpid())"]) { $1 }).watchdogNanoseconds != nil)
        #expect(supervisor(watched.merging(["WATCHDOG_PID": "1"]) { $1 }).watchdogNanoseconds == nil)
    }

    @Test(arguments: ["0", "", "-1", "soon", "18446744073709551615"]) func watchdogTimesThatAreNoneAreNoWatchdog(
        text: String
    ) {
        #expect(supervisor(["NOTIFY_SOCKET": "@plexus", "WATCHDOG_USEC": text]).watchdogNanoseconds == nil)
    }

    @Test func withoutASocketNobodyIsTold() {
        #expect(!supervisor([:]).isPresent && !supervisor(["NOTIFY_SOCKET": ""]).isPresent)
        #expect(supervisor(["WATCHDOG_USEC": "3000000"]).watchdogNanoseconds == nil)
    }

    @Test func statusIsOneLineOfLimitedLength() {
        #expect(Supervisor.line("a\nMAINPID=1\r\u{0}b\u{7F}") == "a MAINPID=1  b ")
        #expect(Supervisor.line("disk ä 𝄞") == "disk ä 𝄞")
        for length in Supervisor.statusBytes - 8...Supervisor.statusBytes + 8 {
            let line = Supervisor.line(String(repeating: "x", count: length) + "𝄞")
            #expect(line.utf8.count <= Supervisor.statusBytes)
            #expect(line.hasSuffix("…") == (length > Supervisor.statusBytes - 4))
        }
    }
}
