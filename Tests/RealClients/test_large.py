"""A sparse mirror of 1 TiB: what a crash costs depends on what was being written, not on the size."""

import time
import unittest

from plexus import Case, MiB

TIB = 1 << 40


class Terabyte(Case):
    def setUp(self):
        super().setUp()
        self.need_libnbd()

    def connect(self, server):
        import nbd

        handle = nbd.NBD()
        handle.connect_uri(server.uri())
        return handle

    def test_crash_copies_dirty_regions_only_and_serves_at_once(self):
        # Made by `create`, so that nothing has to be copied to make them equal.
        disks = [self.disk("a.img"), self.disk("b.img")]
        self.plexus("create", "data", *disks, "--size", "1T")
        server = self.serve(disks)
        server.wait_healthy()
        region = server.mirror()["bitmap"]["regionSize"]
        handle = self.connect(server)
        data = bytes(range(256)) * 256
        offsets = [0, TIB // 2 + 12345 * 4096, TIB - len(data)]
        for offset in offsets:
            handle.pwrite(data, offset)
        server.kill()

        begun = time.monotonic()
        server = self.serve(disks)
        handle = self.connect(server)
        self.assertEqual(handle.pread(len(data), offsets[1]), data)
        print(f"first read {time.monotonic() - begun:.2f} s after the start", end=" ", flush=True)
        for offset in offsets:
            self.assertEqual(handle.pread(len(data), offset), data)
        server.wait_healthy()
        copied = sum(event["length"] for event in server.events() if event["code"] == "RESYNC_FINISHED")
        self.assertLessEqual(copied, len(offsets) * region)
        handle.shutdown()
        server.stop()
        for disk in disks:
            # The private area is allocated, most of it the spare pool; holes in the data stay holes.
            self.assertLess(disk.stat().st_blocks * 512, 512 * MiB)


if __name__ == "__main__":
    unittest.main()
