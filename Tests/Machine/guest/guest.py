"""What the programs inside the machine have in common: a mirror over the machine's disks as /dev/nbd0, and files on it.

They are test cases like those of Tests/RealClients, whose directory, stack and servers they use.
"""

import json
import os
import random
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "RealClients"))

from plexus import Case, MiB, Server, end, sha256, wait_until  # noqa: E402  pylint: disable=wrong-import-position

__all__ = ["NBD", "MiB", "SEED", "SHARE", "Server", "Files", "MachineCase", "disk", "end", "main", "say", "sha256", "vmhost",
           "wait_until"]

SEED = int(os.environ.get("SEED", "1"))
NBD = "/dev/nbd0"
# A directory of the scenario on the host.
SHARE = Path("/share")
STARTED = time.monotonic()


def disk(name: str) -> Path:
    """The node itself, because a link to it does not follow a disk that comes back as another."""
    return Path(f"/dev/machine/{name}").resolve()


def vmhost(verb: str, *words: str):
    """Asks the host for something (see machine.py)."""
    done = subprocess.run(["vmhost", verb, *words], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise AssertionError(f"{done.stdout}{done.stderr}")


def say(text: str):
    """To the scenario's log, with the seconds since the program began."""
    print(f"[{time.monotonic() - STARTED:6.1f}] {text}", flush=True)


class Files:
    """Files in a directory, and what they contained when they were written."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.sums: dict[str, str] = {}
        self.random = random.Random(SEED)

    def write(self, prefix: str, count: int = 8, size: int = MiB):
        """`count` files of up to `size` bytes, on the disk when this returns."""
        folder = self.directory / prefix
        folder.mkdir(exist_ok=True)
        for number in range(count):
            path = folder / str(number)
            path.write_bytes(self.random.randbytes(self.random.randrange(1, size)))
            self.sums[f"{prefix}/{number}"] = sha256(path)
        self.sync(folder)

    def sync(self, path: Path):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        subprocess.run(["sync", "-f", str(path)], check=True, timeout=300)

    def forget_cached(self):
        """So that what is read next comes from the disks."""
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")

    def wrong(self, directory: Path | None = None) -> list[str]:
        """Names of files that do not contain what was written to them."""
        self.forget_cached()
        return [name for name, expected in self.sums.items() if sha256((directory or self.directory) / name) != expected]


class MachineCase(Case):
    """A test with a mirror over the machine's disks."""

    disks = ("a", "b")
    serve_options: tuple[str, ...] = ()

    def setUp(self):
        super().setUp()
        self.mountpoint = self.dir / "mnt"
        self.need_root()

    def start(self, *options) -> Server:
        """A mirror over the disks, healthy and served."""
        self.plexus("create", "data", *map(disk, self.disks), *options)
        return self.serve_again()

    def serve_again(self, label: str = "serve") -> Server:
        self.server = self.serve(list(map(disk, self.disks)), *self.serve_options, label=label)
        self.server.wait_healthy()
        say("served")
        return self.server

    # The block device.

    def attach(self, connections: int = 1):
        self.call("nbd-client", "-unix", self.server.socket, NBD, "-N", "data", "-b", "4096", "-C", connections)
        self.resources.callback(self.detach)
        wait_until(lambda: self.call("blockdev", "--getsize64", NBD).stdout.strip() != "0", f"{NBD} to have a size")
        self.assertEqual(int(self.call("blockdev", "--getsize64", NBD).stdout), self.server.mirror()["size"])
        say(f"attached with {connections} connections")

    def attached(self) -> bool:
        return Path("/sys/block/nbd0/pid").exists()

    def detach(self):
        if self.attached():
            self.call("nbd-client", "-d", NBD)
            wait_until(lambda: not self.attached(), f"{NBD} to be detached")

    # File systems.

    def make_file_system(self, kind: str):
        options = {"ext4": ("-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"), "xfs": ("-q", "-f")}[kind]
        self.call(f"mkfs.{kind}", *options, NBD)
        self.kind = kind
        say(f"made {kind}")

    def mount_it(self) -> Files:
        self.mount(NBD, self.mountpoint)
        return Files(self.mountpoint)

    def unmount_and_check(self):
        """Unmounted, the file system must be without a fault."""
        self.call("umount", self.mountpoint)
        self.check_file_system(NBD)

    def check_file_system(self, device: str | Path):
        self.call(*{"ext4": ("e2fsck", "-f", "-n"), "xfs": ("xfs_repair", "-n")}[self.kind], device)
        say(f"{self.kind} on {device} is clean")

    # States.

    def wait_plex(self, index: int, *states: str) -> dict:
        def reached():
            plex = self.server.plex(index)
            return plex if plex and plex["state"] in states else None
        return wait_until(reached, f"plex {index} to be {' or '.join(states)}")

    def show(self) -> str:
        """What a user sees."""
        text = self.server.verb("status", code=None).stdout
        say("status\n" + text)
        return text

    def assert_files(self, files: Files, directory: Path | None = None):
        self.assertEqual(files.wrong(directory), [])
        say(f"{len(files.sums)} files are right")

    def fio(self, *options: str) -> dict:
        """fio with verification; fails on the first byte that is wrong."""
        common = ("--name=verify", "--direct=1", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1",
                  "--verify_state_save=0", f"--randseed={SEED}", "--output-format=json")
        done = self.call("fio", *common, *options, cwd=self.dir, timeout=300)
        job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
        self.assertEqual(job["error"], 0)
        say(f"fio {' '.join(options)}: {job['write']['total_ios']} writes, {job['read']['total_ios']} reads")
        return job

    def stop(self):
        self.detach()
        self.server.stop()


def main():
    """Runs the test that is named, with its words about itself in the log."""
    unittest.main(module="__main__", verbosity=2)
