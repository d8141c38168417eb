"""The second disk of a Windows mirror could not be read without the first. Here each is a whole disk of its own.

A partition table and a file system made through the mirror are found by the system's own tools on the second plex, with
the first one gone and no Plexus running.
"""

import hashlib
import os
import unittest

from plexus import Case, MiB

SIZE = 160 * MiB
FIRST_SECTOR = 2048


class ShadowPlex(Case):
    def test_shadow_plex_mounts_without_first_disk(self):
        self.need_root()
        self.need_loop()
        self.need_fuse()
        self.need("sgdisk", "mkfs.ext4", "e2fsck")
        server = self.mirror(size=SIZE)
        size = server.mirror()["size"]
        device = self.loop(self.fuse(server.uri(), "mirror"))
        self.call("sgdisk", "-o", "-n", f"1:{FIRST_SECTOR}:0", "-t", "1:8300", device)
        partition = self.loop(device, "--offset", FIRST_SECTOR * 512)
        self.call("mkfs.ext4", "-q", partition, str(size // MiB - 4) + "M")
        self.mount(partition, self.dir / "mnt")
        checksums = {}
        for number in range(20):
            data = os.urandom(100_000)
            (self.dir / "mnt" / str(number)).write_bytes(data)
            checksums[str(number)] = hashlib.sha256(data).hexdigest()
        self.call("umount", self.dir / "mnt")
        self.call("losetup", "-d", partition)
        self.call("losetup", "-d", device)
        self.unfuse(self.dir / "fuse-mirror")
        server.stop()
        first, second = server.disks
        os.unlink(first)
        # The copy of the table that GPT keeps at the end lies where the mirror ended.
        alone = self.loop(second, "--sizelimit", size, "-r")
        self.assertIn("No problems found", self.call("sgdisk", "-v", alone).stdout)
        self.call("losetup", "-d", alone)
        partition = self.loop(second, "--offset", FIRST_SECTOR * 512, "-r")
        self.call("e2fsck", "-fn", partition)
        self.mount(partition, self.dir / "mnt", "-o", "ro")
        for name, checksum in checksums.items():
            self.assertEqual(hashlib.sha256((self.dir / "mnt" / name).read_bytes()).hexdigest(), checksum)
        self.call("umount", self.dir / "mnt")
        self.call("losetup", "-d", partition)


if __name__ == "__main__":
    unittest.main()
