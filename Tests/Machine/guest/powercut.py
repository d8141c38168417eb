"""Load until the power fails; and before it, a check of what the cut before left behind.

The mirror has three zones: one for numbered writes (see oracle.py), one for a file system whose files are replaced and
fsynced, and one for fio. What the host must know to judge is in the shared directory, which no cut touches.
"""

import hashlib
import json
import os
import random

import sys
import threading
from pathlib import Path

from guest import NBD, SEED, SHARE, MachineCase, MiB, disk, main, say, vmhost, wait_until

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from oracle import BLOCK, Oracle, Writer, read_blocks  # noqa: E402  pylint: disable=wrong-import-position

RAW, FILES, FIO = (Path(f"/dev/mapper/{name}") for name in ("raw", "files", "fio"))
FILE_BYTES, FIO_BYTES = 48 * MiB, 8 * MiB
# Files are replaced by name, so that there are never more.
NAMES = 16
FIO_OPTIONS = ("--name=verify", f"--filename={FIO}", f"--size={FIO_BYTES}", "--bs=4k", "--direct=1", "--ioengine=libaio",
               "--verify=crc32c", "--verify_state_save=0", "--randrepeat=0", "--allrandrepeat=0")


def file_contents(number: int) -> bytes:
    choice = random.Random(number)
    body = choice.randbytes(choice.randrange(1, 64 * 1024))
    return f"{number} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def file_number(data: bytes) -> int:
    """Which version of a file this is; -1 if it is none."""
    head, _, body = data.partition(b"\n")
    words = head.decode(errors="replace").split()
    if len(words) != 2 or words[1] != hashlib.sha256(body).hexdigest():
        return -1
    return int(words[0])


