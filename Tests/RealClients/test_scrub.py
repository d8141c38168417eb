"""Scrub: which block differs on which plex, remembered, repaired; and its count is exact: zero is zero."""

import json
import mmap
import os
import random
import re
import signal
import threading
import unittest

from plexus import Case, FioLoad, KiB, MiB, sha256, wait_until

SIZE = 48 * MiB
BLOCK = 4 * KiB


class Scrubbed(Case):
    """Mirrors with contents, damage behind their back, and what scrubs say of it."""

    def served(self, *names: str, options=()) -> list:
        """A mirror of these disks, in sync, with random contents with holes; `self.server`, `self.disks`."""
        first = self.random_disk(names[0], SIZE)
        self.plexus("create", "data", "--from", first)
        self.server = self.serve((first,), *options)
        self.disks = [first]
        for name in names[1:]:
            self.disks.append(self.disk(name))
            self.server.verb("add", "data", self.disks[-1], "--create")
        self.server.wait_healthy()
        return self.disks

    def damage(self, disk, offset: int, length: int = 16) -> bytes:
        """Other bytes at this place of a disk, behind the server's back; returns the block that results."""
        with open(disk, "r+b") as file:
            file.seek(offset)
            data = bytes(byte ^ 0x5A for byte in file.read(length))
            file.seek(offset)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return self.block(disk, offset)

    def block(self, disk, offset: int) -> bytes:
        with open(disk, "rb") as file:
            file.seek(offset & ~(BLOCK - 1))
            return file.read(BLOCK)

    def status(self) -> dict:
        return self.server.mirror()["scrub"]

    def scrub(self, *options):
        self.server.verb("scrub", "data", *options)
        self.server.verb("wait", "data", "--for", "idle", "--timeout", "120")
        self.assertFalse(self.status()["running"])

    def report(self) -> dict:
        return json.loads(self.server.verb("scrub", "data", "--report", "--json").stdout)

    def open_entries(self) -> list[dict]:
        return [entry for entry in self.report()["entries"] if entry["state"] == "open"]


