"""A client that knows what every block may contain: the oracle of the crash tests.

Each block carries (block number, sequence, checksum). A value is legal when it is the last acknowledged
one or was sent after it and never answered; once a value was read back after a crash, only that one is.
"""

import os
import random
import struct
import threading
import zlib

BLOCK = 4096
_HEADER = struct.Struct("<QQI")


def pattern(block: int, sequence: int) -> bytes:
    """The contents of a block. Sequence 0 is a block that was never written: zeroes."""
    if sequence == 0:
        return bytes(BLOCK)
    body = struct.pack("<Q", (block << 32) ^ sequence) * ((BLOCK - _HEADER.size) // 8)
    body = body.ljust(BLOCK - _HEADER.size, b"\xa5")
    return _HEADER.pack(block, sequence, zlib.crc32(body)) + body


def sequence_of(block: int, data: bytes) -> int:
    """The sequence that a block carries, or -1 when it is nothing that was ever written there."""
    if not any(data):
        return 0
    number, sequence, checksum = _HEADER.unpack_from(data)
    if number != block or zlib.crc32(data[_HEADER.size:]) != checksum or data != pattern(block, sequence):
        return -1
    return sequence


class Journal:
    """Writers on several connections, each with its own blocks, and what they know."""

    def __init__(self, nbd, blocks: int, writers: int = 4, seed: int | None = None):
        self.nbd = nbd
        self.blocks, self.writers = blocks, writers
        self.seed = seed if seed is not None else int(os.environ.get("PLEXUS_TEST_SEED", random.getrandbits(32)))
        self.acknowledged = [0] * blocks
        self.sent = [0] * blocks
        self.completed = 0
        self.errors: list[str] = []
        self.lost_connections = 0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, uri: str):
        self._stop.clear()
        self._threads = [threading.Thread(target=self._write, args=(uri, writer), daemon=True)
                         for writer in range(self.writers)]
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, uri: str, writer: int):
        choice = random.Random(self.seed * 1000 + writer + self.completed)
        handle = self.nbd.NBD()
        try:
            handle.connect_uri(uri)
            while not self._stop.is_set():
                # A hot range is rewritten often: that is where plexes differ after a crash.
                span = self.blocks // self.writers
                block = writer * span + choice.randrange(min(span, 64) if choice.random() < 0.5 else span)
                self.sent[block] += 1
                sequence = self.sent[block]
                flags = self.nbd.CMD_FLAG_FUA if choice.random() < 0.05 else 0
                handle.pwrite(pattern(block, sequence), block * BLOCK, flags)
                self.acknowledged[block] = sequence
                self.completed += 1
                if choice.random() < 0.02:
                    handle.flush()
            handle.shutdown()
        except self.nbd.Error as error:
            # An error on a connection that still works is one that the mirror sent; ESHUTDOWN is no fault.
            if not handle.aio_is_ready() or error.errno == "ESHUTDOWN":
                self.lost_connections += 1
            else:
                self.errors.append(f"writer {writer}: {error.errno}: {error.string}")

    def read(self, uri: str) -> list[int]:
        """Reads every block and returns the sequences; `errors` gets each block that carries an illegal value."""
        handle = self.nbd.NBD()
        handle.connect_uri(uri)
        found = []
        step = 256
        for first in range(0, self.blocks, step):
            count = min(step, self.blocks - first)
            data = handle.pread(count * BLOCK, first * BLOCK)
            found += [sequence_of(first + i, bytes(data[i * BLOCK:(i + 1) * BLOCK])) for i in range(count)]
        handle.shutdown()
        return found

    def illegal(self, found: list[int]) -> list[str]:
        return [f"block {block}: found sequence {value}, acknowledged {low}, sent {high} (seed {self.seed})"
                for block, (value, low, high) in enumerate(zip(found, self.acknowledged, self.sent))
                if not low <= value <= high]

    def settle(self, found: list[int]):
        """From now on only what was read is legal: a value that was once returned must not change back."""
        self.acknowledged = list(found)
        self.sent = list(found)
