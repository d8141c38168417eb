import Testing

@testable import NBDProtocol

@Suite struct SessionOptions {
    /// Magic, option 3, SERVER, 4 + 4 + 8 bytes: the whole reply, not only what the helper parses.
    @Test func listAnswersEveryExportAndAck() {
        let conversation = Conversation()
        conversation.catalog.exports = [.disk]
        conversation.send(optionBytes(3))
        let magic: [UInt8] = [0x00, 0x03, 0xE8, 0x89, 0x04, 0x55, 0x65, 0xA9]
        #expect(
            conversation.takeOutput()
                == magic + [0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 16, 0, 0, 0, 4] + Array("diska mirror".utf8)
                + magic + [0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0])
    }

    @Test func listOfNoExportsIsAckAlone() {
        let conversation = Conversation()
        conversation.catalog.exports = []
        #expect(conversation.ask(3).types == [1])
    }

    @Test func optionsWithoutDataRefuseDataAndStayInStep() {
        let conversation = Conversation()
        for option in [3, 5, 8, 11] as [UInt32] {
            let answers = conversation.ask(option, [0])
            #expect(answers.types == [Answer.invalid])
            #expect(answers.areExplained)
        }
        #expect(!conversation.structuredReplies)
        #expect(conversation.ask(3).types == [2, 2, 1])
    }

    @Test func unsupportedOptionsAreRefusedAndStayInStep() {
        let conversation = Conversation()
        for option in [5, 11, 0, 4, 12, 0xFFFF_FFFF] as [UInt32] {
            let answers = conversation.ask(option)
            #expect(answers.types == [Answer.unsupported])
            #expect(answers.map(\.option) == [Int(option)])
            #expect(answers.areExplained)
        }
        #expect(conversation.ask(4, [UInt8](repeating: 9, count: 60_000)).types == [Answer.unsupported])
        #expect(conversation.phase == .handshake)
    }

    @Test func structuredReplyIsAcknowledgedEveryTime() {
        let conversation = Conversation()
        #expect(!conversation.structuredReplies)
        #expect(conversation.ask(8).types == [1])
        #expect(conversation.ask(8).types == [1])
        #expect(conversation.structuredReplies)
    }

    @Test func goWithoutRequestsSendsTheExportInformation() {
        let conversation = Conversation()
        #expect(
            conversation.ask(7, goData("disk")) == [
                Answer(option: 7, type: 3, payload: [0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0x0D, 0x7D]),
                Answer(option: 7, type: 1, payload: []),
            ])
        #expect(conversation.phase == .transmission)
        #expect(conversation.export == .disk)
        #expect(conversation.allocationContextID == nil)
    }

    @Test func infoSendsEveryInformationOnceAndStaysInTheHandshake() {
        let conversation = Conversation()
        _ = conversation.ask(8)
        let expected: [[UInt8]] = [
            [0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0x0D, 0xFD],
            [0, 1] + Array("disk".utf8),
            [0, 2] + Array("a mirror".utf8),
            [0, 3, 0, 0, 0, 1, 0, 0, 0x10, 0, 0x02, 0, 0, 0],
            [],
        ]
        let data = goData("", [3, 3, 0, 1, 0, 2, 4, 0xFFFF, 1])
        let answers = conversation.ask(6, data)
        #expect(answers.map(\.payload) == expected)
        #expect(answers.types == [3, 3, 3, 3, 1])
        #expect(conversation.phase == .handshake && conversation.export == nil)
        #expect(conversation.ask(7, data).map(\.payload) == expected)
        #expect(conversation.phase == .transmission)
    }

    @Test func emptySummaryIsNotSent() {
        let conversation = Conversation()
        #expect(conversation.ask(6, goData("frozen", [2])).types == [3, 1])
    }

    @Test func transmissionFlagsFollowTheExportAndTheNegotiation() {
        func flags(readOnly: Bool, fast: Bool, rotational: Bool, structured: Bool) -> UInt16 {
            let export = ExportDescription(
                name: "x", summary: "", sizeBytes: 0, isReadOnly: readOnly, canFastZero: fast, isRotational: rotational)
            return TransmissionFlags.offered(by: export, structuredReplies: structured).rawValue
        }
        #expect(flags(readOnly: false, fast: false, rotational: false, structured: false) == 0x056D)
        #expect(flags(readOnly: false, fast: true, rotational: false, structured: false) == 0x0D6D)
        #expect(flags(readOnly: false, fast: false, rotational: true, structured: true) == 0x05FD)
        #expect(flags(readOnly: true, fast: true, rotational: true, structured: true) == 0x059F)
    }

    @Test func unknownExportIsRefusedWithoutInformation() {
        let conversation = Conversation()
        for option in [6, 7] as [UInt32] {
            let answers = conversation.ask(option, goData("nothing", [3]))
            #expect(answers.types == [Answer.unknown])
            #expect(answers.areExplained)
        }
        conversation.catalog.defaultName = nil
        #expect(conversation.ask(7, goData("")).types == [Answer.unknown])
        conversation.catalog.defaultName = "gone"
        #expect(conversation.ask(7, goData("")).types == [Answer.unknown])
        #expect(conversation.phase == .handshake)
    }

    @Test func catalogMayChangeBetweenOptions() {
        let conversation = Conversation()
        #expect(conversation.ask(6, goData("disk")).types == [3, 1])
        conversation.catalog.exports = []
        #expect(conversation.ask(7, goData("disk")).types == [Answer.unknown])
    }

    /// Composed and decomposed e-acute are equal as Swift strings but two names on the wire.
    @Test func namesAreComparedByBytes() {
        let conversation = Conversation()
        conversation.catalog.exports = [
            ExportDescription(
                name: "\u{E9}", summary: "", sizeBytes: 0, isReadOnly: false, canFastZero: false, isRotational: false)
        ]
        #expect(conversation.ask(6, goData("e\u{301}")).types == [Answer.unknown])
        #expect(conversation.ask(6, goData("\u{E9}")).types == [3, 1])
    }

    @Test func malformedGoIsInvalidAndStaysInStep() {
        let name = Array("disk".utf8)
        let long = [UInt8](repeating: 97, count: 4097)
        let forms: [[UInt8]] = [
            [], [0], [0, 0, 0, 0], [0, 0, 0, 0, 0],
            bigEndian(UInt32(0xFFFF_FFFF)) + name + [0, 0],
            bigEndian(UInt32(5)) + name,
            bigEndian(UInt32(6)) + name + [0, 0],
            bigEndian(UInt32(4)) + name + [0],
            bigEndian(UInt32(4)) + name + [0, 1],
            bigEndian(UInt32(4)) + name + [0, 2, 0, 3],
            bigEndian(UInt32(4)) + name + [0xFF, 0xFF, 0, 3],
            bigEndian(UInt32(4)) + name + [0, 0, 0],
            bigEndian(UInt32(4)) + name + [0, 1, 0, 3, 0, 3],
            bigEndian(UInt32(4)) + [0x64, 0, 0x73, 0x6B] + [0, 0],
            bigEndian(UInt32(2)) + [0xC3, 0x28] + [0, 0],
            bigEndian(UInt32(3)) + [0xED, 0xA0, 0x80] + [0, 0],
            bigEndian(UInt32(4097)) + long + [0, 0],
        ]
        let conversation = Conversation()
        for data in forms {
            for option in [6, 7] as [UInt32] {
                let answers = conversation.ask(option, data)
                #expect(answers.types == [Answer.invalid], "\(data.prefix(20))")
                #expect(answers.areExplained)
                #expect(conversation.pending.isEmpty)
            }
        }
        let atLimit = bigEndian(UInt32(4096)) + long.dropLast() + [0, 0]
        #expect(conversation.ask(7, atLimit).types == [Answer.unknown])
        #expect(conversation.ask(7, goData("disk")).types == [3, 1])
    }

    @Test func exportTextsAreCheckedByWhoeverReadsTheConfiguration() {
        #expect(ExportDescription.accepts(name: "a") && ExportDescription.accepts(summary: ""))
        #expect(!ExportDescription.accepts(name: ""))
        #expect(!ExportDescription.accepts(name: "a\0b"))
        #expect(ExportDescription.accepts(name: String(repeating: "a", count: 4096)))
        #expect(!ExportDescription.accepts(summary: String(repeating: "a", count: 4097)))
    }
}

