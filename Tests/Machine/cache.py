"""Where the kernel, its initramfs and booted machines are kept between runs."""

import contextlib
import fcntl
import os
from pathlib import Path


class Unavailable(Exception):
    """This computer cannot run machines; the text says what is missing. Scenarios are skipped."""


class Broken(Exception):
    """The bed itself failed, not what it tests."""


def directory() -> Path:
    """About 400 MB: worth keeping between runs, and safe to delete at any time when none is under way."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = Path(base).resolve() / "plexus" / "machine"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked():
    """Two runs at the same time do not prepare the same thing."""
    with open(directory() / "lock", "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
