"""Real file systems on the mirror, through nbdfuse and a loop device, while plexes leave and return.

Afterwards each plex alone must mount natively, without Plexus: data lies at offset 0 of every disk.
"""

import hashlib
import os
import random
import shutil
import threading
import unittest

from plexus import Case, KiB, MiB, wait_until

SIZE = 448 * MiB  # mkfs.xfs refuses less than 300 MiB.


class Files:
    """Writes files with known contents in the background, each synced; `checksums` lists those that are done."""

    def __init__(self, directory, seed: int):
        self.directory = directory
        self.choice = random.Random(seed)
        self.checksums: dict[str, str] = {}
        self.failure: OSError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _loop(self):
        number = 0
        try:
            while not self._stop.is_set():
                self.write(f"d{number % 7}/f{number}")
                if number % 5 == 4:  # Freed blocks, so that fstrim finds something and blocks are used again.
                    victim = f"d{(number - 3) % 7}/f{number - 3}"
                    self.checksums.pop(victim, None)
                    os.unlink(self.directory / victim)
                if number >= 120:  # Bounded: rewrite from the start.
                    number = -1
                number += 1
        except OSError as error:
            self.failure = error

    def write(self, name: str):
        data = self.choice.randbytes(self.choice.choice((100, 4 * KiB, 70_000, 400_000)))
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        self.checksums.pop(name, None)
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.checksums[name] = hashlib.sha256(data).hexdigest()

    @property
    def written(self) -> int:
        return len(self.checksums)


class OnMirror:
    """The tests, once per file system (a mixin, so that they are not run without one)."""

    FILE_SYSTEM = ""
    MAKE: tuple[str, ...] = ()
    CHECK: tuple[str, ...] = ()
    MOUNT_OPTIONS: tuple[str, ...] = ()

    def setUp(self):
        super().setUp()
        self.need_root()
        self.need_loop()
        self.need_fuse()
        self.need(self.MAKE[0], self.CHECK[0], "fstrim")
        with open("/proc/filesystems", encoding="ascii") as supported:
            if self.FILE_SYSTEM not in supported.read().split() and shutil.which("modprobe") is None:
                self.skipTest(f"this kernel has no {self.FILE_SYSTEM}")
        self.server = self.mirror(size=SIZE)
        self.size = self.server.mirror()["size"]
        file = self.fuse(self.server.uri(), "mirror", connections=4)
        self.device = self.loop(file)
        self.call(*self.MAKE, self.device)
        self.mount_point = self.dir / "mnt"
        self.mount(self.device, self.mount_point)
        self.files = Files(self.mount_point, seed=11)
        self.resources.callback(self.files.stop)

    def wait_files(self, count: int = 15):
        goal = self.files.written + count
        ceiling = 60  # The writer deletes and rewrites; it may never pass a higher number.
        wait_until(lambda: self.files.failure or self.files.written >= min(goal, ceiling), f"{goal} files")
        self.assertIsNone(self.files.failure)

    def assert_files(self, directory, checksums: dict[str, str]):
        self.assertGreater(len(checksums), 0)
        for name, expected in checksums.items():
            found = hashlib.sha256((directory / name).read_bytes()).hexdigest()
            self.assertEqual(found, expected, f"{name} on {directory}")

    def detach(self):
        self.call("umount", self.mount_point)
        self.call(*self.CHECK, self.device)
        self.call("losetup", "-d", self.device)
        self.unfuse(self.dir / "fuse-mirror")

    def native_mount(self, disk, *options):
        """The plex by itself, as a disk in a machine without Plexus; the private area is cut off by --sizelimit."""
        device = self.loop(disk, "--sizelimit", self.size, *options)
        directory = self.dir / "native"
        self.mount(device, directory, "-t", self.FILE_SYSTEM, "-o",
                   ",".join(("ro" if "-r" in options else "rw",) + self.MOUNT_OPTIONS))
        return device, directory

    def test_files_survive_break_and_join_and_each_plex_mounts_alone(self):
        self.files.start()
        self.wait_files()
        for index in (1, 0):
            disk = self.server.disks[index]
            self.server.verb("break", "data", index)
            self.wait_files()
            self.call("fstrim", self.mount_point)
            self.server.verb("join", "data", disk)
            self.wait_files()
            self.server.wait_healthy()
            self.assertEqual(self.server.plex_on(disk)["state"], "in-sync")
        self.files.stop()
        self.assertIsNone(self.files.failure)
        self.call("fstrim", "-v", self.mount_point)
        self.assert_files(self.mount_point, self.files.checksums)
        self.detach()
        self.assert_clean_end(self.server)
        for disk in self.server.disks:
            before = disk.stat().st_size
            device, directory = self.native_mount(disk, "-r")
            self.assert_files(directory, self.files.checksums)
            self.call("umount", directory)
            self.call(*self.CHECK, device)
            self.call("losetup", "-d", device)
            self.assertEqual(disk.stat().st_size, before)

    def test_plex_broken_off_is_a_mountable_backup(self):
        """At the moment of the break everything that was synced is on it; its journal is replayed as after a crash."""
        self.files.start()
        self.wait_files(30)
        self.files.stop()
        synced = {name.replace("/", "-"): checksum for name, checksum in self.files.checksums.items()}
        keep = self.files.directory / "keep"
        keep.mkdir()
        for name in self.files.checksums:
            shutil.copy(self.mount_point / name, keep / name.replace("/", "-"))
        self.call("sync", "-f", keep)
        self.server.verb("break", "data", 1, "--keep")
        backup = self.disk("backup.img")
        self.call("cp", "--sparse=always", self.server.disks[1], backup)
        for name in os.listdir(keep):  # What happens to the mirror afterwards does not reach the backup.
            os.unlink(keep / name)
        self.call("sync", "-f", keep)
        device, directory = self.native_mount(backup)
        self.assert_files(directory / "keep", synced)
        self.call("umount", directory)
        self.call(*self.CHECK, device)
        self.server.verb("join", "data", self.server.disks[1])
        self.server.wait_healthy()
        self.detach()
        self.assert_clean_end(self.server)

    def test_disk_with_the_file_system_is_served_again_after_a_kill(self):
        """The client's page cache is lost with the mount; what was fsynced is there, and the journal replays clean."""
        self.files.start()
        self.wait_files(30)
        self.files.stop()
        synced = dict(self.files.checksums)
        self.server.kill()
        self.call("umount", "-l", self.mount_point)
        self.unloop(self.device)
        self.unfuse(self.dir / "fuse-mirror")
        again = self.serve(self.server.disks, label="again")
        device = self.loop(self.fuse(again.uri(), "again", connections=4))
        directory = self.dir / "after"
        self.mount(device, directory, "-o", ",".join(("rw",) + self.MOUNT_OPTIONS))
        self.assert_files(directory, synced)
        again.wait_healthy()
        self.assert_files(directory, synced)
        self.call("umount", directory)
        self.call(*self.CHECK, device)
        self.call("losetup", "-d", device)
        self.unfuse(self.dir / "fuse-again")
        self.assert_clean_end(again)


class Ext4(OnMirror, Case):
    FILE_SYSTEM = "ext4"
    MAKE = ("mkfs.ext4", "-q", "-F")
    CHECK = ("e2fsck", "-fn")


class Xfs(OnMirror, Case):
    FILE_SYSTEM = "xfs"
    MAKE = ("mkfs.xfs", "-q", "-f")
    CHECK = ("xfs_repair", "-n")
    MOUNT_OPTIONS = ("nouuid",)  # The mirror itself may be mounted at the same time.


if __name__ == "__main__":
    unittest.main()
