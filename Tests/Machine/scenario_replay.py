"""A write log of both plexes, replayed to each of its flushes: what the power would have left there."""

import json
import os

from oracle import Oracle
from scenario import HERE, PYTHON, Bed, MiB, scenario

PLEX, NOTES = 24 * MiB, MiB
BLOCKS = 512  # 2 MiB
PLACES = 20


@scenario("log-replay", needs=("sgdisk",))
def log_replay(bed: Bed):
    log = bed.dir / "writes.log"
    log.touch()
    size = 2 * PLEX + NOTES + 4 * MiB
    disk = bed.disk("all", size, log)
    oracle = Oracle(bed.seed, BLOCKS)
    oracle.save(bed.share / "oracle")
    # Partitions, because both plexes must be on the disk that is logged.
    starts = {"a": (MiB, PLEX), "b": (MiB + PLEX, PLEX), "notes": (MiB + 2 * PLEX, NOTES)}
    bed.host("sgdisk", *(f"--new={number}:{start // 512}:{(start + length) // 512 - 1}"
                         for number, (start, length) in enumerate(starts.values(), 1)), disk.file)
    bed.guest("logged", "Logged.test_work", disks=[disk])
    result = bed.dir / "result"
    words = {"log": str(log), "size": size, "parts": starts, "limit": 0 if bed.everything else PLACES, "seed": bed.seed,
             "result": str(result), "oracle": {"seed": oracle.seed, "blocks": BLOCKS}}
    bed.host(PYTHON, HERE / "replay.py", timeout=5400 if bed.everything else 400,
             environment=os.environ | {"REPLAY": json.dumps(words), "PLEXUS": str(bed.binary)})
    found = json.loads(result.read_text(encoding="ascii"))
    bed.note(f"{found['checks']} assemblies, from {found['flushes']} flushes among {found['entries']} entries")
