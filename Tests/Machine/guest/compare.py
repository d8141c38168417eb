"""One script, run on Plexus and on md raid1: a power cut, a disk that was away, buffers that change while they are written."""

import json
import mmap
import os
import random
import sys
import threading
from pathlib import Path

from guest import NBD, SEED, SHARE, MachineCase, MiB, disk, main, say, vmhost, wait_until

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from oracle import Oracle, Writer, read_blocks  # noqa: E402  pylint: disable=wrong-import-position

KINDS = ("plexus", "md")
WORKLOADS = ("randwrite", "randread")
ROUNDS = 5
# The size of a region of Plexus. (md's own choice for disks of this size would be a single bit for all.)
REGION = "1M"


class PlexusMirror:
    device = NBD

    def __init__(self, case: MachineCase, disks: list[Path]):
        self.case, self.disks = case, disks

    def create(self):
        self.case.plexus("create", "data", *self.disks)
        self.start()
        self.wait()

    def start(self):
        self.case.server = self.case.serve(self.disks)
        self.case.attach(2)

    def wait(self):
        self.case.server.wait_healthy()

    def settle(self):
        """Until no intent bit is set."""
        wait_until(lambda: self.case.server.mirror()["bitmap"]["dirty"] == 0, "the intent bits to be cleared")

    def take_out(self):
        self.case.server.verb("offline", "data", "1")

    def bring_back(self):
        self.case.server.verb("online", "data", "1")
        self.wait()

    def mismatched_bytes(self) -> int:
        self.case.server.verb("scrub", "data", "--all")
        self.case.server.verb("wait", "data", "--for", "idle", "--timeout", "120")
        return self.case.server.mirror()["scrub"]["mismatches"] * 4096

    def stop(self):
        self.case.stop()


class MdMirror:
    device = "/dev/md0"
    sysfs = Path("/sys/block/md0/md")

    def __init__(self, case: MachineCase, disks: list[Path]):
        self.case, self.disks = case, disks

    def create(self):
        self.case.call("mdadm", "--create", self.device, "--run", "--level=1", "--raid-devices=2", "--metadata=1.2",
                       "--bitmap=internal", f"--bitmap-chunk={REGION}", "--assume-clean", *self.disks)

    def start(self):
        self.case.call("mdadm", "--assemble", "--run", self.device, *self.disks)

    def attribute(self, name: str) -> str:
        return (self.sysfs / name).read_text(encoding="ascii").strip()

    def wait(self):
        wait_until(lambda: (self.attribute("sync_action"), self.attribute("degraded")) == ("idle", "0"), "md to be in sync")

    def settle(self):
        wait_until(lambda: ", 0 dirty" in self.case.call("mdadm", "--examine-bitmap", self.disks[0]).stdout,
                   "the bitmap to be clear")

    def take_out(self):
        self.case.call("mdadm", self.device, "--fail", self.disks[1])
        wait_until(lambda: self.case.call("mdadm", self.device, "--remove", self.disks[1], code=None).returncode == 0,
                   "the disk to be removed")

    def bring_back(self):
        self.case.call("mdadm", self.device, "--re-add", self.disks[1])
        self.wait()

    def mismatched_bytes(self) -> int:
        (self.sysfs / "sync_action").write_text("check", encoding="ascii")
        self.wait()
        return int(self.attribute("mismatch_cnt")) * 512

    def stop(self):
        self.case.call("mdadm", "--stop", self.device)


