"""What a second thread brings to one mirror: it serves the sockets.

On a machine with two processors the clients need one of them: there more threads can't bring much, and a hand-over
from thread to thread costs what it costs.
"""

from dataclasses import asdict, replace

from cases import summarize_cases
from peers import PLEXUS
from processes import Failure, note
from runs import Run, measure
from servers import EXPORT, Rig
from workloads import GiB, KiB, MiB, Workload

THREADS = [1, 2]
MIRROR_BYTES = GiB // 2
# Of one mirror; a client for each connection.
WORKLOADS = [
    Workload("4k randread d1", "randread", 4 * KiB, 1),
    Workload("4k randread d16, 4 connections", "randread", 4 * KiB, 16, connections=4),
    Workload("4k randwrite d16, 4 connections", "randwrite", 4 * KiB, 16, connections=4),
    Workload("1M read d4, 2 connections", "read", MiB, 4, connections=2),
]


def run_case(rig: Rig, threads: int, workload: Workload, repetition: int, seconds: int) -> Run:
    run = Run(repetition, workload.name, case(threads))

    def arguments(place) -> list:
        return ["serve", *place.plexes, "--threads", threads, "--socket", place.socket, "--control", place.control]

    try:
        with rig.server(replace(PLEXUS, arguments=arguments)) as server:
            measure(run, server, workload, MIRROR_BYTES // 2, seconds)
    except Failure as failure:
        run.error = str(failure)
    note(f"{repetition}  {workload.name}  {run.server}: " + (run.error or f"{run.iops:.0f} IOPS"))
    return run


def case(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def measure_threads(rig: Rig, seconds: int, repetitions: int) -> dict:
    for path in rig.place.plexes:
        path.unlink(missing_ok=True)
    rig.plexus("create", EXPORT, *rig.place.plexes, "--size", MIRROR_BYTES, "--spares", 0)
    runs = [run_case(rig, threads, workload, repetition, seconds) for repetition in range(1, repetitions + 1)
            for workload in WORKLOADS for threads in THREADS]
    return {"kind": "threads", "runs": [asdict(run) for run in runs],
            "summary": summarize_cases(runs, [workload.name for workload in WORKLOADS], [case(each) for each in THREADS])}
