import Testing

@testable import NBDProtocol

@Suite struct SessionHandshake {
    @Test func beginSendsTheGreeting() {
        let conversation = Conversation(clientFlags: nil)
        conversation.begin()
        #expect(conversation.takeOutput() == Array("NBDMAGICIHAVEOPT".utf8) + [0, 3])
        #expect(conversation.phase == .handshake)
    }

    @Test(arguments: [0, 1, 2, 3] as [UInt32])
    func knownClientFlagsKeepTheConnection(flags: UInt32) {
        let conversation = Conversation(clientFlags: flags)
        #expect(conversation.phase == .handshake)
        #expect(conversation.pending.isEmpty)
    }

    @Test(arguments: [4, 0x8000_0000, 0xFFFF_FFFF, 0x10003] as [UInt32])
    func unknownClientFlagCloses(flags: UInt32) {
        let conversation = Conversation(clientFlags: flags)
        #expect(conversation.phase == .closing)
        #expect(conversation.takeOutput().isEmpty)
    }

    @Test func badOptionMagicClosesBeforeTheRestOfTheHeaderArrives() {
        let conversation = Conversation()
        conversation.send(Array("IHAVEOPT".utf8) + [0, 0])
        #expect(conversation.phase == .handshake)
        let other = Conversation()
        other.send(Array("IHAVEOPX".utf8))
        #expect(other.phase == .closing)
        #expect(other.takeOutput().isEmpty)
    }

