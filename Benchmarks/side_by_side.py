#!/usr/bin/env python3
"""Measures Plexus, which writes two plexes, beside other NBD servers, which write one file.

For each repetition and workload, the servers are started afresh one after the other, loaded by fio over a Unix
socket, and stopped, so that whatever else changes on the machine changes for all. All files lie in one directory and
are written in full first: no allocation is measured. Before each run they are flushed and dropped from the page cache
(tmpfs can't drop them); --warm reads them in again, which only helps a server that uses the page cache. A cold run
that is long for its --size also ends up in the page cache: compare like with like, the i/o column says which is which.

Server CPU is user and system time of the server's threads and child processes, io_uring's workers included, from
/proc/PID/stat; the kernel counts it in ticks of 10 ms. The kernel's own write-back threads are in no server's account.
Nothing is asserted about speed. Exit codes: 0 all runs done, 1 some failed, 3 something needed is missing, 64 usage.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from report import Conditions, Run, Workload, document, file_system, note, print_table, summarize
from servers import (DEFAULT_PEERS, EXPORT, HEALTHY_DEADLINE_SECONDS, PEERS, PLEXUS, START_DEADLINE_SECONDS, Failure,
                     Kind, Missing, Place, Server, become_subreaper, call, cpu_ticks, end_descendants)

REPOSITORY = Path(__file__).resolve().parent.parent
KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30
RUN_GRACE_SECONDS = 60
SOCKET_PATH_BYTES_MAX = 107
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

WORKLOADS = [
    Workload("4k randread d16, 1 connection", "randread", 4 * KiB, 16, 1),
    Workload("4k randread d16, 4 connections", "randread", 4 * KiB, 16, 4),
    Workload("4k randwrite d16, 1 connection", "randwrite", 4 * KiB, 16, 1),
    Workload("4k randwrite d16, 4 connections", "randwrite", 4 * KiB, 16, 4),
    Workload("1M read d4, 1 connection", "read", MiB, 4, 1),
    Workload("1M write d4, 1 connection", "write", MiB, 4, 1),
]


# Disks.

def fill(path: Path, size_bytes: int):
    """Writes a file in full, with bytes that no server can take for a hole."""
    piece = os.urandom(4 * MiB)
    with open(path, "wb") as file:
        for offset in range(0, size_bytes, len(piece)):
            file.write(piece[: min(len(piece), size_bytes - offset)])
        file.flush()
        os.fsync(file.fileno())


def settle(paths: list[Path], warm: bool):
    """So that no run pays for the writes of the one before, and none finds what that left in the page cache."""
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while warm and file.read(4 * MiB):
                pass


# Measuring.

def fio(workload: Workload, uri: str, size_bytes: int, seconds: int, seed: int, directory: Path) -> dict:
    """Runs fio's nbd engine, one connection per job, and returns its account of all jobs together.

    Jobs are threads, because processes would stay and load the next server when a hanging fio is killed.
    """
    settings = {
        "name": "bench", "ioengine": "nbd", "uri": uri, "rw": workload.rw, "bs": workload.block_bytes,
        "iodepth": workload.depth, "numjobs": workload.connections, "thread": 1, "group_reporting": 1,
        "size": size_bytes, "time_based": 1, "runtime": seconds, "norandommap": 1, "randseed": seed,
        "output-format": "json", "output": directory / "fio.json",
    }
    call("fio", *(f"--{key}={value}" for key, value in settings.items()), timeout=seconds + RUN_GRACE_SECONDS)
    text = (directory / "fio.json").read_text(encoding="utf-8")
    job = json.loads(text[text.index("{"):])["jobs"][0]
    account = job[workload.direction]
    if job["error"] or account["total_ios"] == 0:
        raise Failure(f"fio: error {job['error']}, {account['total_ios']} requests")
    return account


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


class Benchmark:
    def __init__(self, options, place: Place, executables: dict[str, str], kinds: list[Kind]):
        self.options, self.place, self.executables, self.kinds = options, place, executables, kinds
        self.runs: list[Run] = []
        self.size_bytes = 0

    def server(self, kind: Kind) -> Server:
        return Server(kind, self.executables[kind.name], self.place)

    def prepare(self):
        """Makes the disks. The plexes are copied once here: later starts find a clean mirror."""
        note(f"writing 3 files of {self.options.size // MiB} MiB in {self.place.disks}")
        for path in (*self.place.plexes, self.place.single):
            fill(path, self.options.size)
        executable = self.executables[PLEXUS.name]
        call(executable, "create", EXPORT, *self.place.plexes, "--force", timeout=START_DEADLINE_SECONDS)
        with self.server(PLEXUS):
            status = json.loads(call(executable, "status", EXPORT, "--json", "--control", self.place.control,
                                     timeout=START_DEADLINE_SECONDS))
        mirror = status["mirrors"][0]
        # Less than the files by Plexus' own area at the end; all servers are loaded over the same range.
        self.size_bytes = mirror["size"] // MiB * MiB
        modes = {plex["io"] for plex in mirror["plexes"]}
        note(f"plexus uses {', '.join(sorted(modes))} i/o on {file_system(self.place.disks)}")
        if modes != {"direct"}:
            self.kinds[0] = replace(self.kinds[0], io="page cache, 2 files")

    def run_all(self, workloads: list[Workload]):
        for repetition in range(1, self.options.repetitions + 1):
            for workload in workloads:
                for kind in self.kinds:
                    self.run_one(repetition, workload, kind)

    def run_one(self, repetition: int, workload: Workload, kind: Kind):
        run = Run(repetition, workload.name, kind.name)
        self.runs.append(run)
        settle([*self.place.plexes, self.place.single], self.options.warm)
        try:
            with self.server(kind) as server:
                measure(run, server, workload, self.size_bytes, self.options.seconds)
        except Failure as failure:
            run.error = str(failure)
        outcome = f"FAILED: {run.error}" if run.error else f"{run.iops:.0f} IOPS"
        note(f"{repetition}/{self.options.repetitions}  {workload.name}  {kind.name}: {outcome}")

    def check_mirrored(self):
        """A mirror that does not write twice would be measured in vain."""
        call("cmp", "-n", self.size_bytes, *self.place.plexes, timeout=HEALTHY_DEADLINE_SECONDS)
        note("both plexes hold the same data")


# Setting up.

def size(text: str) -> int:
    units = {"K": KiB, "M": MiB, "G": GiB, "T": 1 << 40}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    value = int(number) * unit
    if value < 64 * MiB or value % MiB:
        raise argparse.ArgumentTypeError("at least 64M, in whole MiB")
    return value


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Environment: PLEXUS, the executable to measure (default: .build/release/plexus).")
    parser.error = lambda message: (parser.print_usage(sys.stderr), note(f"bench: {message}"), sys.exit(64))
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()),
                        help="where the disk files are made: choose the file system to measure, such as /dev/shm")
    parser.add_argument("--size", type=size, default=size("1G"), help="of each of the three files (default: 1G)")
    parser.add_argument("--seconds", type=positive, default=4, help="of each run (default: 4)")
    parser.add_argument("--repetitions", type=positive, default=3, help="of everything (default: 3)")
    parser.add_argument("--peers", default=DEFAULT_PEERS, metavar="LIST",
                        help=f"any of {','.join(peer.name for peer in PEERS)} (default: {DEFAULT_PEERS})")
    parser.add_argument("--only", default="", metavar="TEXT", help="only workloads with TEXT in their names")
    parser.add_argument("--warm", action="store_true", help="start each run with the files in the page cache")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every run and the summary to FILE")
    options = parser.parse_args()
    known = {peer.name: peer for peer in PEERS}
    names = [name for name in options.peers.split(",") if name]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown peer {unknown[0]}")
    options.peers = [known[name] for name in dict.fromkeys(names)]
    options.workloads = [workload for workload in WORKLOADS if options.only in workload.name]
    if not options.workloads:
        parser.error(f"no workload has {options.only} in its name")
    if not options.dir.is_dir():
        parser.error(f"{options.dir} is no directory")
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"{options.json.parent} is no directory")
    return options


def find_executables(peers: list[Kind]) -> dict[str, str]:
    """The path of each server that is there, by name; a peer that is missing is told and left out."""
    plexus = Path(os.environ.get("PLEXUS") or REPOSITORY / ".build/release/plexus").resolve()
    if not os.access(plexus, os.X_OK):
        raise Missing(f"{plexus} is not there: run swift build -c release --product plexus, or set PLEXUS")
    if not shutil.which("fio"):
        raise Missing("fio is not installed: run scripts/install-deps benchmarks")
    found = {PLEXUS.name: str(plexus)}
    for peer in peers:
        # nbd-server lies in /usr/sbin on some systems, which is not in every user's path.
        if path := shutil.which(peer.executable, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin"):
            found[peer.name] = path
        else:
            note(f"skipped {peer.name}: {peer.executable} is not installed (scripts/install-deps benchmarks)")
    return found


def make_place(options, resources: contextlib.ExitStack) -> Place:
    needed = 3 * options.size + 16 * MiB
    if (free := shutil.disk_usage(options.dir).free) < needed:
        raise Missing(f"{options.dir} has {free // MiB} MiB free, {needed // MiB} are needed; choose a smaller --size")
    directories = []
    for parent in (options.dir.resolve(), None):
        directory = Path(tempfile.mkdtemp(prefix="plexus-bench-", dir=parent))
        resources.callback(shutil.rmtree, directory, ignore_errors=True)
        directories.append(directory)
    place = Place(*directories)
    if len(os.fsencode(place.control)) > SOCKET_PATH_BYTES_MAX:
        raise Missing(f"the path {place.control} is too long for a socket; set TMPDIR to a shorter one")
    return place


def interrupt(_number, _frame):
    raise KeyboardInterrupt


def ignore_signals():
    """A second Ctrl-C must not stop the cleaning up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def bench(options, resources: contextlib.ExitStack) -> int:
    load = os.getloadavg()
    executables = find_executables(options.peers)
    kinds = [PLEXUS, *(peer for peer in options.peers if peer.name in executables)]
    place = make_place(options, resources)
    become_subreaper()
    resources.callback(end_descendants)
    resources.callback(ignore_signals)
    benchmark = Benchmark(options, place, executables, kinds)
    benchmark.prepare()
    benchmark.run_all(options.workloads)
    rows = summarize(benchmark.runs, options.workloads, kinds)
    conditions = Conditions(options, place, benchmark.size_bytes, load)
    print(conditions.headline())
    print_table(rows)
    print("\nplexus/it is taken within each repetition: IOPS above 1, p50 and CPU below 1 are in Plexus' favour.",
          flush=True)
    if options.json:
        record = document(conditions, executables, kinds, benchmark.runs, rows)
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    benchmark.check_mirrored()
    failed = sum(run.error is not None for run in benchmark.runs)
    if failed:
        note(f"{failed} of {len(benchmark.runs)} runs failed")
    return 1 if failed else 0


def main() -> int:
    options = parse()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        with contextlib.ExitStack() as resources:
            return bench(options, resources)
    except KeyboardInterrupt:
        note("bench: interrupted; nothing is left behind")
        return 130
    except Missing as missing:
        note(f"bench: {missing}")
        return 3
    except Failure as failure:
        note(f"bench: {failure}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
