"""The servers that side_by_side.py measures: how each is started, when it is ready, what CPU it used, how it ends."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

# Hangs, not slowness: the first serve copies a whole plex, and a stop flushes what a run wrote.
HEALTHY_DEADLINE_SECONDS = 900
START_DEADLINE_SECONDS = 30
STOP_DEADLINE_SECONDS = 120
EXPORT = "bench"


class Failure(Exception):
    """A server or client that did not do its part; the run is recorded as failed."""


class Missing(Exception):
    """Something without which nothing can be measured."""


@dataclass(frozen=True)
class Place:
    """Where the disks and the sockets lie: `disks` is on the file system under test, `run` has a short path."""

    disks: Path
    run: Path

    @property
    def plexes(self) -> list[Path]:
        return [self.disks / "a.img", self.disks / "b.img"]

    @property
    def single(self) -> Path:
        return self.disks / "peer.img"

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

    @property
    def is_plexus(self) -> bool:
        return self.executable == "plexus"


def plexus_arguments(place: Place) -> list:
    return ["serve", *place.plexes, "--socket", place.socket, "--control", place.control]


def qemu_arguments(cache: str, aio: str) -> Callable[[Place], list]:
    return lambda place: ["-f", "raw", f"--cache={cache}", f"--aio={aio}", "-t", "-e", "8", "-x", EXPORT,
                          "-k", place.socket, place.single]


def nbdkit_arguments(place: Place) -> list:
    return ["-f", "-U", place.socket, "file", place.single]


def nbd_server_arguments(place: Place) -> list:
    """Flush, FUA and trim are off unless asked for; that several connections are safe it always says."""
    config = place.run / "nbd-server.conf"
    config.write_text(
        f"[generic]\nunixsock = {place.socket}\n"
        f"[{EXPORT}]\nexportname = {place.single}\nflush = true\nfua = true\ntrim = true\n", encoding="utf-8")
    return ["-C", config, "-p", place.pid_file]


PLEXUS = Kind("plexus", "plexus", "direct, 2 files", plexus_arguments)
# nbd-server -d would stay in the foreground, but then serves one connection at a time.
PEERS = [
    Kind("qemu-nbd", "qemu-nbd", "direct", qemu_arguments("none", "io_uring")),
    Kind("nbdkit", "nbdkit", "page cache", nbdkit_arguments),
    Kind("nbd-server", "nbd-server", "page cache", nbd_server_arguments, is_daemon=True),
    Kind("qemu-nbd-native", "qemu-nbd", "direct", qemu_arguments("none", "native")),
    Kind("qemu-nbd-cached", "qemu-nbd", "page cache", qemu_arguments("writeback", "io_uring")),
]
DEFAULT_PEERS = "qemu-nbd,nbdkit,nbd-server"


# Processes. Only our own descendants are ever signalled, each by its pid.

def become_subreaper():
    """A daemon that we start becomes our child when its parent leaves: it can be waited for, and none gets away."""
    set_child_subreaper = 36  # PR_SET_CHILD_SUBREAPER of <linux/prctl.h>
    if ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0) != 0:
        raise Missing(f"prctl: {os.strerror(ctypes.get_errno())}")


def stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, which may hold spaces: 0 state, 1 parent, 11 to 14 CPU ticks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat_fields(int(entry))):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def end_descendants():
    """The last net: what a failure or an interruption left running. Some become our children only as others end."""
    for _ in range(100):
        below = descendants(os.getpid())
        if not below:
            return
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)


def cpu_ticks(pid: int) -> int:
    """Ticks of a process, of its living descendants and of its children that were waited for.

    nbd-server's process for a connection ends just after the client: read while it passes from the living to the
    waited for, it would be missed or be counted twice. Two equal readings in a row say that all is at rest.
    """
    def reading() -> int:
        fields = [stat_fields(each) for each in [pid, *descendants(pid)]]
        return sum(int(ticks) for each in fields if each for ticks in each[11:15])

    last = reading()
    for _ in range(50):
        time.sleep(0.04)
        now = reading()
        if now == last:
            break
        last = now
    return last


def wait_until(check: Callable[[], bool], what: str, deadline_seconds: float):
    started = time.monotonic()
    while not check():
        if time.monotonic() - started > deadline_seconds:
            raise Failure(f"gave up waiting for {what} after {deadline_seconds} s")
        time.sleep(0.02)


def call(*argv, timeout: float) -> str:
    command = [str(word) for word in argv]
    try:
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=timeout, start_new_session=True)
    except subprocess.TimeoutExpired:
        raise Failure(f"no end after {timeout} s: {' '.join(command)}") from None
    if done.returncode != 0:
        raise Failure(f"exit code {done.returncode}: {' '.join(command)}\n{(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


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
        return all(str(path) in sockets for path in wanted)

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
