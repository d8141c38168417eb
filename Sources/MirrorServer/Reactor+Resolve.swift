internal import BasicContainers
internal import Control
internal import Logging
internal import MirrorCore
internal import MirrorFormat

/// `plexus resolve`: after a split brain one side is chosen, and what the other wrote alone is given up.
extension Reactor {
    mutating func resolve(_ request: ControlRequest, from asker: UInt64) {
        guard !isStopping else { return respond(.failure("the server is stopping"), to: asker) }
        guard let name = request.mirror, let position = refused.firstIndex(where: { $0.name == name }) else {
            let isServed = request.mirror.flatMap { route(to: $0) } != nil
            let text = isServed ? "mirror \(request.mirror ?? "") is not split" : unknownMirror(request.mirror ?? "")
            respond(.failure(text), to: asker)
            return
        }
        guard let split = refused[position].split else {
            respond(
                .failure("mirror \(name) is not split, but \(refused[position].state): \(refused[position].reason)"),
                to: asker)
            return
        }
        guard let chosen = split.side(of: request.plex ?? "") else {
            respond(
                .failure(
                    "--keep \(request.plex ?? ""): names no plex of mirror \(name), or one on each side; name a disk: \(split.paths.joined(separator: ", "))"
                ), to: asker)
            return
        }
        let losers = split.sides.filter { $0.paths != chosen.side.paths }
        guard request.force ?? false else {
            respond(
                .failure(
                    "keeping \(chosen.side.text) gives up what was written on the other side: \(losers.map(\.text).joined(separator: "; ")). To do so: --force"
                ), to: asker)
            return
        }
        do throws(DiskError) {
            respond(try takeUp(position, split, keep: chosen.plex), to: asker)
        } catch {
            respond(.failure(error.description), to: asker)
        }
    }

    /// Opens the disks again, as a start would, and serves what comes of it.
    private mutating func takeUp(
        _ position: Int, _ split: SplitReport, keep: PlexUUID
    ) throws(DiskError) -> ControlResponse {
        var options = Opening.Options()
        options.keep = keep
        options.allowDegraded = true
        options.patienceSeconds = 0
        var opening = try Opening.open(split.paths, options)
        for warning in opening.warnings { logger.warning("\(warning)") }
        guard !opening.served.isEmpty else {
            throw DiskError(opening.refused.first.map { "\($0.reason); \($0.action)" } ?? "its disks can't be opened")
        }
        refused.remove(at: position)
        let mirror = mirrors.count
        take(up: opening.served.remove(at: 0))
        var response = ControlResponse()
        response.message =
            "mirror \(mirrors[mirror].name) is served from the side that was kept; see plexus status \(mirrors[mirror].name) for the others"
        return response
    }
}
