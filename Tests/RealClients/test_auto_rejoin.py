"""Disks that go, and come back without being asked for."""

import os
import shutil
import time
import unittest

from plexus import Case, FailingLeg, FioLoad, MiB, wait_until

SIZE = 64 * MiB


class AutoRejoin(Case):
    def reason(self, server, plex: int = 1) -> str:
        return server.plex(plex)["reason"] or ""

    def test_disk_that_was_pulled_under_load_is_taken_back_by_delta(self):
        self.need("fio", "nbdkit")
        self.need_fuse()
        leg = FailingLeg(self, "leg", SIZE)
        server = self.serve(self.create(disks=[self.disk("good.img", SIZE), leg.file]), "--auto-rejoin", "--rejoin-delay", 1)
        server.wait_healthy()
        load = FioLoad(self, server.uri(), size="16m")
        load.wait_rounds()
        leg.kill()
        server.wait_state("degraded")
        load.wait_rounds()
        leg.restart()
        server.wait_healthy()
        load.wait_rounds()
        load.finish()
        codes = server.event_codes()
        self.assertIn("PLEX_RETURNED", codes)
        joined = [event for event in server.events() if event["code"] == "JOINED"][-1]
        self.assertIn("what changed while it was away", joined["text"])
        self.assert_clean_end(server, self.disk("good.img"), leg.image)

    def test_disk_that_keeps_failing_is_left_out(self):
        self.need("nbdkit", "nbdcopy")
        self.need_fuse()
        leg = FailingLeg(self, "leg", SIZE)
        server = self.serve(self.create(disks=[self.disk("good.img", SIZE), leg.file]), "--auto-rejoin", "--rejoin-delay", 0)
        server.wait_healthy()
        data = self.disk("data")
        for failure in range(3):
            data.write_bytes(os.urandom(MiB))
            leg.fail()
            self.call("nbdcopy", data, server.uri())
            server.wait_state("degraded")
            leg.heal()
            if failure < 2:
                server.wait_healthy()
        wait_until(lambda: "it failed 3 times within an hour" in self.reason(server), "the plex to be distrusted")
        self.assertEqual(server.plex(1)["state"], "failed")
        server.verb("online", "data", 1)  # Whoever looked at the disk may take it back.
        server.wait_healthy()
        server.stop()

    def test_disk_comes_back_under_another_name(self):
        self.need("nbdkit", "nbdcopy")
        self.need_fuse()
        leg = FailingLeg(self, "leg", SIZE)
        good, first, second = (self.dir / name for name in ("good.img", "first", "second"))
        first.symlink_to(leg.file)
        server = self.serve(self.create(disks=[self.disk("good.img", SIZE), first]), "--auto-rejoin", "--rejoin-delay", 0)
        server.wait_healthy()
        leg.kill()
        data = self.disk("data")
        data.write_bytes(os.urandom(MiB))
        self.call("nbdcopy", data, server.uri())
        server.wait_state("degraded")
        first.unlink()
        leg.restart()
        second.symlink_to(leg.file)
        server.wait_healthy()
        self.assertEqual(server.plex(1)["disk"], str(second))
        self.assert_clean_end(server, good, leg.image)

    def test_disk_that_was_absent_at_start_is_taken_only_where_it_was_named(self):
        good, away = self.create(size=SIZE)
        hidden = shutil.move(away, self.dir / "hidden.img")
        before = hidden.read_bytes()
        server = self.serve([good, away], "--degraded", "--auto-rejoin", "--rejoin-delay", 0)
        self.assertEqual(server.plex(1)["state"], "missing")
        time.sleep(8)  # Two looks. It lies beside the other, and may be kept there on purpose.
        self.assertEqual(server.plex(1)["state"], "missing")
        self.assertEqual(hidden.read_bytes(), before)
        shutil.move(hidden, away)
        server.wait_healthy()
        self.assert_clean_end(server, good, away)

    def test_mirror_all_of_whose_files_are_deleted_says_so(self):
        disks = self.create(size=SIZE)
        server = self.serve(disks, "--auto-rejoin")
        server.wait_healthy()
        for disk in disks:
            os.unlink(disk)
        mirror = server.wait_state("degraded")
        self.assertIn("lost when the server stops", mirror["reason"])
        server.verb("add", "data", self.dir / "rescue.img", "--create")
        wait_until(lambda: (server.plex(2) or {}).get("state") == "in-sync", "the new plex")
        server.stop()
        again = self.serve([self.dir / "rescue.img"], "--degraded", label="again")
        self.assertEqual(again.plex(2)["state"], "in-sync")
        again.stop()

    def test_deleted_file_is_missed_although_nothing_is_written(self):
        good, other = self.create(size=SIZE)
        server = self.serve([good, other], "--auto-rejoin")
        server.wait_healthy()
        os.unlink(other)
        mirror = server.wait_state("degraded")
        self.assertEqual(mirror["plexes"][1]["state"], "missing")
        self.assertIn("its disk is gone", mirror["plexes"][1]["reason"])
        self.assertIn("PLEX_MISSING", server.event_codes())
        server.stop()

    def test_disk_in_an_earlier_state_or_with_a_clone_or_broken_off_is_left_alone(self):
        self.need("nbdcopy")
        good, other = self.create(size=SIZE)
        server = self.serve([good, other], label="first")
        server.wait_healthy()
        server.stop()
        shutil.copyfile(other, self.dir / "backup.img")
        server = self.serve([good, other], "--auto-rejoin", "--rejoin-delay", 0)
        server.wait_healthy()
        data = self.disk("data")
        data.write_bytes(os.urandom(4 * MiB))
        self.call("nbdcopy", data, server.uri())
        server.wait_healthy()
        wait_until(lambda: server.mirror()["bitmap"]["dirty"] == 0, "the bitmap to be clean")
        os.unlink(other)
        server.wait_state("degraded")
        # A thorough search finds the backup, which is older than what is on record.
        wait_until(lambda: "everything would have to be copied" in self.reason(server), "the backup to be seen", 90)
        self.assertIn(str(self.dir / "backup.img"), self.reason(server))
        shutil.copyfile(self.dir / "backup.img", other)
        wait_until(lambda: "a clone of it" in self.reason(server), "the clone to be seen", 90)
        self.assertEqual(server.plex(1)["state"], "missing")
        os.unlink(self.dir / "backup.img")
        server.verb("join", "data", other)
        server.wait_healthy()
        server.verb("offline", "data", 1)
        time.sleep(3)
        self.assertEqual(server.plex(1)["state"], "offline")
        server.verb("online", "data", 1)
        self.assert_clean_end(server, good, other)


if __name__ == "__main__":
    unittest.main()
