"""A client that knows what every sector may contain after a power cut, and a judge of what is found there.

Writes have numbers. Write N goes to block `place(N)`, and each of its sectors says so; nothing but the seed is needed to know
what was written where. The writer notes how far everything is durable. What is legal in a sector after a cut: the last write
that was durable or any that came later in that epoch, or, if there is none, what was found there after the cut before. Each
sector is judged on its own, for a block may be torn. (Across several cuts: a value that was read once does not change back.)
"""

import concurrent.futures
import json
import mmap
import os
import struct
from pathlib import Path

BLOCK, SECTOR = 4096, 512
SECTORS = BLOCK // SECTOR
# More writes than a machine in emulation gets done between two cuts.
EPOCH_NUMBERS = 1 << 20
# Half of the writes go to so few blocks: those are what plexes differ in after a cut.
HOT_BLOCKS = 64
BATCH = 8
_UNIT = struct.Struct("<QQQQ")


class Oracle:
    def __init__(self, seed: int, blocks: int):
        self.seed, self.blocks = seed, blocks
        self.epoch = 0
        # By sector: the number of the write that it was left with when this epoch began; 0 for zeroes.
        self.settled = [0] * (blocks * SECTORS)

    # What is written.

    @property
    def first(self) -> int:
        """The first number of this epoch."""
        return self.epoch * EPOCH_NUMBERS + 1

    def place(self, number: int) -> int:
        mixed = ((number + self.seed) * 0x9E3779B97F4A7C15) & (1 << 64) - 1
        mixed ^= mixed >> 29
        return (mixed >> 1) % (HOT_BLOCKS if mixed & 1 else self.blocks)

    def contents(self, number: int) -> bytes:
        block = self.place(number)
        return b"".join(_UNIT.pack(self.seed, number, block, sector) * (SECTOR // _UNIT.size) for sector in range(SECTORS))

    # What is found.

    def _value(self, block: int, sector: int, data: bytes) -> int:
        """The number of the write that a sector comes from, 0 for zeroes, -1 for what was never written there."""
        if not any(data):
            return 0
        seed, number, own_block, own_sector = _UNIT.unpack_from(data)
        good = (seed, own_block, own_sector) == (self.seed, block, sector) and self.place(number) == block \
            and data == data[:_UNIT.size] * (SECTOR // _UNIT.size)
        return number if good else -1

    def values(self, data: bytes) -> list[int]:
        found = []
        for block in range(self.blocks):
            piece = data[block * BLOCK:(block + 1) * BLOCK]
            number = self._value(block, 0, piece[:SECTOR])
            if number > 0 and piece == self.contents(number):
                found += [number] * SECTORS
            else:
                found += [self._value(block, sector, piece[sector * SECTOR:(sector + 1) * SECTOR]) for sector in range(SECTORS)]
        return found

    def complaints(self, found: list[int], durable: int) -> list[str]:
        """What is not legal. `durable`: every write of this epoch up to this number is."""
        floors: dict[int, int] = {}
        for number in range(self.first, durable + 1):
            floors[self.place(number)] = number
        wrong = []
        for index, value in enumerate(found):
            floor = floors.get(index // SECTORS)
            legal = value >= (floor or self.first) if floor or value != self.settled[index] else True
            if not legal:
                wrong.append(f"block {index // SECTORS} sector {index % SECTORS}: found {value}, durable {floor}, "
                             f"before {self.settled[index]}, this epoch from {self.first}")
        return wrong

    def settle(self, found: list[int]):
        """From now on only what was read is legal, and what is written from now on."""
        self.settled = list(found)
        self.epoch += 1

    # Between machines.

    def save(self, path: Path):
        """At once or not at all."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(vars(self)), encoding="ascii")
        os.replace(partial, path)

    @staticmethod
    def load(path: Path) -> "Oracle":
        saved = json.loads(path.read_text(encoding="ascii"))
        oracle = Oracle(saved["seed"], saved["blocks"])
        vars(oracle).update(saved)
        return oracle


class Writer:
    """Writes what an oracle says, several blocks at a time, past the page cache."""

    def __init__(self, oracle: Oracle, device: Path | str):
        self.oracle = oracle
        self.number = oracle.first
        self.file = os.open(device, os.O_RDWR | os.O_DIRECT)
        self.buffers = [mmap.mmap(-1, BLOCK) for _ in range(BATCH)]
        self.pool = concurrent.futures.ThreadPoolExecutor(BATCH)

    def write_batch(self):
        """Up to BATCH writes at once, no two of them to the same block, for then nobody could say which is the last."""
        numbers: list[int] = []
        taken: set[int] = set()
        while len(numbers) < BATCH and self.oracle.place(self.number) not in taken:
            taken.add(self.oracle.place(self.number))
            numbers.append(self.number)
            self.number += 1
        for done in [self.pool.submit(self._write, *pair) for pair in zip(self.buffers, numbers)]:
            done.result()

    def _write(self, buffer: mmap.mmap, number: int):
        buffer[:] = self.oracle.contents(number)
        written = os.pwritev(self.file, [buffer], self.oracle.place(number) * BLOCK)
        if written != BLOCK:
            raise OSError(f"wrote {written} bytes of {BLOCK}")

    def flush(self) -> int:
        """The number up to which everything is durable now."""
        os.fsync(self.file)
        return self.number - 1

    def close(self):
        self.pool.shutdown()
        os.close(self.file)


def read_blocks(device: Path | str, blocks: int) -> bytes:
    """Past the page cache, in pieces."""
    file = os.open(device, os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, 1 << 20) as buffer:
        pieces = []
        for offset in range(0, blocks * BLOCK, len(buffer)):
            got = os.preadv(file, [buffer], offset)
            pieces.append(buffer[:got])
    os.close(file)
    return b"".join(pieces)[:blocks * BLOCK]
