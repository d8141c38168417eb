"""A raw NBD client that sends anything, well-formed or not, and decodes what comes back.

Written from the protocol text (doc/proto.md of the NBD project); all integers are big-endian.
"""

import contextlib
import socket
import struct
from pathlib import Path

from plexus import DEADLINE_SECONDS

# Options and option replies.
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED_REPLY, LIST_META_CONTEXT, SET_META_CONTEXT, EXTENDED_HEADERS = (
    1, 2, 3, 5, 6, 7, 8, 9, 10, 11)
ACK, SERVER, REPLY_INFO, META_CONTEXT = 1, 2, 3, 4
ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_PLATFORM, ERR_TLS_REQD, ERR_UNKNOWN, ERR_SHUTDOWN = (
    (1 << 31) + number for number in range(1, 8))
ERR_TOO_BIG = (1 << 31) + 9
FIXED_NEWSTYLE, NO_ZEROES = 1, 2

# Commands, command flags, errors.
READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS, RESIZE = range(9)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << bit for bit in range(6))
EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108
LEGAL_ERRORS = (0, EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN)

OPTION_MAGIC = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF


class Closed(Exception):
    """The server closed the connection."""


class Wire:
    """One connection. Methods that send raise Closed when the server is gone, so that a test can expect it."""

    def __init__(self, path: Path, flags: int | None = FIXED_NEWSTYLE | NO_ZEROES, greeting: bool = True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE_SECONDS)
        self.socket.connect(str(path))
        self.size = self.flags = None
        self.reads: dict[int, list[tuple[int, int]]] = {}  # By cookie: offset and length of reads in flight.
        if greeting:
            magic, options, self.handshake_flags = struct.unpack(">8s8sH", self.receive(18))
            assert (magic, options) == (b"NBDMAGIC", b"IHAVEOPT"), (magic, options)
            if flags is not None:
                self.send(struct.pack(">I", flags))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.close()

    def send(self, data: bytes):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed from error

    def receive(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                piece = self.socket.recv(min(count - len(data), 1 << 20))
            except ConnectionResetError as error:
                raise Closed from error
            if not piece:
                raise Closed(f"after {len(data)} of {count} bytes")
            data += piece
        return bytes(data)

    def is_closed(self) -> bool:
        """Waits until the server closes; whatever it says before is read and dropped."""
        try:
            while True:
                self.receive(1)
        except Closed:
            return True
        except socket.timeout:
            return False

    # Negotiation.

    def send_option(self, option: int, data: bytes = b"", length: int | None = None, magic: int = OPTION_MAGIC):
        self.send(struct.pack(">QII", magic, option, len(data) if length is None else length) + data)

    def option_reply(self) -> tuple[int, int, bytes]:
        magic, option, kind, length = struct.unpack(">QIII", self.receive(20))
        assert magic == OPTION_REPLY_MAGIC, hex(magic)
        assert length <= 64 * 1024, length
        return option, kind, self.receive(length)

    def option(self, option: int, data: bytes = b"", length: int | None = None) -> list[tuple[int, bytes]]:
        """Sends an option and collects its replies up to the final one (ACK or an error)."""
        self.send_option(option, data, length)
        replies = []
        while True:
            echoed, kind, body = self.option_reply()
            assert echoed == option, (echoed, option)
            replies.append((kind, body))
            if kind == ACK or kind >> 31:
                return replies

    def outcome(self, option: int, data: bytes = b"", length: int | None = None) -> int:
        return self.option(option, data, length)[-1][0]

    def go(self, name: str | bytes, option: int = GO) -> "Wire":
        replies = self.option(option, info_data(name))
        assert replies[-1][0] == ACK, replies
        for kind, body in replies:
            if kind == REPLY_INFO and struct.unpack_from(">H", body)[0] == 0:
                _, self.size, self.flags = struct.unpack(">HQH", body)
        return self

    def in_step(self) -> bool:
        """After a refused option the next one is understood: the server skipped exactly the right bytes."""
        return self.outcome(LIST) == ACK

    # Transmission.

    def request(self, command: int, offset: int = 0, length: int = 0, flags: int = 0, payload: bytes = b"",
                cookie: int = 0, magic: int = REQUEST_MAGIC):
        if command == READ:
            self.reads.setdefault(cookie, []).append((offset, length))
        self.send(struct.pack(">IHHQQI", magic, flags, command, cookie, offset, length) + payload)

    def reply(self) -> tuple[int, int, bytes]:
        """(error, cookie, data) of a simple reply, or of all chunks of a structured one."""
        magic, = struct.unpack(">I", self.receive(4))
        if magic == SIMPLE_REPLY_MAGIC:
            error, cookie = struct.unpack(">IQ", self.receive(12))
            _, length = self._take_read(cookie)
            return error, cookie, self.receive(length) if length and not error else b""
        error, start, data, covered, first_cookie = 0, 0, bytearray(), 0, None
        while True:
            assert magic == CHUNK_MAGIC, hex(magic)
            flags, kind, cookie, length = struct.unpack(">HHQI", self.receive(16))
            if first_cookie is None:
                first_cookie = cookie
                start, read_length = self._take_read(cookie)
                data = bytearray(min(read_length, 64 * 1024 * 1024))
            # Legal, but not sent by a server that answers a request from one place.
            assert cookie == first_cookie, "chunks of two replies are interleaved"
            body = self.receive(length)
            if kind & 0x8000:
                error, = struct.unpack_from(">I", body)
                assert error != 0, "an error chunk without an error"
            elif kind in (1, 2):
                offset, = struct.unpack_from(">Q", body)
                size = len(body) - 8 if kind == 1 else struct.unpack_from(">I", body, 8)[0]
                assert size > 0 and start <= offset and offset - start + size <= len(data), (offset, size)
                if kind == 1:
                    data[offset - start:offset - start + size] = body[8:]
                covered += size
            if flags & 1:
                assert error or covered == len(data), f"{covered} of {len(data)} bytes were sent"
                return error, cookie, bytes(data)
            magic, = struct.unpack(">I", self.receive(4))

    def _take_read(self, cookie: int) -> tuple[int, int]:
        waiting = self.reads.get(cookie)
        return waiting.pop(0) if waiting else (0, 0)

    def ask(self, command: int, offset: int = 0, length: int = 0, flags: int = 0, payload: bytes = b"",
            cookie: int = 0x1122334455667788) -> int:
        """One request, one answer: its error. The cookie must come back, and the error must be a legal one."""
        self.request(command, offset, length, flags, payload, cookie)
        error, echoed, _ = self.reply()
        assert echoed == cookie, hex(echoed)
        assert error in LEGAL_ERRORS, error
        return error

    def read(self, offset: int, length: int) -> bytes:
        self.request(READ, offset, length, cookie=1)
        error, _, data = self.reply()
        assert error == 0, error
        return data

    def alive(self) -> bool:
        """Still in step: an ordinary read is answered."""
        return len(self.read(0, 512)) == 512


def info_data(name: str | bytes, requests: tuple[int, ...] = (), name_length: int | None = None,
              count: int | None = None) -> bytes:
    """The data of INFO and GO; the two lengths can be made to lie."""
    name = name.encode() if isinstance(name, str) else name
    return (struct.pack(">I", len(name) if name_length is None else name_length) + name
            + struct.pack(">H", len(requests) if count is None else count)
            + b"".join(struct.pack(">H", request) for request in requests))


def context_data(name: str | bytes, queries: tuple[str, ...] = (), name_length: int | None = None,
                 count: int | None = None, query_length: int | None = None) -> bytes:
    """The data of LIST_META_CONTEXT and SET_META_CONTEXT; every length can be made to lie."""
    name = name.encode() if isinstance(name, str) else name
    data = (struct.pack(">I", len(name) if name_length is None else name_length) + name
            + struct.pack(">I", len(queries) if count is None else count))
    for query in queries:
        data += struct.pack(">I", len(query) if query_length is None else query_length) + query.encode()
    return data
