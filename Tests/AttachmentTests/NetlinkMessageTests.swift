import CLinux
import Testing

@testable import Attachment

@Suite struct NetlinkMessageTests {
    @Test func requestHasTheBytesThatTheKernelExpects() {
        var sockets = NetlinkAttributes()
        var socket = NetlinkAttributes()
        socket.add(NBD_SOCK_FD, UInt32(7))
        sockets.add(NBD_SOCK_ITEM, socket)
        var attributes = NetlinkAttributes()
        attributes.add(NBD_ATTR_INDEX, UInt32(3))
        attributes.add(NBD_ATTR_SIZE_BYTES, UInt64(0x1_0000_1000))
        attributes.add(NBD_ATTR_BACKEND_IDENTIFIER, "plexus/a")
        attributes.add(NBD_ATTR_SOCKETS, sockets)
        let message = NetlinkMessage(
            type: 0x1C, sequence: 9, command: UInt8(NBD_CMD_CONNECT), attributes: attributes)
        #expect(
            message.encoded() == [
                0x48, 0, 0, 0, 0x1C, 0, 5, 0, 9, 0, 0, 0, 0, 0, 0, 0,  // length 72, type, flags, sequence, port
                1, 1, 0, 0,  // connect, version
                8, 0, 1, 0, 3, 0, 0, 0,
                12, 0, 2, 0, 0, 0x10, 0, 0, 1, 0, 0, 0,
                13, 0, 10, 0, 0x70, 0x6C, 0x65, 0x78, 0x75, 0x73, 0x2F, 0x61, 0, 0, 0, 0,
                16, 0, 7, 0x80, 12, 0, 1, 0x80, 8, 0, 1, 0, 7, 0, 0, 0,
            ])
    }

    @Test func whatWasEncodedIsDecoded() {
        var inner = NetlinkAttributes()
        inner.add(2, "nbd_mc_group")
        inner.add(1, UInt32(5))
        var attributes = NetlinkAttributes()
        attributes.add(7, inner)
        let message = NetlinkMessage(type: 0x10, sequence: 1, command: 3, attributes: attributes)
        let both = message.encoded() + message.encoded()
        let found = NetlinkMessage.decode(both[...])
        #expect(found == [message, message])
        #expect(found[1].attributes.nested(7)?.text(2) == "nbd_mc_group")
        #expect(found[1].attributes.nested(7)?.uint32(1) == 5)
        #expect(found[1].attributes.uint32(8) == nil)
    }

    @Test func acknowledgementAndRefusalHaveTheirNumbers() {
        let header: [UInt8] = [20, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]
        #expect(NetlinkMessage.decode((header + [0, 0, 0, 0])[...]).map(\.errorNumber) == [0])
        #expect(NetlinkMessage.decode((header + [0xF0, 0xFF, 0xFF, 0xFF])[...]).map(\.errorNumber) == [16])
        #expect(NetlinkMessage.decode((header + [0, 0, 0, 0x80])[...]).map(\.errorNumber) == [Int32.max])
        // An error without its number acknowledges nothing.
        #expect(NetlinkMessage.decode([16, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]).isEmpty)
    }

    @Test func damagedMessagesAreReadWithoutHarm() {
        var inner = NetlinkAttributes()
        inner.add(2, "name")
        inner.add(1, UInt32(5))
        var attributes = NetlinkAttributes()
        attributes.add(7, inner)
        let good = NetlinkMessage(type: 0x10, sequence: 1, command: 3, attributes: attributes).encoded()
        for length in 0..<good.count { #expect(NetlinkMessage.decode(good[..<length]).isEmpty) }
        for position in good.indices {
            for value: UInt8 in [0, 1, 3, 0x7F, 0x80, 0xFF] {
                var bytes = good
                bytes[position] = value
                for message in NetlinkMessage.decode(bytes[...]) {
                    for (type, value) in message.attributes.all {
                        #expect(value.count <= good.count && type <= 0x3FFF)
                        _ = message.attributes.nested(type)?.text(2)
                        _ = message.attributes.nested(type)?.uint32(1)
                        _ = message.attributes.uint16(type)
                    }
                }
            }
        }
    }
}
