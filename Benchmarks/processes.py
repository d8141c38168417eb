"""Processes of a benchmark: what they cost, and that none stays. Only our own descendants are ever signalled, by pid."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

START_DEADLINE_SECONDS = 30


class Failure(Exception):
    """A server or client that did not do its part; the run is recorded as failed."""


class Missing(Exception):
    """Something without which nothing can be measured."""


def find(executable: str) -> str | None:
    """The path of a program; some lie in /usr/sbin, which is not in every user's path."""
    return shutil.which(executable, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")


def note(text: str):
    print(text, file=sys.stderr, flush=True)


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


def cpu_nanoseconds(pid: int) -> int:
    """Of all threads of one process: finer than ticks, and without its children."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return total


def memory_bytes(pid: int, field: str) -> int:
    """VmRSS (resident now) or VmHWM (the most that ever was)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    raise Failure(f"process {pid} has no {field}: it has ended")


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


def first_line(*argv) -> str:
    """What a program says first, of its version for example; some answer on stderr, some with an exit code."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run([str(word) for word in argv], check=False, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              timeout=START_DEADLINE_SECONDS)
        return (done.stdout.strip().splitlines() or [""])[0]
    return ""
