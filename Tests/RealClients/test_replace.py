"""More plexes and other plexes while clients go on: add, replace, and orders to the resync."""

import os
import time
import unittest

from plexus import Case, FioLoad, KiB, MiB, wait_until

SIZE = 96 * MiB


def allocated(path) -> int:
    return os.stat(path).st_blocks * 512


class Add(Case):
    def test_holes_and_zeroes_are_neither_copied_nor_allocated(self):
        server = self.mirror(size=SIZE)
        nbd = self.need_libnbd()
        handle = nbd.NBD()
        handle.connect_uri(server.uri())
        handle.pwrite(os.urandom(2 * MiB), 8 * MiB)
        # Written out, so that the sources have it allocated; and data of one block amid zeroes.
        for offset in range(32 * MiB, 64 * MiB, MiB):
            handle.pwrite(bytes(MiB), offset)
        handle.pwrite(b"\x77" * 4096, 40 * MiB + 512 * KiB)
        handle.flush()
        handle.shutdown()
        third = self.dir / "c.img"
        self.assertIn("--create", server.verb("add", "data", third, code=1).stderr)
        server.verb("add", "data", third, "--create")
        server.wait_healthy()
        self.assertEqual(len(server.mirror()["plexes"]), 3)
        metadata = os.stat(third).st_size - server.mirror()["size"]
        self.assertLess(allocated(third), metadata + 3 * MiB, f"{metadata} bytes of metadata")
        self.assertGreater(allocated(self.dir / "a.img"), allocated(third) + 20 * MiB)
        size = server.mirror()["size"]
        server.stop()
        self.assert_identical(size, self.dir / "a.img", self.dir / "b.img", third)

    def test_a_disk_full_of_old_data_is_made_equal(self):
        """Where the source has holes the target must read as zero, whatever lay there."""
        server = self.mirror(size=SIZE)
        third = self.disk("c.img", os.stat(self.dir / "a.img").st_size)
        with open(third, "r+b") as file:
            for _ in range(SIZE // MiB):
                file.write(b"\xA5" * MiB)
        server.verb("add", "data", third)
        server.wait_healthy()
        size = server.mirror()["size"]
        server.stop()
        self.assert_identical(size, self.dir / "a.img", third)

    def test_mirror_grows_to_eight_and_shrinks_to_one_under_load(self):
        self.need("fio")
        server = self.mirror(size=SIZE)
        load = FioLoad(self, server.uri(), size="16m")
        disks = [self.dir / "a.img", self.dir / "b.img"] + [self.dir / f"{name}.img" for name in "cdefgh"]
        for disk in disks[2:]:
            server.verb("add", "data", disk, "--create")
        server.wait_healthy()
        self.assertEqual([plex["state"] for plex in server.mirror()["plexes"]], ["in-sync"] * 8)
        refused = server.verb("add", "data", self.dir / "ninth.img", "--create", code=1)
        self.assertIn("8 plexes already", refused.stderr)
        self.assertFalse((self.dir / "ninth.img").exists())
        load.wait_rounds()
        for disk in disks[:7]:
            server.verb("break", "data", disk, "--nokeep")
        load.wait_rounds()
        load.finish()
        self.assertIn("last good copy", server.verb("break", "data", disks[7], "--nokeep", code=1).stderr)
        mirror = server.mirror()
        self.assertEqual((mirror["state"], len(mirror["plexes"])), ("healthy", 1))
        server.stop()

    def test_what_can_not_be_a_new_plex_is_refused_and_left_alone(self):
        server = self.mirror(size=SIZE)
        small = self.disk("small.img", SIZE // 2)
        self.assertIn("too small", server.verb("add", "data", small, code=1).stderr)
        known = server.verb("break", "data", "1") and self.dir / "b.img"
        self.assertIn("plexus join", server.verb("add", "data", known, code=1).stderr)
        foreign = self.disk("foreign.img", os.stat(self.dir / "a.img").st_size)
        with open(foreign, "r+b") as file:
            file.seek(1024 + 0x38)
            file.write(b"\x53\xEF")  # The superblock of ext2 and its heirs.
        before = foreign.read_bytes()
        refused = server.verb("add", "data", foreign, code=1)
        self.assertIn("--force", refused.stderr)
        self.assertEqual(before, foreign.read_bytes())
        refused = server.verb("add", "data", "/dev/plexus-none", "--create", code=1)
        self.assertIn("no file is made among devices", refused.stderr)
        server.stop()


class Replace(Case):
    def setUp(self):
        super().setUp()
        self.need("fio")
        self.server = self.mirror(size=SIZE)
        self.old, self.kept, self.new = (self.dir / f"{name}.img" for name in "abc")

    def wait_replaced(self):
        wait_until(lambda: [plex["disk"] for plex in self.server.mirror()["plexes"]] == [str(self.kept), str(self.new)],
                   "the old plex to be forgotten")
        self.server.wait_healthy()

    def test_old_plex_serves_until_the_new_one_is_in_sync(self):
        load = FioLoad(self, self.server.uri(), size="24m")
        self.server.verb("resync", "data", "--limit", "40M")
        told = self.server.verb("replace", "data", "0", self.new, "--create").stdout
        self.assertIn("forgotten when it is in sync", told)
        self.assertEqual(self.server.plex_on(self.new)["replaces"], 0)
        self.assertEqual(self.server.plex_on(self.old)["state"], "in-sync")
        self.wait_replaced()
        load.wait_rounds()
        load.finish()
        self.assertIn("no Plexus", self.plexus("examine", self.old, code=None).stdout
                      + self.plexus("examine", self.old, code=None).stderr)
        size = self.server.wait_healthy()["size"]
        self.server.stop()
        self.assert_identical(size, self.kept, self.new)

    def test_a_plex_that_is_out_is_replaced(self):
        self.server.verb("offline", "data", "0")
        os.unlink(self.old)
        self.server.verb("replace", "data", "0", self.new, "--create")
        self.wait_replaced()
        size = self.server.mirror()["size"]
        self.server.stop()
        self.assert_identical(size, self.kept, self.new)

    def test_kill_in_the_middle_and_the_next_server_finishes_it(self):
        load = FioLoad(self, self.server.uri(), size="24m")
        load.wait_rounds()
        load.finish()
        self.server.verb("resync", "data", "--limit", "4M")
        self.server.verb("replace", "data", self.old, self.new, "--create")
        wait_until(lambda: (self.server.mirror()["resync"] or {}).get("done", 0) > 0, "the copying to begin")
        self.server.kill()
        self.server = self.serve((self.old, self.kept, self.new), label="again")
        self.wait_replaced()
        size = self.server.mirror()["size"]
        self.server.stop()
        self.assert_identical(size, self.kept, self.new)

    def test_given_up_it_leaves_all_as_it_was(self):
        self.server.verb("resync", "data", "--pause")
        self.server.verb("replace", "data", "0", self.new, "--create")
        self.assertIn("--resume", self.server.mirror()["action"])
        again = self.server.verb("replace", "data", "0", self.dir / "d.img", "--create", code=1)
        self.assertIn("already", again.stderr)
        self.assertFalse((self.dir / "d.img").exists())
        self.server.verb("break", "data", self.new, "--nokeep")
        mirror = self.server.wait_healthy()
        self.assertEqual([plex["disk"] for plex in mirror["plexes"]], [str(self.old), str(self.kept)])
        self.server.stop()


class Orders(Case):
    def test_pause_resume_and_limit(self):
        server = self.mirror(size=SIZE)
        nbd = self.need_libnbd()
        handle = nbd.NBD()
        handle.connect_uri(server.uri())
        for offset in range(0, 64 * MiB, MiB):
            handle.pwrite(os.urandom(MiB), offset)
        handle.shutdown()
        server.verb("resync", "data", "--pause")
        server.verb("add", "data", self.dir / "c.img", "--create")
        paused = server.mirror()["resync"]
        self.assertTrue(paused["paused"] and paused["running"])
        time.sleep(0.5)
        self.assertEqual(server.mirror()["resync"]["done"], paused["done"])
        server.verb("resync", "data", "--limit", "16M")
        server.verb("resync", "data", "--resume")
        wait_until(lambda: (server.mirror()["resync"] or {}).get("etaSeconds"), "a time to be told")
        running = server.mirror()["resync"]
        self.assertEqual(running["limit"], 16 * MiB)
        self.assertLess(running["bytesPerSecond"], 20 * MiB)
        server.verb("resync", "data", "--limit", "none")
        server.wait_healthy()
        for wrong in ((), ("--pause", "--resume"), ("--limit", "0"), ("--limit", "fast")):
            server.verb("resync", "data", *wrong, code=64)
        size = server.mirror()["size"]
        server.stop()
        self.assert_identical(size, self.dir / "a.img", self.dir / "c.img")


if __name__ == "__main__":
    unittest.main()
