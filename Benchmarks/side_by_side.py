"""Plexus, which writes two plexes, beside other NBD servers: one directory, all workloads, all servers in turn."""

import contextlib
import os
from dataclasses import asdict, replace
from pathlib import Path

from machine import file_system
from peers import PLEXUS
from processes import Failure, call, first_line, note
from runs import Run, as_plain, measure, ratios, spreads
from servers import EXPORT, HEALTHY_DEADLINE_SECONDS, Kind, Rig
from workloads import MiB, Workload


def fill(path: Path, size_bytes: int):
    """Writes a file in full, with bytes that no server can take for a hole."""
    piece = os.urandom(4 * MiB)
    with open(path, "wb") as file:
        for offset in range(0, size_bytes, len(piece)):
            file.write(piece[: min(len(piece), size_bytes - offset)])
        file.flush()
        os.fsync(file.fileno())


def settle(paths: list[Path], warm: bool):
    """So that no run pays for the writes of the one before, and none finds what that left in the page cache."""
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while warm and file.read(4 * MiB):
                pass


def peer_files(kinds: list[Kind]) -> int:
    """As many as the peer that needs most, and one in any case."""
    return max([1, *(kind.files for kind in kinds if not kind.is_plexus)])


class SideBySide:
    def __init__(self, options, rig: Rig, kinds: list[Kind]):
        self.options, self.rig = options, rig
        self.files = [*rig.place.plexes, *rig.place.singles[:peer_files(kinds)]]
        self.file_system = file_system(rig.place.disks)
        self.kinds = [self._on_this_file_system(kind) for kind in kinds]
        self.runs: list[Run] = []
        self.size_bytes = 0

    def _on_this_file_system(self, kind: Kind) -> Kind:
        """A file in memory is in the page cache, whatever a server asks for."""
        if self.file_system not in ("tmpfs", "ramfs"):
            return kind
        return replace(kind, io=kind.io.replace("direct", "memory").replace("page cache", "memory"))

    def run(self, resources: contextlib.ExitStack):
        self.prepare()
        for kind in self.kinds:
            if kind.backing:
                resources.enter_context(kind.backing(self.rig.place))
        for repetition in range(1, self.options.repetitions + 1):
            for workload in self.options.workloads:
                for kind in self.kinds:
                    self.run_one(repetition, workload, kind)

    def prepare(self):
        """Makes the disks. The plexes are copied once here: later starts find a clean mirror."""
        note(f"writing {len(self.files)} files of {self.options.size // MiB} MiB in {self.rig.place.disks}")
        for path in self.files:
            fill(path, self.options.size)
        self.rig.plexus("create", EXPORT, *self.rig.place.plexes, "--force")
        with self.rig.server(PLEXUS):
            mirror = self.rig.status()
        # Less than the files by Plexus' own area at the end; all servers are loaded over the same range.
        self.size_bytes = mirror["size"] // MiB * MiB
        modes = {plex["io"] for plex in mirror["plexes"]}
        note(f"plexus uses {', '.join(sorted(modes))} i/o on {self.file_system}")
        if modes != {"direct"}:
            self.kinds = [replace(kind, io=kind.io.replace("direct", "page cache")) if kind.is_plexus else kind
                          for kind in self.kinds]

    def run_one(self, repetition: int, workload: Workload, kind: Kind):
        run = Run(repetition, workload.name, kind.name)
        self.runs.append(run)
        settle(self.files, self.options.warm)
        try:
            with self.rig.server(kind) as server:
                measure(run, server, workload, self.size_bytes, self.options.seconds)
        except Failure as failure:
            run.error = str(failure)
        outcome = f"FAILED: {run.error}" if run.error else f"{run.iops:.0f} IOPS"
        note(f"{repetition}/{self.options.repetitions}  {workload.name}  {kind.name}: {outcome}")

    def check_mirrored(self):
        """A mirror that does not write twice would be measured in vain."""
        call("cmp", "-n", self.size_bytes, *self.rig.place.plexes, timeout=HEALTHY_DEADLINE_SECONDS)
        note("both plexes hold the same data")

    def result(self) -> dict:
        """For JSON, the table and the plot."""
        return {
            "kind": "side by side", "fileSystem": self.file_system, "sizeBytes": self.size_bytes,
            "pageCache": "warm" if self.options.warm else "cold",
            "seconds": self.options.seconds, "repetitions": self.options.repetitions,
            "fio": first_line("fio", "--version"),
            "servers": [{"name": kind.name, "io": kind.io, "version": self._version(kind),
                         "arguments": [str(word) for word in kind.arguments(self.rig.place)]} for kind in self.kinds],
            "runs": [asdict(run) for run in self.runs],
            "summary": [self._row(workload, kind) for workload in self.options.workloads for kind in self.kinds],
        }

    def _version(self, kind: Kind) -> str:
        option = "-V" if kind.executable == "nbd-server" else "--version"
        return first_line(self.rig.executables[kind.name], option)

    def _row(self, workload: Workload, kind: Kind) -> dict:
        ours, mine = self._good(workload, PLEXUS.name), self._good(workload, kind.name)
        return {
            "workload": workload.name, "countsBytes": workload.counts_bytes, "server": kind.name, "io": kind.io,
            "runs": len(mine), "measures": as_plain(spreads(list(mine.values()))),
            "plexusDividedByThis": {} if kind.is_plexus else as_plain(ratios(ours, mine)),
        }

    def _good(self, workload: Workload, server: str) -> dict[int, Run]:
        """By repetition."""
        return {run.repetition: run for run in self.runs
                if (run.workload, run.server, run.error) == (workload.name, server, None)}
