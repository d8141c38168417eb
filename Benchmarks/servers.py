"""A server that is measured: where its files lie, how it is started, when it is ready, how it ends."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from processes import START_DEADLINE_SECONDS, Failure, call, wait_until

# Hangs, not slowness: the first serve copies a whole plex, and a stop flushes what a run wrote.
HEALTHY_DEADLINE_SECONDS = 900
STOP_DEADLINE_SECONDS = 120
EXPORT = "bench"


@dataclass(frozen=True)
class Place:
    """Where the disks and the sockets lie: `disks` is on the file system under test, `run` has a short path."""

    disks: Path
    run: Path

    @property
    def plexes(self) -> list[Path]:
        return [self.disks / "a.img", self.disks / "b.img"]

    @property
    def singles(self) -> list[Path]:
        """What peers serve: the first, or both where a peer mirrors too."""
        return [self.disks / "peer.img", self.disks / "peer-b.img"]

    @property
    def single(self) -> Path:
        return self.singles[0]

    @property
    def array(self) -> Path:
        """A link to the md device."""
        return self.run / "array"

    @property
    def socket(self) -> Path:
        return self.run / "nbd.sock"

    @property
    def control(self) -> Path:
        return self.run / "control.sock"

    @property
    def pid_file(self) -> Path:
        return self.run / "server.pid"

    @property
    def log(self) -> Path:
        return self.run / "server.log"

    @property
    def uri(self) -> str:
        return f"nbd+unix:///{EXPORT}?socket={quote(str(self.socket))}"


@dataclass(frozen=True)
class Kind:
    """A server that can be measured. One that can't stay in the foreground writes `Place.pid_file`."""

    name: str
    executable: str
    io: str
    arguments: Callable[[Place], list]
    is_daemon: bool = False
    files: int = 1
    # Why it can't be measured here, though the executable is there.
    obstacle: Callable[[], str | None] = lambda: None
    # What must stand before the server starts, and stays for all of its runs.
    backing: Callable[[Place], AbstractContextManager] | None = None

    @property
    def is_plexus(self) -> bool:
        return self.executable == "plexus"


class Server:
    """One running server. As a context manager it is ready inside, and stopped in good order after."""

    def __init__(self, kind: Kind, executable: str, place: Place):
        self.kind, self.executable, self.place = kind, executable, place
        self.process: subprocess.Popen | None = None
        self.pid = 0

    def __enter__(self) -> "Server":
        for stale in (self.place.socket, self.place.control, self.place.pid_file):
            stale.unlink(missing_ok=True)
        try:
            self._start()
            self._wait_ready()
        except BaseException as error:
            self._end()
            if isinstance(error, Failure):
                raise Failure(f"{error}\n{self._log_tail()}") from None
            raise
        return self

    def __exit__(self, kind, error, trace):
        code = self._end()
        # A daemon's or a peer's exit code says little (nbdkit 1.32 aborts after a hang-up); ours must be 0.
        if error is None and self.kind.is_plexus and code != 0:
            raise Failure(f"plexus serve left with {code}\n{self._log_tail()}")

    def _start(self):
        argv = [self.executable, *(str(word) for word in self.kind.arguments(self.place))]
        with open(self.place.log, "wb") as log:
            # A session of its own, so that Ctrl-C reaches us only and the end is in order.
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        self.pid = self.process.pid
        if self.kind.is_daemon:
            self.pid = 0
            front, self.process = self.process, None
            wait_until(lambda: front.poll() is not None, f"{self.kind.name} to go into the background",
                       START_DEADLINE_SECONDS)
            if front.returncode != 0:
                raise Failure(f"{self.kind.name} left with {front.returncode}")
            wait_until(self._read_pid, f"{self.kind.name} to write its pid", START_DEADLINE_SECONDS)

    def _read_pid(self) -> bool:
        with contextlib.suppress(FileNotFoundError, ValueError):
            self.pid = int(self.place.pid_file.read_text(encoding="ascii"))
        return self.pid != 0

    def _wait_ready(self):
        wait_until(self._is_listening, f"{self.kind.name} to listen", START_DEADLINE_SECONDS)
        if self.kind.is_plexus:
            call(self.executable, "wait", EXPORT, "--for", "healthy", "--timeout", HEALTHY_DEADLINE_SECONDS,
                 "--control", self.place.control, timeout=HEALTHY_DEADLINE_SECONDS + START_DEADLINE_SECONDS)

    def _is_listening(self) -> bool:
        """Asks the kernel: nbdkit 1.32 aborts when a client connects only to see whether somebody is there."""
        if self._exit_code() is not None:
            raise Failure(f"{self.kind.name} left before it was ready")
        accepts_connections = "00010000"
        wanted = [self.place.socket, *([self.place.control] if self.kind.is_plexus else [])]
        lines = Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines()
        sockets = {line.split(maxsplit=7)[-1] for line in lines if line.split()[3] == accepts_connections}
        # A server that has just ended is in the list until the kernel has taken its ring apart; its path is not.
        return all(path.exists() and str(path) in sockets for path in wanted)

    def _exit_code(self) -> int | None:
        if self.process:
            return self.process.poll()
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return 0
        return os.waitstatus_to_exitcode(status) if pid else None

    def _end(self) -> int | None:
        if self.pid == 0:
            return None
        code = self._exit_code()
        if code is None:
            os.kill(self.pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_DEADLINE_SECONDS
            while (code := self._exit_code()) is None:
                if time.monotonic() > deadline:
                    os.kill(self.pid, signal.SIGKILL)
                time.sleep(0.02)
        self.pid = 0
        return code

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return self.place.log.read_text(encoding="utf-8", errors="replace")[-2000:].strip()
        return ""


@dataclass(frozen=True)
class Rig:
    """A place, and the executables that are run there, by the name of their kind."""

    place: Place
    executables: dict[str, str]

    def server(self, kind: Kind) -> Server:
        return Server(kind, self.executables[kind.name], self.place)

    def plexus(self, *argv) -> str:
        return call(self.executables["plexus"], *argv, timeout=START_DEADLINE_SECONDS)

    def status(self) -> dict:
        """Of the mirror that is served and measured."""
        text = self.plexus("status", EXPORT, "--json", "--control", self.place.control)
        return json.loads(text)["mirrors"][0]
