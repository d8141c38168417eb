import Control
import Foundation
import Testing

/// As `plexus status --json` and `plexus events --json` encode, without the line breaks.
private func encode<Value: Encodable>(_ value: Value) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(value), as: UTF8.self)
}

private func decode<Value: Decodable>(_ type: Value.Type, _ text: String) throws -> Value {
    try JSONDecoder().decode(type, from: Data(text.utf8))
}

private func object(_ text: String) throws -> [String: Any] {
    try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
}

private func plex(_ index: Int, disk: String?, state: String, reason: String?, io: String?) -> StatusReport.Plex {
    StatusReport.Plex(
        index: index, uuid: "11111111-2222-3333-4444-00000000000\(index)", disk: disk, state: state, reason: reason,
        io: io, readErrors: 1, writeErrors: 2, corrected: 3, spared: 4, sparesFree: 5)
}

private func report(_ mirrors: [StatusReport.Mirror]) -> StatusReport {
    StatusReport(
        server: StatusReport.Server(pid: 4711, version: "0.1.0", sockets: ["/run/plexus/nbd.sock"]), mirrors: mirrors)
}

@Suite struct StatusReportTests {
    /// A mirror with everything.
    private var degraded: StatusReport.Mirror {
        var mirror = StatusReport.Mirror(
            name: "data", uuid: "0f0e0d0c-0b0a-0908-0706-050403020100", size: 1 << 30, state: "degraded")
        mirror.reason = "plex 1 (/srv/b.img) failed: write error EIO at 4096, 2026-11-21T10:31:07Z"
        mirror.action = "bring it back: plexus join data /srv/b.img"
        mirror.generation = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
        mirror.epoch = 12
        mirror.clients = 1
        mirror.bitmap = StatusReport.Bitmap(regionSize: 1 << 20, regions: 1024, dirty: 3)
        mirror.resync = StatusReport.Resync(
            plex: 1, done: 10, total: 20, bytesPerSecond: 30, etaSeconds: 40, paused: true, reason: "it was joined",
            limit: 50)
        mirror.resync?.verify = true
        mirror.resync?.priority = "normal"
        mirror.scrub = StatusReport.Scrub(
            running: true, lastFinished: "2026-11-21T10:31:07Z", mismatches: 2, done: 10, total: 20, bytesPerSecond: 30,
            etaSeconds: 40, waiting: nil, limit: 50, repair: false, repaired: 1, unreadable: 3)
        var broken = plex(1, disk: "/srv/b.img", state: "failed", reason: "write error EIO at 4096", io: "buffered")
        broken.dataDisk = "/dev/sdb"
        broken.atRisk = true
        broken.badRanges = [[4096, 8192]]
        broken.missedBytes = 1 << 20
        broken.queueDepth = 2
        broken.replaces = 0
        broken.remapped = 7
        mirror.queueDepth = 3
        mirror.hotSpares = [StatusReport.HotSpare(disk: "/srv/s.img", state: "ready")]
        mirror.plexes = [plex(0, disk: "/srv/a.img", state: "in-sync", reason: nil, io: "direct"), broken]
        return mirror
    }

