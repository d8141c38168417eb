"""A short SIGKILL loop (the long one is scripts/kill-loop), and what its oracle is worth."""

import os
import unittest

from crashes import Violation
from killloop import REGION, Loop
from plexus import Case, MiB, binary
from sectors import BLOCK, SECTOR, Mismatch, Sectors, stamped, write_number
from slowdisk import why_unavailable
from victim import Victim

SIZE = 16 * MiB
CYCLES = 16


class KilledServer(Case):
    threads = None

    def setUp(self):
        super().setUp()
        self.nbd = self.need_libnbd()

    def loop(self, plexes: int, *, slow: bool = True) -> Loop:
        victim = Victim(binary(), self.dir, plexes, SIZE, self.threads)
        self.resources.callback(victim.close)
        self.logs.append(victim.log)
        victim.create(REGION, with_slow_disks=slow and why_unavailable() is None)
        return Loop(self.nbd, victim, int(os.environ.get("PLEXUS_TEST_SEED", 20_261_121)))

    def test_two_plexes_keep_every_promise(self):
        loop = self.loop(2)
        loop.run(CYCLES)
        self.assertGreater(loop.tally.acknowledged, CYCLES)

    def test_three_plexes_keep_every_promise(self):
        loop = self.loop(3)
        loop.run(CYCLES)
        self.assertGreater(loop.tally.acknowledged, CYCLES)

    def test_plex_that_differs_in_one_sector_is_found(self):
        """That the loop can fail at all: one byte is changed behind the server's back."""
        loop = self.loop(2, slow=False)
        loop.ensure_running()
        loop.load(0.05)
        with open(loop.victim.disks[1], "r+b") as disk:
            disk.seek(5 * MiB + 7)
            disk.write(b"\xff")
        with self.assertRaises((Mismatch, Violation)) as raised:
            loop.recover()
        found = "\n".join([str(raised.exception), *loop.evidence(raised.exception)])
        self.assertIn(f"offset {5 * MiB} ", found)
        # What was written there before the change, if anything.
        self.assertRegex(found, r"plex 0 \(a\.img\) has there: (zeroes|write [\d.]+)\n")
        self.assertRegex(found, r"plex 1 \(b\.img\) has there: from byte 0: ")


class Oracle(unittest.TestCase):
    """What the sectors of a disk may hold."""

    def setUp(self):
        self.sectors = Sectors(64 * BLOCK)

    def expect(self, offset: int, data: bytes):
        self.sectors.read(offset, bytearray(data))

    def refuse(self, offset: int, data: bytes):
        with self.assertRaises(Mismatch):
            self.sectors.read(offset, bytearray(data))

    def test_acknowledged_write_must_be_there(self):
        data = stamped(write_number(1, 2, 3), BLOCK, BLOCK)
        self.sectors.written(BLOCK, data)
        self.refuse(BLOCK, bytes(BLOCK))
        self.expect(BLOCK, data)

    def test_interrupted_write_is_there_or_not_sector_by_sector(self):
        old, new = stamped(1, 0, BLOCK), stamped(2, 0, BLOCK)
        self.sectors.written(0, old)
        self.sectors.interrupted([(0, new)])
        self.expect(0, new[:SECTOR] + old[SECTOR:2 * SECTOR] + new[2 * SECTOR:])
        self.assertFalse(self.sectors.doubtful)

    def test_what_was_read_once_may_not_change_back(self):
        old, new = stamped(1, 0, SECTOR), stamped(2, 0, SECTOR)
        self.sectors.written(0, old)
        self.sectors.interrupted([(0, new)])
        self.expect(0, old)
        self.refuse(0, new)

    def test_sector_torn_inside_is_illegal(self):
        old, new = stamped(1, 0, SECTOR), stamped(2, 0, SECTOR)
        self.sectors.written(0, old)
        self.sectors.interrupted([(0, new)])
        self.refuse(0, new[:100] + old[100:])

    def test_overlapping_interrupted_writes_come_in_their_order(self):
        first, second = stamped(1, 0, SECTOR), stamped(2, 100, 100)
        both = first[:100] + second + first[200:]
        for legal in (bytes(SECTOR), first, both):
            self.sectors = Sectors(64 * BLOCK)
            self.sectors.interrupted([(0, first), (100, second)])
            self.expect(0, legal)
        self.sectors = Sectors(64 * BLOCK)
        self.sectors.interrupted([(0, first), (100, second)])
        self.refuse(0, bytes(100) + second + bytes(SECTOR - 200))

    def test_write_of_part_of_a_sector_in_doubt_leaves_the_rest_in_doubt(self):
        old, new, part = stamped(1, 0, SECTOR), stamped(2, 0, SECTOR), stamped(3, 10, 20)
        self.sectors.written(0, old)
        self.sectors.interrupted([(0, new)])
        self.sectors.written(10, part)
        self.refuse(0, new)
        self.expect(0, new[:10] + part + new[30:])

    def test_write_of_a_whole_sector_in_doubt_ends_the_doubt(self):
        self.sectors.interrupted([(0, stamped(1, 0, SECTOR))])
        newer = stamped(2, 0, SECTOR)
        self.sectors.written(0, newer)
        self.assertFalse(self.sectors.doubtful)
        self.expect(0, newer)


if __name__ == "__main__":
    unittest.main()
