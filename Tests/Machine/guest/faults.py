"""Disks that fail under a mounted file system."""

import json
import mmap
import os
import re
import signal
import threading
from pathlib import Path

from guest import NBD, Files, MachineCase, MiB, disk, main, say, vmhost, wait_until

BLOCK = 4096


class FaultCase(MachineCase):
    serve_options = ("--auto-rejoin", "--rejoin-delay", "1")

    def start_mounted(self) -> Files:
        self.start()
        self.attach(2)
        self.make_file_system("ext4")
        files = self.mount_it()
        files.write("before")
        return files

    def wait_clean(self):
        """Intent bits are cleared lazily; what is still set counts as missed by a plex that goes."""
        wait_until(lambda: self.server.mirror()["bitmap"]["dirty"] == 0, "the intent bits to be cleared")

    def events_of(self, *codes: str) -> list[tuple]:
        return [(event["code"], event["plex"], event["offset"]) for event in self.server.events() if event["code"] in codes]

    def end_clean(self, files: Files):
        """Unmounted without a fault; every plex alone has the files."""
        self.assert_files(files)
        self.unmount_and_check()
        for other in (0, 1):
            self.server.verb("offline", "data", other)
            self.mount(NBD, self.mountpoint, "-o", "ro")
            self.assert_files(files)
            self.call("umount", self.mountpoint)
            self.server.verb("online", "data", other)
            self.server.wait_healthy()
        self.stop()


