"""fio's nbd engine with verification, at rest and while plexes are taken away and given back."""

import unittest

from plexus import Case, FioLoad, MiB, fio


class Verify(Case):
    def setUp(self):
        super().setUp()
        self.need("fio")
        self.server = self.mirror()

    def test_random_writes_on_one_connection(self):
        fio(self, self.server.uri(), "bsrange=512-256k", "iodepth=32", size="64m")
        self.assert_clean_end(self.server)

    def test_random_writes_on_four_connections(self):
        fio(self, self.server.uri(), "bsrange=512-64k", "iodepth=32", size="24m", jobs=4)
        self.assert_clean_end(self.server)

    def test_four_connections_on_the_same_blocks_leave_identical_plexes(self):
        """Overlapping writes in flight may land in any order, but in the same order on both plexes."""
        fio(self, self.server.uri(), "offset_increment=0", "bs=4k", "iodepth=16", "norandommap", "verify=0", "io_size=16m",
            "size=256k", "randrepeat=0", jobs=4)
        self.assert_clean_end(self.server)

    def test_every_sixteenth_write_is_followed_by_a_flush(self):
        fio(self, self.server.uri(), "fsync=16", size="16m")
        self.assert_clean_end(self.server)

    def test_sequential_writes_in_large_blocks(self):
        fio(self, self.server.uri(), "rw=write", "bs=1m", "iodepth=4", size="96m")
        self.assert_clean_end(self.server)

    def test_mixed_reads_and_writes(self):
        fio(self, self.server.uri(), "rw=randrw", "verify_backlog=256", size="32m")
        self.assert_clean_end(self.server)

    def test_trims_and_writes_leave_identical_plexes(self):
        """fio trims and writes the same block at once, so that its own verification cannot know the contents."""
        fio(self, self.server.uri(), "rw=randtrimwrite", "bsrange=512-64k", "verify=0", size="64m")
        self.assert_clean_end(self.server)

    def test_blocks_at_any_512_byte_boundary(self):
        fio(self, self.server.uri(), "bsrange=512-16k", "blockalign=512", "iodepth=32", size="16m")
        self.assert_clean_end(self.server)


class UnderLoad(Case):
    """A plex leaves and returns at runtime: the client sees no error, and both plexes end the same."""

    JOBS = 1

    def setUp(self):
        super().setUp()
        self.need("fio")
        self.server = self.mirror(size=192 * MiB)
        self.load = FioLoad(self, self.server.uri(), "verify_backlog=512", "bsrange=512-32k", jobs=self.JOBS)

    def under_load(self, *verb):
        self.server.wait_clients()
        self.server.verb(*verb)
        self.load.wait_rounds()

    def wait_in_sync(self, disk):
        self.server.wait_healthy()
        self.assertEqual(self.server.plex_on(disk)["state"], "in-sync")

    def finish(self):
        self.load.wait_rounds()
        self.load.finish()
        self.assert_clean_end(self.server)

    def test_plex_offline_and_online_again(self):
        for index in (1, 0):
            self.under_load("offline", "data", index)
            mirror = self.server.mirror()
            self.assertEqual(mirror["state"], "degraded")
            self.assertTrue(mirror["reason"] and mirror["action"])
            self.assertEqual(self.server.plex(index)["state"], "offline")
            self.under_load("online", "data", index)
            self.wait_in_sync(self.server.disks[index])
        self.finish()

    def test_plex_broken_off_and_joined_again(self):
        for index in (1, 0):
            disk = self.server.disks[index]
            self.under_load("break", "data", disk)
            # It stays known, so that it can be joined again.
            self.assertEqual(self.server.plex_on(disk)["state"], "offline")
            self.under_load("join", "data", disk)
            self.wait_in_sync(disk)
        self.finish()

    def test_plex_forgotten_and_joined_as_a_new_one(self):
        disk = self.server.disks[1]
        self.under_load("break", "data", 1, "--nokeep")
        self.under_load("join", "data", disk)
        self.wait_in_sync(disk)
        self.finish()

    def test_offline_again_in_the_middle_of_a_resync(self):
        """An interrupted resync must not be taken for a finished one."""
        for _ in range(3):
            self.server.wait_clients()
            self.server.verb("offline", "data", 1)
            self.load.wait_rounds()
            self.server.verb("online", "data", 1)  # The next offline comes as soon as the command line can.
        self.wait_in_sync(self.server.disks[1])
        self.finish()


class WithoutSpares(Case):
    def test_disk_of_the_same_size_joins_a_mirror_that_fills_its_disks(self):
        disks = [self.disk(name, 48 * MiB) for name in ("a.img", "b.img")]
        self.plexus("create", "data", *disks, "--spares", 0)
        server = self.serve(disks)
        server.wait_healthy()
        server.verb("break", "data", 1, "--nokeep")
        server.verb("join", "data", disks[1])
        server.wait_healthy()
        self.assert_clean_end(server)


class UnderLoadOnFourConnections(UnderLoad):
    JOBS = 4


class ThreePlexes(Case):
    def test_two_of_three_leave_and_return_under_load(self):
        self.need("fio")
        server = self.mirror(disks=("a.img", "b.img", "c.img"))
        load = FioLoad(self, server.uri(), "verify_backlog=512")
        for index in (0, 2):
            server.wait_clients()
            server.verb("offline", "data", index)
            load.wait_rounds()
        self.assertEqual(server.mirror()["state"], "degraded")
        for index in (2, 0):
            server.wait_clients()
            server.verb("online", "data", index)
            load.wait_rounds()
        server.wait_healthy()
        load.finish()
        self.assert_clean_end(server)


if __name__ == "__main__":
    unittest.main()
