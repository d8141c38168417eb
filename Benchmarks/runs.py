"""One run of one server under one workload, and what several of them say together."""

import os
import statistics
from dataclasses import asdict, dataclass

from processes import cpu_ticks
from servers import Server
from workloads import Workload, fio

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MEASURES = ["iops", "megabytes_per_second", "p50_microseconds", "p99_microseconds", "cpu_microseconds_per_request"]


@dataclass
class Run:
    """One server under one workload. Latencies are fio's completion latencies of reads and writes, over all
    connections; flushes are in the CPU and in the rate, and not counted as requests.
    """

    repetition: int
    workload: str
    server: str
    requests: int = 0
    iops: float = 0
    megabytes_per_second: float = 0
    p50_microseconds: float = 0
    p99_microseconds: float = 0
    cpu_microseconds_per_request: float = 0
    error: str | None = None


def measure(run: Run, server: Server, workload: Workload, size_bytes: int, seconds: int):
    before = cpu_ticks(server.pid)
    account = fio(workload, server.place.uri, size_bytes, seconds, run.repetition, server.place.run)
    ticks = cpu_ticks(server.pid) - before
    percentiles = account["clat_ns"]["percentile"]
    run.requests = account["total_ios"]
    run.iops = account["iops"]
    run.megabytes_per_second = account["bw_bytes"] / 1e6
    run.p50_microseconds = percentiles["50.000000"] / 1e3
    run.p99_microseconds = percentiles["99.000000"] / 1e3
    run.cpu_microseconds_per_request = ticks / TICKS_PER_SECOND * 1e6 / run.requests


@dataclass
class Spread:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int) -> str:
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}..{self.high:.{digits}f})"


def spreads(runs: list[Run]) -> dict[str, Spread]:
    return {name: Spread.of([getattr(run, name) for run in runs]) for name in MEASURES} if runs else {}


def ratios(ours: dict[int, Run], theirs: dict[int, Run]) -> dict[str, Spread]:
    """Ours divided by theirs, within each repetition: what slowed both down at the same time drops out."""
    result = {}
    for measure_name in MEASURES:
        values = [getattr(ours[each], measure_name) / getattr(theirs[each], measure_name)
                  for each in ours.keys() & theirs.keys() if getattr(theirs[each], measure_name) > 0]
        if values:
            result[measure_name] = Spread.of(values)
    return result


def as_plain(table: dict[str, Spread]) -> dict:
    """For JSON."""
    return {name: asdict(spread) for name, spread in table.items()}
