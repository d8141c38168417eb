"""Bad sectors of disks without a spare pool: clients never see them, and they are healed in place or told."""

import unittest

from plexus import MiB, wait_until
from sickdisk import BLOCK, PLACE, SIZE, BadBlock


class BadSectors(BadBlock):
    def setUp(self):
        super().setUp()
        self.start("--spares", "0")

    def test_unreadable_block_is_written_anew_and_the_mirror_stays_healthy(self):
        self.io("write -P 0x5a 4M 2M")
        self.sick.unreadable.touch()
        self.read_all()
        wait_until(lambda: self.server.plex(0)["corrected"] == 1, "the block to be corrected")
        self.assertFalse(self.sick.unreadable.exists())
        self.assertEqual(self.server.mirror()["state"], "healthy")
        corrected = [event for event in self.server.events() if event["code"] == "CORRECTED"]
        self.assertEqual([(event["plex"], event["offset"], event["length"]) for event in corrected],
                         [(0, PLACE, BLOCK)])
        self.assertIn("READ_ERROR", self.server.event_codes())
        self.server.stop()
        self.assert_identical(SIZE - 8 * MiB, self.sick.file, self.good)
        # The counter outlives the server.
        again = self.serve((self.sick.file, self.good), label="again")
        self.assertEqual(again.plex(0)["corrected"], 1)
        again.stop()

    def test_block_that_can_not_be_written_is_told_and_served_from_the_other_plex(self):
        self.io("write -P 0x5a 4M 2M")
        self.sick.unreadable.touch()
        self.sick.stubborn.touch()
        self.read_all()
        self.server.wait_state("degraded")
        plex = self.server.plex(0)
        self.assertEqual((plex["state"], plex["atRisk"], plex["badRanges"]), ("in-sync", True, [[PLACE, BLOCK]]))
        self.assertIn("replace data 0", self.server.mirror()["action"])
        self.assertIn("at-risk", self.server.verb("status", code=1).stdout)
        self.assertIn("BAD_BLOCK", self.server.event_codes())
        self.read_all()
        # It is moved to another disk without a client's noticing.
        self.server.verb("replace", "data", "0", self.dir / "new.img", "--create")
        wait_until(lambda: self.server.plex_on(self.sick.file) is None, "the replacement")
        self.server.wait_healthy()
        self.server.stop()
        self.assert_identical(SIZE - 8 * MiB, self.good, self.dir / "new.img")

    def test_block_that_is_overwritten_is_bad_no_more(self):
        self.io("write -P 0x5a 4M 2M")
        self.sick.unreadable.touch()
        self.sick.stubborn.touch()
        self.read_all()
        self.server.wait_state("degraded")
        self.sick.stubborn.unlink()
        self.io("write -P 0x5b 4M 2M")
        self.server.wait_healthy()
        self.assertEqual(self.server.plex(0)["badRanges"], [])
        self.server.stop()
        self.assert_identical(SIZE - 8 * MiB, self.sick.file, self.good)

    def test_disk_that_swallows_the_repair_is_failed(self):
        self.io("write -P 0x5a 4M 2M")
        self.sick.unreadable.touch()
        self.sick.liar.touch()
        self.read_all()
        wait_until(lambda: self.server.plex(0)["state"] == "failed", "the disk to be found out")
        self.assertIn("could not be read back the same", self.server.plex(0)["reason"])
        self.read_all()
        self.server.stop()

    def test_clients_never_see_a_block_that_goes_bad_again_and_again(self):
        for turn in range(5):
            self.io(f"write -P {turn + 1} 4M 2M")
            self.sick.unreadable.touch()
            for _ in range(4):
                self.io(f"read -P {turn + 1} 4M 2M")
            wait_until(lambda: self.server.plex(0)["corrected"] == turn + 1, "the block to be corrected")
        self.assertEqual((self.server.plex(0)["state"], self.server.mirror()["state"]), ("in-sync", "healthy"))
        self.server.stop()
        self.assert_identical(SIZE - 8 * MiB, self.sick.file, self.good)

    def test_rebuild_goes_on_over_a_block_that_nobody_can_read(self):
        self.io("write -P 0x5a 4M 2M")
        self.server.verb("break", "data", "1", "--nokeep")
        self.sick.unreadable.touch()
        self.sick.stubborn.touch()
        new = self.dir / "new.img"
        self.server.verb("add", "data", new, "--create")
        wait_until(lambda: (self.server.plex_on(new) or {}).get("state") == "in-sync", "the new disk")
        plex = self.server.plex_on(new)
        self.assertEqual((plex["badRanges"], plex["atRisk"]), ([[PLACE, BLOCK]], True))
        self.assertEqual(self.server.mirror()["state"], "degraded")
        refused = self.server.verb("break", "data", new, code=1)
        self.assertIn("lacks 4096 bytes", refused.stderr)
        # Nothing but that block is missing, and it is never made up.
        # The failing disk goes, when it is known that it can't be read there; the server too.
        wait_until(lambda: self.server.verb("break", "data", self.sick.file, "--nokeep", code=None).returncode == 0,
                   "the failing disk to be of no more use")
        self.server.kill()
        self.server = self.serve((new,), label="again")
        self.assertIn("Input/output error", self.io(f"read {PLACE} {BLOCK}", code=None).stdout)
        self.io(f"read -P 0x5a 4M {PLACE - 4 * MiB}")
        self.io(f"read -P 0x5a {PLACE + BLOCK} {6 * MiB - PLACE - BLOCK}")
        self.assertIn("badRanges", self.plexus("examine", new, "--json").stdout)
        self.io(f"write -P 0x5c {PLACE} {BLOCK}")
        self.io(f"read -P 0x5c {PLACE} {BLOCK}")
        self.server.wait_healthy()
        self.server.verb("dissolve", "data")
        self.server.stop()

    def test_block_that_no_disk_has_is_an_error_for_that_range_only(self):
        self.io("write -P 0x5a 4M 2M")
        self.server.verb("break", "data", "1", "--nokeep")
        self.sick.unreadable.touch()
        self.assertIn("Input/output error", self.io(f"read {PLACE} {BLOCK}", code=None).stdout)
        self.io(f"read -P 0x5a {PLACE - BLOCK} {BLOCK}")
        self.io(f"read -P 0x5a {PLACE + BLOCK} {BLOCK}")
        self.io(f"write -P 0x5c {PLACE} {BLOCK}")
        self.io(f"read -P 0x5c {PLACE} {BLOCK}")
        self.server.stop()


if __name__ == "__main__":
    unittest.main()
