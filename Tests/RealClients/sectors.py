"""What every sector of a disk may hold: the oracle of the kill loop.

A sector that was written carries the number of its write and its own number, sixteen bytes repeated all over, so
that any of it tells where it came from. Most sectors may hold one thing only. One that a write was under way to
when the server was killed may hold what it had before or what the write brought, until it is read: from then on it
may hold only what was read, because a value that was once returned must not change back.
"""

import struct

SECTOR = 512
BLOCK = 4096
_STAMP = struct.Struct("<QQ")
_REPEATS = SECTOR // _STAMP.size
# A write's number: cycle, connection, and a running number, 24, 8 and 32 bits.
_CONNECTION_BITS, _RUNNING_BITS = 8, 32


def write_number(cycle: int, connection: int, running: int) -> int:
    return (cycle << _CONNECTION_BITS | connection) << _RUNNING_BITS | running


def stamped(number: int, offset: int, length: int) -> bytes:
    """What the write of that number brings to a range, which may begin and end inside sectors."""
    first = offset // SECTOR
    last = (offset + length - 1) // SECTOR
    pack = _STAMP.pack
    data = b"".join([pack(number, sector) * _REPEATS for sector in range(first, last + 1)])
    start = offset - first * SECTOR
    return data if len(data) == length else data[start:start + length]


def _stamp_text(stamp: bytes, sector: int) -> str:
    number, place = _STAMP.unpack(stamp)
    if number == 0 and place == 0:
        return "zeroes"
    cycle = number >> (_CONNECTION_BITS + _RUNNING_BITS)
    connection = number >> _RUNNING_BITS & (1 << _CONNECTION_BITS) - 1
    text = f"write {cycle}.{connection}.{number & (1 << _RUNNING_BITS) - 1}"
    return text if place == sector else f"{text} meant for sector {place}"


def described(sector: int, contents: bytes) -> str:
    """For people: which writes left this, each as CYCLE.CONNECTION.NUMBER with its bytes."""
    pieces: list[tuple[str, int]] = []
    for at in range(0, len(contents), _STAMP.size):
        text = _stamp_text(contents[at:at + _STAMP.size], sector)
        if not pieces or pieces[-1][0] != text:
            pieces.append((text, at))
    if len(pieces) == 1:
        return pieces[0][0]
    # Where a write begins or ends inside a stamp, that one stamp reads like a strange number.
    return ", ".join(f"from byte {at}: {text}" for text, at in pieces[:8])


class Mismatch(Exception):
    """A sector holds what it must not."""

    def __init__(self, sector: int, found: bytes, legal: list[bytes]):
        super().__init__(sector)
        self.sector, self.found, self.legal = sector, found, legal

    def __str__(self) -> str:
        legal = " or ".join(described(self.sector, value) for value in self.legal)
        return (f"offset {self.sector * SECTOR} (sector {self.sector}): found {described(self.sector, self.found)}; "
                f"expected {legal}")


class Sectors:
    """What the whole disk may hold, at the price of a comparison of memory where there is no doubt."""

    def __init__(self, size: int):
        self.size = size
        # What each sector holds; of those in doubt the first thing that it may hold.
        self.image = bytearray(size)
        self._view = memoryview(self.image)
        # What each sector in doubt may hold, two things or more.
        self.doubtful: dict[int, list[bytes]] = {}

    def copy(self) -> "Sectors":
        """What a plex that is broken off now may hold."""
        other = Sectors(self.size)
        other.image[:] = self.image
        other.doubtful = dict(self.doubtful)
        return other

    def is_doubtful(self, offset: int, length: int) -> bool:
        return bool(self.doubtful) and bool(self._doubtful_in(offset, length))

    def legal(self, sector: int) -> list[bytes]:
        return self.doubtful.get(sector) or [bytes(self.image[sector * SECTOR:(sector + 1) * SECTOR])]

    def _doubtful_in(self, offset: int, length: int) -> list[int]:
        first, last = offset // SECTOR, (offset + length - 1) // SECTOR
        if last - first < len(self.doubtful):
            return [sector for sector in range(first, last + 1) if sector in self.doubtful]
        return [sector for sector in self.doubtful if first <= sector <= last]

    def _settle(self, sector: int, values: list[bytes]):
        self.image[sector * SECTOR:(sector + 1) * SECTOR] = values[0]
        if len(values) == 1:
            self.doubtful.pop(sector, None)
        else:
            self.doubtful[sector] = values

    def written(self, offset: int, data: bytes):
        """The write is done: only what it brought may be found there."""
        self.image[offset:offset + len(data)] = data
        if not self.doubtful or not data:
            return
        for sector in self._doubtful_in(offset, len(data)):
            # A write of part of a sector leaves the rest in doubt.
            self._settle(sector, _distinct([_overlaid(value, sector, offset, data) for value in self.doubtful[sector]]))

    def interrupted(self, writes: list[tuple[int, bytes]]):
        """Writes of one connection, in the order they were sent, of which nobody knows whether they were done.

        Overlapping ones are done in this order, and each sector of each wholly or not at all.
        """
        newest: dict[int, list[bytes]] = {}
        for offset, data in writes:
            if not data:
                continue
            for sector in range(offset // SECTOR, (offset + len(data) - 1) // SECTOR + 1):
                start = sector * SECTOR
                piece = data[start - offset:start - offset + SECTOR] if start >= offset else b""
                if len(piece) == SECTOR and sector not in newest and sector not in self.doubtful:
                    # Most are like this, and a large write has thousands.
                    newest[sector] = [piece]
                    before = bytes(self._view[start:start + SECTOR])
                    if piece != before:
                        self.doubtful[sector] = [before, piece]
                    continue
                before = newest.get(sector) or self.legal(sector)
                newest[sector] = _distinct([_overlaid(value, sector, offset, data) for value in before])
                self._settle(sector, _distinct(self.legal(sector) + newest[sector]))

    def read(self, offset: int, data: bytearray):
        """Whole sectors were read: settles what was in doubt.

        Raises Mismatch for the first sector that holds what it must not.
        """
        for sector in self._doubtful_in(offset, len(data)) if self.doubtful else ():
            start = sector * SECTOR - offset
            found = bytes(data[start:start + SECTOR])
            if found in self.doubtful[sector]:
                self._settle(sector, [found])
        self.compare(offset, data)

    def compare(self, offset: int, data: bytearray):
        """As `read`, for what is beyond doubt; it settles nothing."""
        # A bytearray compares itself with a view by memcmp, and without a copy; a view would do it byte by byte.
        if data == self._view[offset:offset + len(data)]:
            return
        sector = first_difference(offset, data, self.image[offset:offset + len(data)])
        start = sector * SECTOR - offset
        raise Mismatch(sector, bytes(data[start:start + SECTOR]), self.legal(sector))


def first_difference(offset: int, data: bytearray, other: bytearray) -> int:
    """The first sector in which two pieces differ that both begin at the offset; they must differ."""
    for start in range(0, len(data), SECTOR):
        if data[start:start + SECTOR] != other[start:start + SECTOR]:
            return (offset + start) // SECTOR
    raise ValueError("the pieces are equal")


def _overlaid(value: bytes, sector: int, offset: int, data: bytes) -> bytes:
    """The sector after a write to it or to part of it."""
    start = sector * SECTOR
    first, last = max(start, offset), min(start + SECTOR, offset + len(data))
    if last - first == SECTOR:
        return data[first - offset:last - offset]
    return value[:first - start] + data[first - offset:last - offset] + value[last - start:]


def _distinct(values: list[bytes]) -> list[bytes]:
    return list(dict.fromkeys(values))
