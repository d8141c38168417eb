"""A machine that was booted once and saved: its memory is mapped copy-on-write, which starts one in a second."""

import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path

import cache
import initramfs
import kernel
import qemu
from cache import Unavailable

# Each takes about 100 MB.
KEPT = 3


class Template:
    """What every machine starts from."""

    def __init__(self):
        if not (program := shutil.which(qemu.PROGRAM)):
            raise Unavailable(f"{qemu.PROGRAM} is not installed (scripts/install-deps machine)")
        self.kernel = kernel.prepare()
        self.initramfs = initramfs.prepare(self.kernel)
        source = (Path(__file__).resolve().parent / "qemu.py").read_bytes()
        version = (program, os.stat(program).st_mtime_ns, str(self.initramfs))
        key = hashlib.sha256(source + repr(version).encode()).hexdigest()[:12]
        self.folder = self.kernel.folder / f"template-{key}"
        self.memory, self.state = self.folder / "memory", self.folder / "state"
        with cache.locked():
            if not self.folder.exists():
                self._forget_old()
                self._boot()
            os.utime(self.folder)

    def _forget_old(self):
        """A machine that runs from one of them has its memory mapped and does not mind."""
        found = sorted(self.kernel.folder.glob("template-*"), key=lambda folder: folder.stat().st_mtime)
        for folder in found[:-(KEPT - 1)]:
            shutil.rmtree(folder, ignore_errors=True)

    def _boot(self):
        partial = self.folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        with tempfile.TemporaryDirectory(prefix="plexus-") as name:
            work = Path(name)
            (work / "share").mkdir()
            machine = qemu.Qemu(self.kernel, self.initramfs, work, partial / "memory", work / "share", from_template=False)
            try:
                machine.wait_ready()
                time.sleep(0.3)  # For what the boot left to be done later; nothing depends on it.
                machine.save(partial / "state")
            finally:
                machine.quit()
        partial.rename(self.folder)

    def start(self, work: Path, share: Path) -> qemu.Qemu:
        machine = qemu.Qemu(self.kernel, self.initramfs, work, self.memory, share, from_template=True)
        try:
            machine.load(self.state)
        except BaseException:
            machine.kill()
            raise
        return machine
