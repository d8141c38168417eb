import ArgumentParser
import Control
import Foundation

struct Events: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show the event log, which every plex keeps.")

    @Argument(help: "Only this mirror.")
    var name: String?

    @Flag(help: "Go on with new events, until interrupted.")
    var follow = false

    @Flag(help: "Print JSON, one event a line.")
    var json = false

    @OptionGroup var control: ControlOptions

    func run() throws {
        try reporting(exitCode: 4) {
            var request = ControlRequest(.events, mirror: name)
            request.follow = follow
            try control.client().perform(request) { response in
                if let error = response.error { throw Failure(error) }
                for event in response.events ?? [] {
                    print(json ? try plexus.json(event, pretty: false) : event.line)
                }
                flushOutput()
                return true
            }
        }
    }
}
