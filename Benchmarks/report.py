"""What side_by_side.py makes of its runs: medians, spreads and ratios, as a table and as JSON."""

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from servers import PLEXUS, START_DEADLINE_SECONDS, Kind, Place


@dataclass(frozen=True)
class Workload:
    name: str
    rw: str
    block_bytes: int
    depth: int
    connections: int

    @property
    def direction(self) -> str:
        return "write" if "write" in self.rw else "read"


@dataclass
class Run:
    """One server under one workload. Latencies are fio's completion latencies over all connections."""

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


def note(text: str):
    print(text, file=sys.stderr, flush=True)


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


MEASURES = ["iops", "megabytes_per_second", "p50_microseconds", "p99_microseconds", "cpu_microseconds_per_request"]


def ratios(ours: dict[int, Run], theirs: dict[int, Run]) -> dict[str, Spread]:
    """Plexus divided by a peer, within each repetition: what slowed both down at the same time drops out."""
    result = {}
    for measure_name in MEASURES:
        values = [getattr(ours[each], measure_name) / getattr(theirs[each], measure_name)
                  for each in ours.keys() & theirs.keys() if getattr(theirs[each], measure_name) > 0]
        if values:
            result[measure_name] = Spread.of(values)
    return result


def summarize(runs: list[Run], workloads: list[Workload], kinds: list[Kind]) -> list[dict]:
    rows = []
    for workload in workloads:
        good = {kind.name: {run.repetition: run for run in runs
                            if run.workload == workload.name and run.server == kind.name and not run.error}
                for kind in kinds}
        for kind in kinds:
            mine = good[kind.name]
            rows.append({
                "workload": workload.name, "server": kind.name, "io": kind.io, "runs": len(mine),
                "measures": {name: Spread.of([getattr(run, name) for run in mine.values()])
                             for name in MEASURES} if mine else {},
                "plexusDividedByThis": {} if kind.is_plexus else ratios(good[PLEXUS.name], mine),
            })
    return rows


def print_table(rows: list[dict]):
    heads = ["server", "i/o", "IOPS (min..max)", "MB/s", "p50 us", "p99 us", "CPU us/req",
             "plexus/it: IOPS (min..max)", "p50", "CPU"]
    lines = [(row["workload"], line(row)) for row in rows]
    widths = [max(len(heads[column]), *(len(cells[column]) for _, cells in lines)) for column in range(len(heads))]

    def text(cells: list[str]) -> str:
        return "  ".join([*(cell.ljust(width) for cell, width in zip(cells[:2], widths[:2])),
                          *(cell.rjust(width) for cell, width in zip(cells[2:], widths[2:]))]).rstrip()

    workload = None
    for name, cells in lines:
        if name != workload:
            print(f"\n{name}\n  {text(heads)}")
            workload = name
        print(f"  {text(cells)}")


def line(row: dict) -> list[str]:
    measures, ratio = row["measures"], row["plexusDividedByThis"]
    if not measures:
        return [row["server"], row["io"], "failed", *[""] * 7]

    def median(table: dict, name: str, digits: int) -> str:
        return f"{table[name].median:.{digits}f}" if name in table else ""

    return [row["server"], row["io"], measures["iops"].text(0), median(measures, "megabytes_per_second", 0),
            median(measures, "p50_microseconds", 0), median(measures, "p99_microseconds", 0),
            median(measures, "cpu_microseconds_per_request", 1),
            ratio["iops"].text(2) if "iops" in ratio else "",
            median(ratio, "p50_microseconds", 2), median(ratio, "cpu_microseconds_per_request", 2)]


def file_system(directory: Path) -> str:
    """The type of the file system that holds a directory."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        _, point, fstype = line.split()[:3]
        point = point.encode().decode("unicode_escape")
        if directory.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, fstype
    return kind


def first_line(*argv) -> str:
    """What a program says of its version; some answer on stderr, some with an exit code."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=START_DEADLINE_SECONDS)
        return (done.stdout.strip().splitlines() or [""])[0]
    return ""


def processor() -> str:
    for entry in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if entry.startswith("model name"):
            return entry.partition(":")[2].strip()
    return platform.machine()


@dataclass(frozen=True)
class Conditions:
    """Under which all runs were made. `size_bytes` is the range that was loaded."""

    options: argparse.Namespace
    place: Place
    size_bytes: int
    load: tuple[float, float, float]

    @property
    def page_cache(self) -> str:
        return "warm" if self.options.warm else "cold"

    def headline(self) -> str:
        return (f"{processor()}, {os.cpu_count()} processors, Linux {platform.release()}, "
                f"{file_system(self.place.disks)}, load {self.load[0]:.1f} at start; {self.size_bytes >> 20} MiB, "
                f"page cache {self.page_cache}, {self.options.repetitions} x {self.options.seconds} s, medians")


def document(conditions: Conditions, executables: dict[str, str], kinds: list[Kind], runs: list[Run],
             rows: list[dict]) -> dict:
    options, place = conditions.options, conditions.place
    return {
        "version": 1,
        "machine": {"kernel": platform.release(), "processor": processor(), "processors": os.cpu_count(),
                    "fileSystem": file_system(place.disks), "loadAverageAtStart": conditions.load},
        "settings": {"sizeBytes": conditions.size_bytes, "seconds": options.seconds,
                     "repetitions": options.repetitions, "pageCache": conditions.page_cache,
                     "fio": first_line("fio", "--version")},
        "servers": [{"name": kind.name, "io": kind.io,
                     "version": first_line(executables[kind.name], "-V" if kind.name == "nbd-server" else "--version"),
                     "arguments": [str(word) for word in kind.arguments(place)]}
                    for kind in kinds],
        "runs": [asdict(run) for run in runs],
        "summary": [row | {key: {name: asdict(spread) for name, spread in row[key].items()}
                           for key in ("measures", "plexusDividedByThis")} for row in rows],
    }
