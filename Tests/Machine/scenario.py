"""What a scenario has on the host: a directory, disks, machines, and what it found out."""

import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import children
from disk import Disk
from machine import Machine
from template import Template

HERE = Path(__file__).resolve().parent
KiB, MiB = 1 << 10, 1 << 20

# Debian's Python is the one that has the module of libnbd.
PYTHON = "/usr/bin/python3"


COMMON_NEEDS = ("nbd-client", "mkfs.ext4", "e2fsck", "fio", "blockdev", "setpriv", "cmp")


class Failed(Exception):
    """A promise was broken, or a program failed; the text says which."""


@dataclass(frozen=True)
class Scenario:
    name: str
    play: Callable[["Bed"], None]
    only_with_all: bool
    # It measures, so nothing else runs beside it.
    alone: bool
    # Programs, in the guest or here, and files here.
    needs: tuple[str, ...]

    def missing(self) -> list[str]:
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        return [need for need in self.needs
                if not (Path(need).exists() if need.startswith("/") else shutil.which(need, path=path))]


SCENARIOS: list[Scenario] = []


def scenario(name: str, *, only_with_all: bool = False, alone: bool = False, needs: tuple[str, ...] = ()):
    """Registers a function that plays a scenario; what it raises is why the scenario failed."""
    def register(play):
        SCENARIOS.append(Scenario(name, play, only_with_all, alone, (*COMMON_NEEDS, *needs)))
        return play
    return register


class Bed:
    """One scenario's directory and machines; everything is gone when it is left, unless it is to be kept."""

    def __init__(self, name: str, template: Template, binary: Path, *, everything: bool, seed: int):
        self.template, self.binary, self.everything = template, binary, everything
        self.seed = seed
        # Scenarios do not depend on which others run.
        self.random = random.Random(f"{seed} {name}")
        self.dir = Path(tempfile.mkdtemp(prefix=f"plexus-{name}-"))
        self.share = self.dir / "share"
        self.share.mkdir()
        self.log = self.dir / "log"
        self.log.touch()
        self.notes: list[str] = []

    def close(self, keep: bool):
        if keep:
            self.note(f"kept in {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def note(self, text: str):
        """A line that is printed when the scenario has ended well or ill."""
        self.notes.append(text)

    def disk(self, name: str, size: int, log: Path | None = None, folder: str | None = None) -> Disk:
        """A disk that reads as zeroes, in a directory of its own, so that nothing is beside it."""
        place = self.dir / (folder or f"disk-{name}")
        place.mkdir()
        with open(place / "image", "wb") as file:
            file.truncate(size)
        return Disk(name, place / "image", log)

    def guest(self, program: str, *arguments, disks: list[Disk], timeout: float = 420, **environment) -> int | None:
        """Runs guest/PROGRAM.py in a machine. Its exit status must be 0; None if the power was cut."""
        settings = {"PLEXUS": str(self.binary), "PLEXUS_TEST_DEADLINE": "120", "SEED": str(self.random.getrandbits(30))} \
            | {key: str(value) for key, value in environment.items()}
        self.write_log(f"--- guest/{program}.py {' '.join(map(str, arguments))}\n")
        command = [PYTHON, HERE / "guest" / f"{program}.py", *map(str, arguments)]
        status = Machine(self.template, self.share, disks, self.log).run(command, settings, timeout)
        if status:
            raise Failed(f"guest/{program}.py ended with {status}")
        return status

    def host(self, *argv, timeout: float = 120, environment: dict[str, str] | None = None):
        """Runs a program here. Its exit status must be 0."""
        words = [str(word) for word in argv]
        with open(self.log, "ab") as log:
            log.write(f"--- {' '.join(words)}\n".encode())
            log.flush()
            process = children.start(words, stdout=log, stderr=log, env=environment)
            try:
                code = process.wait(timeout)
            finally:
                children.end(process, signal.SIGTERM)
        if code != 0:
            raise Failed(f"{words[0]} ended with {code}")

    def write_log(self, text: str):
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(text)


# What the black-box tests with real clients have is used here as well.
sys.path.insert(0, str(HERE.parent / "RealClients"))
