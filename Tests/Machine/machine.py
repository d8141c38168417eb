"""One run of a machine: from the template to the exit status of the command that runs in it as root."""

import base64
import json
import os
import shlex
import tempfile
import threading
import time
from pathlib import Path

from cache import Broken
from disk import Disk
from template import Template

# In the guest there is no udev: dmsetup and mdadm make their nodes themselves.
ENVIRONMENT = {
    "PATH": "/run/machine/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root", "TERM": "dumb", "LANG": "C.UTF-8", "DM_DISABLE_UDEV": "1", "MDADM_NO_UDEV": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class Machine:
    """Runs one command in a guest whose root is the host's, read-only, under a layer in memory.

    What the guest may ask for with `vmhost`: `plug NAME` and `unplug NAME` (a disk), `inject NAME OPTIONS` (a blkdebug
    node's, as JSON) and `heal NAME`, `cut MILLISECONDS` (the power fails so much later, whatever goes on then).
    """

    def __init__(self, template: Template, share: Path, disks: list[Disk], log: Path):
        self.template, self.share, self.log = template, share, log
        self.disks = {disk.name: disk for disk in disks}
        self.timers: list[threading.Timer] = []
        self.timed_out = False
        self.was_cut = False
        self.status: int | None = None

    def run(self, command: list[str], environment: dict[str, str], timeout: float) -> int | None:
        """The command's exit status, or None if the power was cut."""
        with tempfile.TemporaryDirectory(prefix="plexus-") as work:
            self.qemu = self.template.start(Path(work), self.share)
            try:
                for disk in self.disks.values():
                    self.qemu.plug(disk)
                self._later(timeout, self._give_up)
                return self._drive(command, environment)
            finally:
                for timer in self.timers:
                    timer.cancel()
                self.qemu.kill()

    def _drive(self, command: list[str], environment: dict[str, str]) -> int | None:
        mark = f"<machine {os.urandom(8).hex()}>"
        job = self._job(command, environment, mark)
        self.qemu.control.write(base64.b64encode(job.encode()) + b"\n")
        self.qemu.control.flush()
        output = threading.Thread(target=self._copy_output, args=(mark.encode(),), daemon=True)
        output.start()
        try:
            self._answer_requests()
        except (OSError, Broken):
            if not self.timed_out and not self.was_cut:
                raise
        if self.status is not None:
            output.join(15)
            self.qemu.quit()
        output.join(5)
        if self.timed_out:
            raise Broken("the guest took too long; its console's end:\n" + self.qemu.console_end())
        if self.status is None and not self.was_cut:
            raise Broken("the guest ended without a status; its console's end:\n" + self.qemu.console_end())
        return self.status

    def _job(self, command: list[str], environment: dict[str, str], mark: str) -> str:
        """The settings of this run, as a shell script for `guest/boot/main`."""
        kernel = self.template.kernel
        variables = ENVIRONMENT | environment
        script = [f"export {key}={shlex.quote(value)}" for key, value in variables.items()]
        # The links by name, before anything is started.
        script += [f"for i in $(seq 200); do for b in /sys/block/vd*; do [ \"$(cat $b/serial)\" = {disk.serial} ] && "
                   f"ln -sf /dev/${{b##*/}} /dev/machine/{disk.name} && break 2; done; sleep 0.02; done"
                   for disk in self.disks.values()]
        script.append("exec " + " ".join(shlex.quote(str(word)) for word in command))
        text = base64.b64encode("\n".join(script).encode()).decode()
        return "\n".join([
            f"KERNEL={shlex.quote(kernel.version)}", f"MODULES={shlex.quote(str(kernel.modules))}",
            f"MARK={shlex.quote(mark)}", f"date -s @{time.time():.0f} >/dev/null",
            f"echo {text} | base64 -d >/run/machine/command",
        ]) + "\n"

    def _copy_output(self, mark: bytes):
        pending = b""
        with open(self.log, "ab", buffering=0) as log:
            while True:
                try:
                    data = self.qemu.output.recv(65536)
                except OSError:
                    data = b""
                text, found, _ = (pending + data).partition(mark)
                # What may be the mark's first part is held back.
                held = 0 if found or not data else min(len(mark) - 1, len(text))
                log.write(text[:len(text) - held])
                pending = text[len(text) - held:]
                if found or not data:
                    return

    def _answer_requests(self):
        for line in self.qemu.control:
            verb, _, rest = line.decode().strip().partition(" ")
            if verb == "exit":
                self.status = int(rest)
                return
            words = base64.b64decode(rest).decode().split(" ", 1)
            try:
                code, said = 0, self._answer(verb, *words)
            except (Broken, KeyError, TypeError, ValueError) as error:
                code, said = 1, f"vmhost {verb}: {error!r}"
            self.qemu.control.write(f"{code} {base64.b64encode(said.encode()).decode()}\n".encode())
            self.qemu.control.flush()

    def _answer(self, verb: str, first: str, rest: str = "") -> str:
        match verb:
            case "plug":
                self.qemu.plug(self.disks[first])
            case "unplug":
                self.qemu.unplug(self.disks[first])
            case "inject":
                self.qemu.inject(self.disks[first], json.loads(rest))
            case "heal":
                self.qemu.heal(self.disks[first])
            case "cut":
                self._later(int(first) / 1000, self._cut)
            case _:
                raise ValueError("no such verb")
        return ""

    def _later(self, seconds: float, action):
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        self.timers.append(timer)
        timer.start()

    def _cut(self):
        self.was_cut = True
        self.qemu.process.kill()

    def _give_up(self):
        self.timed_out = True
        self.qemu.process.kill()
