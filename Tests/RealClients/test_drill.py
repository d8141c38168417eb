"""`plexus drill`: would each disk do alone? Damage on one disk is found on that disk, and nothing is written to any."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

from plexus import Case, KiB, MiB, binary, wait_until
from sickdisk import BadBlock

SIZE = 96 * MiB
# Where the partitions of `partitioned` begin.
SYSTEM, DATA = 1 * MiB, 42 * MiB

# The first bytes of a program for UEFI on x86-64: "MZ", and where that says "PE", the machine.
LOADER = b"MZ" + bytes(58) + b"\x40\0\0\0" + b"PE\0\0\x64\x86" + bytes(4000)


class Drills(Case):
    def setUp(self):
        super().setUp()
        self.need("nbdkit", "nbdfuse", "nbdcopy", "mke2fs", "e2fsck")
        self.need_fuse()

    def contents(self, size: int) -> Path:
        return self.disk("contents.img", size)

    def install(self, server, image: Path):
        """Through the mirror, as clients do it."""
        self.call("nbdcopy", "--flush", image, server.uri())

    def ext4(self, size: int, *options) -> Path:
        image = self.contents(size)
        self.call("mke2fs", "-q", "-t", "ext4", "-d", "/etc/apt", *options, image)
        return image

    def partitioned(self, size: int, *, table: tuple[str, ...] = ()) -> Path:
        """A GPT with an ESP that has a loader, and ext4."""
        self.need("sgdisk", "mkfs.vfat", "mmd", "mcopy", "mdir", "fsck.fat")
        image = self.contents(size)
        self.call("sgdisk", "-n", "1:2048:+40M", "-t", "1:ef00", "-n", f"2:{DATA // 512}:0", "-t", "2:8300", *table, image)
        system, loader = self.disk("system.img", 40 * MiB), self.dir / "loader.efi"
        loader.write_bytes(LOADER)
        self.call("mkfs.vfat", "-F", "32", "-s", "1", "-n", "ESP", system)
        self.call("mmd", "-i", system, "::/EFI", "::/EFI/BOOT", "::/EFI/debian")
        self.call("mcopy", "-i", system, loader, "::/EFI/BOOT/BOOTX64.EFI")
        self.call("mcopy", "-i", system, loader, "::/EFI/debian/shimx64.efi")
        data = self.disk("data.img", size - DATA - 1 * MiB)
        self.call("mke2fs", "-q", "-t", "ext4", "-d", "/etc/apt", data)
        for part, offset in ((system, SYSTEM), (data, DATA)):
            self.call("dd", f"if={part}", f"of={image}", "bs=1M", f"seek={offset // MiB}", "conv=notrunc,sparse", "status=none")
        return image

    def filled(self, make=None):
        """A healthy mirror with contents, and their size."""
        server = self.mirror(size=SIZE)
        size = server.mirror()["size"]
        self.install(server, (make or self.ext4)(size))
        return server, size

    def drill(self, server, *options, code: int = 0, env: dict | None = None) -> dict:
        """The report; whatever it says, no byte of a plex is another one afterwards, and nothing else is left."""
        temporary = Path(tempfile.mkdtemp(prefix="t", dir=self.dir))
        environment = {**os.environ, "TMPDIR": str(temporary), **(env or {})}
        before = self.digests(server)
        done = self.plexus("drill", "data", "--json", "--control", server.control, *options, code=code, env=environment)
        self.assertEqual(self.digests(server), before, "a drill changed a plex")
        self.assert_nothing_left(temporary)
        return json.loads(done.stdout)

    @staticmethod
    def digests(server) -> list[str]:
        """Of the data: what lies behind them, records of the mirror's state, is the server's."""
        found = []
        for disk in server.disks:
            with open(disk, "rb") as file:
                found.append(hashlib.sha256(file.read(server.mirror()["size"])).hexdigest())
        return found

    def assert_nothing_left(self, temporary: Path):
        self.assertEqual(os.listdir(temporary), [])
        with open("/proc/self/mounts", encoding="utf-8") as mounts:
            self.assertNotIn(str(temporary), mounts.read())

    def change(self, server, disk: Path, offset: int, data: bytes):
        """Bytes that the disk loses while nobody looks."""
        server.stop()
        with open(disk, "r+b") as file:
            file.seek(offset)
            file.write(data)
        again = self.serve(server.disks, label="again")
        again.wait_healthy()
        return again

    @staticmethod
    def check(report: dict, plex: int, name: str) -> dict:
        return next(check for check in report["plexes"][plex]["checks"] if check["name"] == name)

    def outcomes(self, report: dict, plex: int) -> dict[str, str]:
        return {check["name"]: check["outcome"] for check in report["plexes"][plex]["checks"]}

    def assert_only_fails(self, report: dict, plex: int, name: str, text: str):
        """The other plex passes, and every failure says what to do."""
        self.assertEqual((report["outcome"], report["plexes"][1 - plex]["outcome"]), ("fail", "pass"), report)
        failed = self.check(report, plex, name)
        self.assertEqual(failed["outcome"], "fail", report)
        self.assertIn(text, failed["text"])
        for check in report["plexes"][plex]["checks"]:
            if check["outcome"] == "fail":
                self.assertTrue(check["action"], check)


class DataDisks(Drills):
    def test_file_system_on_the_whole_disk_passes(self):
        server, _ = self.filled()
        report = self.drill(server)
        self.assertEqual((report["version"], report["mirror"], report["outcome"]), (1, "data", "pass"))
        self.assertEqual([plex["disk"] for plex in report["plexes"]], [str(disk) for disk in server.disks])
        for plex in (0, 1):
            self.assertEqual(self.outcomes(report, plex), {
                "copy": "pass", "partition table": "info", "whole disk": "pass", "EFI system partition": "info",
                "same as others": "pass"})
            self.assertEqual(self.check(report, plex, "whole disk")["text"], "ext4: clean")
        said = server.verb("drill", "data").stdout
        self.assertIn("drill of mirror data: pass", said)
        self.assertIn("not bootable: no EFI system partition", said)
        # With a boot wanted the same is a fault.
        report = self.drill(server, "--boot", code=1)
        self.assertEqual(self.check(report, 1, "EFI system partition")["outcome"], "fail")
        self.assertNotIn("boot", self.outcomes(report, 1))
        server.stop()

    def test_empty_mirror_has_nothing_to_fail(self):
        report = self.drill(self.mirror(size=SIZE))
        self.assertEqual(self.check(report, 0, "whole disk")["text"], "holds no file system that is known")

    def test_damaged_file_system_is_found_on_its_plex(self):
        server, _ = self.filled()
        # Behind superblock and descriptors: bitmaps and inodes.
        again = self.change(server, server.disks[1], 256 * KiB, b"\xA5" * 128 * KiB)
        self.assert_only_fails(self.drill(again, code=1), 1, "whole disk", "ext4: is damaged: ")

    def test_lost_beginning_of_a_file_system_is_found_by_comparison(self):
        server, _ = self.filled()
        again = self.change(server, server.disks[0], 0, bytes(64 * KiB))
        report = self.drill(again, code=1)
        self.assert_only_fails(report, 0, "same as others", "plex 1 has ext4 there")

    def test_xfs_passes_and_its_damage_is_found(self):
        self.need("mkfs.xfs", "xfs_repair")
        server = self.mirror(size=340 * MiB)
        image = self.contents(server.mirror()["size"])
        self.call("mkfs.xfs", "-q", image)
        self.install(server, image)
        report = self.drill(server)
        self.assertEqual(self.check(report, 0, "whole disk")["text"], "xfs: clean")
        # The free space of the first allocation group, behind its superblock.
        again = self.change(server, server.disks[0], 4096, b"\x5A" * 16 * KiB)
        self.assert_only_fails(self.drill(again, code=1), 0, "whole disk", "xfs: is damaged: ")

    def test_mounted_xfs_is_no_pass_and_no_damage(self):
        self.need("mkfs.xfs", "xfs_repair")
        self.need_loop()
        server = self.mirror(size=340 * MiB)
        image = self.contents(server.mirror()["size"])
        self.call("mkfs.xfs", "-q", image)
        self.install(server, image)
        device = self.loop(self.fuse(server.uri(), "data"))
        self.mount(device, self.dir / "mnt")
        self.call("cp", "-r", "/etc/apt", self.dir / "mnt")
        # Freezing writes a log that is to be replayed, too.
        self.call("fsfreeze", "-f", self.dir / "mnt")
        try:
            report = self.drill(server, code=2)
        finally:
            self.call("fsfreeze", "-u", self.dir / "mnt")
        skipped = self.check(report, 1, "whole disk")
        self.assertEqual((skipped["outcome"], skipped["action"]), ("skipped", "unmount it and run again"))
        self.assertIsNone(report["reason"])
        self.unmount(self.dir / "mnt")
        self.unloop(device)
        self.assertEqual(self.check(self.drill(server), 1, "whole disk")["text"], "xfs: clean")

    def test_btrfs_passes_and_its_damage_is_found(self):
        self.need("mkfs.btrfs", "btrfs")
        server = self.mirror(size=160 * MiB)
        image = self.contents(server.mirror()["size"])
        self.call("mkfs.btrfs", "-q", "-m", "single", "-d", "single", "--rootdir", "/etc/apt", image)
        self.install(server, image)
        self.assertEqual(self.check(self.drill(server), 0, "whole disk")["text"], "btrfs: clean")
        data = image.read_bytes()
        # All blocks of metadata, which have the file system's UUID behind their checksum.
        uuid = data[64 * KiB + 32:64 * KiB + 48]
        places = [place for place in range(1 * MiB, len(data), 4 * KiB)
                  if data[place + 32:place + 48] == uuid and place != 64 * MiB]
        again = self.change(server, server.disks[1], places[0], b"\x5A" * (places[-1] + 16 * KiB - places[0]))
        self.assert_only_fails(self.drill(again, code=1), 1, "whole disk", "btrfs: is damaged: ")

    def test_disk_whose_metadata_lie_elsewhere_is_looked_at_itself(self):
        disk = self.disk("full.img", SIZE)
        self.call("mke2fs", "-q", "-t", "ext4", "-d", "/etc/apt", disk)
        (self.dir / "elsewhere").mkdir()
        record = self.dir / "elsewhere" / "record"
        self.plexus("create", "data", "--from", disk, "--metadata", record, self.dir / "copy.img")
        server = self.serve((record, self.dir / "copy.img"))
        server.wait_healthy()
        server.disks[0] = disk  # Where the data are.
        report = self.drill(server)
        self.assertEqual([plex["disk"] for plex in report["plexes"]], [str(disk), str(self.dir / "copy.img")])
        self.assertEqual(self.check(report, 0, "whole disk")["text"], "ext4: clean")
        server.stop()

    def test_fat_on_the_whole_disk_is_no_partition_table(self):
        self.need("mkfs.vfat", "fsck.fat")

        def fat(size: int) -> Path:
            self.call("mkfs.vfat", self.contents(size))
            return self.dir / "contents.img"

        server, _ = self.filled(fat)
        self.assertEqual(self.check(self.drill(server), 1, "whole disk")["text"], "vfat: clean")

    def test_mirror_is_drilled_while_served_for_reading_only(self):
        server, _ = self.filled()
        server.stop()
        report = self.drill(self.serve(server.disks, "--read-only", label="again"))
        self.assertEqual(report["outcome"], "pass")

    def test_mounted_file_system_passes_by_its_journal(self):
        self.need_loop()
        server, _ = self.filled()
        device = self.loop(self.fuse(server.uri(), "data"))
        self.mount(device, self.dir / "mnt")
        # Open though deleted: an orphan. Synced: what is written later belongs to no drill.
        with open(self.dir / "mnt" / "deleted", "wb") as file:
            file.write(bytes(3 * MiB))
            (self.dir / "mnt" / "deleted").unlink()
            os.sync()
            self.call("cp", "-r", "/etc/apt", self.dir / "mnt" / "more")
            self.call("sync", "-f", self.dir / "mnt")
            # ext4 puts away its superblock and maps a little later.
            report = wait_until(lambda: self.quiet_drill(server), "a drill without writes")
            self.assertEqual(report["outcome"], "pass", report)
            self.assertEqual(self.check(report, 1, "whole disk")["text"], "ext4: journal replayed, clean")
        self.unmount(self.dir / "mnt")

    def quiet_drill(self, server) -> dict | None:
        done = self.plexus("drill", "data", "--json", "--control", server.control, code=None)
        self.assertIn(done.returncode, (0, 2), done.stdout)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def test_writes_make_it_inconclusive(self):
        self.need("fio")
        server, _ = self.filled()
        writer = self.fio(server, "randwrite")
        wait_until(lambda: server.mirror()["latency"]["write"]["requests"] > 1000, "writes")
        done = self.plexus("drill", "data", "--json", "--control", server.control, code=2)
        self.assertIsNone(writer.poll(), "the writer ended before the drill")
        report = json.loads(done.stdout)
        self.assertEqual(report["outcome"], "inconclusive")
        self.assertIn("was written during the drill", report["reason"])
        self.assertIn("fsfreeze", report["action"])
        for plex in (0, 1):
            outcomes = self.outcomes(report, plex)
            self.assertEqual((outcomes.pop("copy"), outcomes.pop("whole disk")), ("pass", "inconclusive"))
            self.assertEqual(set(outcomes.values()), {"inconclusive"})

    def fio(self, server, what: str):
        return self.spawn("fio", "fio", "--name=load", "--ioengine=nbd", f"--uri={server.uri()}", f"--rw={what}", "--bs=4k",
                          "--offset=64m", "--size=8m", "--time_based", "--runtime=600", "--iodepth=8", cwd=self.dir)

    def test_reads_disturb_nothing(self):
        self.need("fio")
        server, _ = self.filled()
        reader = self.fio(server, "randread")
        wait_until(lambda: server.mirror()["latency"]["read"]["requests"] > 1000, "reads")
        self.assertEqual(self.drill(server)["outcome"], "pass")
        self.assertIsNone(reader.poll(), "the reader ended before the drill")

    def test_plex_that_is_not_in_sync_fails_by_its_state(self):
        server, _ = self.filled()
        server.verb("offline", "data", "1")
        report = self.drill(server, code=1)
        self.assert_only_fails(report, 1, "copy", "is offline")
        self.assertEqual(self.outcomes(report, 1), {"copy": "fail"})
        server.verb("online", "data", "1")
        server.wait_healthy()
        self.drill(server)

    def test_vanished_disk_fails(self):
        server, _ = self.filled()
        server.disks[1].unlink()
        wait_until(lambda: server.mirror()["state"] != "healthy", "the loss of the disk")
        done = self.plexus("drill", "data", "--json", "--control", server.control, code=1)
        self.assert_only_fails(json.loads(done.stdout), 1, "copy", "is missing")

    def test_missing_checker_is_skipped_and_no_pass(self):
        server, _ = self.filled()
        tools = self.dir / "tools"
        tools.mkdir()
        for tool in ("nbdkit", "nbdfuse", "fusermount3", "setpriv"):
            (tools / tool).symlink_to(shutil.which(tool))
        report = self.drill(server, code=2, env={"PATH": str(tools)})
        self.assertEqual(self.check(report, 0, "whole disk"), {
            "name": "whole disk", "outcome": "skipped", "text": "ext4: install e2fsck (e2fsprogs)", "action": None})
        self.assertEqual(report["plexes"][0]["outcome"], "inconclusive")
        (tools / "e2fsck").symlink_to(shutil.which("e2fsck"))
        self.drill(server, env={"PATH": str(tools)})
        (tools / "nbdkit").unlink()
        report = self.drill(server, code=2, env={"PATH": str(tools)})
        self.assertIn("install nbdkit", self.check(report, 1, "whole disk")["text"])

    def test_signal_leaves_nothing_behind(self):
        server, _ = self.filled()
        temporary, tools = self.dir / "t", self.dir / "tools"
        temporary.mkdir()
        tools.mkdir()
        # A checker that takes its time.
        (tools / "e2fsck").write_text(f"#!/bin/sh\necho $$ >{self.dir}/checker\nexec sleep 600\n")
        (tools / "e2fsck").chmod(0o755)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            (self.dir / "checker").unlink(missing_ok=True)
            process = self.spawn("drill", binary(), "drill", "data", "--control", server.control,
                                 env={**os.environ, "TMPDIR": str(temporary), "PATH": f"{tools}:{os.environ['PATH']}"})
            pid = int(wait_until(lambda: (self.dir / "checker").exists() and (self.dir / "checker").read_text().strip(),
                                 "the checker to run"))
            process.send_signal(number)
            self.assertEqual(process.wait(60), 128 + number)
            self.assertFalse(Path(f"/proc/{pid}").exists(), "the checker runs on")
            self.assert_nothing_left(temporary)

    def test_what_can_not_be_drilled_is_told(self):
        server, _ = self.filled()
        self.assertIn("there is no mirror other", server.verb("drill", "other", code=2).stderr)
        server.stop()
        self.assertIn("no server answers", server.verb("drill", "data", code=2).stderr)
        self.assertIn("TMPDIR", self.plexus("drill", "data", "--control", self.mirror_again(server).control, code=2,
                                            env={**os.environ, "TMPDIR": str(self.dir / "none")}).stderr)

    def mirror_again(self, server):
        return self.serve(server.disks, label="again")


class SparedBlocks(BadBlock, Drills):
    def test_blocks_in_the_spare_pool_are_no_copy_without_plexus(self):
        self.need("qemu-io")
        self.start()
        self.io("write -P 0x11 4M 2M")
        self.assertEqual(self.drill(self.server)["outcome"], "pass")
        self.sick.stubborn.touch()
        self.io("write -P 0x5a 4M 2M")
        report = self.drill(self.server, code=1)
        self.assertEqual(self.check(report, 1, "copy")["outcome"], "pass")
        self.assert_only_fails(report, 0, "copy", "1 blocks of 4 KiB lie in the spare pool")
        self.assertIn("plexus reactivate data 0", self.check(report, 0, "copy")["action"])
        # What that says helps.
        self.sick.stubborn.unlink()
        self.server.verb("reactivate", "data", "0")
        wait_until(lambda: self.server.plex(0)["remapped"] == 0, "the block to be put back")
        self.assertEqual(self.drill(self.server)["outcome"], "pass")


class SystemDisks(Drills):
    def test_disk_that_would_boot_passes(self):
        server, _ = self.filled(self.partitioned)
        report = self.drill(server)
        for plex in (0, 1):
            self.assertEqual(set(self.outcomes(report, plex).values()), {"pass"})
            self.assertEqual(self.check(report, plex, "partition table")["text"], "GPT, both headers, 2 partitions")
            self.assertEqual(self.check(report, plex, "partition 1")["text"], "vfat (label ESP): clean")
            self.assertEqual(self.check(report, plex, "EFI system partition")["text"],
                             "partition 1: \\EFI\\BOOT\\BOOTX64.EFI; also \\EFI\\debian\\shimx64.efi")

    def test_lost_headers_are_found_on_their_plex(self):
        server, size = self.filled(self.partitioned)
        again = self.change(server, server.disks[1], size - 512, bytes(512))
        self.assert_only_fails(self.drill(again, code=1), 1, "partition table", "the backup header is bad")
        with open(server.disks[0], "rb") as file:
            file.seek(size - 512)
            whole = file.read(512)
        again = self.change(again, server.disks[1], size - 512, whole)
        self.drill(again)
        again = self.change(again, server.disks[0], 512, b"\xFF" * 512)
        report = self.drill(again, code=1)
        self.assert_only_fails(report, 0, "partition table", "the first header is bad")
        # By its backup the rest is looked at nevertheless.
        self.assertEqual(self.check(report, 0, "partition 2")["outcome"], "pass")
        again = self.change(again, server.disks[0], size - 512, bytes(512))
        self.assert_only_fails(self.drill(again, code=1), 0, "partition table", "neither the first header nor the backup")

    def test_damage_in_one_partition_is_found_there(self):
        server, _ = self.filled(self.partitioned)
        again = self.change(server, server.disks[0], DATA + 256 * KiB, b"\xA5" * 128 * KiB)
        report = self.drill(again, code=1)
        self.assert_only_fails(report, 0, "partition 2", "ext4: is damaged: ")
        self.assertEqual(self.check(report, 0, "partition 1")["outcome"], "pass")

    def test_loader_that_is_gone_or_no_program_fails(self):
        def without_loader(size: int) -> Path:
            image = self.partitioned(size)
            self.call("mdel", "-i", f"{image}@@{SYSTEM}", "::/EFI/BOOT/BOOTX64.EFI")
            return image

        server, _ = self.filled(without_loader)
        report = self.drill(server, code=1)
        failed = self.check(report, 0, "EFI system partition")
        self.assertEqual(failed["outcome"], "fail")
        self.assertIn("\\EFI\\debian\\shimx64.efi starts only where", failed["text"])
        self.assertIn("--removable", failed["action"])
        server.stop()

    def test_damaged_loader_is_found_on_its_plex(self):
        server, size = self.filled(self.partitioned)
        with open(server.disks[1], "rb") as file:
            place = file.read(DATA).index(LOADER[:70])
        again = self.change(server, server.disks[1], place, bytes(512))
        self.assert_only_fails(self.drill(again, code=1), 1, "EFI system partition", "BOOTX64.EFI is no program")

    def test_mounted_system_partition_passes(self):
        server, _ = self.filled(self.partitioned)
        server.stop()
        for disk in server.disks:
            with open(disk, "r+b") as file:
                file.seek(SYSTEM + 65)
                file.write(b"\1")
        again = self.serve(server.disks, label="again")
        self.assertEqual(self.check(self.drill(again), 1, "partition 1")["text"],
                         "vfat (label ESP): was not unmounted, otherwise clean")

    def test_mbr_is_read_with_its_logical_partitions(self):
        self.need("sfdisk")

        def mbr(size: int) -> Path:
            image = self.contents(size)
            table = "label: dos\n2048,16384,83\n20480,,5\n22528,16384,83\n40960,16384,82\n"
            self.call("sfdisk", image, input=table, stdin=None)
            part = self.disk("part.img", 8 * MiB)
            self.call("mke2fs", "-q", "-t", "ext4", part)
            for sector in (2048, 22528):
                self.call("dd", f"if={part}", f"of={image}", "bs=512", f"seek={sector}", "conv=notrunc", "status=none")
            return image

        server, _ = self.filled(mbr)
        report = self.drill(server)
        self.assertEqual(self.check(report, 0, "partition table")["text"], "MBR, 3 partitions")
        self.assertEqual(self.check(report, 0, "partition 5")["text"], "ext4: clean")
        again = self.change(server, server.disks[1], 22528 * 512 + 64 * KiB, b"\xA5" * 512 * KiB)
        self.assert_only_fails(self.drill(again, code=1), 1, "partition 5", "ext4: is damaged")

    def test_boot_entries_of_files_are_refused_with_the_reason(self):
        server, _ = self.filled(self.partitioned)
        said = server.verb("bootentries", "data", code=1)
        self.assertEqual(said.stdout, "")
        self.assertIn(f"no entry for plex 0 ({server.disks[0]}): {server.disks[0]} is a file", said.stderr)

    def test_boot_entries_name_device_partition_and_loader(self):
        self.need_loop()
        files = [self.disk(name, SIZE) for name in ("a.img", "b.img")]
        devices = [self.loop(file) for file in files]
        self.plexus("create", "data", *devices)
        server = self.serve(devices)
        server.wait_healthy()
        size = server.mirror()["size"]
        self.install(server, self.partitioned(size))
        lines = server.verb("bootentries", "data").stdout.splitlines()
        self.assertEqual(lines, [
            f"efibootmgr --create --edd 3 --disk {devices[plex]} --part 1 --label 'data plex {plex}' "
            "--loader '\\EFI\\debian\\shimx64.efi'" for plex in (1, 0)])
        entries = json.loads(server.verb("bootentries", "data", "--json").stdout)["entries"]
        self.assertEqual([entry["command"] for entry in entries], lines[::-1])
        self.assertEqual(self.drill(server)["outcome"], "pass")
        server.stop()

    def test_table_in_other_blocks_than_the_disk_has_fails(self):
        """Partitioned as a disk with blocks of 4096 bytes, which the disks alone are not."""
        self.need_loop()
        self.need("sgdisk")
        files = [self.disk(name, SIZE) for name in ("a.img", "b.img")]
        devices = [self.loop(file) for file in files]
        self.plexus("create", "data", *devices)
        server = self.serve(devices)
        server.wait_healthy()
        image = self.contents(server.mirror()["size"])
        device = self.loop(image, "-b", "4096")
        self.call("sgdisk", "-n", "1:0:0", device)
        self.unloop(device)
        self.install(server, image)
        failed = self.check(self.drill(server, code=1), 0, "partition table")
        self.assertIn("blocks of 4096 bytes, and the disk alone has blocks of 512", failed["text"])
        server.stop()


if __name__ == "__main__":
    unittest.main()