class Compare(MachineCase):
    def setUp(self):
        super().setUp()
        self.oracle = Oracle.load(SHARE / "oracle")

    def mirror_of(self, kind: str) -> PlexusMirror | MdMirror:
        return {"plexus": PlexusMirror, "md": MdMirror}[kind](self, [disk(f"{kind}{number}") for number in (0, 1)])

    def written(self, *disks: Path) -> int:
        """Bytes that were written to disks since the machine began."""
        return sum(int(Path(f"/sys/block/{found.name}/stat").read_text(encoding="ascii").split()[6]) * 512 for found in disks)

    def test_until_the_power_fails(self):
        self.mirror = self.mirror_of(os.environ["KIND"])
        self.mirror.create()
        self.mirror.settle()
        say("made")
        writer = Writer(self.oracle, self.mirror.device)
        note = os.open(SHARE / "durable", os.O_WRONLY | os.O_CREAT, 0o644)
        choice = random.Random(SEED)
        vmhost("cut", os.environ["CUT"])
        while True:
            for _ in range(choice.randrange(1, 6)):
                writer.write_batch()
            os.pwrite(note, b"%020d" % writer.flush(), 0)

    def test_what_became_of_it(self):
        self.mirror = self.mirror_of(os.environ["KIND"])
        result = {}
        before = self.written(*self.mirror.disks)
        self.mirror.start()
        durable = int((SHARE / "durable").read_text(encoding="ascii") or 0)
        first = self.oracle.values(read_blocks(self.mirror.device, self.oracle.blocks))
        self.mirror.wait()
        result["resync"] = round((self.written(*self.mirror.disks) - before) / MiB, 1)
        second = self.oracle.values(read_blocks(self.mirror.device, self.oracle.blocks))
        result["durable"] = durable
        result["lost"] = len(self.oracle.complaints(second, durable))
        result["flipped"] = sum(one != other for one, other in zip(first, second))
        result["delta"] = self.delta()
        self.change_buffers()
        result["mismatches"] = self.mirror.mismatched_bytes() // 1024
        say(str(result))
        (SHARE / "result").write_text(json.dumps(result), encoding="ascii")
        self.mirror.stop()

    def test_speed(self):
        """Both in one machine, in turns, because the computer is not always equally fast."""
        mirrors = {kind: self.mirror_of(kind) for kind in KINDS}
        for mirror in mirrors.values():
            mirror.create()
            mirror.settle()
        result = {workload: {kind: [] for kind in KINDS} for workload in WORKLOADS}
        for _ in range(ROUNDS):
            for workload in WORKLOADS:
                for kind, mirror in mirrors.items():
                    result[workload][kind].append(self.speed(mirror, workload))
        say(str(result))
        (SHARE / "result").write_text(json.dumps(result), encoding="ascii")
        for mirror in mirrors.values():
            mirror.stop()

    def delta(self) -> float:
        """MiB written to a disk that was away while 20 MiB were written in one place."""
        self.mirror.settle()
        self.mirror.take_out()
        self.call("dd", "if=/dev/urandom", f"of={self.mirror.device}", "bs=1M", "count=20", "seek=64", "oflag=direct",
                  "conv=fsync,notrunc")
        before = self.written(self.mirror.disks[1])
        self.mirror.bring_back()
        say("the disk is back")
        return round((self.written(self.mirror.disks[1]) - before) / MiB, 1)

    def change_buffers(self):
        """A program may change its pages while they are written: what is stored then is any mixture, but one for all disks."""
        length = 64 * 1024
        buffer = mmap.mmap(-1, length)
        done = threading.Event()

        def change():
            turn = 0
            while not done.is_set():
                buffer[:] = bytes([turn & 255]) * length
                turn += 1

        changer = threading.Thread(target=change, daemon=True)
        changer.start()
        file = os.open(self.mirror.device, os.O_RDWR | os.O_DIRECT)
        for number in range(256):
            os.pwritev(file, [buffer], 96 * MiB + number * length)
        os.fsync(file)
        os.close(file)
        done.set()
        changer.join(60)
        say("buffers changed")

    def speed(self, mirror: PlexusMirror | MdMirror, workload: str) -> int:
        done = self.call("fio", "--name=speed", f"--filename={mirror.device}", "--direct=1", "--ioengine=io_uring",
                         f"--rw={workload}", "--bs=4k", "--iodepth=16", "--size=64M", "--time_based", "--runtime=2",
                         "--output-format=json", cwd=self.dir)
        job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
        return round(job["write" if workload == "randwrite" else "read"]["iops"])


if __name__ == "__main__":
    main()
