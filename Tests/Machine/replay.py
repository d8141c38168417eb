"""Starts a mirror from the state that its disks had at each flush of a write log, and demands everything promised.

Used by the scenario log-replay; runs on the host, natively. At each place the power fails right after the flush, and once more
a little later: of the writes since then any subset is there, torn at sectors. Both plexes are on one logged disk, for the
order of their writes among each other is part of what is tested; so is what the client knew (see guest/logged.py).
"""

import json
import os
import random
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "RealClients")]

from oracle import BLOCK, SECTOR, Oracle  # noqa: E402  pylint: disable=wrong-import-position
from plexus import Case, MiB  # noqa: E402  pylint: disable=wrong-import-position
from writelog import Entry, entries  # noqa: E402  pylint: disable=wrong-import-position


class Disk:
    """The logged disk at a moment."""

    def __init__(self, size: int):
        self.data = bytearray(size)

    def apply(self, entry: Entry):
        self.data[entry.offset:entry.offset + entry.length] = entry.data or bytes(entry.length)

    def apply_torn(self, entry: Entry, choice: random.Random):
        """All of it, nothing, or some sectors."""
        match choice.randrange(3):
            case 0:
                self.apply(entry)
            case 1:
                for start in range(0, entry.length, SECTOR):
                    if choice.random() < 0.5:
                        piece = entry.data[start:start + SECTOR] or bytes(SECTOR)
                        self.data[entry.offset + start:entry.offset + start + SECTOR] = piece


class Replay(Case):
    def setUp(self):
        super().setUp()
        self.nbd = self.need_libnbd()
        words = json.loads(os.environ["REPLAY"])
        self.log, self.size = Path(words["log"]), words["size"]
        # By name: a, b, notes.
        self.parts: dict[str, list[int]] = words["parts"]
        self.limit, self.seed = words["limit"], words["seed"]
        self.result = Path(words["result"])
        self.oracle = Oracle(words["oracle"]["seed"], words["oracle"]["blocks"])

    def note(self, disk: Disk) -> int | None:
        """What the client knew to be durable, plus one; None before its first write."""
        start, _ = self.parts["notes"]
        text = bytes(disk.data[start:start + 20])
        return int(text) - 1 if text.strip(b"\0") else None

    def is_note(self, entry: Entry) -> bool:
        start, length = self.parts["notes"]
        return start <= entry.offset < start + length

    def check(self, disk: Disk, what: str) -> int:
        """Assembles, reads everything, waits for health, and compares the plexes. Returns what was copied."""
        durable = self.note(disk)
        legs = [self.dir / "a.img", self.dir / "b.img"]
        for leg, part in zip(legs, ("a", "b")):
            start, length = self.parts[part]
            leg.write_bytes(disk.data[start:start + length])
        server = self.serve(legs, label="serve")
        handle = self.nbd.NBD()
        handle.connect_uri(server.uri())
        found = self.oracle.values(self.read(handle))
        self.assertEqual(self.oracle.complaints(found, durable)[:10], [], what)
        # A value that was read does not change back, whichever plex is asked, and while plexes are made equal.
        self.assertEqual(self.oracle.values(self.read(handle)), found, what)
        mirror = server.mirror()
        if any(plex["state"] in ("offline", "stale") for plex in mirror["plexes"]):
            for leg in legs:
                server.bring_back(leg)
        server.wait_healthy()
        self.assertEqual(self.oracle.values(self.read(handle)), found, what)
        handle.shutdown()
        copied = sum(event["length"] for event in server.events() if event["code"] == "RESYNC_FINISHED")
        size = server.mirror()["size"]
        server.stop()
        self.assert_identical(size, *legs)
        return copied

    def read(self, handle) -> bytes:
        return b"".join(handle.pread(MiB, offset) for offset in range(0, self.oracle.blocks * BLOCK, MiB))

    def test_every_flush(self):
        log = list(entries(self.log))
        flushes = [index for index, entry in enumerate(log) if entry.is_flush]
        disk = Disk(self.size)
        begun = next(index for index, entry in enumerate(log) if self.is_note(entry))
        places = [index for index in flushes if index > begun]
        self.assertGreater(len(places), 20, "the log has hardly a flush")
        chosen = places
        if self.limit and len(places) > self.limit:
            chosen = sorted(random.Random(self.seed).sample(places[:-1], self.limit - 1)) + places[-1:]
        checks = 0
        upto = 0
        for place in chosen:
            for entry in log[upto:place + 1]:
                disk.apply(entry)
            upto = place + 1
            self.check(disk, f"right after flush at entry {place} of {len(log)}")
            checks += 1
            # Up to the next flush, or anywhere before it.
            choice = random.Random(f"{self.seed} {place}")
            after = next((index for index in flushes if index > place), len(log))
            later = log[place + 1:place + 1 + choice.randrange(after - place)]
            if not later:
                continue
            torn = Disk(0)
            torn.data = bytearray(disk.data)
            for entry in later:
                if entry.is_durable or self.is_note(entry):
                    torn.apply(entry)
                else:
                    torn.apply_torn(entry, choice)
            self.check(torn, f"{len(later)} writes after flush at entry {place} of {len(log)}, torn (seed {self.seed})")
            checks += 1
        self.result.write_text(json.dumps({"entries": len(log), "flushes": len(places), "checks": checks}), encoding="ascii")


if __name__ == "__main__":
    unittest.main()
