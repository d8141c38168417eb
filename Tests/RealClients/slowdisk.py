"""A file that can also be reached slowly: through nbdfuse, from nbdkit's delay filter.

On an ordinary file the kernel does what the server asks for at once and on all plexes, so that a kill hardly ever finds
one plex ahead of another. Here each write takes its time, others queue behind it, and a kill drops the queue.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from plexus import end, is_mount_point, wait_until

_DELAY = "1ms"
_TOOLS = ("nbdkit", "nbdfuse", "fusermount3", "setpriv")


def why_unavailable() -> str | None:
    """What is missing for slow disks; None if nothing is."""
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"not installed: {' '.join(missing)} (scripts/install-deps tests)"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse: {error.strerror}"
    return None


class SlowDisk:
    """`file` is the slow way to `image`. Only one of them may be written at a time."""

    def __init__(self, image: Path):
        self.directory = image.with_suffix(".slow")
        self.file = self.directory / "nbd"
        self._log = image.with_suffix(".slow.log")
        self._socket = image.with_suffix(".slow.sock")
        self._processes: list[subprocess.Popen] = []
        self.directory.mkdir()
        self._spawn("nbdkit", "-f", "-U", self._socket, "--filter=delay", "file", image,
                    f"wdelay={_DELAY}", f"delay-trim={_DELAY}", f"delay-zero={_DELAY}")
        self._wait(self._socket.exists)
        self._spawn("nbdfuse", "-C", "4", self.directory, f"nbd+unix:///?socket={self._socket}")
        self._wait(self.file.exists)

    def _spawn(self, *argv):
        # Should this process be killed they end in good order, and nothing stays mounted.
        with open(self._log, "ab") as log:
            self._processes.append(subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *(str(word) for word in argv)], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True))

    def _wait(self, condition):
        def reached():
            if any(process.poll() is not None for process in self._processes):
                raise RuntimeError(f"no slow disk: {self._log.read_text(errors='replace')}")
            return condition()
        try:
            wait_until(reached, "a slow disk", interval=0.005)
        except BaseException:
            self.close()
            raise

    def fail(self):
        """As if its cable was pulled: whatever is under way or comes later fails."""
        self._processes[0].kill()

    def close(self):
        """To be called when no server uses it any more."""
        if is_mount_point(self.directory):
            subprocess.run(["fusermount3", "-uz", str(self.directory)], check=False, stderr=subprocess.DEVNULL)
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            end(process)
        self._processes = []
        self._socket.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.directory.rmdir()
