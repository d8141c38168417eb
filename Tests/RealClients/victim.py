"""The server that the kill loop kills: started, asked and compared from outside, like any user would."""

import fcntl
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import threading
import time
from pathlib import Path

from plexus import DEADLINE_SECONDS, MiB, thread_options
from slowdisk import SlowDisk

# A log longer than this begins anew with the next server: it is there to tell what led to a failure.
_LOG_BYTES = 4 * MiB
# What a server was doing at a kill that came too late.
STOPPED = "stopped"
_EVENT = re.compile(r"\b(RESYNC_STARTED|RESYNC_FINISHED|JOINED)\b")


class Unexpected(Exception):
    """The server did what it must not; the text says what."""


class Victim:
    """One mirror, its disks, and the server that is now running, if any."""

    def __init__(self, binary: Path, directory: Path, plexes: int, size: int, threads: int | None = None):
        self.binary, self.directory, self.size = binary, directory, size
        self.disks = [directory / f"{'abcdefgh'[index]}.img" for index in range(plexes)]
        self.socket, self.control = directory / "nbd.sock", directory / "control.sock"
        self.log = directory / "serve.log"
        self.threads = threads
        self.process: subprocess.Popen | None = None
        self.is_ready = False
        self._log_start = 0
        self._calls: list[subprocess.Popen] = []
        # Where the loop itself is killed its server goes with it.
        setpriv = shutil.which("setpriv")
        self._prefix = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        # Each disk's slow way, where the machine has what it takes.
        self._slow: dict[Path, SlowDisk] = {}
        # Those that the present server reaches slowly.
        self._chosen: set[Path] = set()

    def create(self, region: str, *, with_slow_disks: bool):
        self.run("create", "data", *self.disks, "--size", self.size, "--region", region)
        for disk in self.disks if with_slow_disks else ():
            self._slow[disk] = SlowDisk(disk)

    @property
    def has_slow_disks(self) -> bool:
        return bool(self._slow)

    def fail(self, disk: Path):
        """Pulls the cable of a disk that the present server reaches slowly."""
        self._slow[disk].fail()

    def restore(self, disk: Path):
        """Plugs it in again, when no server is running."""
        self._slow.pop(disk).close()
        self._slow[disk] = SlowDisk(disk)

    def path(self, disk: Path) -> Path:
        """Under which the present server knows a disk."""
        return self._slow[disk].file if disk in self._chosen else disk

    # Verbs.

    def run(self, *argv) -> str:
        return self.result(self.begin(*argv))

    def begin(self, *argv) -> subprocess.Popen:
        """Starts a verb and does not wait for it."""
        call = subprocess.Popen([str(word) for word in (self.binary, *argv)], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._calls = [other for other in self._calls if other.poll() is None] + [call]
        return call

    def begin_verb(self, *argv) -> subprocess.Popen:
        return self.begin(*argv, "--control", self.control)

    def verb(self, *argv, codes=(0,)) -> str:
        return self.result(self.begin_verb(*argv), codes)

    def result(self, call: subprocess.Popen, codes=(0,)) -> str:
        """What a verb printed; raises Unexpected for any other exit code."""
        output, complaint = call.communicate(timeout=DEADLINE_SECONDS)
        if call.returncode not in codes:
            raise Unexpected(f"exit code {call.returncode}: {' '.join(call.args)}: {complaint.strip()}")
        return output

    def abandon(self, call: subprocess.Popen):
        """A verb whose server was killed: it may have been done or not."""
        call.communicate(timeout=DEADLINE_SECONDS)

    def mirror(self) -> dict:
        """The mirror's part of `status --json`."""
        mirrors = json.loads(self.verb("status", "data", "--json", codes=(0, 1)))["mirrors"]
        return mirrors[0]

    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.verb("events", "data", "--json").splitlines()]

    def events_logged(self) -> int:
        """How many of the events the present server has told; at least one."""
        return max(1, len(re.findall(r" info [A-Z_]+ mirror=", self.logged())))

    def examine(self, disk: Path) -> dict:
        return json.loads(self.run("examine", disk, "--json"))["disks"][0]

    # Life and death.

    def start(self, disks: list[Path], *options, slow: list[Path] = ()):
        """Starts a server and does not wait until it answers."""
        assert not self.is_running
        before = {disk: self.path(disk) for disk in self.disks}
        self._chosen = {disk for disk in slow if disk in self._slow}
        for disk, path in before.items():
            if self.path(disk) != path:
                _wait_released(path)
        paths = [self.path(disk) for disk in disks]
        self.is_ready = False
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.unlink()
        with open(self.log, "ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                [str(word) for word in (*self._prefix, self.binary, "serve", *paths, "--socket", self.socket,
                                        "--control", self.control, *thread_options(self), *options)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)

    def wait_ready(self):
        """`serve` prints the address of the mirror once it answers, and not before."""
        if not self.has_answered(DEADLINE_SECONDS):
            raise Unexpected(f"serve did not start (exit code {self.process.poll()}):\n{self.logged()}")

    def has_answered(self, seconds: float = 0) -> bool:
        if not self.is_ready and select.select([self.process.stdout], [], [], seconds)[0]:
            self.is_ready = b"nbd+unix://" in self.process.stdout.readline()
        return self.is_ready

    @property
    def is_running(self) -> bool:
        return self.process is not None

    def kill_after(self, seconds: float) -> threading.Thread:
        """Kills the server that is running now, from another thread; see `buried`."""
        process = self.process

        def strike():
            time.sleep(seconds)
            # Not by its number: a process that has left by itself may have left its number to another.
            process.kill()

        thread = threading.Thread(target=strike, daemon=True)
        thread.start()
        return thread

    def buried(self, killer: threading.Thread | None = None) -> str:
        """Waits for the end of a server that was killed, and says what it was doing."""
        if killer:
            killer.join()
        else:
            self.process.kill()
        self.process.wait(DEADLINE_SECONDS)
        phase = self._phase()
        code = self.process.returncode
        self._forget()
        if code == 0 and phase == "stop":
            return STOPPED
        if code != -signal.SIGKILL:
            raise Unexpected(f"the server left by itself, with exit code {code}:\n{self.logged()}")
        return phase

    def begin_stop(self):
        """SIGTERM: flush, mark clean, leave."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        self.begin_stop()
        if self.process.wait(DEADLINE_SECONDS) != 0:
            raise Unexpected(f"exit code {self.process.returncode} after SIGTERM:\n{self.logged()}")
        self._forget()

    def _forget(self):
        self.process.stdout.close()
        self.process = None

    def logged(self) -> str:
        """What the present server, or the last one, has logged."""
        with open(self.log, "rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def _phase(self) -> str:
        if not self.has_answered():
            return "start"
        text = self.logged()
        if re.search(r" info stopping$", text, re.MULTILINE):
            return "stop"
        is_copying, is_rejoining = False, False
        for code in _EVENT.findall(text):
            is_copying = code != "RESYNC_FINISHED"
            is_rejoining = is_copying and (is_rejoining or code == "JOINED")
        return "resync of a plex that came back" if is_rejoining else "resync" if is_copying else "load"

    def close(self):
        """Ends everything that was started here."""
        for call in self._calls:
            call.kill()
            call.communicate()
        if self.process:
            self.process.kill()
            self.process.wait()
            self._forget()
        for slow in self._slow.values():
            slow.close()
        self._slow = {}


def _wait_released(path: Path):
    """Until the kernel has ended what a dead server had begun on a disk.

    The next server waits for that by itself, for the lock on the disk stays so long; but not where it reaches the same disk
    by another way.
    """
    with open(path, "r+b") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLKW, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