    @Test func fullReportIsEncodedAsDocumented() throws {
        #expect(
            try encode(report([degraded])) == """
                {"mirrors":[{"action":"bring it back: plexus join data /srv/b.img",\
                "bitmap":{"dirty":3,"regionSize":1048576,"regions":1024},"clients":1,"epoch":12,\
                "generation":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee","hotSpares":[{"disk":"/srv/s.img","state":"ready"}],\
                "latency":null,"name":"data","plexes":[\
                {"atRisk":false,"badRanges":[],"corrected":3,"dataDisk":null,"disk":"/srv/a.img","hedgedReads":0,"index":0,"io":"direct",\
                "latency":null,"missedBytes":null,"queueDepth":null,"readErrors":1,"reason":null,"remapped":0,"replaces":null,"slow":false,"spared":4,"sparesFree":5,"state":"in-sync",\
                "unanswered":0,"uuid":"11111111-2222-3333-4444-000000000000","writeErrors":2,"writeMostly":false},\
                {"atRisk":true,"badRanges":[[4096,8192]],"corrected":3,"dataDisk":"/dev/sdb","disk":"/srv/b.img","hedgedReads":0,"index":1,"io":"buffered",\
                "latency":null,"missedBytes":1048576,"queueDepth":2,"readErrors":1,"reason":"write error EIO at 4096","remapped":7,"replaces":0,"slow":false,"spared":4,"sparesFree":5,"state":"failed",\
                "unanswered":0,"uuid":"11111111-2222-3333-4444-000000000001","writeErrors":2,"writeMostly":false}],"queueDepth":3,"readOnly":false,\
                "reason":"plex 1 (/srv/b.img) failed: write error EIO at 4096, 2026-11-21T10:31:07Z",\
                "resync":{"bytesPerSecond":30,"done":10,"etaSeconds":40,"limit":50,"paused":true,"plex":1,"priority":"normal",\
                "reason":"it was joined","running":true,"total":20,"verify":true},\
                "scrub":{"bytesPerSecond":30,"done":10,"etaSeconds":40,"lastFinished":"2026-11-21T10:31:07Z","limit":50,\
                "mismatches":2,"repair":false,"repaired":1,"running":true,"total":20,"unreadable":3,"waiting":null},\
                "size":1073741824,"state":"degraded",\
                "uuid":"0f0e0d0c-0b0a-0908-0706-050403020100"}],"server":{"pid":4711,"sockets":["/run/plexus/nbd.sock"],"version":"0.1.0"},"version":1}
                """)
    }

    @Test func whatHasNoValueIsNullAndNotAbsent() throws {
        var mirror = StatusReport.Mirror(name: "m", uuid: "u", size: 1, state: "offline")
        mirror.plexes = [plex(0, disk: nil, state: "missing", reason: nil, io: nil)]
        #expect(
            try encode(report([mirror])) == """
                {"mirrors":[{"action":null,"bitmap":null,"clients":0,"epoch":0,"generation":"","hotSpares":[],"latency":null,"name":"m","plexes":[\
                {"atRisk":false,"badRanges":[],"corrected":3,"dataDisk":null,"disk":null,"hedgedReads":0,"index":0,"io":null,"latency":null,"missedBytes":null,\
                "queueDepth":null,"readErrors":1,"reason":null,"remapped":0,"replaces":null,"slow":false,"spared":4,"sparesFree":5,"state":"missing",\
                "unanswered":0,"uuid":"11111111-2222-3333-4444-000000000000","writeErrors":2,"writeMostly":false}],"queueDepth":null,"readOnly":false,"reason":null,\
                "resync":null,"scrub":null,"size":1,"state":"offline","uuid":"u"}],\
                "server":{"pid":4711,"sockets":["/run/plexus/nbd.sock"],"version":"0.1.0"},"version":1}
                """)
        mirror.plexes = []
        mirror.resync = StatusReport.Resync(
            plex: nil, done: 0, total: 0, bytesPerSecond: 0, etaSeconds: nil, paused: false, reason: "")
        #expect(
            try encode(mirror.resync) == """
                {"bytesPerSecond":0,"done":0,"etaSeconds":null,"limit":null,"paused":false,"plex":null,"priority":null,"reason":"","running":true,"total":0,"verify":null}
                """)
    }

    /// The example of the product description, word for word in its keys: none may ever go or be renamed.
    private static let contract = """
        { "version": 1, "server": {"pid": 1, "version": "0.1.0"},
          "mirrors": [ { "name": "data", "uuid": "u", "size": 1073741824, "state": "degraded",
            "reason": "r", "action": "a", "generation": "g", "epoch": 12, "readOnly": false, "clients": 1,
            "bitmap": {"regionSize": 1048576, "regions": 1024, "dirty": 3},
            "resync": {"plex": 1, "done": 0, "total": 0, "bytesPerSecond": 0, "etaSeconds": null, "paused": false},
            "scrub": {"running": false, "lastFinished": null, "mismatches": 0},
            "plexes": [ { "index": 0, "uuid": "u", "disk": "/srv/a.img", "state": "in-sync", "reason": null,
                "readErrors": 0, "writeErrors": 0, "corrected": 0, "spared": 0, "sparesFree": 4096,
                "badRanges": [] } ] } ] }
        """

    /// Paths of all keys, `mirrors.plexes.index`.
    private func keys(_ value: Any, _ prefix: String = "") -> Set<String> {
        if let list = value as? [Any] { return list.reduce(into: []) { $0.formUnion(keys($1, prefix)) } }
        guard let table = value as? [String: Any] else { return [] }
        return table.reduce(into: []) { all, pair in
            all.insert(prefix + pair.key)
            all.formUnion(keys(pair.value, prefix + pair.key + "."))
        }
    }

    @Test func everyKeyOfTheContractIsThere() throws {
        let documented = keys(try object(Self.contract))
        let encoded = keys(try object(try encode(report([degraded]))))
        #expect(documented.subtracting(encoded) == [])
        // Added since; whoever adds another names it here and in the README.
        #expect(
            encoded.subtracting(documented) == [
                "mirrors.resync.reason", "mirrors.resync.running", "mirrors.plexes.io", "mirrors.plexes.atRisk",
                "mirrors.plexes.missedBytes", "mirrors.queueDepth", "mirrors.latency", "mirrors.plexes.queueDepth",
                "mirrors.plexes.latency", "mirrors.plexes.replaces", "mirrors.plexes.remapped",
                "mirrors.plexes.dataDisk", "mirrors.plexes.slow", "mirrors.plexes.writeMostly",
                "mirrors.plexes.unanswered", "mirrors.plexes.hedgedReads",
                "mirrors.resync.verify", "mirrors.resync.priority", "mirrors.resync.limit",
                "mirrors.scrub.done", "mirrors.scrub.total", "mirrors.scrub.bytesPerSecond",
                "mirrors.scrub.etaSeconds", "mirrors.scrub.waiting", "mirrors.scrub.limit", "mirrors.scrub.repair",
                "mirrors.scrub.repaired", "mirrors.scrub.unreadable",
                "server.sockets", "mirrors.hotSpares", "mirrors.hotSpares.disk", "mirrors.hotSpares.state",
            ])
    }

    @Test func scrubReportIsEncodedAsDocumented() throws {
        let entry = ScrubReport.Entry(
            offset: 4096, length: 4096, verdict: "minority",
            versions: [ScrubReport.Version(plex: 2, crc32c: "0000abcd", odd: true)], firstSeen: "t1", lastSeen: "t2",
            state: "open", closed: nil, source: nil)
        let text = try encode(
            ScrubReport(mirror: "m", running: false, lastFinished: nil, mismatches: 3, unrecorded: 2, entries: [entry]))
        #expect(
            text == """
                {"entries":[{"closed":null,"firstSeen":"t1","lastSeen":"t2","length":4096,"offset":4096,"source":null,\
                "state":"open","verdict":"minority","versions":[{"crc32c":"0000abcd","odd":true,"plex":2}]}],\
                "lastFinished":null,"mirror":"m","mismatches":3,"running":false,"unrecorded":2,"version":1}
                """)
        #expect(try encode(decode(ScrubReport.self, text)) == text)
    }

    @Test func scrubLedgerReportIsEncodedAsDocumented() throws {
        let text = try encode(
            ScrubLedgerReport(
                running: true, position: 4096, started: "t1", lastFinished: nil, mismatches: 3, unrecorded: 2,
                unreadable: 1, repaired: 4, entries: []))
        #expect(
            text == """
                {"entries":[],"lastFinished":null,"mismatches":3,"position":4096,"repaired":4,"running":true,"started":"t1",\
                "unreadable":1,"unrecorded":2}
                """)
        #expect(try encode(decode(ScrubLedgerReport.self, text)) == text)
    }

    @Test func decodedReportIsEncodedTheSame() throws {
        let text = try encode(report([degraded, StatusReport.Mirror(name: "m", uuid: "u", size: 1, state: "split")]))
        #expect(try encode(decode(StatusReport.self, text)) == text)
    }

    @Test func keysThatALaterVersionAddedAreIgnored() throws {
        var text = try encode(report([degraded]))
        text = text.replacingOccurrences(of: #""scrub":null"#, with: #""scrub":{"running":true},"novelty":[1]"#)
        #expect(try decode(StatusReport.self, text).mirrors.first?.epoch == 12)
    }

    @Test(
        arguments: [
            ([], 0), (["healthy"], 0), (["healthy", "healthy"], 0), (["degraded"], 1), (["rebuilding"], 1),
            (["failed"], 2),
            (["split"], 2), (["suspended"], 2), (["offline"], 2), (["healthy", "rebuilding"], 1),
            (["degraded", "healthy"], 1),
            (["failed", "healthy"], 2), (["degraded", "split", "healthy"], 2), (["suspended", "degraded"], 2),
            (["a state of a later version"], 2),
        ] as [([String], Int32)])
    func exitCodeIsThatOfTheWorstMirror(states: [String], code: Int32) {
        let mirrors = states.map { StatusReport.Mirror(name: "m", uuid: "u", size: 1, state: $0) }
        #expect(report(mirrors).exitCode == code)
    }

    @Test(arguments: [
        ("healthy", true), ("degraded", true), ("rebuilding", true), ("suspended", true), ("split", false),
        ("failed", false), ("offline", false),
    ])
    func mirrorIsServedUnlessItCannotBe(state: String, isServed: Bool) {
        #expect(StatusReport.Mirror(name: "m", uuid: "u", size: 1, state: state).isServed == isServed)
    }
}

