"""The power fails at any moment, again and again, under three kinds of load; each time everything promised is demanded."""

import json

from oracle import Oracle
from scenario import Bed, Failed, MiB, scenario

SIZE = 96 * MiB
RAW_BLOCKS = 2048  # 8 MiB
CUTS, ALL_CUTS = 3, 60


@scenario("power-cut", needs=("dmsetup",))
def power_cut(bed: Bed):
    disks = [bed.disk("a", SIZE), bed.disk("b", SIZE)]
    Oracle(bed.seed, RAW_BLOCKS).save(bed.share / "oracle")
    cuts = ALL_CUTS if bed.everything else CUTS
    for cut in range(cuts):
        # The first machine makes everything and is left alone until it works; one of four is cut when it may not be up yet.
        early = cut > 0 and bed.random.random() < 0.25
        words = {"CUT": bed.random.randrange(500, 8000 if early else 3000), "EARLY": int(early), "FIRST": int(cut == 0),
                 "SETTLED": bed.random.randrange(3 if bed.everything else 2)}
        status = bed.guest("powercut", "Load.test_until_the_power_fails", disks=disks, **words)
        if status is not None:
            raise Failed("the machine was to be cut, and ended")
        if (bed.share / "failed").exists():
            raise Failed("before the cut: " + (bed.share / "failed").read_text(errors="replace"))
    bed.guest("powercut", "Load.test_all_is_well", disks=disks)
    bed.host("cmp", "-n", SIZE - 16 * MiB, *(disk.file for disk in disks))
    found = [json.loads(line) for line in (bed.share / "found").read_text(encoding="ascii").splitlines()]
    # The first machine made the mirror.
    copied = [row["copied"] for row in found[1:]]
    bed.note(f"{cuts} cuts; {len(found)} checks, {sum(row['durable'] for row in found)} durable writes and "
             f"{sum(row['files'] for row in found)} files found; copied between two checks: "
             f"{sum(copied) / len(copied) / MiB:.1f} MiB on average, {max(copied) / MiB:.0f} at most, of {SIZE // MiB}")
