"""NBD clients that do little or misbehave, a thousand at a time.

Written from the protocol text (doc/proto.md of the NBD project); all integers are big-endian.
"""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path

from processes import Failure

READ, WRITE = 0, 1
DEADLINE_SECONDS = 30


class Client:
    """One connection with the handshake done: fixed newstyle, GO, simple replies."""

    def __init__(self, path: Path, export: str):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE_SECONDS)
        try:
            self.socket.connect(str(path))
            self._negotiate(export.encode())
        except OSError as error:
            self.socket.close()
            raise Failure(f"an NBD client can't connect: {error}") from None

    def _negotiate(self, export: bytes):
        if self.receive(18)[:16] != b"NBDMAGICIHAVEOPT":
            raise Failure("this is no NBD server")
        fixed_newstyle_without_zeroes, go, info_export, acknowledged = 3, 7, 3, 1
        data = struct.pack(">I", len(export)) + export + struct.pack(">H", 0)
        self.socket.sendall(struct.pack(">I8sII", fixed_newstyle_without_zeroes, b"IHAVEOPT", go, len(data)) + data)
        kind = info_export
        while kind != acknowledged:
            _, _, kind, length = struct.unpack(">QIII", self.receive(20))
            self.receive(length)
            if kind >> 31:
                raise Failure(f"the server refuses the export: {kind:#x}")

    def receive(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionResetError("closed by the server")
            data += piece
        return bytes(data)

    def read(self, offset: int, length: int):
        self.socket.sendall(request(READ, offset, length))
        _, error, _ = struct.unpack(">IIQ", self.receive(16))
        if error:
            raise Failure(f"a read failed with {error}")
        self.receive(length)

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.close()


def request(command: int, offset: int, length: int, cookie: int = 0) -> bytes:
    magic, no_flags = 0x25609513, 0
    return struct.pack(">IHHQQI", magic, no_flags, command, cookie, offset, length)


@contextlib.contextmanager
def connected(path: Path, export: str, count: int):
    """So many clients, one after the other: a server bounds the handshakes that it does at once."""
    clients: list[Client] = []
    try:
        for _ in range(count):
            clients.append(Client(path, export))
        yield clients
    finally:
        for client in clients:
            client.close()


def push(clients: list[Client], messages: Iterable[bytes], quiet_seconds: float, deadline_seconds: float):
    """Sends each client's message as far as the server takes it, until nothing has moved for a while."""
    waiting = {}
    for client, message in zip(clients, messages, strict=True):
        client.socket.setblocking(False)
        waiting[client] = memoryview(message)
    started = moved = time.monotonic()
    while waiting and time.monotonic() < min(moved + quiet_seconds, started + deadline_seconds):
        for client, rest in list(waiting.items()):
            try:
                sent = client.socket.send(rest)
            except BlockingIOError:
                continue
            except OSError:  # Cut off.
                del waiting[client]
                continue
            moved = time.monotonic()
            waiting[client] = rest[sent:]
            if sent == len(rest):
                del waiting[client]
        time.sleep(0.02)


def count_open(clients: list[Client]) -> int:
    """How many the server has not cut off; nothing is read, so that a deaf client stays one."""
    poll = select.poll()
    for client in clients:
        poll.register(client.socket, select.POLLRDHUP)
    return len(clients) - len(poll.poll(0))
