"""Disks that fail on demand, a server that is killed, a server that is stopped: all under load."""

import random
import signal
import unittest

from journal import BLOCK, Journal
from nbdwire import READ, WRITE, Wire
from plexus import Case, DEADLINE_SECONDS, FailingLeg, FioLoad, MiB, wait_until

SIZE = 96 * MiB


class FailingDisk(Case):
    """One plex on an ordinary file, one on a file that fails on demand."""

    FAILING = 1

    def setUp(self):
        super().setUp()
        self.need("fio", "nbdkit")
        self.need_fuse()
        self.leg = FailingLeg(self, "leg", SIZE)
        self.good = self.disk("good.img", SIZE)
        disks = [self.good, self.leg.file]
        if self.FAILING == 0:
            disks.reverse()
        self.server = self.serve(self.create(disks=disks))
        self.server.wait_healthy()
        self.load = FioLoad(self, self.server.uri(), "verify_backlog=256", "bsrange=512-32k", size="24m")
        self.server.wait_clients()

    def expect_failed_plex(self):
        """Status says what happened to which disk and what to type next; nothing reached the client."""
        mirror = self.server.wait_state("degraded")
        self.load.wait_rounds()
        mirror = self.server.mirror()
        self.assertIn(str(self.leg.file), mirror["reason"])
        self.assertIn("plexus ", mirror["action"])
        plex = self.server.plex_on(self.leg.file)
        self.assertIn(plex["state"], ("failed", "missing"))
        self.assertTrue(plex["reason"])
        self.assertEqual(self.server.verb("status", code=1).returncode, 1)
        human = self.server.verb("status", code=1).stdout
        self.assertIn(mirror["reason"], human)
        self.assertIn(mirror["action"], human)
        self.assertIn("PLEX_FAILED", self.server.event_codes())
        self.assertIn("PLEX_FAILED", self.server.verb("events", "data").stdout)

    def rejoin(self):
        self.load.wait_rounds()
        self.server.wait_clients()
        self.server.verb("join", "data", self.leg.file)
        self.server.wait_healthy()
        self.assertEqual(self.server.plex_on(self.leg.file)["state"], "in-sync")
        self.load.wait_rounds()
        self.load.finish()
        size = self.server.wait_healthy()["size"]
        self.server.stop()
        self.assert_identical(size, self.good, self.leg.image)

    def test_every_request_of_the_disk_fails(self):
        self.leg.fail()
        self.expect_failed_plex()
        self.leg.heal()
        self.rejoin()

    def test_disk_vanishes(self):
        self.leg.kill()
        self.expect_failed_plex()
        self.leg.restart()
        self.rejoin()

    def test_join_is_refused_while_the_disk_still_fails(self):
        self.leg.fail()
        self.expect_failed_plex()
        refused = self.server.verb("join", "data", self.leg.file, code=None)
        if refused.returncode != 0:
            self.assertIn(str(self.leg.file), refused.stderr)
        # It may also be accepted, and fail as soon as the copy starts; it must not get in sync.
        wait_until(lambda: self.server.plex_on(self.leg.file)["state"] not in ("in-sync", "rebuilding"),
                   "the plex to be given up again")
        self.assertEqual(self.server.mirror()["state"], "degraded")
        self.load.wait_rounds()
        self.leg.heal()
        self.rejoin()

    def test_server_is_killed_while_degraded_and_starts_without_the_stale_disk(self):
        """The survivor's record says that it is alone, so it may start alone, unasked; the stale one never wins."""
        self.leg.fail()
        self.expect_failed_plex()
        self.load.finish()
        self.server.kill()
        self.leg.heal()
        again = self.serve((self.good, self.leg.file), label="again")
        mirror = again.mirror()
        self.assertIn(mirror["state"], ("degraded", "rebuilding", "healthy"))
        again.bring_back(self.leg.file)
        size = again.wait_healthy()["size"]
        again.stop()
        self.assert_identical(size, self.good, self.leg.image)


class FailingFirstDisk(FailingDisk):
    """The same when the plex that is read from, and whose superblock is read first, is the one that fails."""

    FAILING = 0


class NoDiskLeft(Case):
    def test_both_disks_fail_and_the_client_is_told(self):
        """Nothing is acknowledged that no disk has; the server lives, and serves again when the disks do."""
        self.need("nbdkit")
        self.need_fuse()
        nbd = self.need_libnbd()
        legs = [FailingLeg(self, "one", SIZE), FailingLeg(self, "two", SIZE)]
        server = self.serve(self.create(disks=[leg.file for leg in legs]))
        server.wait_healthy()
        handle = nbd.NBD()
        handle.connect_uri(server.uri())
        handle.pwrite(b"\x11" * BLOCK, 0)
        handle.flush()
        for leg in legs:
            leg.fail()
        # The write may be held (suspended) or refused (EIO); it must not succeed.
        outcome = []
        cookie = handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"\x22" * BLOCK)), BLOCK,
                                   lambda error: outcome.append(error) or 1)

        def settled():
            handle.poll(50)
            return outcome or server.mirror()["state"] in ("suspended", "failed")
        wait_until(settled, "the mirror to be suspended or the write to be refused")
        self.assertNotIn(0, outcome, f"write {cookie} succeeded with no disk left")
        self.assertIsNone(server.process.poll(), "the server died with its disks")
        for leg in legs:
            leg.heal()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(DEADLINE_SECONDS)
        again = self.serve([leg.file for leg in legs], label="again")
        reader = nbd.NBD()
        reader.connect_uri(again.uri())
        self.assertEqual(bytes(reader.pread(BLOCK, 0)), b"\x11" * BLOCK, "an acknowledged, flushed write is gone")


