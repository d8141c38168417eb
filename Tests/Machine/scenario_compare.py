"""The same script on Plexus and on md raid1 with a write-intent bitmap, over the same disks, side by side."""

import json
import statistics

from oracle import Oracle
from scenario import Bed, Failed, MiB, scenario

SIZE = 200 * MiB
BLOCKS = 2048  # 8 MiB
KINDS = ("plexus", "md")
ROWS = (
    ("durable writes before the power cut", "durable"),
    ("of these lost, in sectors", "lost"),
    ("sectors that read differently before and after the resync", "flipped"),
    ("MiB written to the disks after the cut", "resync"),
    ("MiB written to a disk that missed 20 MiB and came back", "delta"),
    ("KiB that differ after writes from changing buffers", "mismatches"),
)


@scenario("beside-md", only_with_all=True, alone=True, needs=("mdadm",))
def beside_md(bed: Bed):
    results = {kind: measure(bed, kind) for kind in KINDS}
    for text, key in ROWS:
        bed.note(f"{text:60}" + "".join(f"{kind} {results[kind][key]:<10}" for kind in KINDS))
    for workload, rates in measure_speed(bed).items():
        text = f"4k {workload} per second, 16 at once, median"
        bed.note(f"{text:60}" + "".join(f"{kind} {statistics.median(rates[kind]):<10.0f}" for kind in KINDS))
        ratio = statistics.median(mine / other for mine, other in zip(*(rates[kind] for kind in KINDS)))
        bed.note(f"{'plexus / md, median of rounds in turns':60}{ratio:.2f}")
    mine = results["plexus"]
    # md is there to be compared with, not to be tested.
    if mine["lost"] or mine["flipped"] or mine["mismatches"]:
        raise Failed("plexus lost writes, changed its mind, or has plexes that differ")


def measure_speed(bed: Bed) -> dict:
    disks = [bed.disk(f"{kind}{number}", SIZE) for kind in KINDS for number in (0, 1)]
    bed.guest("compare", "Compare.test_speed", disks=disks)
    return json.loads((bed.share / "result").read_text(encoding="ascii"))


def measure(bed: Bed, kind: str) -> dict:
    disks = [bed.disk(f"{kind}{number}", SIZE, folder=f"cut-{kind}{number}") for number in (0, 1)]
    Oracle(bed.seed, BLOCKS).save(bed.share / "oracle")
    (bed.share / "durable").unlink(missing_ok=True)
    status = bed.guest("compare", "Compare.test_until_the_power_fails", disks=disks, KIND=kind, CUT=2000)
    if status is not None:
        raise Failed("the machine was to be cut, and ended")
    bed.guest("compare", "Compare.test_what_became_of_it", disks=disks, KIND=kind)
    return json.loads((bed.share / "result").read_text(encoding="ascii"))