@Suite struct EventReportTests {
    private func event(plex: Int?, offset: UInt64 = 0, length: UInt64 = 0, errno: Int32 = 0) -> EventReport {
        EventReport(
            sequence: 7, time: "2026-11-21T10:31:07Z", code: "PLEX_FAILED", mirror: "data", plex: plex, offset: offset,
            length: length, errno: errno, generation: "g", epoch: 12, text: "write error")
    }

    @Test func eventIsEncodedAsDocumented() throws {
        #expect(
            try encode(event(plex: 1, offset: 4096, length: 512, errno: 5)) == """
                {"code":"PLEX_FAILED","epoch":12,"errno":5,"generation":"g","length":512,"mirror":"data",\
                "offset":4096,"plex":1,"sequence":7,"text":"write error","time":"2026-11-21T10:31:07Z"}
                """)
    }

    @Test func eventOfTheWholeMirrorHasANullPlex() throws {
        let text = try encode(event(plex: nil))
        #expect(text.contains(#""plex":null"#))
        #expect(try decode(EventReport.self, text).plex == nil)
    }

    @Test func linesNameWhatIsKnown() {
        #expect(
            event(plex: 1, offset: 4096, length: 512, errno: 5).line
                == "2026-11-21T10:31:07Z PLEX_FAILED mirror=data plex=1 offset=4096 length=512 errno=5 epoch=12: write error"
        )
        #expect(event(plex: nil).journalLine == "PLEX_FAILED mirror=data epoch=12: write error")
        #expect(
            event(plex: 0, length: 512).journalLine
                == "PLEX_FAILED mirror=data plex=0 offset=0 length=512 epoch=12: write error")
    }
}

