"""Disks that are full of data: Plexus' own data lie in a file elsewhere, and the disk stays what it is."""

import os
import unittest

from plexus import Case, FioLoad, MiB, sha256, wait_until

SIZE = 64 * MiB


class MetadataFiles(Case):
    def adopt(self, disk, *others):
        file = disk.with_suffix(".plexus")
        self.plexus("create", "data", "--from", disk, "--metadata", file, *others)
        return file

    def test_full_disk_is_mirrored_and_let_go_byte_for_byte(self):
        disk, copy = self.random_disk("disk.img", SIZE), self.dir / "copy.img"
        before = sha256(disk)
        file = self.adopt(disk, copy)
        self.assertEqual((os.stat(disk).st_size, sha256(disk)), (SIZE, before))
        server = self.serve((file, copy))
        server.wait_healthy()
        self.assertEqual(server.plex(0)["dataDisk"], str(disk))
        exported = self.dir / "exported.img"
        self.call("nbdcopy", server.uri(), exported)
        self.assertEqual(sha256(exported), before)
        server.verb("break", "data", copy, "--nokeep")
        self.assertIn(f"{disk} is a plain disk", server.verb("dissolve", "data").stdout)
        server.stop()
        self.assertEqual((os.stat(disk).st_size, sha256(disk)), (SIZE, before))
        self.assertFalse(file.exists())

    def test_nothing_is_lost_by_a_kill_while_clients_write(self):
        self.need("fio")
        disk, copy = self.random_disk("disk.img", SIZE), self.dir / "copy.img"
        file = self.adopt(disk, copy)
        server = self.serve((file, copy))
        server.wait_healthy()
        load = FioLoad(self, server.uri(), size="16m")
        load.wait_rounds()
        load.finish()
        server.kill()
        again = self.serve((file, copy), label="again")
        again.wait_healthy()
        again.verb("offline", "data", disk)  # A plex is known by its disk, too.
        load = FioLoad(self, again.uri(), size="16m")
        load.wait_rounds()
        load.finish()
        self.assertEqual(again.plex(0)["state"], "offline")
        again.verb("online", "data", "0")
        again.wait_healthy()
        self.assertLess(again.mirror()["resync"]["done"], SIZE)
        again.stop()
        self.assert_identical(SIZE, disk, copy)

    def test_disk_as_large_as_the_mirror_becomes_a_plex(self):
        disk = self.random_disk("disk.img", SIZE)
        file = self.adopt(disk)
        server = self.serve((file,))
        equal, small = self.disk("equal.img", SIZE), self.disk("small.img", SIZE // 2)
        refused = server.verb("add", "data", equal, code=1)
        self.assertIn("--metadata", refused.stderr)
        of_small = self.dir / "small.plexus"
        refused = server.verb("add", "data", small, "--metadata", of_small, code=1)
        self.assertRegex(refused.stderr, rf"too small: it has {SIZE // 2} bytes, .* are {SIZE}")
        self.assertFalse(of_small.exists())
        of_equal = self.dir / "equal.plexus"
        server.verb("add", "data", equal, "--metadata", of_equal)
        server.wait_healthy()
        self.assertIn("in use", server.verb("add", "data", small, "--metadata", of_equal, code=1).stderr)
        # The old disk is replaced by one of the same size; its file goes with it.
        third, of_third = self.disk("third.img", SIZE), self.dir / "third.plexus"
        server.verb("replace", "data", file, third, "--metadata", of_third)
        wait_until(lambda: server.plex_on(file) is None, "the replacement")
        server.wait_healthy()
        self.assertFalse(file.exists())
        server.stop()
        self.assert_identical(SIZE, disk, equal, third)
        again = self.serve((of_equal, of_third), label="again")
        again.wait_healthy()
        again.stop()

    def test_other_disk_in_its_place_is_refused(self):
        disk = self.random_disk("disk.img", SIZE)
        file = self.adopt(disk)
        before = sha256(disk)
        # Another file under the same name, then one of another size, then none.
        os.rename(disk, self.dir / "kept.img")
        other = self.random_disk("disk.img", SIZE, seed=9)
        refused = self.plexus("serve", file, "--socket", self.dir / "s", "--control", self.dir / "c", code=1)
        self.assertIn("another disk", refused.stderr)
        os.truncate(other, SIZE + MiB)
        self.assertIn(str(SIZE + MiB), self.plexus("examine", file, code=1).stderr)
        os.unlink(other)
        self.assertIn("can't be opened", self.plexus("examine", file, code=1).stderr)
        # A link makes a disk that was renamed known again.
        os.symlink(self.dir / "kept.img", disk)
        server = self.serve((file,))
        server.wait_state("healthy")
        server.stop()
        self.assertEqual(sha256(disk), before)

    def test_file_and_its_disk_are_one(self):
        disk = self.random_disk("disk.img", SIZE)
        file = self.adopt(disk)
        for pair in ((file, disk), (disk, file)):
            refused = self.plexus("serve", *pair, "--socket", self.dir / "s", "--control", self.dir / "c", code=1)
            self.assertIn(f"name {file} alone", refused.stderr)
        server = self.serve((file,))
        refused = server.verb("add", "data", disk, "--metadata", self.dir / "new.plexus", code=1)
        self.assertIn("in use", refused.stderr)
        refused = self.plexus("create", "other", "--from", disk, code=1)
        self.assertIn("in use", refused.stderr)
        server.stop()
        refused = self.plexus("create", "other", "--from", file, code=1)
        self.assertIn("is a plex of mirror data already", refused.stderr)

    def test_what_can_not_be_done_leaves_nothing_behind(self):
        disk = self.random_disk("disk.img", SIZE)
        before = sha256(disk)
        file = self.dir / "disk.plexus"
        file.write_bytes(b"something else")
        self.assertIn("exists already",
                      self.plexus("create", "data", "--from", disk, "--metadata", file, code=1).stderr)
        self.assertEqual(file.read_bytes(), b"something else")
        file.unlink()
        for words in (("--metadata", file, self.dir / "b.img", "--size", "64M"),
                      ("--from", disk, "--metadata", self.dir / "none" / "f"),
                      ("--from", disk, "--metadata", file, self.disk("small.img", 8 * MiB)),
                      ("--from", disk, "--metadata", "/dev/plexus")):
            self.assertTrue(self.plexus("create", "data", *words, code=None).returncode)
            self.assertFalse(file.exists())
        self.plexus("create", "data", "--from", disk, "--metadata", file, "--plan")
        self.assertFalse(file.exists())
        self.assertEqual((os.stat(disk).st_size, sha256(disk)), (SIZE, before))

    def test_damaged_file_is_told_and_the_disk_is_adopted_anew(self):
        disk = self.random_disk("disk.img", SIZE)
        file = self.adopt(disk)
        before = sha256(disk)
        whole = file.read_bytes()
        for damaged in (os.urandom(len(whole)), whole[:len(whole) // 2], whole[:8192], b"",
                        whole[:600] + b"x" + whole[601:]):
            file.write_bytes(damaged)
            self.assertTrue(self.plexus("examine", file, code=1).stderr)
        file.unlink()
        again = self.adopt(disk)
        server = self.serve((again,))
        server.wait_state("healthy")
        server.stop()
        self.assertEqual(sha256(disk), before)

    def test_plex_whose_metadata_file_is_deleted_is_out(self):
        disk, copy = self.random_disk("disk.img", SIZE), self.dir / "copy.img"
        file = self.adopt(disk, copy)
        server = self.serve((file, copy))
        server.wait_healthy()
        os.unlink(file)
        wait_until(lambda: server.plex(0)["state"] in ("missing", "failed"), "the plex to be missed")
        self.assertEqual(server.mirror()["state"], "degraded")
        server.stop()


    def test_client_can_not_pass_its_data_for_a_metadata_file(self):
        # The beginning of an ordinary plex belongs to clients, whatever they write there.
        disk, copy = self.random_disk("disk.img", SIZE), self.dir / "copy.img"
        file = self.adopt(disk)
        forged = file.read_bytes()[:4096]
        other = self.random_disk("other.img", SIZE, seed=4)
        self.plexus("create", "other", "--from", other, copy)
        with open(other, "r+b") as data:
            data.write(forged)
        server = self.serve((other, copy))
        server.wait_healthy("other")
        self.assertIsNone(server.plex(0, "other")["dataDisk"])
        server.stop()
        # Nor can it name another plex of the mirror, so that the two would count as one disk.
        file.unlink()
        os.rename(copy, disk)
        server = self.serve((other, disk), label="again")
        server.wait_healthy("other")
        server.stop()

    def test_mirror_smaller_than_its_disk_leaves_the_rest_alone(self):
        disk = self.random_disk("disk.img", 2 * SIZE)
        file = self.dir / "disk.plexus"
        refused = self.plexus("create", "data", "--from", disk, "--metadata", file, "--size", "64M", code=1)
        self.assertIn("all of them are kept", refused.stderr)
        self.assertFalse(file.exists())

    def test_metadata_file_is_no_new_disk(self):
        disk = self.random_disk("disk.img", SIZE)
        file = self.adopt(disk)
        refused = self.plexus("create", "other", file, self.dir / "b.img", "--size", "16M", "--force", code=1)
        self.assertIn("metadata file of", refused.stderr)


class Devices(Case):
    def setUp(self):
        super().setUp()
        self.need_root()
        self.need_loop()
        self.need("mke2fs", "e2fsck", "sgdisk")
        self.backing = self.disk("backing.img", SIZE)

    def test_device_full_to_its_end_is_mirrored_and_let_go(self):
        for number, make in enumerate((lambda device: self.call("mke2fs", "-q", "-t", "ext4", "-d", "/etc/apt", device),
                                       lambda device: self.call("sgdisk", "-o", "-n", "1:0:0", device))):
            device = self.loop(self.backing)
            make(device)
            before = sha256(self.backing)
            file, copy = self.dir / f"{number}.plexus", self.dir / f"{number}.img"
            self.assertIn("--metadata", self.plexus("create", "data", "--from", device, copy, code=1).stderr)
            self.plexus("create", "data", "--from", device, "--metadata", file, copy)
            server = self.serve((file, copy), label=str(number))
            server.wait_healthy()
            server.verb("break", "data", copy, "--nokeep")
            server.verb("dissolve", "data")
            server.stop()
            self.assertEqual((sha256(self.backing), file.exists()), (before, False))
            self.unloop(device)
            self.backing.write_bytes(bytes(SIZE))


class DeviceSizes(Case):
    def test_size_below_the_device_leaves_the_rest_of_it_alone(self):
        self.need_root()
        self.need_loop()
        backing = self.random_disk("backing.img", 2 * SIZE, seed=6)
        before = sha256(backing)
        device = self.loop(backing)
        file, copy = self.dir / "f.plexus", self.dir / "copy.img"
        self.plexus("create", "data", "--from", device, "--metadata", file, "--size", "64M", copy)
        server = self.serve((file, copy))
        server.wait_healthy()
        server.verb("break", "data", copy, "--nokeep")
        server.verb("dissolve", "data")
        server.stop()
        self.unloop(device)
        self.assertEqual(sha256(backing), before)


if __name__ == "__main__":
    unittest.main()
