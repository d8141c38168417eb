"""From a plain disk with data to a mirror and back, without a byte of it moving."""

import os
import unittest

from plexus import Case, FioLoad, MiB, sha256, wait_until

SIZE = 64 * MiB


class PlainDisks(Case):
    def adopt(self, disk, *others):
        return self.plexus("create", "data", "--from", disk, *others)

    def test_plain_disk_to_mirror_and_back_is_byte_identical(self):
        disk, copy = self.random_disk("disk.img", SIZE), self.dir / "copy.img"
        before = sha256(disk)
        said = self.adopt(disk, copy).stdout
        self.assertIn("are its contents", said)
        server = self.serve((disk, copy))
        server.wait_healthy()
        self.assertEqual(server.mirror()["size"], SIZE)
        exported = self.dir / "exported.img"
        self.call("nbdcopy", server.uri(), exported)
        self.assertEqual(sha256(exported), before)
        refused = server.verb("dissolve", "data", code=1)
        self.assertIn("plexus break", refused.stderr)
        server.verb("break", "data", copy)  # A usable copy stays.
        self.assertIn("2 plexes", server.verb("dissolve", "data", code=1).stderr)
        server.verb("break", "data", copy, "--nokeep")
        self.assertIn("plain disk", server.verb("dissolve", "data").stdout)
        self.assertEqual((os.stat(disk).st_size, sha256(disk)), (SIZE, before))
        self.assertEqual(self.plexus("examine", disk, code=None).stdout.count("epoch"), 0)
        server.stop()

    def test_file_systems_and_partition_tables_stay_whole(self):
        self.need("mke2fs", "e2fsck", "sgdisk")
        ext, gpt = self.dir / "ext.img", self.random_disk("gpt.img", SIZE)
        self.call("mke2fs", "-q", "-t", "ext4", "-d", "/etc/apt", ext, "64M")
        self.call("sgdisk", "-o", "-n", "1:0:0", gpt)
        for disk in (ext, gpt):
            before = sha256(disk)
            copy = disk.with_suffix(".copy")
            self.plexus("create", disk.stem, "--from", disk, copy)
            server = self.serve((disk, copy), label=disk.stem)
            server.wait_healthy(disk.stem)
            server.verb("break", disk.stem, "1", "--nokeep")
            server.verb("dissolve", disk.stem)
            server.stop()
            self.assertEqual(sha256(disk), before)
        self.call("e2fsck", "-fn", ext)
        self.assertIn("No problems found", self.call("sgdisk", "-v", gpt).stdout)

    def test_disk_is_mirrored_while_clients_write_and_the_first_copy_survives_a_kill(self):
        self.need("fio")
        disk, copy = self.random_disk("disk.img", SIZE), self.dir / "copy.img"
        self.adopt(disk, copy)
        server = self.serve((disk, copy))
        server.verb("resync", "data", "--limit", "8M")
        load = FioLoad(self, server.uri(), size="16m")
        load.wait_rounds()
        load.finish()
        server.kill()
        again = self.serve((disk, copy), label="again")
        again.wait_healthy()
        again.stop()
        self.assert_identical(SIZE, disk, copy)

    def test_one_disk_alone_is_adopted_and_grows(self):
        disk = self.random_disk("disk.img", SIZE)
        before = sha256(disk)
        self.adopt(disk)
        server = self.serve((disk,))
        self.assertIn("no redundancy", server.mirror()["reason"])
        server.verb("add", "data", self.dir / "copy.img", "--create")
        wait_until(lambda: len(server.mirror()["plexes"]) == 2, "the second plex")
        server.wait_healthy()
        server.verb("break", "data", disk, "--nokeep")
        server.stop()
        again = self.serve((self.dir / "copy.img",), label="again")
        again.verb("dissolve", "data")
        again.stop()
        self.assertEqual(sha256(self.dir / "copy.img"), before)

    def test_what_can_not_be_adopted_is_refused_and_left_as_it_was(self):
        disk = self.random_disk("disk.img", SIZE)
        before = sha256(disk)
        small = self.disk("small.img", 8 * MiB)
        self.assertIn(str(SIZE), self.plexus("create", "data", "--from", disk, small, code=1).stderr)
        full = self.random_disk("full.img", SIZE * 2, seed=8)
        with open(full, "r+b") as file:
            file.seek(1024 + 0x38)
            file.write(b"\x53\xEF")
        for words in (("--from", self.dir / "none.img", self.dir / "c.img"), ("--from", disk, "--size", "32M"),
                      ("--from", disk, disk)):
            self.assertTrue(self.plexus("create", "data", *words, code=1).stderr)
        self.assertEqual((os.stat(disk).st_size, sha256(disk)), (SIZE, before))
        self.plexus("create", "data", "--from", disk, "--plan")
        self.assertEqual((os.stat(disk).st_size, sha256(disk)), (SIZE, before))
        self.adopt(disk)
        self.assertIn("dissolve", self.plexus("create", "other", "--from", disk, code=1).stderr)


class Devices(Case):
    """Devices can't be made longer: what is on them must end before the metadata."""

    def setUp(self):
        super().setUp()
        self.need_root()
        self.need_loop()
        self.need("mke2fs", "sgdisk", "e2fsck")
        self.backing = self.disk("backing.img", SIZE)

    def test_contents_that_reach_the_end_are_refused_with_the_bytes_missing(self):
        for make in (lambda device: self.call("mke2fs", "-q", "-t", "ext4", device),
                     lambda device: self.call("sgdisk", "-o", "-n", "1:0:0", device)):
            device = self.loop(self.backing)
            make(device)
            before = sha256(self.backing)
            refused = self.plexus("create", "data", "--from", device, self.dir / "b.img", code=1)
            self.assertRegex(refused.stderr, r"reaches to byte \d+; .* \d+ bytes are missing")
            self.assertEqual(sha256(self.backing), before)
            self.unloop(device)
            self.backing.write_bytes(bytes(SIZE))

    def test_file_system_that_leaves_room_is_adopted_and_let_go(self):
        device = self.loop(self.backing)
        self.assertIn("--size", self.plexus("create", "data", "--from", device, code=1).stderr)
        self.call("mke2fs", "-q", "-t", "ext4", "-d", "/etc/apt", device, "48M")
        before = sha256(self.backing)
        self.plexus("create", "data", "--from", device, self.dir / "b.img")
        server = self.serve((device, self.dir / "b.img"))
        server.wait_healthy()
        self.call("e2fsck", "-fn", self.dir / "b.img")
        server.verb("break", "data", self.dir / "b.img", "--nokeep")
        server.verb("dissolve", "data")
        server.stop()
        self.call("e2fsck", "-fn", device)
        self.unloop(device)
        self.assertEqual(sha256(self.backing), before)


if __name__ == "__main__":
    unittest.main()
