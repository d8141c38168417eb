"""Disks that do not answer: reads are answered by the other, a write waits once, and the disk comes back by itself."""

import contextlib
import json
import time
import unittest

from latedisk import LateDisk
from plexus import Case, MiB, wait_until

SIZE = 32 * MiB
BUSY = 16 * MiB


class Late(Case):
    """A mirror of a good disk and one that falls silent when the test says so."""

    def setUp(self):
        super().setUp()
        self.need("nbdkit", "nbdfuse", "qemu-io", "fio")
        self.need_fuse()
        self.late = LateDisk(self, "late", SIZE)
        self.good = self.disk("good.img", SIZE)

    def tearDown(self):
        # Or neither the server nor the file system that leads there would end.
        with contextlib.suppress(OSError, RuntimeError):
            self.late.resume()
        super().tearDown()

    def start(self, *options, disks=None):
        self.plexus("create", "data", self.late.file, self.good)
        self.server = self.serve(disks or (self.late.file, self.good), *options)
        self.server.wait_healthy()

    def io(self, *commands: str, code: int = 0):
        words = [word for command in commands for word in ("-c", command)]
        # Whoever could write would flush at the end.
        access = [] if any(command.startswith("write") for command in commands) else ["-r"]
        return self.call("qemu-io", *access, "-f", "raw", *words, self.server.uri(), code=code)

    def fio(self, *options):
        return self.call("fio", "--name=v", "--ioengine=nbd", f"--uri={self.server.uri()}", f"--size={BUSY}",
                         *options, cwd=self.dir, timeout=300)

    def codes(self):
        return [event["code"] for event in self.server.events()]

    def test_write_waits_once_and_the_disk_comes_back_by_delta(self):
        self.start("--auto-rejoin", "--rejoin-delay", "1")
        self.io("write -P 0x11 0 16M", "flush")
        self.late.pause()
        self.io("write -P 0x22 4M 1M", "flush", "read -P 0x22 4M 1M")
        plex = self.server.plex(0)
        self.assertEqual(plex["state"], "failed")
        self.assertIn("no answer in time", plex["reason"])
        self.assertGreater(plex["unanswered"], 0)
        # Nobody waits any more, whatever is asked.
        self.io("write -P 0x33 8M 1M", "flush", "read -P 0x33 8M 1M", "read -P 0x11 0 4M")
        # The write may still land: until it has, the disk is not taken back.
        told = self.server.verb("join", "data", str(self.late.file), code=1).stderr
        self.assertRegex(told, "in use|outstanding")
        self.late.resume()
        wait_until(lambda: self.server.plex(0)["state"] == "in-sync", "the disk to come back by itself")
        self.server.wait_healthy()
        self.assertLess(self.server.mirror()["resync"]["total"], SIZE)
        self.server.verb("offline", "data", "1")
        self.io("read -P 0x11 0 4M", "read -P 0x22 4M 1M", "read -P 0x33 8M 1M")
        self.server.stop()

    def test_reads_go_to_the_other_disk(self):
        self.start("--write-deadline", "30")
        self.io("write -P 0x5a 0 16M", "flush")
        self.late.pause()
        begun = self.server.plex(0)["hedgedReads"]
        self.fio("--rw=randread", "--bs=4k", "--iodepth=4", "--io_size=4M")
        for _ in range(8):
            self.io("read -P 0x5a 0 4M")
        self.assertGreater(self.server.plex(0)["hedgedReads"], begun)
        # It owes nothing that was written: it stays, is asked no more, and when it answers it is read again.
        wait_until(lambda: self.read_and_look("slow"), "the disk to count as slow")
        self.assertEqual(self.server.plex(0)["state"], "in-sync")
        self.assertIn("in-sync, slow", self.server.verb("status").stdout)
        self.late.resume()
        wait_until(lambda: not self.read_and_look("slow"), "the disk to be read like the other again")
        self.assertEqual(self.server.plex(0)["unanswered"], 0)
        self.assertIn("PLEX_SLOW", self.codes())
        self.assertIn("PLEX_SLOW_ENDED", self.codes())
        self.server.stop()

    def read_and_look(self, key):
        self.fio("--rw=randread", "--bs=4k", "--iodepth=4", "--io_size=1M")
        return self.server.plex(0)[key]

    def test_fio_with_verification_sees_nothing(self):
        self.start("--auto-rejoin", "--rejoin-delay", "1")
        run = self.spawn("fio", "fio", "--name=v", "--ioengine=nbd", f"--uri={self.server.uri()}", f"--size={BUSY}",
                         "--rw=randrw", "--bsrange=4k-64k", "--iodepth=16", "--verify=crc32c",
                         "--verify_fatal=1", "--fsync=32", "--time_based", "--runtime=14", "--fallocate=none",
                         cwd=self.dir)
        for _ in range(2):
            time.sleep(1)
            self.late.pause()
            wait_until(lambda: self.server.plex(0)["state"] == "failed", "the silent disk to be given up")
            self.late.resume()
            wait_until(lambda: self.server.plex(0)["state"] == "in-sync", "the disk to come back")
        self.assertEqual(run.wait(timeout=120), 0)
        self.server.wait_healthy()
        size = self.server.mirror()["size"]
        self.assertEqual(self.codes().count("PLEX_FAILED"), 2)
        self.server.stop()
        self.call("cmp", "-n", size, self.late.image, self.good)

    def test_only_good_disk_is_waited_for(self):
        self.start("--no-auto-rejoin")
        self.server.verb("offline", "data", "1")
        self.late.pause()
        writer = self.spawn("qemu-io", "qemu-io", "-f", "raw", "-c", "write -P 0x44 0 1M", "-c", "flush", self.server.uri())
        wait_until(lambda: self.server.mirror()["state"] == "suspended", "the silence to be told")
        self.assertIn("the only good one, has not answered", self.server.mirror()["reason"])
        self.assertEqual(self.server.plex(0)["state"], "in-sync")
        self.assertIsNone(writer.poll())
        self.late.resume()
        self.assertEqual(writer.wait(timeout=60), 0)
        wait_until(lambda: self.server.mirror()["state"] == "degraded", "the mirror to go on")
        self.io("read -P 0x44 0 1M")
        self.server.stop()

    def test_server_stops_although_a_disk_never_answers(self):
        self.start()
        self.late.pause()
        self.io("write -P 0x22 4M 1M", "flush")
        self.server.stop()
        self.late.resume()
        report = json.loads(self.plexus("examine", self.good, "--json").stdout)["disks"][0]
        self.assertTrue(report["clean"])
        # The disk that was left behind gets what it missed.
        self.server = self.serve((self.late.file, self.good), "--auto-rejoin", "--rejoin-delay", "0", label="again")
        self.server.wait_healthy()
        self.server.verb("offline", "data", "1")
        self.io("read -P 0x22 4M 1M")
        self.server.stop()

    def test_write_mostly_disk_is_read_in_need_only(self):
        self.plexus("create", "data", self.late.file, self.good, "--write-mostly", self.late.file)
        self.server = self.serve((self.late.file, self.good))
        self.server.wait_healthy()
        self.io("write -P 0x5a 0 16M", "flush")
        before = self.reads()
        for _ in range(6):
            self.io("read -P 0x5a 0 16M")
        self.assertEqual(self.reads(), before)
        self.assertIn("write-mostly", self.server.verb("status").stdout)
        self.server.verb("write-mostly", "data", "0", "--off")
        for _ in range(6):
            self.io("read -P 0x5a 0 16M")
        self.assertGreater(self.reads(), before)
        self.server.verb("write-mostly", "data", "0")
        self.server.kill()
        self.server = self.serve((self.late.file, self.good), label="again")
        self.server.wait_healthy()
        self.assertTrue(self.server.plex(0)["writeMostly"])
        self.server.verb("offline", "data", "1")
        self.io("read -P 0x5a 0 16M")
        self.server.stop()

    def test_slow_disk_is_read_in_need_only_and_missing_nothing(self):
        slow = LateDisk(self, "slow", SIZE, "rdelay=20ms")
        self.plexus("create", "data", slow.file, self.disk("other.img", SIZE))
        self.server = self.serve((slow.file, self.dir / "other.img"))
        self.server.wait_healthy()
        wait_until(lambda: self.read_and_look("slow"), "the disk to count as slow")
        self.fio("--rw=randrw", "--bsrange=4k-64k", "--iodepth=8", "--io_size=24M", "--verify=crc32c",
                 "--verify_fatal=1", "--fsync=32", "--fallocate=none")
        self.assertEqual(self.server.plex(0)["state"], "in-sync")
        size = self.server.mirror()["size"]
        self.server.stop()
        self.call("cmp", "-n", size, slow.image, self.dir / "other.img")

    def test_disk_whose_writes_take_too_long_is_given_up_once(self):
        slow = LateDisk(self, "slow", SIZE, "wdelay=4")
        self.disk("other.img", SIZE)
        # Made on the disk itself: each of these writes would take its four seconds.
        self.plexus("create", "data", slow.image, self.dir / "other.img", "--force")
        self.server = self.serve((slow.file, self.dir / "other.img"))
        self.fio("--rw=randrw", "--bsrange=4k-64k", "--iodepth=8", "--io_size=8M", "--verify=crc32c",
                 "--verify_fatal=1", "--fsync=32", "--fallocate=none")
        self.assertEqual(self.server.plex(0)["state"], "failed")
        self.assertEqual(self.server.plex(1)["state"], "in-sync")
        self.assertEqual(self.codes().count("PLEX_FAILED"), 1)
        self.server.stop()

    def reads(self):
        return self.server.plex(0)["latency"]["read"]["requests"]


if __name__ == "__main__":
    unittest.main()
