"""Work on a mirror whose disk is logged. What the client knows to be durable goes to another partition of that disk, so that the
log has it at the right place."""

import mmap
import os
import random
import sys
from pathlib import Path

from guest import NBD, SEED, SHARE, MachineCase, disk, main, say

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from oracle import BLOCK, Oracle, Writer  # noqa: E402  pylint: disable=wrong-import-position


class Logged(MachineCase):
    def setUp(self):
        super().setUp()
        self.oracle = Oracle.load(SHARE / "oracle")
        self.legs = [Path(f"{disk('all')}{number}") for number in (1, 2)]
        self.notes = os.open(f"{disk('all')}3", os.O_RDWR | os.O_DIRECT)
        self.buffer = mmap.mmap(-1, BLOCK)
        self.choice = random.Random(SEED)

    def note(self, durable: int):
        """Plus one, so that nothing is something."""
        self.buffer[:20] = b"%020d" % (durable + 1)
        os.pwrite(self.notes, self.buffer, 0)

    def load(self, writer: Writer, flushes: int):
        for _ in range(flushes):
            for _ in range(self.choice.randrange(1, 4)):
                writer.write_batch()
            self.note(writer.flush())

    def serve_legs(self, label: str):
        self.server = self.serve(self.legs, label=label)
        self.server.wait_healthy()
        self.attach(2)

    def test_work(self):
        self.plexus("create", "data", *self.legs)
        self.serve_legs("serve")
        self.note(0)
        writer = Writer(self.oracle, NBD)
        self.load(writer, 30)
        say("a plex is taken out and comes back")
        self.server.verb("offline", "data", "1")
        self.load(writer, 15)
        self.server.verb("online", "data", "1")
        self.load(writer, 15)
        self.server.wait_healthy()
        say("the server is started again")
        number = writer.number
        writer.close()
        self.stop()
        self.serve_legs("again")
        writer = Writer(self.oracle, NBD)
        writer.number = number
        self.load(writer, 20)
        writer.close()
        say(f"{number} writes")
        self.stop()


if __name__ == "__main__":
    main()
