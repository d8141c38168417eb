import Glibc
import MirrorFormat
import TestSupport
import Testing

@testable import MirrorServer

let mebibyte = 1 << 20

/// Tries again while a disk is in use.
///
/// A process that another test starts holds our files, and so their locks, from its fork to its exec.
func patiently<Value>(_ body: () throws -> Value) throws -> Value {
    try waitUntil("a disk to be free") {
        do {
            return try body()
        } catch let error as DiskError where error.isInUse {
            return nil
        }
    }
}

/// A mirror over new files of the names given, in `directory`.
///
/// - Returns: the paths.
@discardableResult
func makeMirror(
    _ directory: String, name: String = "data", _ disks: [String] = ["a.img", "b.img"], bytes: Int = 8 * mebibyte
) throws -> [String] {
    let paths = disks.map { "\(directory)/\($0)" }
    var formatter = MirrorFormatter(name: name, disks: paths)
    formatter.sizeBytes = UInt64(bytes)
    _ = try patiently { try formatter.run(writes: true) }
    return paths
}

func withDisk<Value>(
    _ path: String, _ access: Disk.Access = .readWrite, _ body: (Disk) throws -> Value
) throws -> Value {
    let disk = try patiently { try Disk.open(path, access) }
    defer { disk.shut() }
    return try body(disk)
}

func superblock(_ path: String) throws -> Superblock { try withDisk(path, .readOnly) { try $0.superblock() } }

/// What a refusal says.
func refusal(_ body: () throws -> Void) throws -> DiskError { try #require(throws: DiskError.self) { try body() } }

func bytes(of path: String) throws -> [UInt8] {
    let count = try #require(FileFacts(path)).bytes
    let file = unsafe open(path, O_RDONLY | O_CLOEXEC)
    try #require(file >= 0)
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: count)
    try #require(unsafe read(file, &bytes, count) == count)
    return bytes
}

func write(_ bytes: [UInt8], to path: String, at offset: Int = 0) throws {
    let file = unsafe open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
    try #require(file >= 0)
    defer { close(file) }
    try #require(unsafe pwrite(file, bytes, bytes.count, off_t(offset)) == bytes.count)
}
