import TestSupport
import URing

/// `#require` can't look into a pool, which is not copyable.
func takePiece(_ pool: inout BufferPool, bytes: Int) throws -> PooledBuffer {
    guard let piece = pool.take(bytes: bytes) else { throw Missing("\(bytes) bytes in the pool") }
    return piece
}
