"""A disk that stands by takes the place of a plex that is out for long."""

import os
import unittest

from plexus import Case, FailingLeg, FioLoad, MiB, wait_until

SIZE = 64 * MiB


class HotSpare(Case):
    def spare(self, server, path, *options):
        server.verb("spare", "data", path, *options)
        return path

    def spares(self, server) -> list[tuple[str, str]]:
        return [(spare["disk"], spare["state"]) for spare in server.mirror()["hotSpares"]]

    def test_spare_takes_the_place_of_a_disk_that_died_under_load(self):
        self.need("fio", "nbdkit")
        self.need_fuse()
        leg = FailingLeg(self, "leg", SIZE)
        good = self.disk("good.img", SIZE)
        server = self.serve(self.create(disks=[good, leg.file]), "--spare-delay", 1)
        server.wait_healthy()
        spare = self.spare(server, self.dir / "spare.img", "--create")
        self.assertEqual(self.spares(server), [(str(spare), "ready")])
        self.assertIn(str(spare), server.verb("status").stdout)
        load = FioLoad(self, server.uri(), size="16m")
        load.wait_rounds()
        leg.kill()
        server.wait_state("degraded")
        mirror = wait_until(
            lambda: (now := server.mirror())["state"] == "healthy" and len(now["plexes"]) == 2 and now, "the spare")
        self.assertEqual({plex["disk"] for plex in mirror["plexes"]}, {str(good), str(spare)})
        self.assertEqual(mirror["hotSpares"], [])
        load.wait_rounds()
        load.finish()
        self.assertTrue(any("it was a spare" in event["text"] for event in server.events()))
        self.assert_clean_end(server, good, spare)

    def test_spare_survives_restarts_and_is_told_of_by_its_disk(self):
        disks = self.create(size=SIZE)
        server = self.serve(disks, label="first")
        server.wait_healthy()
        spare = self.spare(server, self.dir / "spare.img", "--create")
        in_use = server.verb("add", "data", spare, code=1)
        self.assertIn("in use by mirror data", in_use.stderr)
        server.stop()
        self.assertIn("spare of mirror data", self.plexus("examine", spare).stdout)
        refused = self.plexus("create", "other", spare, self.dir / "x.img", "--size", "8M", code=1)
        self.assertIn("a spare of mirror data", refused.stderr)
        # Disk 1 is absent from the start.
        os.unlink(disks[1])
        server = self.serve([disks[0], spare], "--degraded", "--spare-delay", 0, label="second")
        wait_until(
            lambda: (now := server.mirror())["state"] == "healthy" and len(now["plexes"]) == 2, "the spare to be taken")
        self.assert_clean_end(server, disks[0], spare)
        third = self.serve([disks[0], spare], label="third")
        self.assertEqual(third.mirror()["state"], "healthy")
        third.stop()

    def test_plexes_that_were_taken_out_are_not_replaced_and_spares_can_be_dismissed(self):
        disks = self.create(size=SIZE)
        server = self.serve(disks, "--spare-delay", 0)
        server.wait_healthy()
        spare = self.spare(server, self.disk("spare.img", SIZE))
        server.verb("offline", "data", 1)
        server.verb("break", "data", 1, "--nokeep")
        self.assertEqual(self.spares(server), [(str(spare), "ready")])
        server.verb("spare", "data", spare, "--remove")
        self.assertEqual(self.spares(server), [])
        self.assertIn("is no spare", server.verb("spare", "data", spare, "--remove", code=1).stderr)
        self.assertIn("carries no Plexus metadata", self.plexus("examine", spare, code=None).stdout
                      + self.plexus("examine", spare, code=None).stderr)
        server.verb("add", "data", spare)
        server.wait_healthy()
        server.stop()

    def test_what_can_not_be_a_spare_is_refused(self):
        disks = self.create(size=SIZE)
        server = self.serve(disks)
        server.wait_healthy()
        small = self.disk("small.img", SIZE // 2)
        self.assertIn("too small", server.verb("spare", "data", small, code=1).stderr)
        self.assertIn("in use", server.verb("spare", "data", disks[0], code=1).stderr)
        self.assertIn("--create", server.verb("spare", "data", self.dir / "none", code=1).stderr)
        foreign = self.disk("ext4.img", SIZE)
        self.call("mkfs.ext4", "-q", foreign)
        self.assertIn("ext4", server.verb("spare", "data", foreign, code=1).stderr)
        server.verb("spare", "data", foreign, "--force")
        self.assertNotIn("ext4", self.call("blkid", "-p", foreign, code=None).stdout)
        server.verb("offline", "data", 1)
        known = server.verb("spare", "data", disks[1], "--force", code=1)
        self.assertIn("is plex 1 of mirror data", known.stderr)
        server.stop()

    def test_spare_that_was_used_for_something_else_is_left_alone(self):
        disks = self.create(size=SIZE)
        server = self.serve(disks, label="first")
        server.wait_healthy()
        spare = self.spare(server, self.dir / "spare.img", "--create")
        server.stop()
        # What mkfs does to a disk without discard: the end of it stays.
        image = self.disk("ext4.img", 16 * MiB)
        self.call("mkfs.ext4", "-q", "-F", image)
        self.call("dd", f"if={image}", f"of={spare}", "bs=1M", "conv=notrunc", "status=none")
        again = self.serve([*disks, spare])
        self.assertEqual(self.spares(again), [])
        self.assertIn("holds ext4", (self.dir / "serve.log").read_text())
        again.stop()


if __name__ == "__main__":
    unittest.main()
