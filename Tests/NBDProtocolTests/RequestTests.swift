import Testing

@testable import NBDProtocol

@Suite struct SessionRequests {
    private func refusal(_ parsed: ParsedRequest) -> (NBDError, RefusalReason, UInt32)? {
        guard case .refused(let refused) = parsed else { return nil }
        return (refused.error, refused.reason, refused.payloadBytes)
    }

    private func expectRefusal(
        _ parsed: ParsedRequest, _ error: NBDError, _ reason: RefusalReason, payloadBytes: UInt32 = 0,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        guard case .refused(let refused) = parsed else {
            Issue.record("not refused: \(parsed)", sourceLocation: sourceLocation)
            return
        }
        #expect(refused.error == error, sourceLocation: sourceLocation)
        #expect(refused.reason == reason, sourceLocation: sourceLocation)
        #expect(refused.payloadBytes == payloadBytes, sourceLocation: sourceLocation)
    }

    @Test func goldenWriteIsParsedFieldByField() {
        let conversation = Conversation.inTransmission("disk", structured: false)
        let bytes: [UInt8] = [
            0x25, 0x60, 0x95, 0x13, 0x00, 0x01, 0x00, 0x01, 0xDE, 0xAD, 0xBE, 0xEF, 0x01, 0x02, 0x03, 0x04,
            0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x03, 0x00, 0x00, 0x04, 0x05,
        ]
        #expect(
            conversation.parse(bytes)
                == .request(
                    ClientRequest(
                        command: .write, cookie: 0xDEAD_BEEF_0102_0304, offset: 0x10203, length: 0x405, flags: .fua,
                        payloadBytes: 0x405)))
        #expect(conversation.parse(bytes + [1, 2, 3]) == conversation.parse(bytes))
    }

    @Test func shortHeaderIsIncompleteUnlessItsMagicIsWrong() {
        let conversation = Conversation.inTransmission("disk", structured: false)
        let request = requestBytes(0)
        for count in 0..<28 { #expect(conversation.parse(Array(request.prefix(count))) == .incomplete) }
        #expect(conversation.parse([0x25, 0x60, 0x95, 0x14]) == .badMagic)
        #expect(conversation.parse([0] + request) == .badMagic)
    }

    @Test func disconnectIsNoRequestWhateverItsFields() {
        let conversation = Conversation.inTransmission("disk", structured: true)
        #expect(conversation.parse(requestBytes(2, offset: 0, length: 0)) == .disconnect)
        #expect(conversation.parse(requestBytes(2, flags: 0xFFFF, offset: .max, length: .max)) == .disconnect)
    }

    @Test func unknownCommandIsInvalidWithoutPayload() {
        let conversation = Conversation.inTransmission("disk", structured: true)
        for code in [8, 9, 255, 0xFFFF] as [UInt16] {
            expectRefusal(conversation.parse(requestBytes(code, length: .max)), .einval, .unknownCommand)
        }
    }

    @Test(arguments: [0, 1, 4, 5, 6, 7] as [UInt16])
    func rangeBeyondTheEndIsRefused(code: UInt16) {
        let conversation = Conversation.inTransmission("disk", structured: true, context: true)
        let error: NBDError = code == 1 || code == 6 ? .enospc : .einval
        let size = UInt64(1 << 20)
        for (offset, length) in [
            (size, 1), (size - 1, 2), (size - 511, 512), (size + 1, 512), (.max, 512), (.max, 1), (.max - 511, 512),
            (0, 0x10_0001),
        ] as [(UInt64, UInt32)] {
            expectRefusal(
                conversation.parse(requestBytes(code, offset: offset, length: length)), error, .beyondEnd,
                payloadBytes: code == 1 ? length : 0)
        }
        for (offset, length) in [(size - 1, 1), (size - 512, 512), (0, 1 << 20), (3, 7)] as [(UInt64, UInt32)] {
            let parsed = conversation.parse(requestBytes(code, offset: offset, length: length))
            guard case .request(let request) = parsed else {
                Issue.record("refused: \(parsed)")
                continue
            }
            #expect(request.offset == offset && request.length == length)
            #expect(request.payloadBytes == (code == 1 ? length : 0))
        }
    }

    @Test func lengthZeroIsARequestExceptForBlockStatus() {
        let conversation = Conversation.inTransmission("disk", structured: true, context: true)
        for code in [0, 1, 4, 5, 6] as [UInt16] {
            guard case .request = conversation.parse(requestBytes(code, offset: 1 << 20, length: 0)) else {
                Issue.record("refused: \(code)")
                continue
            }
        }
        expectRefusal(conversation.parse(requestBytes(7, length: 0)), .einval, .lengthZero)
        expectRefusal(conversation.parse(requestBytes(0, offset: 1 << 20 + 1, length: 0)), .einval, .beyondEnd)
    }

    @Test func flushIgnoresOffsetAndLength() {
        let conversation = Conversation.inTransmission("frozen", structured: false)
        #expect(
            conversation.parse(requestBytes(3, offset: .max, length: .max))
                == .request(
                    ClientRequest(command: .flush, cookie: 7, offset: 0, length: 0, flags: [], payloadBytes: 0)))
    }

    @Test func readOnlyExportRefusesEveryChange() {
        let conversation = Conversation.inTransmission("frozen", structured: true, context: true)
        expectRefusal(conversation.parse(requestBytes(1, length: 4096)), .eperm, .readOnly, payloadBytes: 4096)
        expectRefusal(conversation.parse(requestBytes(4)), .eperm, .readOnly)
        expectRefusal(conversation.parse(requestBytes(6, flags: 0x10)), .eperm, .readOnly)
        for code in [0, 3, 5, 7] as [UInt16] {
            #expect(refusal(conversation.parse(requestBytes(code))) == nil)
        }
    }

    @Test func payloadLimitsAreHeld() {
        let big = ExportDescription(
            name: "big", summary: "", sizeBytes: 1 << 40, isReadOnly: false, canFastZero: false, isRotational: false)
        let catalog = ExportCatalog(exports: [big], defaultName: nil)
        let standard = Conversation.inTransmission("big", structured: true, context: true, catalog: catalog)
        #expect(refusal(standard.parse(requestBytes(0, length: 32 << 20))) == nil)
        #expect(refusal(standard.parse(requestBytes(1, length: 32 << 20))) == nil)
        expectRefusal(standard.parse(requestBytes(0, length: 32 << 20 + 1)), .eoverflow, .tooLong)
        #expect(standard.parse(requestBytes(1, length: 32 << 20 + 1)) == .oversizedWrite)
        #expect(standard.parse(requestBytes(1, flags: 0xFFFF, offset: .max, length: .max)) == .oversizedWrite)
        for code in [4, 5, 6, 7] as [UInt16] {
            guard case .request = standard.parse(requestBytes(code, length: .max)) else {
                Issue.record("refused: \(code)")
                continue
            }
        }

        // Above a smaller advertised maximum, but no attack: consumed and refused.
        var limits = SessionLimits()
        limits.maximumPayloadBytes = 1 << 20
        let small = Conversation.inTransmission("big", structured: true, limits: limits, catalog: catalog)
        expectRefusal(
            small.parse(requestBytes(1, length: 32 << 20)), .eoverflow, .tooLong, payloadBytes: 32 << 20)
        #expect(small.parse(requestBytes(1, length: 32 << 20 + 1)) == .oversizedWrite)
    }

    @Test func refusalKeepsWhatTheReplyNeeds() {
        let conversation = Conversation.inTransmission("disk", structured: true)
        #expect(
            conversation.parse(requestBytes(0, flags: 2, cookie: .max))
                == .refused(
                    RefusedRequest(
                        cookie: .max, commandCode: 0, isRead: true, error: .einval, reason: .badFlags, payloadBytes: 0))
        )
        #expect(
            conversation.parse(requestBytes(1, flags: 2, cookie: 1, length: 9))
                == .refused(
                    RefusedRequest(
                        cookie: 1, commandCode: 1, isRead: false, error: .einval, reason: .badFlags, payloadBytes: 9)))
    }

    /// Every command with every combination of the sixteen flags, in every kind of session, against a table that is
    /// written down independently: the flags allowed, by command.
    @Test func everyCommandAndFlagCombinationFollowsTheTable() {
        let fua: UInt16 = 1
        let slow = ExportDescription(
            name: "slow", summary: "", sizeBytes: 1 << 20, isReadOnly: false, canFastZero: false, isRotational: false)
        let catalog = ExportCatalog(exports: [.disk, .readOnlyDisk, slow], defaultName: nil)
        for (name, structured, context) in [
            ("disk", true, true), ("disk", true, false), ("disk", false, false), ("slow", true, true),
            ("slow", false, false), ("frozen", true, true), ("frozen", false, false),
        ] {
            let conversation = Conversation.inTransmission(
                name, structured: structured, context: context, catalog: catalog)
            let fastZero: UInt16 = name == "disk" ? 0x10 : 0
            let writable = name != "frozen"
            let table: [(code: UInt16, isUsable: Bool, allowed: UInt16)] = [
                (0, true, fua | (structured ? 4 : 0)), (1, writable, fua), (3, true, fua), (4, writable, fua),
                (5, true, fua), (6, writable, fua | 2 | fastZero), (7, context, fua | 8), (8, false, 0),
                (15, false, 0),
            ]
            var mistakes = 0
            for (code, isUsable, allowed) in table {
                var bytes = requestBytes(code)
                for flags in 0...UInt16.max {
                    (bytes[4], bytes[5]) = (UInt8(flags >> 8), UInt8(flags & 0xFF))
                    let parsed = conversation.parse(bytes)
                    switch parsed {
                    case .request(let request):
                        if !isUsable || flags & ~allowed != 0 || request.flags.rawValue != flags { mistakes += 1 }
                        if request.command.rawValue != code { mistakes += 1 }
                    case .refused(let refused):
                        let isForbidden = !writable && [1, 4, 6].contains(code)
                        if isUsable && flags & ~allowed == 0 { mistakes += 1 }
                        if refused.error != (isForbidden ? .eperm : .einval) { mistakes += 1 }
                        if refused.payloadBytes != (code == 1 ? 512 : 0) { mistakes += 1 }
                        if refused.commandCode != code || refused.isRead != (code == 0) { mistakes += 1 }
                    case .incomplete, .badMagic, .oversizedWrite, .disconnect:
                        mistakes += 1
                    }
                }
            }
            #expect(mistakes == 0, "\(name) structured=\(structured) context=\(context)")
        }
    }
}
