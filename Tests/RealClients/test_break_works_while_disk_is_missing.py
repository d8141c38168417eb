"""A Windows mirror could not be broken while one of its disks was missing. This one can, and never asks for the disk."""

import os
import unittest

from plexus import Case, FailingLeg, FioLoad, MiB

SIZE = 96 * MiB


class BreakWithoutTheDisk(Case):
    def test_break_works_while_disk_is_missing(self):
        """It vanishes under load and is forgotten; clients go on, and the mirror is healthy with what is left."""
        self.need("fio", "nbdkit")
        self.need_fuse()
        leg = FailingLeg(self, "leg", SIZE)
        good = self.disk("good.img", SIZE)
        server = self.serve(self.create(disks=[good, leg.file]))
        server.wait_healthy()
        load = FioLoad(self, server.uri(), size="16m")
        load.wait_rounds()
        leg.kill()
        server.wait_state("degraded")
        server.verb("break", "data", "1", "--nokeep")
        mirror = server.wait_healthy()
        self.assertEqual([plex["disk"] for plex in mirror["plexes"]], [str(good)])
        load.wait_rounds()
        load.finish()
        server.stop()
        again = self.serve((good,), label="again")  # Nobody is missed any more.
        self.assertEqual(again.mirror()["state"], "healthy")
        again.stop()

    def test_break_works_when_the_disk_was_gone_at_start(self):
        disks = self.create(size=SIZE)
        server = self.serve(disks)
        server.wait_healthy()
        server.stop()
        os.unlink(disks[0])
        refused = self.plexus("serve", disks[1], "--control", self.dir / "c", "--socket", self.dir / "s", code=1)
        self.assertIn("--degraded", refused.stderr)
        again = self.serve(disks[1:], "--degraded", label="again")
        again.verb("break", "data", "0", "--nokeep")
        again.wait_healthy()
        again.verb("add", "data", self.dir / "new.img", "--create")
        again.wait_healthy()
        size = again.mirror()["size"]
        again.stop()
        self.assert_identical(size, disks[1], self.dir / "new.img")


if __name__ == "__main__":
    unittest.main()
