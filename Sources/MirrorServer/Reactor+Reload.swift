internal import BasicContainers
internal import Glibc
internal import Logging
internal import MirrorCore
internal import MirrorFormat
internal import URing

/// How the configuration is read anew, and what is in force.
struct Settings {
    var options: ServerOptions
    /// Nil: there is no file to be read, and SIGHUP stops the server.
    var read: (@Sendable () throws -> ServerOptions)?
    var isReloading = false
    /// SIGHUP came while the file was being read.
    var mustReloadAgain = false
    /// Why it was not taken over the last time.
    var fault: String?
}

/// SIGHUP: the configuration is read again, and no client notices. What goes wrong leaves all as it was.
extension Reactor {
    mutating func beginReload() {
        guard let read = settings.read, !isStopping, handover == nil else { return }
        guard !settings.isReloading else {
            settings.mustReloadAgain = true
            return
        }
        settings.isReloading = true
        supervisor.tell(
            status: "reads the configuration again", with: "RELOADING=1\nMONOTONIC_USEC=\(now.nanoseconds / 1000)")
        let present = Reload.Present(
            options: settings.options, origins: Set(listeners.compactMap { $0?.origin }), hasOthers: hasActivated,
            mirrors: group.mirrors)
        opener.begin(takeTicket()) {
            .reloaded(Result { () throws(DiskError) in try Reload(read, present) })
        }
    }

    mutating func reloaded(_ result: Result<Reload, DiskError>) {
        settings.isReloading = false
        switch result {
        case .failure(let error):
            logger.error("the configuration is not taken over: \(error.description)")
            settings.fault = error.description
        case .success(let reload):
            if isStopping { return reload.giveBack() }
            settings.fault = nil
            take(reload)
        }
        tellReady()
        if settings.mustReloadAgain {
            settings.mustReloadAgain = false
            beginReload()
        }
    }

    /// Some sockets were handed over. They stay.
    private var hasActivated: Bool { listeners.contains { $0.map { $0.origin == nil } ?? false } }

    private mutating func take(_ reload: Reload) {
        let old = settings.options
        settings.options = reload.options
        group.policies = reload.options.policies
        nextWatchAt = 0
        for mirror in mirrors.indices { mirrors[mirror].returning.nextSearchAt = 0 }
        changeListeners(reload)
        changeEventProgram(reload.options.onEvent, from: old.onEvent)
        let gone = old.disks.filter { !reload.options.disks.contains($0) }
        if !gone.isEmpty {
            logger.warning(
                "\(gone.joined(separator: ", ")): not in the configuration any more, and still in use; see plexus break, spare --remove, stop"
            )
        }
        let later = reload.options.settingsForANewStart(differingFrom: old)
        if !later.isEmpty { logger.warning("\(later.joined(separator: ", ")): taken over by the next start only") }
        for spare in reload.spares { standBy(spare) }
        serve(reload)
        logger.info("the configuration was read again")
    }

    private mutating func changeListeners(_ reload: Reload) {
        let origins = Set(reload.options.listenOrigins(hasOthers: hasActivated))
        for index in listeners.indices {
            guard let listener = listeners[index], let origin = listener.origin, !origins.contains(origin) else {
                continue
            }
            ring.preparePollRemoval(
                of: UInt64(Source.listener.rawValue) << 56 | UInt64(index),
                userData: UInt64(Source.ignored.rawValue) << 56)
            listener.shut()
            listeners[index] = nil
            logger.info("no longer listening: \(listener.address)")
        }
        for listener in reload.listeners {
            poll(listener.file, .listener, UInt64(listeners.count))
            listeners.append(listener)
            logger.info("listening: \(listener.address)")
        }
    }

    private mutating func changeEventProgram(_ path: String?, from old: String?) {
        guard path != old else { return }
        do throws(DiskError) {
            let logger = logger
            eventProgram = try path.map { path throws(DiskError) in try EventProgram(path: path, logger: logger) }
        } catch {
            logger.error("on-event: \(error.description)")
        }
    }

    /// The mirror runs here or on another reactor.
    mutating func standBy(_ spare: HotSpare) {
        if let mirror = mirrors.indices.first(where: {
            mirrors[$0].mirror.record.mirror == spare.mark.mirror && !mirrors[$0].isStopped
        }) {
            mirrors[mirror].spares.append(spare)
            group.claim(spare.disk.path, mirror: mirrors[mirror].name)
        } else if isFirst, let place = group.place(of: spare.mark.mirror), place.reactor != self.place {
            post(.standBy(spare), to: place.reactor)
        } else {
            spare.disk.shut()
        }
    }

    private mutating func serve(_ reload: Reload) {
        for warning in reload.opening.warnings { logger.warning("\(warning)") }
        for one in reload.opening.refused {
            logger.error("mirror=\(one.name) state=\(one.state): \(one.reason); \(one.action)")
            refused.removeAll { $0.uuid == one.uuid }
            refused.append(one)
        }
        while !reload.opening.served.isEmpty {
            let new = reload.opening.served.remove(at: 0)
            let name = new.name
            let room = metadataPool.capacityBytes / Superblock.byteCount / limits.metadataPagesPerMirror
            guard mirrors.count < room, route(to: name) == nil else {
                logger.error(
                    "mirror=\(name): not served: another of that name is, or there are too many for this server")
                new.shutDisks()
                continue
            }
            refused.removeAll { $0.name == name }
            take(up: new)
            logger.info("mirror=\(name): served")
        }
    }

    /// Serves a mirror that was not served before.
    mutating func take(up new: consuming ServedMirror) {
        let mirror = mirrors.count
        mirrors.append(new)
        group.mirrorStarted()
        group.claimDisks(of: mirrors[mirror])
        group.enter(mirrors[mirror].mirror.record.mirror, MirrorPlace(reactor: place, index: mirror))
        announce(mirror)
        deliver(.tick, to: mirror)
    }
}
