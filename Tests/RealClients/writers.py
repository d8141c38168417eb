"""Connections of different kinds that write, zero, trim, flush and read at once, and tell the oracle what was answered.

One thread drives all connections. No two of them ever touch the same sector, though two of them share blocks;
within a connection requests overlap, and then take effect in the order they were sent.
"""

import errno
import random
import select

from plexus import KiB, MiB
from sectors import BLOCK, SECTOR, Mismatch, Sectors, first_difference, stamped, write_number

# What a request may end with when its server is killed or stopped under it.
_FAREWELLS = (errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)


class Refused(Exception):
    """A request failed on a mirror that has all it needs."""


class Change:
    """A write, zeroing or trim that was sent."""

    __slots__ = ("offset", "data", "is_done", "has_failed")

    def __init__(self, offset: int, data: bytes):
        self.offset, self.data = offset, data
        # Whether the oracle knows of it, be it from its own answer or from that of a later one.
        self.is_done = False
        self.has_failed = False

    def overlaps(self, offset: int, length: int) -> bool:
        return self.offset < offset + length and offset < self.offset + len(self.data)


class Figures:
    """What was done so far."""

    def __init__(self):
        self.acknowledged = 0
        self.reads = 0
        self.bytes_read = 0


class Buffers:
    """Memory for requests, used again and again: the library's module for Python keeps what it once was given."""

    def __init__(self, nbd):
        self.nbd = nbd
        # By capacity, a power of two.
        self._free: dict[int, list] = {}

    def take(self, length: int):
        """The memory, which may be longer, and what the library takes for exactly that length."""
        capacity = 1 << (length - 1).bit_length()
        free = self._free.setdefault(capacity, [])
        if free:
            memory, whole = free.pop()
        else:
            memory = bytearray(capacity)
            whole = self.nbd.Buffer.from_buffer(memory)
        if length == capacity:
            return memory, whole, whole
        return memory, whole, self.nbd.Buffer.from_buffer(memoryview(memory)[:length])

    def give(self, memory: bytearray, whole):
        self._free[len(memory)].append((memory, whole))