class TwoPlexes(Scrubbed):
    def test_damage_is_found_told_and_repaired_with_the_version_that_is_preferred(self):
        one, two = self.served("a.img", "b.img")
        self.assertIsNone(self.status())
        self.scrub()
        self.assertEqual(self.status()["mismatches"], 0)
        good = self.block(one, 3 * MiB)
        bad = self.damage(two, 3 * MiB + 100)
        self.damage(one, 20 * MiB + 5000)
        self.scrub()
        status = self.status()
        self.assertEqual(status["mismatches"], 2)
        self.assertEqual(set(status), {
            "running", "lastFinished", "mismatches", "done", "total", "bytesPerSecond", "etaSeconds", "waiting",
            "limit", "repair", "repaired", "unreadable"})
        entries = self.open_entries()
        self.assertEqual([entry["offset"] for entry in entries], [3 * MiB, 20 * MiB + 4096])
        self.assertEqual([version["plex"] for version in entries[0]["versions"]], [0, 1])
        self.assertEqual(len({version["crc32c"] for version in entries[0]["versions"]}), 2)
        self.assertEqual({entry["verdict"] for entry in entries}, {"differs"})
        self.assertRegex(self.server.verb("scrub", "data", "--report").stdout, rf"2 blocks differ(.|\n)*{3 * MiB}\+4096")
        # Healthy, and told all the same.
        mirror = self.server.mirror()
        self.assertEqual(mirror["state"], "healthy")
        self.assertIn("plexus scrub data --report", mirror["action"])
        self.assertIn("2 blocks differ", self.server.verb("status", "data", "-x").stdout)
        codes = [json.loads(line)["code"] for line in self.server.verb("events", "--json").stdout.splitlines()]
        self.assertEqual(codes.count("SCRUB_MISMATCH"), 2)
        # Nobody guesses.
        refused = self.server.verb("scrub", "data", "--repair", code=1)
        self.assertIn("--prefer PLEX", refused.stderr)
        self.scrub("--repair", "--prefer", one)
        self.assertEqual(self.status()["mismatches"], 0)
        self.assertEqual(self.block(two, 3 * MiB), good)
        self.assertNotEqual(good, bad)
        report = self.report()
        self.assertEqual({(entry["state"], entry["source"]) for entry in report["entries"]}, {("repaired", 0)})
        self.assert_clean_end(self.server, one, two)
        # Each disk says so by itself.
        for disk in (one, two):
            found = json.loads(self.plexus("examine", disk, "--json").stdout)["disks"][0]["scrub"]
            self.assertEqual(found["entries"], report["entries"])
            self.assertEqual((found["running"], found["mismatches"], found["repaired"]), (False, 0, 2))
            self.assertRegex(self.plexus("examine", disk).stdout, rf"scrub: 0 blocks differ(.|\n)* {3 * MiB}\+4096.*repaired")

    def test_what_was_found_outlives_the_server_and_is_closed_by_overwriting_it(self):
        self.need("nbdcopy")
        one, two = self.served("a.img", "b.img")
        self.damage(two, 9 * MiB)
        self.scrub()
        self.server.kill()
        self.server = self.serve((one, two))
        self.server.wait_healthy()
        self.assertEqual(self.status()["mismatches"], 1)
        self.assertEqual([entry["offset"] for entry in self.open_entries()], [9 * MiB])
        self.call("nbdcopy", self.random_disk("new.img", SIZE, seed=8), self.server.uri())
        self.scrub("--all")
        self.assertEqual(self.status()["mismatches"], 0)
        self.assertEqual([entry["state"] for entry in self.report()["entries"]], ["gone"])
        self.assert_clean_end(self.server, one, two)

    def test_hole_beside_data_is_compared(self):
        one, two = self.served("a.img", "b.img")
        with open(one, "rb") as file:
            hole = next(offset for offset in range(0, SIZE, MiB) if not any(os.pread(file.fileno(), MiB, offset)))
        self.damage(two, hole + 8192)
        self.scrub()
        self.assertEqual([entry["offset"] for entry in self.open_entries()], [hole + 8192])

    def test_one_plex_alone_is_refused_with_the_next_command(self):
        self.served("a.img", "b.img")
        self.server.verb("offline", "data", "1")
        refused = self.server.verb("scrub", "data", code=1)
        self.assertIn("plexus join data DISK", refused.stderr)

    def test_killed_in_the_middle_it_goes_on_from_there(self):
        one, two = self.served("a.img", "b.img")
        self.damage(one, 4 * KiB)
        self.damage(two, SIZE - 4 * KiB)
        self.server.verb("scrub", "data", "--limit", "2M")
        self.server.verb("scrub", "data", "--all")
        wait_until(lambda: self.status()["mismatches"] == 1 and self.status()["done"] > 12 * MiB, "a third to be done")
        self.assertIsNone(self.status()["waiting"])
        self.server.kill()
        self.server = self.serve((one, two))
        status = self.status()
        self.assertGreaterEqual(status["done"], 2 * MiB)
        self.server.verb("wait", "data", "--for", "idle", "--timeout", "120")
        self.assertEqual([entry["offset"] for entry in self.open_entries()], [4 * KiB, SIZE - 4 * KiB])
        log = self.server.verb("events", "data").stdout
        self.assertEqual(log.count("SCRUB_STARTED"), 1)
        self.assertEqual(len(re.findall("SCRUB_FINISHED", log)), 1)

    def test_stopped_by_the_user_it_stays_so(self):
        one, two = self.served("a.img", "b.img")
        self.server.verb("scrub", "data", "--limit", "1M")
        self.server.verb("scrub", "data", "--all")
        self.assertIn("scrub:", self.server.verb("status", "data").stdout)
        self.server.verb("scrub", "data", "--stop")
        self.assertFalse(self.status()["running"])
        self.server.stop()
        self.server = self.serve((one, two))
        self.assertFalse(self.status()["running"])
        self.assertIsNone(self.status()["lastFinished"])

    def test_zero_is_zero_under_load_while_plexes_come_and_go(self):
        self.need("fio")
        disks = self.served("a.img", "b.img", "c.img")
        load = FioLoad(self, self.server.uri(), size="24m")
        load.wait_rounds()
        for _ in range(3):
            self.server.verb("scrub", "data", "--all")
            self.server.verb("offline", "data", "2")
            load.wait_rounds()
            self.server.verb("online", "data", "2")
            self.server.wait_healthy()
            self.server.verb("wait", "data", "--for", "idle", "--timeout", "120")
            self.assertEqual(self.status()["mismatches"], 0)
        load.finish()
        self.assertEqual(self.report()["entries"], [])
        self.assert_clean_end(self.server, *disks)

    def test_metadata_of_a_scrub_are_gone_with_the_mirror(self):
        one, two = self.served("a.img", "b.img")
        self.damage(two, 9 * MiB)
        self.scrub()
        self.server.stop()
        self.plexus("create", "data", one, two, "--force")
        self.server = self.serve((one, two))
        self.server.wait_healthy()
        self.assertIsNone(self.status())