class BadSectors(FaultCase):
    def place(self, file: Path) -> int:
        """Where on the device a file's second block lies, which is also where it lies on the disks."""
        listed = self.call("filefrag", "-v", "-b4096", file).stdout
        match = re.search(r"^\s*0:\s+0\.\.\s*(\d+):\s*(\d+)\.\.", listed, re.MULTILINE)
        self.assertIsNotNone(match, listed)
        self.assertGreater(int(match[1]), 1, listed)
        return (int(match[2]) + 1) * BLOCK

    def prepare(self) -> tuple[Files, int]:
        """A file system that nobody writes to, and a place that a file lies at."""
        files = self.start_mounted()
        (self.mountpoint / "victim").write_bytes(b"plexus" * (MiB // 6))
        files.sync(self.mountpoint)
        place = self.place(self.mountpoint / "victim")
        self.call("mount", "-o", "remount,ro", self.mountpoint)
        self.wait_clean()
        return files, place

    def read_victim(self, files: Files):
        files.forget_cached()
        self.assertEqual((self.mountpoint / "victim").read_bytes(), b"plexus" * (MiB // 6))

    def read_until(self, files: Files, check, what: str):
        """Plexes take turns: more than once."""
        def again():
            self.read_victim(files)
            return check()
        wait_until(again, what)

    def inject(self, place: int, *, until_written: bool = False):
        """Disk a can neither read nor write a block; or can't read it until something is written, wherever."""
        kinds = [("read_aio", "read")] if until_written else [("read_aio", "read"), ("write_aio", "write")]
        rules = [{"event": event, "iotype": iotype, "sector": sector, "errno": 5, "once": False, "state": 1}
                 for sector in range(place // 512, (place + BLOCK) // 512) for event, iotype in kinds]
        if until_written:
            # A rule that was met stays in force until another is met: this one, for a sector that is not there.
            rules.append({"event": "read_aio", "iotype": "read", "sector": 1 << 40, "errno": 5, "once": False, "state": 2})
        changes = {"set-state": [{"event": "write_aio", "state": 1, "new_state": 2}]} if until_written else {}
        vmhost("inject", "a", json.dumps({"inject-error": rules} | changes))

    def start(self, *options):
        """The metadata of disk a lie in a file: what is written to it is data, and the first write after a read error
        the repair."""
        if self._testMethodName != "test_unreadable_block_is_written_anew":
            return super().start(*options)
        metadata = self.dir / "metadata"
        self.plexus("create", "data", "--from", disk("a"), "--metadata", metadata, disk("b"))
        self.server = self.serve((metadata, disk("b")), *self.serve_options)
        self.server.wait_healthy()
        return self.server

    def test_unreadable_block_is_written_anew(self):
        files, place = self.prepare()
        self.inject(place, until_written=True)
        self.read_until(files, lambda: self.server.plex(0)["corrected"] > 0, "the block to be corrected")
        self.show()
        self.assertEqual(self.server.mirror()["state"], "healthy")
        self.assertEqual(self.events_of("CORRECTED"), [("CORRECTED", 0, place)])
        self.assertIn("READ_ERROR", self.server.event_codes())
        self.assertEqual(self.server.plex(0)["spared"], 0)
        vmhost("heal", "a")
        self.call("mount", "-o", "remount,rw", self.mountpoint)
        self.end_clean(files)

    def test_dead_block_is_spared_and_comes_back(self):
        files, place = self.prepare()
        self.inject(place)
        self.read_until(files, lambda: self.server.plex(0)["spared"] > 0, "the block to be spared")
        text = self.show()
        self.assertIn("1 blocks lie in the spare pool", text)
        mirror, plex = self.server.mirror(), self.server.plex(0)
        self.assertEqual((mirror["state"], plex["state"], plex["remapped"], plex["badRanges"]), ("healthy", "in-sync", 1, []))
        self.assertEqual(self.events_of("BAD_BLOCK", "SPARING", "SPARED"),
                         [(code, 0, place) for code in ("BAD_BLOCK", "SPARING", "SPARED")])
        self.assertIn("READ_ERROR", self.server.event_codes())
        # The other plex may go, and so may the server: the block is in the pool.
        self.server.verb("offline", "data", "1")
        self.read_victim(files)
        self.server.verb("online", "data", "1")
        self.server.wait_healthy()
        self.call("umount", self.mountpoint)
        self.stop()
        self.serve_again("again")
        self.attach(1)
        self.mount(NBD, self.mountpoint)
        self.assertEqual(self.server.plex(0)["remapped"], 1)
        self.read_victim(files)
        # Overwritten there, and not where the disk is dead.
        (self.mountpoint / "victim").write_bytes(b"sparse" * (MiB // 6))
        (self.mountpoint / "victim").write_bytes(b"plexus" * (MiB // 6))
        files.sync(self.mountpoint)
        self.assertEqual(self.server.mirror()["state"], "healthy")
        # The disk is good again.
        vmhost("heal", "a")
        self.assertIn("1 blocks are back", self.server.verb("reactivate", "data", "0").stdout)
        self.assertEqual(self.server.plex(0)["remapped"], 0)
        self.end_clean(files)

    def test_dead_block_of_device_mapper_is_spared(self):
        place = 40 * MiB
        raw = disk("a")
        sectors = int(self.call("blockdev", "--getsz", raw).stdout)
        first, after = place // 512, (place + BLOCK) // 512
        sound = f"0 {sectors} linear {raw} 0"
        dead = f"0 {first} linear {raw} 0\n{first} {after - first} error\n{after} {sectors - after} linear {raw} {after}"
        self.call("dmsetup", "create", "sick", "--table", sound)
        sick = Path("/dev/mapper/sick")
        self.resources.callback(self.call, "dmsetup", "remove", "--retry", "sick")
        wait_until(sick.exists, f"{sick} to appear")

        def load(table: str):
            self.call("dmsetup", "suspend", "--noflush", "sick")
            self.call("dmsetup", "load", "sick", stdin=None, input=table)
            self.call("dmsetup", "resume", "sick")

        disks = (sick, disk("b"))
        self.plexus("create", "data", *disks)
        self.server = self.serve(disks)
        self.server.wait_healthy()
        self.attach(2)
        load(dead)
        self.fio(f"--filename={NBD}", "--ioengine=libaio", "--rw=randrw", "--bsrange=4k-64k", "--size=4M",
                 f"--offset={place - 2 * MiB}", "--iodepth=16", "--fsync=32")
        self.show()
        plex = self.server.plex(0)
        self.assertEqual((self.server.mirror()["state"], plex["state"], plex["remapped"]), ("healthy", "in-sync", 1))
        self.assertEqual(self.events_of("SPARED"), [("SPARED", 0, place)])
        load(sound)
        self.server.verb("reactivate", "data", "0")
        self.assertEqual(self.server.plex(0)["remapped"], 0)
        size = self.server.mirror()["size"]
        self.stop()
        self.call("cmp", "-n", size, *disks)


class Plexes(FaultCase):
    def test_disk_is_pulled_out_under_load_and_comes_back(self):
        files = self.start_mounted()
        self.wait_clean()
        gone = disk("b")
        done = threading.Event()
        self.resources.callback(done.set)

        def write():
            turn = 0
            while not done.is_set():
                files.write(f"load{turn % 4}", count=2, size=256 * 1024)
                turn += 1

        load = threading.Thread(target=write, daemon=True)
        load.start()
        wait_until(lambda: "load0/1" in files.sums, "the load to begin")
        vmhost("unplug", "b")
        wait_until(lambda: not gone.exists(), f"{gone} to be gone")
        self.wait_plex(1, "missing")
        self.assertEqual(self.server.mirror()["state"], "degraded")
        self.assertIn("its disk is gone", self.show())
        seen = len(files.sums)
        wait_until(lambda: len(files.sums) >= min(seen + 1, 16), "the load to go on")
        self.assertLess(self.server.plex(1)["missedBytes"], 64 * MiB)
        vmhost("plug", "b")
        self.server.wait_healthy()
        done.set()
        load.join(120)
        self.assertFalse(load.is_alive())
        self.show()
        self.assert_returned()
        self.end_clean(files)

    def assert_returned(self):
        """By itself, with what it missed."""
        self.assertIn("PLEX_MISSING", self.server.event_codes())
        self.assertIn("PLEX_RETURNED", self.server.event_codes())
        joined = [event for event in self.server.events() if event["code"] == "JOINED"][-1]["text"]
        say(joined)
        self.assertIn("what changed while it was away", joined)

    def test_disk_is_pulled_out_before_a_flush(self):
        """The first that is asked of it is to flush what it took. No write that was flushed on the other may be lost."""
        self.start()
        self.attach(1)
        self.wait_clean()
        gone = disk("b")
        file = os.open(NBD, os.O_RDWR | os.O_DIRECT)
        buffer = mmap.mmap(-1, BLOCK)
        buffer[:] = b"f" * BLOCK
        os.pwrite(file, buffer, 8 * MiB)
        # Held, so that the disk is gone before the server knows of the flush.
        self.server.process.send_signal(signal.SIGSTOP)
        vmhost("unplug", "b")
        wait_until(lambda: not gone.exists(), f"{gone} to be gone")
        flush = threading.Thread(target=os.fsync, args=(file,), daemon=True)
        flush.start()
        self.server.process.send_signal(signal.SIGCONT)
        flush.join(120)
        self.assertFalse(flush.is_alive())
        self.wait_plex(1, "missing")
        self.assertIn("its disk is gone", self.show())
        # What it took and was not asked to flush until then is all that it may lack.
        self.assertIn(self.server.plex(1)["missedBytes"], range(1, 4 * MiB))
        vmhost("plug", "b")
        self.server.wait_healthy()
        self.assert_returned()
        self.server.verb("offline", "data", "0")
        self.assertEqual(os.preadv(file, [buffer], 8 * MiB), BLOCK)
        self.assertEqual(bytes(buffer), b"f" * BLOCK)
        os.close(file)
        self.server.verb("online", "data", "0")
        self.server.wait_healthy()
        self.stop()

    def test_break_and_join_while_mounted(self):
        files = self.start_mounted()
        self.wait_clean()
        self.call("fsfreeze", "-f", self.mountpoint)
        self.resources.callback(self.call, "fsfreeze", "-u", self.mountpoint, code=None)
        self.server.verb("break", "data", "1")
        self.call("fsfreeze", "-u", self.mountpoint)
        copied = dict(files.sums)
        self.show()
        self.assertEqual((self.server.mirror()["state"], self.server.plex(1)["state"]), ("degraded", "offline"))
        files.write("after")
        # The copy is what the file system was then, on the bare disk.
        self.check_file_system(disk("b"))
        copy = self.dir / "copy"
        self.mount(str(disk("b")), copy, "-o", "ro,noload")
        self.assertFalse((copy / "after").exists())
        old = Files(copy)
        old.sums = copied
        self.assert_files(old)
        self.call("umount", copy)
        # A block device does not tell whether somebody wrote to it natively: everything may be copied, with that reason.
        said = self.server.verb("join", "data", disk("b")).stdout
        self.assertTrue("what changed while it was away" in said or "block device" in said, said)
        files.write("meanwhile")
        self.server.wait_healthy()
        self.assert_files(files)
        # A plex that was only taken out gets what it missed, and no more.
        self.wait_clean()
        self.server.verb("offline", "data", "1")
        files.write("during")
        missed = self.server.plex(1)["missedBytes"]
        say(f"missed {missed} bytes")
        self.server.verb("online", "data", "1")
        self.server.wait_healthy()
        finished = [event for event in self.server.events() if event["code"] == "RESYNC_FINISHED"][-1]
        self.assertTrue(0 < finished["length"] <= missed + 32 * MiB, (missed, finished))
        self.end_clean(files)


if __name__ == "__main__":
    main()
