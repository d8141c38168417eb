internal import CLinux
internal import Glibc

/// A socket to generic netlink. Source: netlink(7).
@safe final class NetlinkSocket {
    private static let family: Int32 = 16  // AF_NETLINK
    private static let level: Int32 = 270  // SOL_NETLINK
    private static let controller: UInt16 = 16  // GENL_ID_CTRL
    /// More than any message that the kernel sends here.
    private static let receiveBytes = 64 << 10

    let file: Int32
    private var sequence: UInt32 = 0

    init() throws(AttachmentError) {
        file = socket(Self.family, Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), NETLINK_GENERIC)
        guard file >= 0 else { throw AttachmentError("no netlink socket: \(errorText(errno))") }
        var address = sockaddr_nl()
        address.nl_family = UInt16(Self.family)
        let bound = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe bind(file, $0, socklen_t(MemoryLayout<sockaddr_nl>.size))
            }
        }
        guard bound == 0 else { throw AttachmentError("no netlink socket: \(errorText(errno))") }
    }

    deinit { close(file) }

    struct Family {
        var id: UInt16
        /// By their names.
        var groups: [String: UInt32]
    }

    /// - Returns: nil if the kernel has none of that name, which may mean that a module is not loaded.
    func resolve(_ name: String) throws(AttachmentError) -> Family? {
        var attributes = NetlinkAttributes()
        attributes.add(CTRL_ATTR_FAMILY_NAME, name)
        let answer = try ask(Self.controller, UInt8(CTRL_CMD_GETFAMILY), attributes)
        if answer.errorNumber == ENOENT { return nil }
        guard answer.errorNumber == 0, let found = answer.attributes, let id = found.uint16(CTRL_ATTR_FAMILY_ID) else {
            throw AttachmentError("netlink does not tell of \(name): \(errorText(answer.errorNumber))")
        }
        var groups: [String: UInt32] = [:]
        for (_, value) in found.nested(CTRL_ATTR_MCAST_GROUPS)?.all ?? [] {
            let group = NetlinkAttributes(bytes: Array(value))
            if let name = group.text(CTRL_ATTR_MCAST_GRP_NAME), let id = group.uint32(CTRL_ATTR_MCAST_GRP_ID) {
                groups[name] = id
            }
        }
        return Family(id: id, groups: groups)
    }

    func join(_ group: UInt32) throws(AttachmentError) {
        var group = group
        guard unsafe setsockopt(file, Self.level, NETLINK_ADD_MEMBERSHIP, &group, 4) == 0 else {
            throw AttachmentError("the kernel's messages can't be heard: \(errorText(errno))")
        }
    }

    struct Answer {
        /// 0: done.
        var errorNumber: Int32
        var attributes: NetlinkAttributes?
    }

    /// Sends a request and waits until it is acknowledged or refused.
    func ask(_ family: UInt16, _ command: UInt8, _ attributes: NetlinkAttributes) throws(AttachmentError) -> Answer {
        sequence &+= 1
        let request = NetlinkMessage(type: family, sequence: sequence, command: command, attributes: attributes)
        let bytes = request.encoded()
        guard unsafe send(file, bytes, bytes.count, 0) == bytes.count else {
            throw AttachmentError("netlink: \(errorText(errno))")
        }
        var answer = Answer(errorNumber: 0, attributes: nil)
        while true {
            guard let messages = receive() else { throw AttachmentError("netlink: \(errorText(errno))") }
            for message in messages where message.sequence == sequence {
                switch message.type {
                case NetlinkMessage.errorType:
                    answer.errorNumber = message.errorNumber
                    return answer
                case NetlinkMessage.doneType: return answer
                case family: answer.attributes = message.attributes
                default: break
                }
            }
        }
    }

    /// The messages of the next datagram.
    ///
    /// - Returns: nil: `errno` tells why; ENOBUFS means that messages were lost.
    func receive(waits: Bool = true) -> [NetlinkMessage]? {
        var bytes = [UInt8](repeating: 0, count: Self.receiveBytes)
        while true {
            let count = unsafe recv(file, &bytes, bytes.count, waits ? 0 : Int32(MSG_DONTWAIT))
            if count < 0, errno == EINTR { continue }
            return count < 0 ? nil : NetlinkMessage.decode(bytes[..<count])
        }
    }
}