class ThreePlexes(Scrubbed):
    def test_each_plex_damaged_in_turn_is_found_in_one_scrub_and_outvoted(self):
        disks = self.served("a.img", "b.img", "c.img")
        good = [sha256_of_data(disk) for disk in disks]
        for number, disk in enumerate(disks):
            self.damage(disk, (2 + 7 * number) * MiB)
        self.scrub()
        entries = self.open_entries()
        self.assertEqual([entry["offset"] for entry in entries], [2 * MiB, 9 * MiB, 16 * MiB])
        odd = [[version["plex"] for version in entry["versions"] if version["odd"]] for entry in entries]
        self.assertEqual(odd, [[0], [1], [2]])
        self.scrub("--repair")
        self.assertEqual(self.status()["mismatches"], 0)
        self.assertEqual(self.status()["repaired"], 3)
        self.server.stop()
        self.assertEqual([sha256_of_data(disk) for disk in disks], good)


class Scheduled(Scrubbed):
    def test_configuration_says_when_and_how_fast(self):
        config = self.dir / "plexus.toml"
        disks = self.create(size=SIZE)
        names = ", ".join(f'"{disk}"' for disk in disks)
        config.write_text(f'disks = [{names}]\nscrub-every = "1m"\nscrub-limit = "64M"\n')
        self.server = self.serve([], "--config", config)
        self.server.wait_healthy()
        # A mirror just made has time.
        self.assertIsNone(self.status())
        wait_until(lambda: (self.status() or {}).get("lastFinished"), "a scrub to begin by itself, and end", 150)
        self.assertEqual(self.status()["limit"], 64 * MiB)
        config.write_text(f'disks = [{names}]\nscrub-every = "30d"\n')
        self.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.status()["limit"] is None, "the limit to be lifted")
        bad = self.dir / "bad.toml"
        bad.write_text(f'disks = [{names}]\nscrub-every = "soon"\n')
        refused = self.plexus("serve", "--config", bad, code=1)
        self.assertIn("line 2: scrub-every: soon is no time such as 30d", refused.stderr)


class ChangingBuffer(Scrubbed):
    """A client that changes its pages while they are being written makes no plexes differ: payload arrives once."""

    def test_pages_that_change_while_they_are_written_count_zero(self):
        self.need_fuse()
        self.need_loop()
        disks = self.served("a.img", "b.img")
        device = self.loop(self.fuse(self.server.uri(), "data"), "--direct-io=on")
        buffer = mmap.mmap(-1, 256 * KiB)
        done = threading.Event()

        def change():
            number = 0
            while not done.is_set():
                number += 1
                for offset in range(0, len(buffer), 512):
                    buffer[offset:offset + 4] = (number & 0xFFFFFFFF).to_bytes(4, "little")

        changer = threading.Thread(target=change)
        file = os.open(device, os.O_RDWR | os.O_DIRECT)
        changer.start()
        try:
            choice = random.Random(3)
            for number in range(400):
                os.pwrite(file, buffer, choice.randrange(SIZE // len(buffer)) * len(buffer))
                if number == 200:
                    self.server.verb("scrub", "data", "--all")
        finally:
            done.set()
            changer.join()
            os.fsync(file)
            os.close(file)
        self.unloop(device)
        self.server.verb("wait", "data", "--for", "idle", "--timeout", "120")
        self.scrub("--all")
        self.assertEqual(self.status()["mismatches"], 0)
        self.assertEqual(self.report()["entries"], [])
        self.unfuse(self.dir / "fuse-data")
        self.assert_clean_end(self.server, *disks)


def sha256_of_data(disk) -> str:
    """Of the mirror's data, which lie at the beginning of each disk."""
    copy = disk.with_suffix(".data")
    with open(disk, "rb") as source, open(copy, "wb") as target:
        target.write(source.read(SIZE))
    return sha256(copy)


if __name__ == "__main__":
    unittest.main()
