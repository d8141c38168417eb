import ArgumentParser
import Control
import Foundation

struct Stop: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Flush, mark clean and leave: one mirror, or the whole server.")

    @Argument(help: "Only this mirror; the server goes on.")
    var name: String?

    @OptionGroup var control: ControlOptions

    func run() throws {
        try reporting {
            let client = try control.client()
            let response = try client.perform(ControlRequest(.stop, mirror: name))
            if let error = response.error { throw Failure(error) }
            // The server closes the connection when it has left.
            if name == nil { for message in client.waitForEnd() { print(message) } }
            print(name == nil ? "the server has stopped" : response.message ?? "done")
        }
    }
}
