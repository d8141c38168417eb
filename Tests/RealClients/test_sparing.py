"""Blocks that a disk does not take: they go to its spare pool, and clients see nothing of it."""

import json
import unittest

from plexus import MiB, wait_until
from sickdisk import BLOCK, PLACE, SIZE, BadBlock


class Sparing(BadBlock):
    def events_of(self, *codes):
        return [(event["code"], event["offset"], event["length"]) for event in self.server.events()
                if event["code"] in codes]

    def examine(self):
        return json.loads(self.plexus("examine", self.sick.file, "--json").stdout)["disks"][0]

    def test_write_that_the_disk_does_not_take_is_spared(self):
        self.start()
        self.io("write -P 0x11 4M 2M")
        self.sick.stubborn.touch()
        self.io("write -P 0x5a 4M 2M")
        mirror, plex = self.server.mirror(), self.server.plex(0)
        self.assertEqual((mirror["state"], plex["state"]), ("healthy", "in-sync"))
        self.assertEqual((plex["spared"], plex["remapped"], plex["badRanges"]), (1, 1, []))
        self.assertEqual(plex["sparesFree"], 1023)
        self.assertEqual(self.events_of("BAD_BLOCK", "SPARING", "SPARED"),
                         [(code, PLACE, BLOCK) for code in ("BAD_BLOCK", "SPARING", "SPARED")])
        self.sick.unreadable.touch()
        self.read_all()
        self.assertIn("1 blocks lie in the spare pool", self.server.verb("status").stdout)
        # Another server finds it there, after a kill as after a stop.
        for ending in ("kill", "stop"):
            self.server.kill() if ending == "kill" else self.server.stop()
            place = self.examine()["remaps"]["blocks"]
            self.assertEqual([block[0] for block in place], [PLACE])
            self.server = self.serve((self.sick.file, self.good), label=f"after-{ending}")
            self.server.wait_healthy()
            self.read_all()
            self.io("write -P 0x5b 4M 2M")
            self.read_all("0x5b")
            self.io("write -P 0x5a 4M 2M")
        self.assertEqual(self.server.plex(0)["remapped"], 1)
        self.server.stop()

    def test_unreadable_block_that_can_not_be_written_anew_is_spared(self):
        self.start()
        self.io("write -P 0x5a 4M 2M")
        self.sick.unreadable.touch()
        self.sick.stubborn.touch()
        self.read_all()
        wait_until(lambda: self.server.plex(0)["spared"] == 1, "the block to be spared")
        self.assertEqual(self.server.mirror()["state"], "healthy")
        self.assertEqual(self.server.plex(0)["corrected"], 0)
        # The good plex may go: everything is there.
        self.server.verb("offline", "data", "1")
        self.read_all(times=1)
        self.server.stop()

    def test_fio_with_verification_sees_nothing(self):
        self.need("fio")
        self.start()
        self.sick.stubborn.touch()
        self.sick.unreadable.touch()
        self.call("fio", "--name=v", "--ioengine=nbd", f"--uri={self.server.uri()}", "--rw=randrw", "--bsrange=4k-64k",
                  "--offset=4M", "--size=2M", "--io_size=8M", "--iodepth=16", "--verify=crc32c", "--verify_fatal=1",
                  "--fsync=32", cwd=self.dir, timeout=300)
        self.assertEqual(self.server.plex(0)["state"], "in-sync")
        self.assertEqual(self.server.plex(0)["remapped"], 1)
        self.server.verb("offline", "data", "1")
        self.io("read 4M 2M")
        self.server.stop()

    def test_disk_that_is_good_again_gets_its_blocks_back(self):
        self.start()
        self.sick.stubborn.touch()
        self.io("write -P 0x5a 4M 2M")
        told = self.server.verb("reactivate", "data", "0").stdout
        self.assertIn("1 stay in its spare pool", told)
        self.sick.stubborn.unlink()
        told = self.server.verb("reactivate", "data", "0").stdout
        self.assertIn("1 blocks are back", told)
        plex = self.server.plex(0)
        self.assertEqual((plex["remapped"], plex["sparesFree"], plex["spared"]), (0, 1024, 1))
        self.server.verb("clear", "data", "0")
        self.assertEqual(self.server.plex(0)["spared"], 0)
        self.server.stop()
        self.assertEqual(self.examine()["remaps"]["blocks"], [])
        self.assert_identical(SIZE - 8 * MiB, self.sick.file, self.good)

    def test_copy_that_is_broken_off_is_whole_or_its_blocks_are_told(self):
        self.start()
        self.sick.stubborn.touch()
        self.io("write -P 0x5a 4M 2M")
        refused = self.server.verb("break", "data", "0", "--materialise", code=1)
        self.assertIn(str(PLACE), refused.stderr)
        self.assertEqual(self.server.plex(0)["state"], "in-sync")
        self.sick.stubborn.unlink()
        self.server.verb("break", "data", "0", "--materialise")
        self.assertIsNone(self.examine().get("remaps"))
        self.assert_identical(SIZE - 8 * MiB, self.sick.file, self.good)
        # Served as a mirror of its own where it could not be put back.
        self.server.verb("join", "data", self.sick.file)
        self.server.wait_healthy()
        self.sick.stubborn.touch()
        self.io("write -P 0x77 4M 2M")
        told = self.server.verb("break", "data", "0").stdout
        self.assertIn("do not mount it", told)
        self.server.stop()
        copy = self.serve((self.sick.file,), label="copy")
        name = copy.status()["mirrors"][0]["name"]
        self.call("qemu-io", "-f", "raw", "-r", "-c", "read -P 0x77 4M 2M", copy.uri(name))
        # As a plain disk it would not read right.
        refused = copy.verb("dissolve", name, code=1)
        self.assertIn("reactivate", refused.stderr)
        copy.stop()

    def test_zeroes_and_trims_of_a_spared_block_with_metadata_in_a_file(self):
        self.start()
        full, meta = self.sick.file, self.dir / "meta"
        self.server.verb("break", "data", "0", "--nokeep")
        # The data of the mirror take the whole disk up: its pool lies in the other file.
        wholes = (self.dir / "whole.img", self.dir / "other.img")
        self.server.stop()
        self.plexus("create", "big", *wholes, "--size", str(SIZE))
        server = self.serve(wholes, label="big")
        server.verb("add", "big", full, "--metadata", meta)
        wait_until(lambda: server.mirror("big")["state"] == "healthy", "the disk with its metadata elsewhere")

        def io(*commands):
            words = [word for command in commands for word in ("-c", command)]
            return self.call("qemu-io", "-f", "raw", *words, server.uri("big"))

        self.sick.stubborn.touch()
        io("write -P 0x5a 4M 2M")
        plex = server.plex_on(meta, "big")
        self.assertEqual((plex["state"], plex["remapped"]), ("in-sync", 1))
        length = meta.stat().st_size
        for command in (f"write -z {PLACE - BLOCK} {3 * BLOCK}", f"discard {PLACE - BLOCK} {3 * BLOCK}",
                        f"write -z -u {PLACE} {BLOCK}"):
            io("write -P 0x5a 4M 2M")
            io(command)
            for _ in range(4):
                io(f"read -P 0 {PLACE} {BLOCK}", f"read -P 0x5a 4M {PLACE - BLOCK - 4 * MiB}")
        self.assertEqual(meta.stat().st_size, length)
        server.verb("offline", "big", "0")
        server.verb("offline", "big", "1")
        io(f"read -P 0 {PLACE} {BLOCK}")
        server.stop()
        # The file is still what it was.
        again = self.serve((*wholes, meta), label="again")
        self.assertEqual(again.plex_on(meta, "big")["remapped"], 1)
        again.stop()

    def test_disk_without_a_pool_is_failed_by_a_write_error(self):
        self.start("--spares", "0")
        self.sick.stubborn.touch()
        self.io("write -P 0x5a 4M 2M")
        self.server.wait_state("degraded")
        self.assertEqual(self.server.plex(0)["state"], "failed")
        self.assertIn("write error EIO", self.server.plex(0)["reason"])
        # Its disk is good again.
        self.sick.stubborn.unlink()
        self.server.verb("reactivate", "data", "0")
        self.server.wait_healthy()
        self.server.stop()
        self.assert_identical(SIZE - 8 * MiB, self.sick.file, self.good)


if __name__ == "__main__":
    unittest.main()
