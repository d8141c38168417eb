"""A kernel mirror as a peer: md raid1 over loop devices, which an NBD server serves like any other disk.

The kernel's threads do the mirroring and are in no server's account of CPU.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from processes import START_DEADLINE_SECONDS, Failure, call, find
from servers import Place


def obstacle() -> str | None:
    """Why there is no md here, or None."""
    if not Path("/proc/mdstat").exists():
        return "this kernel has no md (no /proc/mdstat)"
    if missing := [tool for tool in ("mdadm", "losetup") if not find(tool)]:
        return f"{missing[0]} is not installed"
    if os.geteuid() != 0:
        return "needs root"
    return None


def free_device() -> str:
    taken = {line.split()[0] for line in Path("/proc/mdstat").read_text(encoding="ascii").splitlines() if line}
    return next(f"/dev/md{number}" for number in range(100, 128) if f"md{number}" not in taken)


@contextlib.contextmanager
def array(place: Place) -> Iterator[None]:
    """An array with a write-intent bitmap, as Plexus has one, and without a first copy; its link is `place.array`.

    The loop devices pass O_DIRECT on, and end with the context, like the array.
    """
    with contextlib.ExitStack() as resources:
        loops = []
        for path in place.singles:
            loop = call(find("losetup"), "-f", "--show", "--direct-io=on", path, timeout=START_DEADLINE_SECONDS).strip()
            resources.callback(quietly, find("losetup"), "-d", loop)
            loops.append(loop)
        device = free_device()
        call(find("mdadm"), "--create", device, "--run", "--level=1", "--raid-devices=2", "--metadata=1.2",
             "--bitmap=internal", "--assume-clean", *loops, timeout=START_DEADLINE_SECONDS)
        resources.callback(quietly, find("mdadm"), "--stop", device)
        place.array.symlink_to(device)
        resources.callback(place.array.unlink)
        yield


def quietly(*argv):
    """At the end there is nobody to tell, and what comes after must end too."""
    with contextlib.suppress(Failure, OSError):
        call(*argv, timeout=START_DEADLINE_SECONDS)
