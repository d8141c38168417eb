"""Disks that fall silent on demand, until the test lets them go on, or are slow all the time."""

import socket

from plexus import Case, wait_until


class LateDisk:
    """nbdkit's pause filter behind nbdfuse; `file` is handed to plexus as a disk.

    With `delays` it is the delay filter instead: `rdelay=30ms`, say."""

    def __init__(self, case: Case, name: str, size: int, *delays: str):
        # Not beside the disks, where a search would take it for a clone of itself.
        (case.dir / "legs").mkdir(exist_ok=True)
        self.image = case.disk(f"legs/{name}.img", size)
        self._control = case.dir / f"{name}.pause"
        nbd = case.dir / f"{name}.sock"
        words = ["--filter=delay", *delays] if delays else ["--filter=pause", f"pause-control={self._control}"]
        case.spawn(f"nbdkit-{name}", "nbdkit", "-f", "-t", "32", "-U", nbd, words[0], "file", self.image, *words[1:])
        wait_until(lambda: nbd.exists() and (bool(delays) or self._control.exists()), f"nbdkit to listen on {nbd}")
        self.file = case.fuse(f"nbd+unix:///?socket={nbd}", name)

    def _order(self, letter: bytes, answer: bytes):
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(30)
            control.connect(str(self._control))
            control.sendall(letter)
            got = control.recv(1)
            if got != answer:
                raise RuntimeError(f"nbdkit's pause filter said {got!r} to {letter!r}")

    def pause(self):
        # Those under way are done first.
        self._order(b"p", b"P")

    def resume(self):
        self._order(b"r", b"R")
