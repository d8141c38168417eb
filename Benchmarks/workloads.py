"""What fio does to each server, and how it is called."""

import json
from dataclasses import dataclass
from pathlib import Path

from processes import Failure, call

KiB, MiB, GiB, TiB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
RUN_GRACE_SECONDS = 60


@dataclass(frozen=True)
class Workload:
    """Requests of one size. Depth is per connection. In the quick set are the few that tell most."""

    name: str
    rw: str
    block_bytes: int
    depth: int
    connections: int = 1
    read_percent: int = 100
    # A flush after every so many writes; 0 is none.
    fsync_every: int = 0
    # Offsets are multiples of this, also of a sequential workload, which leaves the rest out; 0 is the block.
    stride_bytes: int = 0
    # So many in all, instead of a time.
    requests: int = 0
    is_quick: bool = False

    @property
    def counts_bytes(self) -> bool:
        """Large requests are compared by MB/s, small ones by IOPS."""
        return self.block_bytes >= 64 * KiB


WORKLOADS = [
    Workload("4k randread d1", "randread", 4 * KiB, 1),
    Workload("4k randread d16", "randread", 4 * KiB, 16, is_quick=True),
    Workload("4k randread d64", "randread", 4 * KiB, 64),
    Workload("4k randread d16, 4 connections", "randread", 4 * KiB, 16, connections=4, is_quick=True),
    Workload("4k randwrite d1", "randwrite", 4 * KiB, 1),
    Workload("4k randwrite d16", "randwrite", 4 * KiB, 16, is_quick=True),
    Workload("4k randwrite d64", "randwrite", 4 * KiB, 64),
    Workload("4k randwrite d16, 4 connections", "randwrite", 4 * KiB, 16, connections=4, is_quick=True),
    Workload("4k mixed 70/30 d64", "randrw", 4 * KiB, 64, read_percent=70),
    Workload("4k randwrite d16, flush every 32", "randwrite", 4 * KiB, 16, fsync_every=32),
    Workload("4k randwrite d1, flush every 1", "randwrite", 4 * KiB, 1, fsync_every=1),
    Workload("64k read d16", "read", 64 * KiB, 16),
    Workload("64k write d16", "write", 64 * KiB, 16),
    Workload("1M read d4", "read", MiB, 4, is_quick=True),
    Workload("1M write d4", "write", MiB, 4, is_quick=True),
]


def fio(workload: Workload, uri: str, size_bytes: int, seconds: int, seed: int, directory: Path) -> dict:
    """Runs fio's nbd engine, one connection per job, and returns its account of all jobs, reads and writes together.

    Jobs are threads, because processes would stay and load the next server when a hanging fio is killed.
    """
    settings = {
        "name": "bench", "ioengine": "nbd", "uri": uri, "rw": workload.rw, "bs": workload.block_bytes,
        "iodepth": workload.depth, "numjobs": workload.connections, "thread": 1, "group_reporting": 1,
        "unified_rw_reporting": "mixed", "rwmixread": workload.read_percent, "fsync": workload.fsync_every,
        "size": size_bytes, "norandommap": 1, "randseed": seed,
        "output-format": "json", "output": directory / "fio.json",
    }
    if workload.requests:
        settings["number_ios"] = workload.requests
    else:
        settings |= {"time_based": 1, "runtime": seconds}
    if workload.stride_bytes and workload.rw.startswith("rand"):
        settings["blockalign"] = workload.stride_bytes
    elif workload.stride_bytes:
        settings["rw"] = f"{workload.rw}:{workload.stride_bytes - workload.block_bytes}"
    call("fio", *(f"--{key}={value}" for key, value in settings.items()), timeout=seconds + RUN_GRACE_SECONDS)
    text = (directory / "fio.json").read_text(encoding="utf-8")
    job = json.loads(text[text.index("{"):])["jobs"][0]
    account = job["mixed"]
    if job["error"] or account["total_ios"] == 0:
        raise Failure(f"fio: error {job['error']}, {account['total_ios']} requests")
    return account
