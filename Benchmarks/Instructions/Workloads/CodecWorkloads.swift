internal import Bytes
internal import MirrorFormat
internal import NBDProtocol

// MARK: NBD

let protocolWorkloads: [Workload] = [
    Workload("nbd, parse a request") {
        let session = try openSession()
        let stream = requestStream()
        return { count in session.offsets(in: stream, count: count) }
    },
    Workload("nbd, encode a simple reply") {
        var page = [UInt8](repeating: 0, count: 4096)
        return { count in
            var span = page.mutableSpan
            var bytes = unsafe span.mutableBytes
            var written = 0
            for step in 0..<count {
                written += ReplyEncoder.simpleReply(
                    cookie: UInt64(step), error: nil, into: &bytes, at: step % 128 * ReplyEncoder.simpleReplyBytes)
            }
            return UInt64(written)
        }
    },
    Workload("nbd, encode a read header") {
        var page = [UInt8](repeating: 0, count: 4096)
        return { count in
            var span = page.mutableSpan
            var bytes = unsafe span.mutableBytes
            var written = 0
            for step in 0..<count {
                written += ReplyEncoder.readDataHeader(
                    cookie: UInt64(step), offset: UInt64(step) << 12, dataBytes: 4096, done: true, into: &bytes,
                    at: step % 128 * ReplyEncoder.readDataHeaderBytes)
            }
            return UInt64(written)
        }
    },
]

private let requestsInStream = 64

/// Headers as they arrive when a client keeps many requests in flight: reads and writes of 4 KiB, without payload.
private func requestStream() -> [UInt8] {
    var stream: [UInt8] = []
    for index in 0..<requestsInStream {
        stream.appendBigEndian(UInt32(0x2560_9513))
        stream.appendBigEndian(UInt16(0))
        stream.appendBigEndian(UInt16(index % 2))
        stream.appendBigEndian(UInt64(index))
        stream.appendBigEndian(UInt64(index) << 12)
        stream.appendBigEndian(UInt32(4096))
    }
    return stream
}

/// A session that has chosen its export.
private struct OpenSession: ~Copyable {
    var session: Session

    borrowing func offsets(in stream: [UInt8], count: Int) -> UInt64 {
        let bytes = unsafe stream.span.bytes
        var sum: UInt64 = 0
        for step in 0..<count {
            let start = step % requestsInStream * ParsedRequest.headerBytes
            switch session.parse(bytes.extracting(start..<start + ParsedRequest.headerBytes)) {
            case .request(let request): sum &+= request.offset &+ UInt64(request.payloadBytes)
            case .incomplete, .badMagic, .oversizedWrite, .refused, .disconnect:
                preconditionFailure("the stream is in good order")
            }
        }
        return sum
    }
}

private func openSession() throws -> OpenSession {
    var session = Session(limits: .standard)
    let export = ExportDescription(
        name: "bench", summary: "", sizeBytes: 1 << 30, isReadOnly: false, canFastZero: false, isRotational: false)
    let catalog = ExportCatalog(exports: [export], defaultName: "bench")
    var output: [UInt8] = []
    session.begin(output: &output)
    var greeting: [UInt8] = []
    greeting.appendBigEndian(UInt32(3))
    // NBD_OPT_GO for the default export, without information requests.
    greeting.appendBigEndian(UInt64(0x4948_4156_454F_5054))
    greeting.appendBigEndian(UInt32(7))
    greeting.appendBigEndian(UInt32(6))
    greeting.appendBigEndian(UInt32(0))
    greeting.appendBigEndian(UInt16(0))
    _ = unsafe session.handshake(greeting.span.bytes, catalog: catalog, shuttingDown: false, output: &output)
    return OpenSession(session: session)
}

// MARK: on disk

let formatWorkloads: [Workload] = [
    Workload("format, encode a superblock", isAllocationFree: false) {
        let superblock = try sampleSuperblock()
        var page = [UInt8](repeating: 0, count: Superblock.byteCount)
        return { count in
            var span = page.mutableSpan
            var bytes = unsafe span.mutableBytes
            for step in 0..<count { superblock.encode(copy: step % Layout.superblockCopies, into: &bytes) }
            return bytes.bytes.loadLittleEndian(at: 12)
        }
    },
    Workload("format, decode a superblock", isAllocationFree: false) {
        let superblock = try sampleSuperblock()
        let page = encoded { superblock.encode(copy: 0, into: &$0) }
        return { count in
            var sum: UInt64 = 0
            for _ in 0..<count {
                let found = try? unsafe Superblock(
                    decoding: page.span.bytes, copy: 0, diskBytes: superblock.layout.diskBytes)
                sum &+= found?.sequence ?? 0
            }
            precondition(sum == UInt64(count) &* superblock.sequence)
            return sum
        }
    },
    Workload("format, encode a bitmap page") {
        let words = sampleWords()
        var page = [UInt8](repeating: 0, count: BitmapPage.byteCount)
        return { count in
            var span = page.mutableSpan
            var bytes = unsafe span.mutableBytes
            for step in 0..<count {
                samplePage(sequence: UInt64(step)).encode(mirror: sampleMirror, words: words.span, into: &bytes)
            }
            return bytes.bytes.loadLittleEndian(at: 8)
        }
    },
    Workload("format, decode a bitmap page") {
        let page = encodedPage()
        return { count in
            var sum: UInt64 = 0
            for _ in 0..<count {
                let found = unsafe BitmapPage(decoding: page.span.bytes, mirror: sampleMirror, sheet: 0, index: 0)
                sum &+= found?.sequence ?? 0
            }
            precondition(sum == UInt64(count))
            return sum
        }
    },
    Workload("format, CRC-32C of 4 KiB") {
        let page = encodedPage()
        return { count in
            var sum: UInt64 = 0
            for _ in 0..<count { sum &+= unsafe UInt64(CRC32C.checksum(of: page.span.bytes)) }
            return sum
        }
    },
]

private let sampleMirror = MirrorUUID(UUID128(high: 2, low: 0))

private func samplePage(sequence: UInt64) -> BitmapPage {
    BitmapPage(sheet: 0, index: 0, sequence: sequence, lastClear: 0, generation: .none, absence: 0)
}

private func sampleWords() -> [UInt64] { (0..<BitmapPage.wordCount).map { UInt64($0) &* 0x9E37_79B9_7F4A_7C15 } }

private func sampleSuperblock() throws -> Superblock {
    let layout = try Layout(diskBytes: 2 << 30, dataBytes: 1 << 30, regionBytes: nil, spareBytes: nil)
    let uuids = (1...2).map { PlexUUID(UUID128(high: 1, low: $0)) }
    let record = Record(
        mirror: sampleMirror, name: "bench", dataBytes: layout.dataBytes, regionBytes: layout.regionBytes,
        generation: Generation(UUID128(high: 3, low: 0)),
        members: uuids.map { Member(uuid: $0, role: .inSync) }, time: 1)
    return Superblock(record: record, plex: uuids[0], sequence: 4, layout: layout, writer: .none)
}

private func encodedPage() -> [UInt8] {
    let words = sampleWords()
    return encoded { samplePage(sequence: 1).encode(mirror: sampleMirror, words: words.span, into: &$0) }
}

private func encoded(_ encode: (inout MutableRawSpan) -> Void) -> [UInt8] {
    var page = [UInt8](repeating: 0, count: 4096)
    do {
        var span = page.mutableSpan
        var bytes = unsafe span.mutableBytes
        encode(&bytes)
    }
    return page
}