class Load(MachineCase):
    def setUp(self):
        super().setUp()
        self.oracle = Oracle.load(SHARE / "oracle")
        self.file_notes = SHARE / "files"

    # The zones.

    def map_zones(self):
        start = 0
        for device, length in ((RAW, self.oracle.blocks * BLOCK), (FILES, FILE_BYTES), (FIO, FIO_BYTES)):
            self.call("dmsetup", "create", device.name, "--table", f"0 {length // 512} linear {NBD} {start // 512}")
            self.resources.callback(self.call, "dmsetup", "remove", "--retry", device.name, code=None)
            start += length

    def unmap_zones(self):
        for device in (RAW, FILES, FIO):
            self.call("dmsetup", "remove", "--retry", device.name)

    def bring_up(self, *, make: bool):
        if make:
            self.plexus("create", "data", disk("a"), disk("b"))
        self.server = self.serve((disk("a"), disk("b")))
        self.attach(2)
        self.map_zones()
        if make:
            self.call("mkfs.ext4", "-q", "-F", FILES)
            self.call("fio", *FIO_OPTIONS, "--rw=write", "--do_verify=0", "--iodepth=16", cwd=self.dir)

    # What must have survived.

    def check(self):
        note = SHARE / f"durable-{self.oracle.epoch}"
        # Empty if the power failed before the first flush was over.
        durable = int((note.read_text(encoding="ascii") if note.exists() else "") or 0)
        found = self.oracle.values(read_blocks(RAW, self.oracle.blocks))
        self.assertEqual(self.oracle.complaints(found, durable)[:10], [])
        # Plexes take turns: the same again, or a reader would see a value change.
        self.assertEqual(self.oracle.values(read_blocks(RAW, self.oracle.blocks)), found)
        count = max(0, durable - self.oracle.first + 1)
        files = self.check_files()
        # Every block carries its own place and checksum, whichever write it comes from.
        self.call("fio", *FIO_OPTIONS, "--rw=read", "--verifysort_nr=1", "--iodepth=16", cwd=self.dir)
        copied = self.resync_bytes()
        say(f"epoch {self.oracle.epoch}: {count} durable writes, {files} files, {copied} bytes to be copied")
        with open(SHARE / "found", "a", encoding="ascii") as results:
            results.write(json.dumps({"durable": count, "files": files, "copied": copied}) + "\n")
        self.oracle.settle(found)
        self.oracle.save(SHARE / "oracle")

    def resync_bytes(self) -> int:
        """How much is copied because of this cut; the event log tells of those before as well."""
        path = SHARE / "sequence"
        seen = int((path.read_text(encoding="ascii") if path.exists() else "") or 0)
        events = [event for event in self.server.events() if event["sequence"] > seen]
        path.write_text(str(max([seen, *(event["sequence"] for event in events)])), encoding="ascii")
        return sum(event["length"] for event in events if event["code"] == "RESYNC_STARTED")

    def check_files(self) -> int:
        """Every file is the version that was noted last, or a later one, in whole."""
        self.mount(str(FILES), self.mountpoint)
        noted: dict[str, int] = {}
        for line in self.file_notes.read_text(encoding="ascii").splitlines() if self.file_notes.exists() else []:
            noted[str(int(line) % NAMES)] = int(line)
        wrong = []
        for name, number in noted.items():
            found = file_number((self.mountpoint / name).read_bytes()) if (self.mountpoint / name).exists() else None
            if found is None or found < number or found % NAMES != int(name):
                wrong.append(f"file {name}: found {found}, noted {number}")
        self.assertEqual(wrong, [])
        self.call("umount", self.mountpoint)
        self.kind = "ext4"
        self.check_file_system(FILES)
        return len(noted)

    # Load.

    def write_blocks(self):
        writer = Writer(self.oracle, RAW)
        note = os.open(SHARE / f"durable-{self.oracle.epoch}", os.O_WRONLY | os.O_CREAT, 0o644)
        choice = random.Random(SEED)
        while True:
            for _ in range(choice.randrange(1, 6)):
                writer.write_batch()
            os.pwrite(note, b"%020d" % writer.flush(), 0)

    def write_files(self):
        lines = self.file_notes.read_text(encoding="ascii").splitlines() if self.file_notes.exists() else []
        notes = os.open(self.file_notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        # Beyond anything that an unnoted write may have used.
        number = int(lines[-1]) + 1000 if lines else 1
        folder = os.open(self.mountpoint, os.O_RDONLY)
        while True:
            partial = self.mountpoint / "partial"
            with open(partial, "wb") as file:
                file.write(file_contents(number))
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.mountpoint / str(number % NAMES))
            os.fsync(folder)
            os.write(notes, b"%d\n" % number)
            number += 1

    def test_until_the_power_fails(self):
        """What goes wrong is told at once, because the power may fail before the test has ended."""
        try:
            self.work_until_the_power_fails()
        except BaseException as error:
            (SHARE / "failed").write_text(repr(error), encoding="utf-8")
            raise

    def work_until_the_power_fails(self):
        cut, early, first, settled = (int(os.environ[name]) for name in ("CUT", "EARLY", "FIRST", "SETTLED"))
        if early:
            vmhost("cut", str(cut))
        self.bring_up(make=bool(first))
        self.check()
        # While plexes are made equal; after that; when no intent bit is left from before.
        if settled or first:
            self.server.wait_healthy()
        if settled == 2:
            wait_until(lambda: self.server.mirror()["bitmap"]["dirty"] == 0, "the intent bits to be cleared")
        self.mount(str(FILES), self.mountpoint)
        self.spawn("fio", "fio", *FIO_OPTIONS, "--rw=randwrite", "--do_verify=0", "--iodepth=8", "--fsync=8", "--time_based",
                   "--runtime=600", cwd=self.dir)
        if not early:
            vmhost("cut", str(cut))

        def guarded(load):
            try:
                load()
            except BaseException as error:
                (SHARE / "failed").write_text(repr(error), encoding="utf-8")
                raise

        threads = [threading.Thread(target=guarded, args=(load,), daemon=True) for load in (self.write_blocks, self.write_files)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        self.fail("the power did not fail")

    def test_all_is_well(self):
        self.bring_up(make=False)
        self.check()
        self.server.wait_healthy()
        self.show()
        self.server.verb("scrub", "data", "--all")
        self.server.verb("wait", "data", "--for", "idle", "--timeout", "120")
        self.assertEqual(self.server.mirror()["scrub"]["mismatches"], 0)
        self.unmap_zones()
        self.stop()


if __name__ == "__main__":
    main()
