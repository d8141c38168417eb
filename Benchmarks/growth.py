"""What a request costs Plexus as things grow: the mirror, the number of mirrors, the number of idle clients.

Always the same 1024 blocks of one mirror are read or written, at equal distances over its whole size, each in a region
whose bit is set: a file that is larger, or a bitmap that has more to do, is not what is measured.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cases import summarize_cases
from memory import raise_file_limit
from nbd_client import connected
from peers import PLEXUS
from processes import Failure, note
from runs import Run, measure
from servers import EXPORT, Rig
from workloads import GiB, KiB, TiB, Workload, fio

BLOCKS = 1024
# ext4 with 4 KiB blocks ends just below 16 TiB: the last is only for it.
SIZES_BYTES = [64 * GiB, TiB, 16 * TiB, 15 * TiB]
MIRRORS = 64
IDLE_CLIENTS = 1000
WORKLOADS = [Workload("4k randread d16", "randread", 4 * KiB, 16), Workload("4k randwrite d16", "randwrite", 4 * KiB, 16)]


@dataclass(frozen=True)
class Case:
    """What is served. The first mirror is the one that is loaded."""

    name: str
    mirror_bytes: int = GiB
    mirrors: int = 1
    idle_clients: int = 0


CASES = [
    Case("1 mirror of 1 GiB"),
    *(Case(f"1 mirror of {size // GiB} GiB", mirror_bytes=size) for size in SIZES_BYTES),
    Case(f"{MIRRORS} mirrors of 1 GiB", mirrors=MIRRORS),
    Case(f"1 mirror of 1 GiB, {IDLE_CLIENTS} idle clients", idle_clients=IDLE_CLIENTS),
]


def disks(rig: Rig, case: Case) -> list[Path]:
    # Cases that differ only in their clients share their disks.
    return [rig.place.disks / f"{case.mirror_bytes // GiB}-{case.mirrors}-{number}{leg}.img"
            for number in range(case.mirrors) for leg in "ab"]


def create(rig: Rig, case: Case):
    """Sparse, without the spare pools, which would be written in full."""
    paths = disks(rig, case)
    for number in range(case.mirrors):
        pair = paths[2 * number:2 * number + 2]
        if not pair[0].exists():
            rig.plexus("create", f"{EXPORT}{number or ''}", *pair, "--size", case.mirror_bytes, "--spares", 0)


def possible(rig: Rig) -> list[Case]:
    result = []
    for case in CASES:
        if case.mirror_bytes == 15 * TiB and result[-1].mirror_bytes > case.mirror_bytes:
            continue
        try:
            create(rig, case)
            result.append(case)
        except Failure as failure:
            note(f"skipped {case.name}: {str(failure).splitlines()[-1]}")
    return result


def run_case(rig: Rig, case: Case, repetition: int, seconds: int) -> list[Run]:
    def arguments(place) -> list:
        return ["serve", *disks(rig, case), "--socket", place.socket, "--control", place.control]

    stride = case.mirror_bytes // BLOCKS
    fill = Workload("fill", "write", 4 * KiB, 16, stride_bytes=stride, requests=BLOCKS)
    runs = [Run(repetition, workload.name, case.name) for workload in WORKLOADS]
    try:
        with (rig.server(replace(PLEXUS, arguments=arguments)) as server,
              connected(rig.place.socket, EXPORT, case.idle_clients)):
            for run, workload in zip(runs, WORKLOADS):
                fio(fill, rig.place.uri, case.mirror_bytes, seconds, repetition, rig.place.run)
                measure(run, server, replace(workload, stride_bytes=stride), case.mirror_bytes, seconds)
    except Failure as failure:
        for run in runs:
            run.error = run.error or (None if run.requests else str(failure))
    for run in runs:
        note(f"{repetition}  {run.workload}  {case.name}: "
             + (f"FAILED: {run.error}" if run.error else f"{run.iops:.0f} IOPS"))
    return runs


def measure_growth(rig: Rig, seconds: int, repetitions: int) -> dict:
    raise_file_limit()
    cases = possible(rig)
    runs = [run for repetition in range(1, repetitions + 1) for case in cases
            for run in run_case(rig, case, repetition, seconds)]
    return {"kind": "growth", "runs": [asdict(run) for run in runs],
            "summary": summarize_cases(runs, [workload.name for workload in WORKLOADS], [case.name for case in cases])}
