internal import Glibc

/// Why something could not be attached or detached: what, and what to do.
public struct AttachmentError: Error, CustomStringConvertible {
    public var description: String
    public init(_ description: String) { self.description = description }
}

func errorText(_ number: Int32) -> String { unsafe String(cString: strerror(number)) }
