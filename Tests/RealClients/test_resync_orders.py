"""What an owner can order of a resync beyond its speed: that it is verified, and whose comes first."""

import unittest

from plexus import Case, MiB, wait_until
from sickdisk import SickDisk

SIZE = 32 * MiB
LIE = 8 * MiB


class Verified(Case):
    def setUp(self):
        super().setUp()
        self.need("nbdkit", "nbdfuse")
        self.need_fuse()
        self.good = self.random_disk("good.img", SIZE, seed=5)
        self.plexus("create", "data", "--from", self.good)
        self.server = self.serve((self.good,))

    def test_disk_that_does_not_give_back_what_was_copied_to_it_is_failed(self):
        bad = SickDisk(self, "bad", SIZE + 16 * MiB, LIE)
        bad.liar.touch()
        self.assertIn("compares", self.server.verb("resync", "data", "--verify").stdout)
        self.server.verb("add", "data", bad.file)
        wait_until(lambda: self.server.plex(1)["state"] == "failed", "the disk to be found out")
        plex = self.server.plex(1)
        self.assertRegex(plex["reason"], r"what was written at \d+ could not be read back the same")
        # Honest again, it is taken back.
        bad.liar.unlink()
        self.server.verb("join", "data", bad.file)
        wait_until(lambda: (self.server.mirror()["resync"] or {}).get("verify"), "a verified resync")
        self.server.wait_healthy()
        self.server.stop()
        self.assert_identical(SIZE, self.good, bad.file)

    def test_disk_that_lies_is_believed_without_verification(self):
        # What the verification is good for: without it nothing but a scrub would find this.
        bad = SickDisk(self, "bad", SIZE + 16 * MiB, LIE)
        bad.liar.touch()
        self.server.verb("resync", "data", "--verify")
        self.server.verb("resync", "data", "--no-verify")
        self.server.verb("add", "data", bad.file)
        self.server.wait_healthy()
        self.server.stop()
        with open(bad.file, "rb") as one, open(self.good, "rb") as other:
            one.seek(LIE)
            other.seek(LIE)
            self.assertNotEqual(one.read(4096), other.read(4096))

    def test_verified_copy_of_files_with_holes_is_whole(self):
        copies = [self.dir / "one.img", self.dir / "two.img"]
        self.server.verb("resync", "data", "--verify")
        for copy in copies:
            self.server.verb("add", "data", copy, "--create")
        self.server.wait_healthy()
        self.assertEqual(len(self.server.mirror()["plexes"]), 3)
        self.server.stop()
        self.assert_identical(SIZE, self.good, *copies)


class Priorities(Case):
    def test_mirrors_below_wait_until_the_one_above_has_copied(self):
        for name in ("first", "second", "third"):
            self.plexus("create", name, "--from", self.random_disk(f"{name}.img", SIZE, seed=3))
        for threads in ("1", "3"):
            server = self.serve([self.dir / f"{name}.img" for name in ("first", "second", "third")],
                                "--threads", threads, label=f"serve-{threads}")
            server.verb("resync", "second", "--priority", "high")
            server.verb("resync", "third", "--priority", "low")
            for name in ("first", "second", "third"):
                server.verb("resync", name, "--limit", "8M")
            for name in ("second", "first", "third"):
                server.verb("add", name, self.dir / f"{name}-{threads}.img", "--create")
            resync = server.mirror("second")["resync"]
            self.assertEqual((resync["running"], resync["priority"]), (True, "high"))
            waiting = {}
            wait_until(lambda: waiting.update({name: server.mirror(name) for name in ("first", "third")})
                       or all(mirror["resync"]["paused"] for mirror in waiting.values()), "two mirrors to wait")
            self.assertIn("mirror second, which comes first", waiting["first"]["action"])
            self.assertTrue(server.mirror("second")["resync"]["running"])
            # One that is paused keeps nobody waiting.
            server.verb("resync", "second", "--pause")
            for name in ("first", "third"):
                server.verb("resync", name, "--limit", "none")
            server.wait_healthy("first")
            server.wait_healthy("third")
            self.assertEqual(server.mirror("second")["state"], "rebuilding")
            server.verb("resync", "second", "--resume")
            server.verb("resync", "second", "--limit", "none")
            server.wait_healthy("second")
            for wrong in (("--priority", "urgent"), ("--priority", "low", "--verify")):
                server.verb("resync", "second", *wrong, code=64)
            for name in ("first", "second", "third"):
                server.verb("break", name, "1", "--nokeep")
            server.stop()
            for name in ("first", "second", "third"):
                self.assert_identical(SIZE, self.dir / f"{name}.img", self.dir / f"{name}-{threads}.img")


if __name__ == "__main__":
    unittest.main()