@Suite struct SessionMetaContexts {
    private let allocation = Array("base:allocation".utf8)

    private func structured() -> Conversation {
        let conversation = Conversation()
        #expect(conversation.ask(8).types == [1])
        return conversation
    }

    @Test func listWithoutQueriesAndWithWildcardsGivesTheContextWithIDZero() {
        let conversation = structured()
        for queries in [[], ["base:"], ["base:allocation"], ["x:y", "base:", "base:allocation"]] {
            #expect(
                conversation.ask(9, metaData("disk", queries)) == [
                    Answer(option: 9, type: 4, payload: [0, 0, 0, 0] + allocation),
                    Answer(option: 9, type: 1, payload: []),
                ])
        }
    }

    @Test func listOfUnknownNamespacesAndLeavesIsEmpty() {
        let conversation = structured()
        for queries in [["x-plexus:"], ["base:other"], ["base"], [""], ["base:allocation "], ["qemu:dirty-bitmap:a"]] {
            #expect(conversation.ask(9, metaData("disk", queries)).types == [1])
        }
    }

    @Test func setSelectsOnceHoweverOftenItIsAsked() {
        let conversation = structured()
        let queries = ["x:y", "base:allocation", "base:allocation", "base:"]
        #expect(
            conversation.ask(10, metaData("disk", queries)) == [
                Answer(option: 10, type: 4, payload: [0, 0, 0, 1] + allocation),
                Answer(option: 10, type: 1, payload: []),
            ])
        #expect(conversation.allocationContextID == nil)
        _ = conversation.ask(7, goData("disk"))
        #expect(conversation.allocationContextID == 1)
    }

    @Test func setThatMatchesNothingSelectsNothingWithoutError() {
        for queries in [[], ["base:"], ["base:other"], ["x:y"], ["BASE:ALLOCATION"]] {
            let conversation = structured()
            _ = conversation.ask(10, metaData("disk", ["base:allocation"]))
            #expect(conversation.ask(10, metaData("disk", queries)).types == [1])
            _ = conversation.ask(7, goData("disk"))
            #expect(conversation.allocationContextID == nil)
        }
    }

    @Test func failedSetClearsTheFormerSet() {
        let failures: [[UInt8]] = [
            [], metaData("nothing", ["base:allocation"]), metaData("disk", ["base:allocation"]) + [0],
            [UInt8](repeating: 0, count: 70_000),
        ]
        for data in failures {
            let conversation = structured()
            _ = conversation.ask(10, metaData("disk", ["base:allocation"]))
            #expect(conversation.ask(10, data).areExplained)
            _ = conversation.ask(7, goData("disk"))
            #expect(conversation.phase == .transmission && conversation.allocationContextID == nil)
        }
    }

    @Test func setDuringShutdownClearsTheFormerSet() {
        let conversation = structured()
        _ = conversation.ask(10, metaData("disk", ["base:allocation"]))
        conversation.shuttingDown = true
        #expect(conversation.ask(10, metaData("disk", ["base:allocation"])).types == [Answer.shutdown])
        conversation.shuttingDown = false
        _ = conversation.ask(7, goData("disk"))
        #expect(conversation.allocationContextID == nil)
    }

    @Test func listAndInfoAndFailedGoKeepTheSet() {
        let conversation = structured()
        _ = conversation.ask(10, metaData("disk", ["base:allocation"]))
        _ = conversation.ask(9, metaData("frozen", []))
        _ = conversation.ask(6, goData("frozen"))
        _ = conversation.ask(7, goData("nothing"))
        _ = conversation.ask(7, goData("disk"))
        #expect(conversation.allocationContextID == 1)
    }

    @Test func goOnAnotherNameLeavesNone() {
        let conversation = structured()
        _ = conversation.ask(10, metaData("disk", ["base:allocation"]))
        _ = conversation.ask(7, goData("frozen"))
        #expect(conversation.allocationContextID == nil)
    }

    @Test func beforeStructuredRepliesBothAreInvalid() {
        let conversation = Conversation()
        for option in [9, 10] as [UInt32] {
            let answers = conversation.ask(option, metaData("disk", ["base:allocation"]))
            #expect(answers.types == [Answer.invalid])
            #expect(answers.areExplained)
        }
    }

    @Test func unknownExportIsUnknown() {
        let conversation = structured()
        #expect(conversation.ask(9, metaData("nothing", [])).types == [Answer.unknown])
        #expect(conversation.ask(10, metaData("nothing", [])).types == [Answer.unknown])
    }

    @Test func tooManyQueriesAreTooBig() {
        let conversation = structured()
        let many = [String](repeating: "", count: 1025)
        #expect(conversation.ask(9, metaData("disk", many)).types == [Answer.tooBig])
        #expect(conversation.ask(9, metaData("disk", many.dropLast())).types == [1])
    }

    @Test func lengthsThatLieAreInvalidAndStayInStep() {
        let name = bigEndian(UInt32(4)) + Array("disk".utf8)
        let query = bigEndian(UInt32(5)) + Array("base:".utf8)
        let forms: [[UInt8]] = [
            [], [0, 0, 0], [0, 0, 0, 0], name, name + [0, 0, 0],
            bigEndian(UInt32(0xFFFF_FFFF)) + Array("disk".utf8) + [0, 0, 0, 0],
            name + bigEndian(UInt32(1)),
            name + bigEndian(UInt32(2)) + query,
            name + bigEndian(UInt32(3)) + query,
            name + bigEndian(UInt32(0xFFFF_FFFF)) + query,
            name + bigEndian(UInt32(1)) + bigEndian(UInt32(6)) + Array("base:".utf8),
            name + bigEndian(UInt32(1)) + bigEndian(UInt32(0xFFFF_FFFF)) + Array("base:".utf8),
            name + bigEndian(UInt32(1)) + query + [0],
            name + bigEndian(UInt32(0)) + [0],
            name + bigEndian(UInt32(0)) + query,
            name + bigEndian(UInt32(1)) + bigEndian(UInt32(4097)) + [UInt8](repeating: 97, count: 4097),
            name + bigEndian(UInt32(1)) + bigEndian(UInt32(1)) + [0],
            name + bigEndian(UInt32(1)) + bigEndian(UInt32(1)) + [0xFF],
        ]
        let conversation = structured()
        for data in forms {
            for option in [9, 10] as [UInt32] {
                let answers = conversation.ask(option, data)
                #expect(answers.types == [Answer.invalid], "\(data.prefix(30))")
                #expect(answers.areExplained)
                #expect(conversation.pending.isEmpty)
            }
        }
        #expect(conversation.ask(9, metaData("disk", [])).types == [4, 1])
    }
}