class Killed(Case):
    """kill -9 under load: a crash of the process loses no acknowledged write, and reads never change back."""

    BLOCKS = 8192  # 32 MiB
    KILLS = 5

    def setUp(self):
        super().setUp()
        self.nbd = self.need_libnbd()
        self.disks = self.create(size=64 * MiB)
        self.journal = Journal(self.nbd, self.BLOCKS)
        self.choice = random.Random(self.journal.seed)
        self.resources.callback(self.journal.stop)

    def run_until_killed(self, server, writes: int):
        server.wait_ready()
        self.journal.start(server.uri())
        goal = self.journal.completed + writes
        wait_until(lambda: self.journal.completed >= goal or self.journal.errors, f"{writes} acknowledged writes")
        self.assertEqual(self.journal.errors, [])
        server.kill()
        self.journal.stop()
        self.assertEqual(self.journal.errors, [])

    def check_reads(self, server) -> list[int]:
        found = self.journal.read(server.uri())
        self.assertEqual(self.journal.illegal(found), [])
        return found

    def test_killed_again_and_again(self):
        print(f"seed {self.journal.seed}", end=" ", flush=True)
        for turn in range(self.KILLS):
            self.run_until_killed(self.serve(self.disks, label=f"turn{turn}"), self.choice.randrange(50, 3000))
            server = self.serve(self.disks, label=f"check{turn}")
            self.journal.settle(self.check_reads(server))
            self.check_reads(server)
            server.kill()  # In the middle of the resync: what was read stays even so.
            server = self.serve(self.disks, label=f"settle{turn}")
            self.check_reads(server)
            server.wait_healthy()
            self.check_reads(server)
            size = server.mirror()["size"]
            server.stop()
            self.assert_identical(size, *self.disks)

    def test_value_once_read_survives_the_loss_of_either_plex(self):
        """R7: the plex that a read came from may be the one that is lost next."""
        for lost in (0, 1):
            self.run_until_killed(self.serve(self.disks, label=f"first{lost}"), 500)
            server = self.serve(self.disks, label=f"second{lost}")
            self.journal.settle(self.check_reads(server))
            server.kill()
            alone = self.serve([self.disks[1 - lost]], "--degraded", label=f"alone{lost}")
            self.check_reads(alone)
            alone.stop()
            both = self.serve(self.disks, label=f"both{lost}")
            both.bring_back(self.disks[lost])
            both.wait_healthy()
            self.check_reads(both)
            both.stop()

    def test_plex_that_is_absent_is_not_served_alone_unasked(self):
        server = self.serve(self.disks)
        server.stop()
        refused = self.plexus("serve", self.disks[0], "--socket", self.dir / "x.sock", "--control",
                              self.dir / "x.control", code=None, timeout=60)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("--degraded", refused.stderr)
        self.assertFalse((self.dir / "x.sock").exists())

    def test_killed_while_a_plex_is_rebuilt(self):
        """An interrupted resync is taken up again; a half-copied plex never serves."""
        server = self.serve(self.disks)
        server.verb("offline", "data", 1)
        self.run_until_killed(server, 2000)
        server = self.serve(self.disks, label="again")
        server.bring_back(self.disks[1])
        server.kill()
        server = self.serve(self.disks, label="third")
        self.check_reads(server)
        server.bring_back(self.disks[1])
        server.wait_healthy()
        self.check_reads(server)
        self.assert_clean_end(server)


class Stopped(Case):
    """SIGTERM, SIGINT and `plexus stop` under load: requests in flight are answered, then the server leaves clean."""

    def setUp(self):
        super().setUp()
        self.nbd = self.need_libnbd()
        self.server = self.mirror(size=64 * MiB)
        self.journal = Journal(self.nbd, 4096)
        self.resources.callback(self.journal.stop)

    def stop_under_load(self, stop):
        self.journal.start(self.server.uri())
        wait_until(lambda: self.journal.completed > 300 or self.journal.errors, "300 writes")
        stop()
        self.assertEqual(self.server.process.wait(DEADLINE_SECONDS), 0)
        self.journal.stop()
        self.assertEqual(self.journal.errors, [])
        self.assertEqual(self.journal.lost_connections, self.journal.writers)
        self.assertFalse(self.server.socket.exists(), "the socket is left behind")
        again = self.serve(self.server.disks, label="again")
        mirror = again.mirror()
        self.assertEqual(mirror["state"], "healthy", "a clean stop needs no resync")
        size = mirror["size"]
        self.assertEqual(self.journal.illegal(self.journal.read(again.uri())), [])
        again.stop()
        self.assert_identical(size, *self.server.disks)

    def test_sigterm(self):
        self.stop_under_load(lambda: self.server.process.send_signal(signal.SIGTERM))

    def test_sigint(self):
        self.stop_under_load(lambda: self.server.process.send_signal(signal.SIGINT))

    def test_verb(self):
        self.stop_under_load(lambda: self.server.verb("stop"))

    def test_stop_is_not_held_up_by_a_client_that_hangs(self):
        """A client that never reads its replies must not keep the mirror from being marked clean."""
        with Wire(self.server.socket) as deaf, Wire(self.server.socket) as stalled:
            deaf.go("data")
            for cookie in range(64):
                deaf.request(READ, offset=0, length=4 * MiB, cookie=cookie)
            stalled.go("data")
            stalled.request(WRITE, offset=0, length=MiB, payload=b"x" * 1000)
            self.stop_under_load(lambda: self.server.process.send_signal(signal.SIGTERM))


if __name__ == "__main__":
    unittest.main()
