"""The SIGKILL loop: the real server on real files, killed at any moment, again and again.

A cycle puts verified writes of several kinds on several connections, kills the server somewhere in them or in
something else that it does, and then demands:

- every acknowledged write is there; one that was under way is there or not, sector by sector;
- what was read once is read ever after: through repeated reads on several connections, through the resync, through
  further kills, and through the loss of a plex;
- after the resync the plexes are equal, byte for byte, and equal to what clients read.

What a cycle does follows from the seed and its number; when exactly the kill strikes does not.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import plexus
from crashes import REPEATS, Crashes, Tally, Violation
from plexus import MiB
from sectors import SECTOR, Mismatch, Sectors
from slowdisk import why_unavailable
from victim import STOPPED, Unexpected, Victim
from writers import Refused

REGION = "64K"


class Loop(Crashes):
    """Cycle after cycle on a mirror that lives as long as the loop."""

    def __init__(self, nbd, victim: Victim, seed: int):
        super().__init__(nbd, victim)
        self.seed = seed

    def run(self, cycles: int, first: int = 1, report=lambda: None):
        """Raises Violation, and leaves the disks as they were found then."""
        started = time.monotonic()
        for self.cycle in range(first, first + cycles):
            self.plan = random.Random(f"{self.seed}:{self.cycle}")
            self.all_in_sync = True
            scenario = self._scenario()
            try:
                scenario()
                self.recover()
            except (Mismatch, Refused, Unexpected, Violation) as failure:
                what = f"seed {self.seed}, cycle {self.cycle} ({scenario.__name__.replace('_', ' ')}): {failure}"
                raise Violation("\n".join([what, *self.evidence(failure)])) from failure
            self.tally.cycles += 1
            self.tally.seconds = time.monotonic() - started
            report()

    def _scenario(self):
        """Every scenario has its share of each twenty cycles, in an order of their own."""
        shares = [(self.killed_under_load, 3), (self.killed_in_resync, 3), (self.killed_at_start, 3), (self.killed_in_stop, 2),
                  (self.killed_after_clean_stop, 2), (self.plex_offline, 2), (self.plex_absent, 2), (self.plex_broken_off, 1),
                  (self.plex_failing, 2)]
        deck = [scenario for scenario, share in shares for _ in range(share)]
        random.Random(f"{self.seed}:deck:{self.cycle // len(deck)}").shuffle(deck)
        return deck[self.cycle % len(deck)]

    # Each of these begins with equal plexes, and ends with a server or without one.

    def killed_under_load(self):
        self.load_until_kill()

    def killed_in_resync(self):
        """And in the resync after that."""
        self.load_until_kill()
        for _ in range(self.plan.choice((1, 1, 2, 3))):
            self.start()
            seconds = self.moment(0.06)
            what = self.plan.random()
            if what < 0.4:
                self.load_until_kill(seconds)
            elif what < 0.7:
                self.reads_until_kill(seconds)
            else:
                self.bury(self.victim.kill_after(seconds))

    def killed_at_start(self):
        """Before it can do anything, or just when it has begun to."""
        self.load_until_kill()
        for _ in range(self.plan.choice((1, 2, 4))):
            self.begin_start()
            self.bury(self.victim.kill_after(self.moment(0.03)))

    def killed_in_stop(self):
        """With requests in flight that a stop in good order answers."""
        self.ensure_running()
        connections = self.connections()
        stop_at = time.monotonic() + self.plan.random() * 0.15
        killers = []

        def stopped() -> bool:
            if not killers and time.monotonic() >= stop_at:
                self.victim.begin_stop()
                killers.append(self.victim.kill_after(self.moment(0.012)))
            return False

        self.drive(connections, stopped)
        if self.bury(killers[0], connections) == STOPPED:
            self.start()
            self.expect_no_resync()

    def killed_after_clean_stop(self):
        """With the first writes that a clean mirror gets: what they touch must be marked before they touch it."""
        self.ensure_running()
        self.load(0.02)
        self.restart(slow=[self.plan.choice(self.victim.disks)])
        self.expect_no_resync()
        self.first_writes_until_kill(self.plan.random() * 0.005)

    def plex_offline(self):
        """Taken out, written behind its back, brought back; killed at any time in between."""
        self.all_in_sync = False
        self.ensure_running()
        plex = self.plan.randrange(len(self.victim.disks))
        call = self.victim.begin_verb("offline", "data", plex)
        self.load_while(lambda: call.poll() is None, self.connections())
        self.victim.result(call)
        if self.plan.random() < 0.3:
            self.load_until_kill()
            self.start()
        call = self.victim.begin_verb("online", "data", plex)
        self.load_until_kill(self.moment(0.1))
        self.victim.abandon(call)

    def plex_absent(self):
        """The mirror goes on without disks that were there at the kill, and gets them back."""
        self.all_in_sync = False
        self.load_until_kill()
        disks = self.victim.disks
        absent = self.plan.sample(disks, self.plan.randint(1, len(disks) - 1))
        if self.plan.random() < 0.6:
            # What clients are told here must be true also without the disk that it was read from.
            self.start(slow=[])
            self.read_suspects()
            self.bury()
            pinned = self.victim.examine(disks[0]).get("pinned")
            absent = absent if pinned is None else [disks[pinned]]
        present = [disk for disk in disks if disk not in absent]
        self.start(present, "--degraded")
        if self.plan.random() < 0.5:
            self.repeat_reads(REPEATS // 4)
        if self.plan.random() < 0.4:
            self.load_until_kill()
            # The record says by now who is absent: no flag is needed, whoever is there.
            self.start(present if self.plan.random() < 0.5 else None)
        self.load(0.05)
        calls = [self.victim.begin_verb("join", "data", self.victim.path(disk)) for disk in absent]
        self.load_until_kill(self.moment(0.1))
        for call in calls:
            self.victim.abandon(call)

    def plex_broken_off(self):
        """Kept as a copy, which has to hold what was acknowledged, and joined again."""
        self.all_in_sync = False
        self.ensure_running()
        disk = self.plan.choice(self.victim.disks)
        self.detached.add(disk)
        call = self.victim.begin_verb("break", "data", self.victim.path(disk), "--keep")
        if self.plan.random() < 0.3:
            self.load_until_kill(self.moment(0.03), is_breaking=True)
            self.victim.abandon(call)
            return
        copy = self.sectors.copy()
        connections = self.connections()
        for connection in connections:
            connection.journal = []
            connection.may_overtake = True
        self.load_while(lambda: call.poll() is None, connections)
        self.victim.result(call)
        for connection in connections:
            copy.interrupted(connection.journal)
        self.compare(disk, "the copy that was broken off", copy)
        for connection in connections:
            _expect_no_halves(copy, connection.journal)
        self.load(0.05)
        self.compare(disk, "the copy that was broken off, after more writes to the mirror", copy)
        if self.plan.random() < 0.3:
            self.load_until_kill()
            self.start()
        call = self.victim.begin_verb("join", "data", self.victim.path(disk))
        self.load_until_kill(self.moment(0.1))
        self.victim.abandon(call)

    def plex_failing(self):
        """A disk fails under load, the server is killed as it finds out, and then the disk is there again."""
        if not self.victim.has_slow_disks:
            self.load_until_kill()
            return
        self.all_in_sync = False
        disk = self.plan.choice(self.victim.disks)
        # Where the others are slow as well, what they are to record is long under way.
        self.restart(slow=self.plan.choice(([disk], self.victim.disks)))
        connections = self.connections()
        fails_at = time.monotonic() + self.plan.random() * 0.08
        # Sometimes so soon that nothing is on record yet, sometimes when all is.
        patience = self.plan.choice((0.005, 0.005, 0.1)) * self.plan.random()
        killers = []

        def failed() -> bool:
            if not killers and time.monotonic() >= fails_at:
                self.victim.fail(disk)
                killers.append(self.victim.kill_after(patience))
            return False

        self.drive(connections, failed)
        self.bury(killers[0], connections)
        self.victim.restore(disk)


def _expect_no_halves(copy: Sectors, journal: list[tuple[int, bytes]]):
    """A copy that was broken off under load holds each write, or nothing of it."""
    for position, (offset, data) in enumerate(journal):
        end = offset + len(data)
        if not any(data) or any(first < end and offset < first + len(other) for first, other in journal[position + 1:]):
            continue
        found = copy.image[offset:end]
        # A few bytes may be equal by chance, a whole sector is not.
        whole = range(0, len(data) - SECTOR + 1, SECTOR)
        if found != data and any(found[at:at + SECTOR] == data[at:at + SECTOR] for at in whole):
            raise Violation(f"the copy that was broken off holds half of a write of {len(data)} bytes at {offset}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kill-loop", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cycles", type=int, default=300, metavar="N")
    parser.add_argument("--plexes", type=int, default=2, choices=(2, 3))
    parser.add_argument("--threads", type=int, metavar="N", help="of the server (default: its own default)")
    parser.add_argument("--seed", type=int, help="of the cycles' plans; drawn and printed if not given")
    parser.add_argument("--first", type=int, default=1, metavar="CYCLE", help="begin with the plan of this cycle")
    parser.add_argument("--size", type=int, default=32, metavar="MEBIBYTES", help="of the mirror (default: 32, at least 16)")
    parser.add_argument("--binary", type=Path, help="the plexus to kill")
    parser.add_argument("--directory", type=Path, help="where the disks go, in a directory of their own (default: $TMPDIR)")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    try:
        import nbd  # pylint: disable=import-outside-toplevel
    except ImportError:
        print("kill-loop: python3-libnbd is not installed: scripts/install-deps tests", file=sys.stderr)
        return 3
    binary = options.binary.resolve() if options.binary else plexus.binary()
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    size = max(16, options.size) * MiB
    directory = Path(tempfile.mkdtemp(prefix="plexus-kill-", dir=options.directory)).resolve()
    print(f"seed {seed}, {options.plexes} plexes of {size // MiB} MiB in {directory}, {binary}", flush=True)
    victim = Victim(binary, directory, options.plexes, size, options.threads)
    loop = Loop(nbd, victim, seed)
    outcome, keeps = None, True
    try:
        if reason := why_unavailable():
            print(f"no slow disks, and so few plexes that differ after a kill: {reason}")
        victim.create(REGION, with_slow_disks=reason is None)
        loop.run(options.cycles, options.first, lambda: _progress(loop.tally, options.cycles))
        keeps = False
    except Violation as violation:
        outcome = str(violation)
    except KeyboardInterrupt:
        outcome, keeps = "interrupted", False
    finally:
        # Once is enough: a second time must not stop the clearing up.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        victim.close()
        if not keeps:
            shutil.rmtree(directory, ignore_errors=True)
    return _summary(loop.tally, size, outcome, directory if keeps else None)


def _progress(tally: Tally, cycles: int):
    if tally.cycles % 50 == 0 and tally.cycles < cycles:
        print(f"{tally.cycles} cycles, {tally.seconds:.0f} s", flush=True)


def _summary(tally: Tally, size: int, outcome: str | None, kept: Path | None) -> int:
    for line in tally.lines(size):
        print(line)
    if outcome:
        print(outcome)
    if kept:
        print(f"the disks and the server's log are kept in {kept}")
    violations = 1 if kept else 0
    print(f"{tally.cycles} cycles, {violations} violations")
    print(f"{tally.cycles} passed, {violations} failed, 0 skipped", flush=True)
    return 1 if violations else 130 if outcome else 0


if __name__ == "__main__":
    sys.exit(main())
