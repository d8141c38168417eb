"""What the cycles of the kill loop are made of: starting, loading, killing, and demanding what was promised."""

import collections
import contextlib
import os
import random
import re
import time
from pathlib import Path

from plexus import DEADLINE_SECONDS, MiB
from sectors import BLOCK, SECTOR, Mismatch, Sectors, described
from victim import STOPPED, Victim
from writers import (Buffers, Connection, Durable, Figures, Holes, HotBlocks, LargeSequential, OddBytes, RandomBlocks, Reader,
                     drive)

ZONES = 8
READERS = 3
# How often a block is read that was under way when the server was killed: half before the resync is over, half after.
REPEATS = 100
# Blocks that are read so often, of those first that plexes differ in; if there are more, the others are read once or twice.
REPEATED_BLOCKS = 16
PIECE = MiB


class Violation(Exception):
    """A promise was broken."""


class Tally(Figures):
    """What the loop has done, for the summary."""

    def __init__(self):
        super().__init__()
        self.cycles = 0
        self.kills: collections.Counter[str] = collections.Counter()
        # After which plexes in sync were different, and in how many blocks.
        self.parting_kills = 0
        self.parted_blocks = 0
        self.repeated_reads = 0
        self.bytes_compared = 0
        self.resyncs = 0
        self.bytes_copied = 0
        self.seconds = 0.0

    def lines(self, size: int) -> list[str]:
        share = f", {self.bytes_copied / (self.resyncs * size):.1%} of the mirror each" if self.resyncs else ""
        kills = ", ".join(f"{count} in {phase}" for phase, count in sorted(self.kills.items()))
        return [
            f"kills: {sum(self.kills.values())} ({kills})",
            f"kills that left plexes in sync different: {self.parting_kills}, in {self.parted_blocks} blocks",
            f"acknowledged changes verified: {self.acknowledged}",
            f"bytes verified: {self.bytes_read + self.bytes_compared} "
            f"({self.bytes_read} read by clients, {self.bytes_compared} compared on the plexes)",
            f"reads: {self.reads}, of these {self.repeated_reads} repeated",
            f"resyncs finished: {self.resyncs}, bytes copied: {self.bytes_copied}{share}",
            f"seconds per cycle: {self.seconds / max(1, self.cycles):.2f}",
        ]


