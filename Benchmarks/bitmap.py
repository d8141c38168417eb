"""What the write-intent bitmap costs: the same writes when their regions' bits must be set first, and when they are set.

The bitmap can't be switched off. But a first pass over regions that are clean waits for their bits, and the same pass
once more finds them set: nothing else differs, for the blocks were allocated by a pass before, with a restart in
between that cleared all bits. With regions of 64 MiB there is hardly a bit to set: both passes should cost the same.
"""

from dataclasses import asdict, dataclass

from cases import summarize_cases
from peers import PLEXUS
from processes import Failure, note
from runs import Run, measure
from servers import EXPORT, Rig
from workloads import GiB, KiB, MiB, Workload

MIRROR_BYTES = 64 * GiB
REGIONS = ["1M", "64M"]
# 64 GiB are 65536 regions of 1 MiB: of 16384 writes to any of them, 88 % are the first to their region. A second or
# two at most, because bits are cleared after five seconds without a write to their region.
WORKLOADS = [
    Workload("4k randwrite d1", "randwrite", 4 * KiB, 1, stride_bytes=MiB, requests=4096),
    Workload("4k randwrite d16", "randwrite", 4 * KiB, 16, stride_bytes=MiB, requests=16384),
    Workload("64k write d16", "write", 64 * KiB, 16, requests=16384),
]


@dataclass(frozen=True)
class Pass:
    region: str
    is_cold: bool

    @property
    def name(self) -> str:
        return f"regions of {self.region}, bits {'to be set' if self.is_cold else 'set before'}"


def create(rig: Rig, region: str):
    for path in rig.place.plexes:
        path.unlink(missing_ok=True)
    rig.plexus("create", EXPORT, *rig.place.plexes, "--size", MIRROR_BYTES, "--spares", 0, "--region", region)


def run_pair(rig: Rig, region: str, workload: Workload, repetition: int) -> list[Run]:
    """The same seed gives the same offsets in all three passes."""
    runs = [Run(repetition, workload.name, Pass(region, is_cold).name) for is_cold in (False, True)]
    hot, cold = runs
    try:
        with rig.server(PLEXUS) as server:
            measure(Run(repetition, workload.name, "allocation"), server, workload, MIRROR_BYTES, 0)
        with rig.server(PLEXUS) as server:
            measure(cold, server, workload, MIRROR_BYTES, 0)
            measure(hot, server, workload, MIRROR_BYTES, 0)
    except Failure as failure:
        for run in runs:
            run.error = str(failure)
    note(f"{repetition}  {workload.name}  regions of {region}: "
         + (f"FAILED: {cold.error}" if cold.error else f"{cold.iops:.0f} IOPS cold, {hot.iops:.0f} hot"))
    return runs


def measure_bitmap(rig: Rig, repetitions: int) -> dict:
    runs = []
    for region in REGIONS:
        create(rig, region)
        for workload in WORKLOADS:
            for repetition in range(1, repetitions + 1):
                runs += run_pair(rig, region, workload, repetition)
    summary = [row for region in REGIONS
               for row in summarize_cases(runs, [workload.name for workload in WORKLOADS],
                                          [Pass(region, False).name, Pass(region, True).name])]
    summary.sort(key=lambda row: [workload.name for workload in WORKLOADS].index(row["workload"]))
    return {"kind": "bitmap", "runs": [asdict(run) for run in runs], "summary": summary}