class Connection:
    """One NBD connection with a few requests in flight; a subclass says which."""

    depth = 16

    def __init__(self, buffers: Buffers, sectors: Sectors, figures: Figures, choice: random.Random, *, cycle: int,
                 number: int, start: int, end: int):
        self.buffers, self.sectors, self.figures, self.choice = buffers, sectors, figures, choice
        self.nbd = nbd = buffers.nbd
        self.cycle, self.number = cycle, number
        self.start, self.end = start, end
        self.sent = 0
        self.in_flight = 0
        # In the order they were sent.
        self.changes: list[Change] = []
        # All changes that were sent, where somebody asked for it.
        self.journal: list[tuple[int, bytes]] | None = None
        # While a plex is broken off writes wait, and reads of the same blocks may overtake them.
        self.may_overtake = False
        # Extents in doubt that are being read.
        self.reading: list[tuple[int, int]] = []
        self.failure: BaseException | None = None
        self.handle = nbd.NBD()
        # Requests that no ordinary client sends are sent as well: bytes at any offset.
        self.handle.set_strict_mode(0)

    def connect(self, socket: str) -> bool:
        self.handle.set_export_name("data")
        try:
            self.handle.connect_unix(socket)
        except self.nbd.Error:
            return False  # Killed before it answered.
        return True

    def next(self):
        """Sends one request, or none."""
        raise NotImplementedError

    # Sending. Each of these may lose the connection, which is no fault.

    def write(self, offset: int, length: int, flags: int = 0):
        self.sent += 1
        data = stamped(write_number(self.cycle, self.number, self.sent), offset, length)
        memory, whole, buffer = self.buffers.take(length)
        memory[:length] = data
        self._change(offset, data, lambda done: self.handle.aio_pwrite(buffer, offset, done, flags),
                     lambda: self.buffers.give(memory, whole))

    def zero(self, offset: int, length: int, flags: int = 0):
        self._change(offset, bytes(length), lambda done: self.handle.aio_zero(length, offset, done, flags))

    def trim(self, offset: int, length: int, flags: int = 0):
        """Whole blocks become zeroes, on all plexes alike; a block of which only a part is trimmed stays."""
        first = -(-offset // BLOCK) * BLOCK
        last = max(first, (offset + length) // BLOCK * BLOCK)
        self._change(first, bytes(last - first), lambda done: self.handle.aio_trim(length, offset, done, flags))

    def _change(self, offset: int, data: bytes, send, release=lambda: None):
        if any(first < offset + len(data) and offset < last for first, last in self.reading):
            release()
            return
        change = Change(offset, data)
        self.changes.append(change)
        if self.journal is not None:
            self.journal.append((offset, data))

        def answered(error: int):
            release()
            self._answered(change, error)

        if not self._send(send, answered):
            release()
            self.changes.remove(change)

    def _answered(self, change: Change, error: int):
        if error:
            change.has_failed = True
            self._refused(error, f"a change of {len(change.data)} bytes at {change.offset}")
            return
        self.figures.acknowledged += 1
        self._done(change)
        self.changes.remove(change)

    def _done(self, change: Change):
        """Overlapping changes are done in the order they came in: those that it had to wait for are done as well."""
        if change.is_done or change.has_failed:
            return
        change.is_done = True
        for earlier in self.changes:
            if earlier is change:
                break
            if earlier.overlaps(change.offset, len(change.data)):
                self._done(earlier)
        self.sectors.written(change.offset, change.data)

    def flush(self):
        self._send(self.handle.aio_flush, lambda error: self._refused(error, "a flush") if error else None)

    def read(self, offset: int, length: int):
        """Reads whole sectors, which must hold everything that was sent to them before, and nothing later."""
        if self.may_overtake or self.sectors.is_doubtful(offset, length):
            self.read_at_rest(offset, length)
            return
        earlier = [change for change in self.changes
                   if not change.is_done and not change.has_failed and change.overlaps(offset, length)]
        expected = self.sectors.image[offset:offset + length]
        for change in earlier:
            first, last = max(offset, change.offset), min(offset + length, change.offset + len(change.data))
            expected[first - offset:last - offset] = change.data[first - change.offset:last - change.offset]

        def arrived(data: bytearray):
            if data != expected:
                sector = first_difference(offset, data, expected)
                start = sector * SECTOR - offset
                raise Mismatch(sector, bytes(data[start:start + SECTOR]), [bytes(expected[start:start + SECTOR])])
            # What was read is done, whether or not its own answer is here.
            for change in earlier:
                self._done(change)

        self._read(offset, length, arrived)

    def read_at_rest(self, offset: int, length: int):
        """As `read`, where no change may be in flight, and none is sent until it is answered: it settles what is in doubt."""
        if any(change.overlaps(offset, length) for change in self.changes):
            return
        extent = (offset, offset + length)

        def arrived(data: bytearray):
            self.reading.remove(extent)
            self.sectors.read(offset, data)

        self.reading.append(extent)
        self._read(offset, length, arrived)

    def _read(self, offset: int, length: int, arrived):
        memory, whole, buffer = self.buffers.take(length)

        def answered(error: int):
            if error:
                self.buffers.give(memory, whole)
                self._refused(error, f"a read of {length} bytes at {offset}")
                return
            self.figures.reads += 1
            self.figures.bytes_read += length
            try:
                arrived(memory if length == len(memory) else memory[:length])
            finally:
                self.buffers.give(memory, whole)

        if not self._send(lambda done: self.handle.aio_pread(buffer, offset, done), answered):
            self.buffers.give(memory, whole)

    def _send(self, send, answered) -> bool:
        self.in_flight += 1

        def completed(error):
            self.in_flight -= 1
            try:
                answered(error.value)
            except BaseException as failure:  # pylint: disable=broad-except
                # No exception can pass through the library, not even an interruption: it is raised again by `check`.
                self.failure = self.failure or failure
            return 1  # Done with: the library forgets it.

        try:
            send(completed)
        except self.nbd.Error:
            # Dead before it was queued, so it was not sent, and nothing is called.
            self.in_flight -= 1
            return False
        return True

    def _refused(self, error: int, what: str):
        if error not in _FAREWELLS:
            raise Refused(f"connection {self.number}: {what}: {errno.errorcode.get(error, error)}")

    # Driving.

    @property
    def is_alive(self) -> bool:
        return self.handle.aio_is_ready() or self.handle.aio_is_processing()

    def fill(self):
        # A choice may come to nothing because it collides with what is in flight; then it is another's turn.
        for _ in range(self.depth):
            if self.in_flight >= self.depth or not self.is_alive:
                return
            self.next()

    def turn(self, events: int):
        direction = self.handle.aio_get_direction()
        try:
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and direction & self.nbd.AIO_DIRECTION_READ:
                self.handle.aio_notify_read()
            elif events & (select.POLLOUT | select.POLLHUP | select.POLLERR):
                self.handle.aio_notify_write()
        except self.nbd.Error:
            pass  # It is dead now, and every request in flight was told so.
        self.check()

    def check(self):
        if self.failure:
            raise self.failure

    def unfinished(self) -> list[tuple[int, bytes]]:
        """What the oracle can't know, in the order it was sent."""
        return [(change.offset, change.data) for change in self.changes if not change.is_done]

    def close(self):
        del self.handle


def drive(nbd, connections: list[Connection], *, until=lambda: False):
    """Keeps all connections busy until `until`, then until all answers are there; or until the server is dead."""
    ending = False
    while alive := [connection for connection in connections if connection.is_alive]:
        ending = ending or until()
        if not ending:
            for connection in alive:
                connection.fill()
        elif not any(connection.in_flight for connection in alive):
            return
        poller = select.poll()
        by_file = {}
        for connection in alive:
            if not connection.is_alive:
                continue
            direction = connection.handle.aio_get_direction()
            file = connection.handle.aio_get_fd()
            by_file[file] = connection
            poller.register(file, (select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0)
                            | (select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE else 0))
        for file, events in poller.poll(20):
            by_file[file].turn(events)


class RandomBlocks(Connection):
    """4 KiB at random, and a read of them now and then."""

    def next(self):
        offset = self.choice.randrange(self.start, self.end, BLOCK)
        if self.choice.random() < 0.1:
            self.read(offset, BLOCK)
        else:
            self.write(offset, BLOCK)


class OddBytes(Connection):
    """Any bytes: every second sector of the first half, whose other sectors belong to another, and a stretch of its own.

    Where two connections write parts of one block the server must not lose either's.
    """

    def __init__(self, *arguments, parity: int, **keywords):
        super().__init__(*arguments, **keywords)
        self.parity = parity
        middle = (self.start + self.end) // 2
        quarter = (self.end - middle) // 2 // BLOCK * BLOCK
        self.shared = (self.start, middle)
        self.own = (middle + parity * quarter, middle + (parity + 1) * quarter)

    def next(self):
        if self.choice.random() < 0.5:
            # Few blocks, so that they collide.
            sectors = min(256, (self.shared[1] - self.shared[0]) // SECTOR)
            sector = self.shared[0] // SECTOR + self.choice.randrange(self.parity, sectors, 2)
            if self.choice.random() < 0.2:
                self.read(sector * SECTOR, SECTOR)
                return
            first = self.choice.choice((0, self.choice.randrange(SECTOR)))
            self.write(sector * SECTOR + first, self.choice.randint(1, SECTOR - first))
        else:
            length = self.choice.choice((1, SECTOR, 3 * SECTOR, BLOCK + 1, self.choice.randint(1, 20_000)))
            offset = self.choice.randrange(self.own[0], self.own[1] - length)
            self.write(offset, length)


class LargeSequential(Connection):
    """One stretch after the other, up to 1 MiB each."""

    depth = 3

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.position = self.start

    def next(self):
        length = min(self.choice.choice((64 * KiB, 256 * KiB, MiB)), self.end - self.position)
        self.write(self.position, length)
        self.position += length
        if self.position >= self.end:
            self.position = self.start


class Durable(Connection):
    """Writes with FUA, and flushes between writes without."""

    depth = 8

    def next(self):
        if self.choice.random() < 0.15:
            self.flush()
            return
        length = BLOCK << self.choice.randrange(4)
        offset = self.choice.randrange(self.start, self.end - length, BLOCK)
        self.write(offset, length, self.nbd.CMD_FLAG_FUA if self.choice.random() < 0.5 else 0)


class Holes(Connection):
    """Trims, zeroes with and without holes, at any offset, and writes that fill them again."""

    def next(self):
        length = self.choice.choice((SECTOR, BLOCK, 3 * BLOCK, 64 * KiB, self.choice.randint(1, 300_000)))
        offset = self.choice.randrange(self.start, self.end - length)
        if self.choice.random() < 0.7:
            offset -= offset % BLOCK
        what = self.choice.random()
        flags = self.nbd.CMD_FLAG_FUA if self.choice.random() < 0.1 else 0
        if what < 0.25:
            self.trim(offset, length, flags)
        elif what < 0.5:
            self.zero(offset, length, flags | (self.nbd.CMD_FLAG_NO_HOLE if what < 0.35 else 0))
        elif what < 0.55:
            first = offset // SECTOR * SECTOR
            self.read(first, min(SECTOR * 16, self.end - first))
        else:
            self.write(offset, length, flags)


class HotBlocks(Connection):
    """Sixteen blocks, written over and over with many requests in flight: overlaps, whole and in part."""

    depth = 32

    def next(self):
        end = min(self.end, self.start + 16 * BLOCK)
        what = self.choice.random()
        if what < 0.6:
            self.write(self.choice.randrange(self.start, end, BLOCK), BLOCK)
        elif what < 0.9:
            length = self.choice.choice((SECTOR, 2 * BLOCK, self.choice.randint(1, 3 * BLOCK)))
            self.write(self.choice.randrange(self.start, end - length), length)
        elif what < 0.93:
            self.zero(self.choice.randrange(self.start, end, BLOCK), BLOCK)
        else:
            self.read(self.choice.randrange(self.start, end, SECTOR), SECTOR)


class Reader(Connection):
    """Reads given pieces, each in turn."""

    def __init__(self, *arguments, pieces: list[tuple[int, int]], **keywords):
        super().__init__(*arguments, start=0, end=0, **keywords)
        self.pieces = pieces

    @property
    def is_finished(self) -> bool:
        return not self.pieces

    def next(self):
        if self.pieces:
            self.read_at_rest(*self.pieces.pop())