class Crashes:
    """One mirror, what it may hold, and what can be done to it."""

    def __init__(self, nbd, victim: Victim):
        self.nbd, self.victim = nbd, victim
        self.buffers = Buffers(nbd)
        self.sectors = Sectors(victim.size)
        self.tally = Tally()
        self.cycle = 0
        self.plan = random.Random()
        self.connections_made = 0
        # Blocks that a change was under way to at a kill of this cycle.
        self.suspects: set[int] = set()
        # Of these, those in which plexes in sync differ.
        self.parted: set[int] = set()
        # Whether nothing but a kill can have left plexes different in this cycle.
        self.all_in_sync = True
        # Disks that were broken off, or perhaps were.
        self.detached: set[Path] = set()
        self.last_event = 0

    # Starting and ending.

    def moment(self, longest: float) -> float:
        """Early moments more often than late ones: there is more to interrupt."""
        return self.plan.random() ** 2 * longest

    def members(self) -> list[Path]:
        """The disks that are members, in any order: it must not matter.

        A copy that was broken off would be served as a mirror of its own, and then could no longer be joined as what
        it was.
        """
        for disk in list(self.detached):
            mirrors = [self.victim.examine(other)["mirror"] for other in self.victim.disks if other != disk]
            if self.victim.examine(disk)["mirror"] in mirrors:
                self.detached.discard(disk)
        disks = [disk for disk in self.victim.disks if disk not in self.detached]
        self.plan.shuffle(disks)
        return disks

    def begin_start(self, disks: list[Path] | None = None, *options, slow: list[Path] | None = None):
        """On disks as fast as they are or, for then a kill leaves plexes different, on some that are slow."""
        if slow is None:
            slow = self.plan.sample(self.victim.disks, self.plan.choice((0, 0, 1, 1, len(self.victim.disks))))
        self.victim.start(self.members() if disks is None else disks, *options, slow=slow)

    def start(self, disks: list[Path] | None = None, *options, slow: list[Path] | None = None):
        self.begin_start(disks, *options, slow=slow)
        self.victim.wait_ready()

    def restart(self, *, slow: list[Path]):
        """In good order, if a server is running."""
        if self.victim.is_running:
            self.victim.stop()
        self.start(slow=slow)

    def ensure_running(self):
        if not self.victim.is_running:
            self.start()

    def bury(self, killer=None, connections: list[Connection] = ()) -> str:
        """The server is dead, or about to be: from here on what was not answered is in doubt."""
        phase = self.victim.buried(killer)
        if phase != STOPPED:
            self.tally.kills[phase] += 1
        for connection in connections:
            changes = connection.unfinished()
            self.sectors.interrupted(changes)
            for offset, data in changes:
                self.suspects.update(range(offset // BLOCK, (offset + len(data) + BLOCK - 1) // BLOCK))
            connection.close()
        if self.all_in_sync:
            self._count_parted()
        return phase

    def _count_parted(self):
        """How much the kill left for the server to make equal: where that is nothing, reading again proves little."""
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(open(disk, "rb", buffering=0)).fileno() for disk in self.victim.disks]
            parted = {block for block in self.suspects if len({os.pread(file, BLOCK, block * BLOCK) for file in files}) > 1}
        self.parted |= parted
        self.tally.parting_kills += len(parted) > 0
        self.tally.parted_blocks += len(parted)

    # Load.

    def _connection(self, kind, **settings) -> Connection:
        self.connections_made += 1
        return kind(self.buffers, self.sectors, self.tally, random.Random(self.plan.random()), cycle=self.cycle,
                    number=self.connections_made % 256, **settings)

    def connections(self) -> list[Connection]:
        """Four to seven, each in a zone of its own but for the two that share blocks."""
        zone_bytes = self.sectors.size // ZONES
        zones = [zone * zone_bytes for zone in range(ZONES)]
        self.plan.shuffle(zones)
        shared = zones.pop()
        made = [self._connection(OddBytes, parity=parity, start=shared, end=shared + zone_bytes) for parity in (0, 1)]
        kinds = [RandomBlocks, LargeSequential, Durable, Holes, HotBlocks]
        for kind in self.plan.sample(kinds, self.plan.randint(2, len(kinds))):
            start = zones.pop()
            made.append(self._connection(kind, start=start, end=start + zone_bytes))
        return made

    def connect(self, connections: list[Connection]) -> list[Connection]:
        """Those that the server still answered."""
        return [connection for connection in connections if connection.connect(str(self.victim.socket))]

    def drive(self, connections: list[Connection], until=lambda: False):
        drive(self.nbd, self.connect(connections), until=until)

    def load_until_kill(self, seconds: float | None = None, *, is_breaking: bool = False):
        """The kill may strike while the connections are being made."""
        self.ensure_running()
        connections = self.connections()
        for connection in connections:
            connection.may_overtake = is_breaking
        killer = self.victim.kill_after(self.plan.random() * 0.2 if seconds is None else seconds)
        self.drive(connections)
        self.bury(killer, connections)

    def first_writes_until_kill(self, seconds: float):
        """The kill strikes so soon after the first request."""
        connections = self.connections()
        connected = self.connect(connections)
        killer = self.victim.kill_after(seconds)
        drive(self.nbd, connected)
        self.bury(killer, connections)

    def load(self, seconds: float):
        end = time.monotonic() + seconds
        self.load_while(lambda: time.monotonic() < end, self.connections())

    def load_while(self, condition, connections: list[Connection]):
        """The server goes on, and so every request is answered."""
        self.drive(connections, lambda: not condition())
        for connection in connections:
            if not connection.is_alive or connection.changes:
                raise Violation(f"connection {connection.number} was lost, though the server goes on")
            connection.close()

    # Demands.

    def reads_until_kill(self, seconds: float):
        killer = self.victim.kill_after(seconds)
        self.repeat_reads(REPEATS)
        self.bury(killer)

    def repeat_reads(self, times: int):
        """Blocks that were under way, in any order, on several connections at once: whoever asks gets the same."""
        # Of their own choice, so that the rest of the plan is the same whatever the kill has left.
        choice = random.Random(self.plan.random())
        groups = [sorted(self.parted), sorted(self.suspects - self.parted)]
        for group in groups:
            choice.shuffle(group)
        pieces = [(block * BLOCK, BLOCK) for block in (groups[0] + groups[1])[:REPEATED_BLOCKS]] * times
        choice.shuffle(pieces)
        before = self.tally.reads
        self._read(pieces, READERS)
        self.tally.repeated_reads += self.tally.reads - before

    def read_suspects(self):
        """Each once, and as fast as can be: most of them before the resync comes by."""
        self._read([(block * BLOCK, BLOCK) for block in sorted(self.suspects, reverse=True)], READERS)

    def read_everything(self):
        self._read([(offset, PIECE) for offset in range(0, self.sectors.size, PIECE)], 1)

    def _read(self, pieces: list[tuple[int, int]], count: int):
        readers = [self._connection(Reader, pieces=pieces[share::count]) for share in range(count)]
        self.drive(readers, lambda: all(reader.is_finished for reader in readers))
        for reader in readers:
            reader.close()

    def compare(self, disk: Path, name: str, expected: Sectors | None = None):
        """The data on a disk with what the oracle knows, or with what a copy may hold."""
        data = bytearray(PIECE)
        with open(disk, "rb", buffering=0) as file:
            for offset in range(0, self.sectors.size, PIECE):
                file.readinto(data)
                try:
                    if expected:
                        expected.read(offset, data)
                    else:
                        self.sectors.compare(offset, data)
                except Mismatch as mismatch:
                    raise Violation(f"{name} ({disk.name}) holds what it must not") from mismatch
                self.tally.bytes_compared += PIECE

    def expect_no_resync(self):
        mirror = self.victim.mirror()
        if mirror["state"] != "healthy" or mirror["resync"]:
            raise Violation(f"after a clean stop the mirror is {mirror['state']}: {mirror['reason']}")

    # Back to health.

    def recover(self):
        """Brings the mirror back to health, and demands everything that was promised."""
        self.ensure_running()
        comes_back_first = self.plan.random() < 0.5
        if comes_back_first:
            self.bring_back()
        self.repeat_reads(REPEATS // 2)
        self.read_everything()
        if self.sectors.doubtful:
            raise Violation(f"{len(self.sectors.doubtful)} sectors can't be read")
        if not comes_back_first:
            self.bring_back()
        self._wait_healthy()
        self.repeat_reads(REPEATS // 2)
        if self.plan.random() < 0.25:
            self.read_everything()
        for plex, disk in enumerate(self.victim.disks):
            self.compare(disk, f"plex {plex}")
        self._count_resyncs()
        self.suspects.clear()
        self.parted.clear()

    def bring_back(self):
        """What a user types for plexes that are not in use after a start."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            away = [plex for plex in self.victim.mirror()["plexes"] if plex["state"] not in ("in-sync", "rebuilding")]
            if not away:
                self.detached.clear()
                return
            for plex in away:
                disk = self.victim.disks[plex["index"]]
                if plex["state"] == "offline" and disk not in self.detached:
                    call = self.victim.begin_verb("online", "data", plex["index"])
                else:
                    call = self.victim.begin_verb("join", "data", self.victim.path(disk))
                complaint = call.communicate(timeout=DEADLINE_SECONDS)[1]
                if call.returncode != 0 and ("try again" not in complaint or time.monotonic() > deadline):
                    raise Violation(f"plex {plex['index']} ({plex['state']}) can't come back: {complaint.strip()}")

    def _wait_healthy(self):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (mirror := self.victim.mirror())["state"] != "healthy":
            if time.monotonic() > deadline:
                raise Violation(f"not healthy after {DEADLINE_SECONDS:.0f} s: {mirror['state']}: {mirror['reason']}")
            time.sleep(0.005)

    def _count_resyncs(self):
        events = self.victim.events()
        finished = [event for event in events if event["code"] == "RESYNC_FINISHED" and event["sequence"] > self.last_event]
        self.tally.resyncs += len(finished)
        self.tally.bytes_copied += sum(event["length"] for event in finished)
        self.last_event = max((event["sequence"] for event in events), default=0)
        # Those of the present server: what another had begun when it was killed is no measure.
        own = events[-self.victim.events_logged():]
        for number, event in enumerate(own):
            most = most_bytes_to_copy(own[:number]) if event["code"] == "RESYNC_FINISHED" else None
            if most is not None and event["length"] > most:
                raise Violation(f"a resync copied {event['length']} bytes; dirty were {most}: {event['text']}")

    # When it went wrong.

    def evidence(self, failure: Exception) -> list[str]:
        """What lies on the disks where a sector is wrong, and what the server said. It is dead afterwards."""
        lines = []
        cause = failure.__cause__ if isinstance(failure, Violation) else failure
        if isinstance(cause, Mismatch):
            if cause is not failure:
                lines.append(str(cause))
            lines += [self._found(plex, disk, cause.sector) for plex, disk in enumerate(self.victim.disks)]
            lines.append("a write is named CYCLE.CONNECTION.NUMBER")
        if self.victim.is_running:
            lines.append(f"the server had logged:\n{self.victim.logged()}")
        # Before it copies the evidence away.
        self.victim.close()
        return lines

    def _found(self, plex: int, disk: Path, sector: int) -> str:
        with open(disk, "rb") as file:
            file.seek(sector * SECTOR)
            return f"plex {plex} ({disk.name}) has there: {described(sector, file.read(SECTOR))}"


def most_bytes_to_copy(events: list[dict]) -> int | None:
    """How much a resync may have copied that ends after these events of its server: dirty regions times their size.

    None where nobody tells. Where a second resync begins while one is running both count together. One that serves several
    plexes copies what any of them lacks, and says how much the one lacks that lacks most: their sum is the bound then. So
    it is where a plex joins while plexes in sync are made equal: what was copied before it joined is copied to it alone.
    """
    begun = [event for event in events if event["code"] == "RESYNC_STARTED"]
    if not begun:
        return None
    most = sum(event["length"] for event in begun)
    joined = sum(event["length"] for event in events if event["code"] == "JOINED")
    if any(re.search(r"to plex \d+, \d", event["text"]) for event in begun):
        most = max(most, joined)
    if any("may differ" in event["text"] for event in begun):
        most += joined
    return most
