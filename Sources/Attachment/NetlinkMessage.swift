internal import CLinux

/// A message to or from a family of generic netlink. All integers are in the byte order of the host.
///
///     offset  size  field
///     0       4     bytes of the whole, with this header
///     4       2     type: the family's id, 2 (error or acknowledgement), 3 (done)
///     6       2     flags
///     8       4     sequence: an answer has that of its question
///     12      4     port
///     16      1     command
///     17      1     version
///     18      2     reserved
///     20      ...   attributes
///
/// Source: `linux/netlink.h`, `linux/genetlink.h`; Documentation/userspace-api/netlink/intro.rst.
struct NetlinkMessage: Equatable {
    static let headerBytes = 16
    static let familyHeaderBytes = 4
    static let errorType: UInt16 = 2
    static let doneType: UInt16 = 3
    /// NLM_F_REQUEST and NLM_F_ACK.
    static let askAndAcknowledge: UInt16 = 1 | 4

    var type: UInt16
    var sequence: UInt32
    var command: UInt8 = 0
    var attributes = NetlinkAttributes()
    /// Of a message of type 2: 0 acknowledges, otherwise it is an error number.
    var errorNumber: Int32 = 0

    func encoded() -> [UInt8] {
        var bytes: [UInt8] = []
        let total = Self.headerBytes + Self.familyHeaderBytes + attributes.bytes.count
        bytes.append(native: UInt32(total))
        bytes.append(native: type)
        bytes.append(native: Self.askAndAcknowledge)
        bytes.append(native: sequence)
        bytes.append(native: UInt32(0))
        bytes += [command, 1, 0, 0]
        return bytes + attributes.bytes
    }

    /// The messages of one datagram. What is cut off or contradicts itself ends it.
    static func decode(_ datagram: ArraySlice<UInt8>) -> [NetlinkMessage] {
        var messages: [NetlinkMessage] = []
        var rest = datagram
        while let length = rest.native(UInt32.self, at: 0).map(Int.init), length >= headerBytes, length <= rest.count,
            let type = rest.native(UInt16.self, at: 4), let sequence = rest.native(UInt32.self, at: 8)
        {
            let body = rest.dropFirst(headerBytes).prefix(length - headerBytes)
            var message = NetlinkMessage(type: type, sequence: sequence)
            if type == errorType {
                // Without a number it acknowledges nothing.
                guard let number = body.native(Int32.self, at: 0) else { return messages }
                message.errorNumber = number == Int32.min ? Int32.max : -number
            } else if let command = body.first {
                message.command = command
                message.attributes = NetlinkAttributes(bytes: Array(body.dropFirst(familyHeaderBytes)))
            }
            messages.append(message)
            rest = rest.dropFirst((length + 3) & ~3)
        }
        return messages
    }
}

/// Attributes, each with its length (2 bytes, with this header of 4), its type (2, of which the upper two bits are flags)
/// and its value, padded to 4.
struct NetlinkAttributes: Equatable {
    private static let nested: UInt16 = 0x8000
    private static let typeMask: UInt16 = 0x3FFF

    private(set) var bytes: [UInt8] = []

    init(bytes: [UInt8] = []) { self.bytes = bytes }

    private mutating func append(type: UInt16, _ value: [UInt8]) {
        // Nothing that is sent comes near 64 KiB: 16 sockets are the most there is.
        precondition(value.count <= 0xFFFF - 4)
        bytes.append(native: UInt16(4 + value.count))
        bytes.append(native: type)
        bytes += value
        while bytes.count % 4 != 0 { bytes.append(0) }
    }

    mutating func add(_ type: Int, _ value: UInt32) {
        var field: [UInt8] = []
        field.append(native: value)
        append(type: UInt16(type), field)
    }

    mutating func add(_ type: Int, _ value: UInt64) {
        var field: [UInt8] = []
        field.append(native: value)
        append(type: UInt16(type), field)
    }

    /// A text, with the zero byte that ends it.
    mutating func add(_ type: Int, _ text: String) { append(type: UInt16(type), Array(text.utf8) + [0]) }

    mutating func add(_ type: Int, _ nested: NetlinkAttributes) {
        append(type: UInt16(type) | Self.nested, nested.bytes)
    }

    /// Type and value of each, in their order; ends where one does not fit.
    var all: [(type: Int, value: ArraySlice<UInt8>)] {
        var found: [(type: Int, value: ArraySlice<UInt8>)] = []
        var rest = bytes[...]
        while let length = rest.native(UInt16.self, at: 0).map(Int.init), length >= 4, length <= rest.count,
            let type = rest.native(UInt16.self, at: 2)
        {
            found.append((Int(type & Self.typeMask), rest.dropFirst(4).prefix(length - 4)))
            rest = rest.dropFirst((length + 3) & ~3)
        }
        return found
    }

    private func value(_ type: Int) -> ArraySlice<UInt8>? { all.first { $0.type == type }?.value }

    func uint16(_ type: Int) -> UInt16? { value(type)?.native(UInt16.self, at: 0) }

    func uint32(_ type: Int) -> UInt32? { value(type)?.native(UInt32.self, at: 0) }

    func text(_ type: Int) -> String? {
        value(type).map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    func nested(_ type: Int) -> NetlinkAttributes? { value(type).map { NetlinkAttributes(bytes: Array($0)) } }
}

extension [UInt8] {
    fileprivate mutating func append<Value: FixedWidthInteger>(native value: Value) {
        // Plexus runs where the byte order is little-endian; see `Package.swift`.
        for shift in stride(from: 0, to: Value.bitWidth, by: 8) {
            append(UInt8(truncatingIfNeeded: value.littleEndian >> Value(shift)))
        }
    }
}

extension ArraySlice<UInt8> {
    /// Nil: it does not reach so far.
    fileprivate func native<Value: FixedWidthInteger>(_: Value.Type, at offset: Int) -> Value? {
        let size = Value.bitWidth / 8
        guard count >= offset + size else { return nil }
        var value: Value = 0
        for position in 0..<size {
            value |= Value(truncatingIfNeeded: self[startIndex + offset + position]) << Value(position * 8)
        }
        return Value(littleEndian: value)
    }
}
