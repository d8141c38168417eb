"""Reads what QEMU's blklogwrites wrote down: everything that went to a disk, in the order in which it was done.

The format is that of Linux' dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst), little-endian. The first
sector has magic, version, number of entries, sector size. Each entry is a sector with its header, and for a write the data:

| offset | size | what |
|---|---|---|
| 0 | 8 | sector |
| 8 | 8 | sectors |
| 16 | 8 | flags: 1 flush, 2 FUA, 4 discard, 8 mark |
| 24 | 8 | bytes of a mark |
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SECTOR = 512
_HEADER = struct.Struct("<QQQQ")


@dataclass(frozen=True)
class Entry:
    offset: int
    length: int
    flags: int
    # Empty for a flush and for a discard.
    data: bytes

    @property
    def is_flush(self) -> bool:
        return bool(self.flags & FLUSH)

    @property
    def is_durable(self) -> bool:
        return bool(self.flags & FUA)


def entries(path: Path) -> Iterator[Entry]:
    """The machine must have ended in order: only then is the number of entries in the first sector the last."""
    with open(path, "rb") as log:
        magic, version, count, unit = struct.unpack("<QQQI", log.read(28))
        if (magic, version) != (MAGIC, 1):
            raise ValueError(f"{path} is no write log")
        position = unit
        for _ in range(count):
            log.seek(position)
            sector, sectors, flags, _ = _HEADER.unpack(log.read(_HEADER.size))
            size = 0 if flags & (DISCARD | MARK) else sectors * SECTOR
            log.seek(position + unit)
            yield Entry(sector * SECTOR, sectors * SECTOR, flags, log.read(size))
            position += unit + -(-size // unit) * unit