    @Test func exportNameSendsSizeFlagsAndZeroes() {
        let conversation = Conversation(clientFlags: 1)
        conversation.send(optionBytes(1, Array("disk".utf8)))
        #expect(
            conversation.takeOutput()
                == [0, 0, 0, 0, 0, 0x10, 0, 0, 0x0D, 0x7D] + [UInt8](repeating: 0, count: 124))
        #expect(conversation.phase == .transmission)
        #expect(conversation.export == .disk)
    }

    @Test func exportNameOmitsZeroesWhenTheClientAskedForIt() {
        let conversation = Conversation(clientFlags: 3)
        conversation.send(optionBytes(1, Array("frozen".utf8)))
        #expect(conversation.takeOutput() == [0, 0, 0, 0, 0, 0x10, 0, 0, 0x05, 0x0F])
        #expect(conversation.export == .readOnlyDisk)
    }

    @Test func emptyExportNameMeansTheDefault() {
        let conversation = Conversation()
        conversation.send(optionBytes(1))
        #expect(conversation.export == .disk)
        let other = Conversation()
        other.catalog.defaultName = nil
        other.send(optionBytes(1))
        #expect(other.phase == .closing)
    }

    @Test(arguments: [
        Array("nothing".utf8), Array("di\0sk".utf8), [0xFF, 0xFE], [UInt8](repeating: 97, count: 4097),
        [UInt8](repeating: 97, count: 70_000),
    ])
    func exportNameThatCannotBeServedCloses(name: [UInt8]) {
        let conversation = Conversation()
        conversation.send(optionBytes(1, name))
        #expect(conversation.phase == .closing)
        #expect(conversation.takeOutput().isEmpty)
        #expect(conversation.export == nil)
    }

    @Test func contextSelectedBeforeExportNameIsKept() {
        let conversation = Conversation()
        _ = conversation.ask(8)
        _ = conversation.ask(10, metaData("disk", ["base:allocation"]))
        conversation.send(optionBytes(1, Array("disk".utf8)))
        #expect(conversation.allocationContextID != nil)
    }

    @Test func bytesBehindGoAreLeftForTransmission() {
        let conversation = Conversation()
        conversation.send(optionBytes(7, goData("disk")) + requestBytes(0))
        #expect(conversation.phase == .transmission)
        #expect(conversation.pending == requestBytes(0))
    }

    @Test func abortIsAcknowledgedAndClosesWhateverItsData() {
        for data in [[], [1, 2, 3], [UInt8](repeating: 0, count: 70_000)] {
            let conversation = Conversation()
            #expect(conversation.ask(2, data) == [Answer(option: 2, type: 1, payload: [])])
            #expect(conversation.phase == .closing)
        }
    }

    @Test func optionsWhileShuttingDownAreRefusedExceptAbort() {
        let conversation = Conversation()
        conversation.shuttingDown = true
        for option in [3, 5, 6, 7, 8, 9, 10, 11, 99] as [UInt32] {
            let answers = conversation.ask(option, goData("disk"))
            #expect(answers.types == [Answer.shutdown])
            #expect(answers.areExplained)
        }
        #expect(conversation.phase == .handshake)
        #expect(conversation.ask(2).types == [1])
        let other = Conversation()
        other.shuttingDown = true
        other.send(optionBytes(1, Array("disk".utf8)))
        #expect(other.phase == .closing)
        #expect(other.export == nil)
    }

    @Test func optionBeyondTheCountClosesWithAReason() {
        var limits = SessionLimits()
        limits.maximumOptions = 3
        let conversation = Conversation(limits: limits)
        for _ in 0..<3 { #expect(conversation.ask(99).types == [Answer.unsupported]) }
        let last = conversation.ask(99)
        #expect(last.types == [Answer.policy])
        #expect(last.areExplained)
        #expect(conversation.phase == .closing)
    }

    @Test func optionBeyondTheReplyBytesCloses() {
        var limits = SessionLimits()
        limits.maximumReplyBytes = 80
        let conversation = Conversation(limits: limits)
        conversation.send(optionBytes(3) + optionBytes(3) + optionBytes(3))
        #expect(conversation.takeAnswers().types == [2, 2, 1, Answer.policy])
        #expect(conversation.phase == .closing)
    }

    @Test func hugeOptionIsSkippedWithoutBufferingAndAnswered() {
        for (option, expected) in [
            (7, Answer.tooBig), (6, Answer.tooBig), (9, Answer.tooBig), (10, Answer.tooBig), (3, Answer.invalid),
            (8, Answer.invalid), (99, Answer.unsupported),
        ] as [(UInt32, Int)] {
            let conversation = Conversation()
            conversation.send(optionBytes(option, claiming: 1_000_000))
            var sent = 0
            while sent < 1_000_000 {
                #expect(conversation.output.isEmpty)
                conversation.send([UInt8](repeating: 0xAA, count: 10_000))
                #expect(conversation.pending.isEmpty)
                sent += 10_000
            }
            let answers = conversation.takeAnswers()
            #expect(answers.types == [expected])
            #expect(answers.areExplained)
            #expect(conversation.ask(7, goData("disk")).types.last == 1)
            #expect(conversation.phase == .transmission)
        }
    }

    @Test func optionOfFourGibibytesClosesAtOnce() {
        for option in [3, 5, 6, 7, 8, 9, 10, 11, 99] as [UInt32] {
            let conversation = Conversation()
            conversation.send(optionBytes(option, claiming: 0xFFFF_FFFF))
            #expect(conversation.phase == .closing)
            #expect(conversation.takeAnswers().areExplained)
        }
    }

    @Test func feedingByteByByteGivesTheSameAsAllAtOnce() {
        let rest = requestBytes(1)
        let everything =
            [0, 0, 0, 3] + optionBytes(99, [1, 2]) + optionBytes(3) + optionBytes(8)
            + optionBytes(9, metaData("disk", [])) + optionBytes(10, metaData("", ["base:allocation"]))
            + optionBytes(6, [UInt8](repeating: 1, count: 66_000)) + optionBytes(6, goData("nothing"))
            + optionBytes(7, goData("", [1, 2, 3])) + rest
        let atOnce = Conversation(clientFlags: nil)
        atOnce.send(everything)
        let slowly = Conversation(clientFlags: nil)
        for byte in everything where slowly.phase == .handshake { slowly.send([byte]) }
        #expect(atOnce.phase == .transmission && slowly.phase == .transmission)
        #expect(atOnce.pending == rest && slowly.pending.isEmpty)
        #expect(atOnce.output == slowly.output)
        #expect(atOnce.allocationContextID == 1 && slowly.allocationContextID == 1)
    }
}