@Suite struct MessageTests {
    @Test(arguments: [
        (ControlRequest.Verb.status, "status"), (.break, "break"), (.join, "join"), (.offline, "offline"),
        (.online, "online"), (.stop, "stop"), (.events, "events"),
    ])
    func requestOfEachVerbRoundTrips(verb: ControlRequest.Verb, word: String) throws {
        var request = ControlRequest(verb, mirror: "data", plex: "1", disk: "/srv/b.img")
        request.keep = false
        request.force = true
        request.follow = true
        let text = try encode(request)
        #expect(
            text == """
                {"disk":"/srv/b.img","follow":true,"force":true,"keep":false,"mirror":"data","plex":"1",\
                "verb":"\(word)","version":1}
                """)
        #expect(try encode(decode(ControlRequest.self, text)) == text)
    }

    @Test func requestCarriesOnlyWhatWasSaid() throws {
        let text = try encode(ControlRequest(.status))
        #expect(text == #"{"verb":"status","version":1}"#)
        let back = try decode(ControlRequest.self, text)
        #expect(back.mirror == nil && back.plex == nil && back.disk == nil && back.keep == nil && back.force == nil)
    }

    @Test(arguments: [#"{"version":1,"verb":"dance"}"#, #"{"version":1}"#, #"{"verb":"status"}"#, "[]", "", "null"])
    func whatIsNoRequestIsNotDecoded(text: String) {
        #expect(throws: (any Error).self) { try decode(ControlRequest.self, text) }
    }

    @Test func responseRoundTrips() throws {
        var response = ControlResponse(isLast: false)
        response.message = "done: \u{1F4BE} \"quoted\"\nsecond line"
        response.status = report([StatusReport.Mirror(name: "m", uuid: "u", size: 1, state: "healthy")])
        response.events = [
            EventReport(
                sequence: 1, time: "t", code: "JOINED", mirror: "m", plex: nil, offset: 0, length: 0, errno: 0,
                generation: "g", epoch: 1, text: "")
        ]
        let text = try encode(response)
        #expect(!text.contains("\n"), "a line on the wire is a message")
        let back = try decode(ControlResponse.self, text)
        #expect(try encode(back) == text)
        #expect(!back.isLast && back.message == response.message && back.events?.first?.code == "JOINED")
    }

    @Test func failureIsLastAndCarriesItsText() throws {
        #expect(
            try encode(ControlResponse.failure("no")) == #"{"error":"no","isLast":true,"version":1}"#)
    }

    /// Foundation's scanner ends the process where there are more than 512 levels.
    @Test(arguments: [33, 513, 60_000]) func lineOfTooManyLevelsIsRefused(levels: Int) throws {
        for bracket in [UInt8(ascii: "["), UInt8(ascii: "{")] {
            #expect(throws: (any Error).self) {
                try ControlRequest(line: [UInt8](repeating: bracket, count: levels))
            }
        }
        let start = Array(#"{"version":1,"verb":"status","mirror":"\""#.utf8)
        let name = start + [UInt8](repeating: UInt8(ascii: "["), count: levels) + Array(#""}"#.utf8)
        #expect(try ControlRequest(line: name).mirror?.count == levels + 1, "in a text they count for nothing")
    }
}
