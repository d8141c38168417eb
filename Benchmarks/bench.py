#!/usr/bin/env python3
"""Measures Plexus, which writes two plexes, beside other NBD servers, most of which write one file.

For each repetition and workload, the servers are started afresh one after the other, loaded by fio over a Unix
socket, and stopped, so that whatever else changes on the machine changes for all. All files lie in one directory and
are written in full first: no allocation is measured. Before each run they are flushed and dropped from the page cache
(tmpfs can't drop them); --warm reads them in again, which only helps a server that uses the page cache. A cold run
that is long for its --size also ends up in the page cache: compare like with like, the i/o column says which is which.

Server CPU is user and system time of the server's threads and child processes, io_uring's workers included, from
/proc/PID/stat; the kernel counts it in ticks of 10 ms. The kernel's own threads, which write back and do md's and the
loop devices' work, are in no server's account. Latencies are of reads and writes alone; a flush shows in the rate of
the writes that wait for it, and in the CPU.

Nothing is asserted about speed. Exit codes: 0 all runs done, 1 some failed, 3 something needed is missing, 64 usage.

Instead of that, --memory, --growth and --bitmap measure Plexus alone, on sparse mirrors of up to 16 TiB, and --resync
and --threads on one of --size and of 512 MiB.
"""

import argparse
import contextlib
import datetime
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from bitmap import measure_bitmap
from cases import print_cases
from growth import measure_growth
from machine import file_system, machine, machine_text
from memory import measure_memory, print_memory
from more_threads import measure_threads
from peers import FULL_PEERS, PEERS, PLEXUS, QUICK_PEERS
from plot import write_plots
from processes import Failure, Missing, become_subreaper, end_descendants, find, note
from report import headline, print_table
from resync import measure_resync, print_resync
from servers import Kind, Place, Rig
from side_by_side import SideBySide, peer_files
from workloads import GiB, KiB, MiB, TiB, WORKLOADS

REPOSITORY = Path(__file__).resolve().parent.parent
SOCKET_PATH_BYTES_MAX = 107
# The sparse mirrors hold their metadata, and 2 GiB that bitmap.py writes at most.
SPARSE_BYTES = 3 * GiB


# Setting up.

def size(text: str) -> int:
    units = {"K": KiB, "M": MiB, "G": GiB, "T": TiB}
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


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Environment: PLEXUS, the executable to measure (default: .build/release/plexus).")
    result.error = lambda message: (result.print_usage(sys.stderr), note(f"bench: {message}"), sys.exit(64))
    result.add_argument("--dir", type=Path, action="append", metavar="DIR",
                        help="where the disk files are made: choose the file system to measure, such as /dev/shm; "
                        "again for another one (default: the system's directory for temporary files)")
    result.add_argument("--size", type=size, default=size("1G"), help="of each of the files (default: 1G)")
    result.add_argument("--seconds", type=positive, default=4, help="of each run (default: 4)")
    result.add_argument("--repetitions", type=positive, default=3, help="of everything (default: 3)")
    extent = result.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="six workloads and three peers; this is the default")
    extent.add_argument("--full", action="store_true", help=f"all {len(WORKLOADS)} workloads and all peers")
    result.add_argument("--peers", metavar="LIST", help=f"any of {FULL_PEERS} (default: {QUICK_PEERS})")
    result.add_argument("--only", default="", metavar="TEXT", help="of all workloads those with TEXT in their names")
    result.add_argument("--warm", action="store_true", help="start each run with the files in the page cache")
    result.add_argument("--json", type=Path, metavar="FILE", help="also write every run and the summary to FILE")
    result.add_argument("--plot", type=Path, metavar="FILE", help="also draw the comparison, as SVG")
    alone = result.add_argument_group("Plexus alone, instead of the comparison")
    alone.add_argument("--memory", action="store_true",
                       help="resident memory idle, with 1,000 idle clients and with 1,000 stalled ones")
    alone.add_argument("--growth", action="store_true",
                       help="cost of a request from 1 GiB to 16 TiB, 1 to 64 mirrors, 1 to 1,000 idle clients")
    alone.add_argument("--bitmap", action="store_true", help="cost of the write-intent bitmap")
    alone.add_argument("--resync", action="store_true",
                       help="rate of a resync beside a plain copy, and what clients feel of it")
    alone.add_argument("--threads", action="store_true", help="one mirror served by one and by two threads")
    return result


def parse() -> argparse.Namespace:
    arguments = parser()
    options = arguments.parse_args()
    known = {peer.name: peer for peer in PEERS}
    if options.peers is None:
        options.peers = FULL_PEERS if options.full else QUICK_PEERS
    names = [name for name in options.peers.split(",") if name]
    if unknown := [name for name in names if name not in known]:
        arguments.error(f"unknown peer {unknown[0]}")
    options.peers = [known[name] for name in dict.fromkeys(names)]
    options.workloads = [workload for workload in WORKLOADS
                         if (options.only in workload.name if options.only else options.full or workload.is_quick)]
    if not options.workloads:
        arguments.error(f"no workload has {options.only} in its name")
    options.compare = not (options.memory or options.growth or options.bitmap or options.resync or options.threads)
    if options.plot and not options.compare:
        arguments.error("--plot is for the comparison")
    options.dir = options.dir or [Path(tempfile.gettempdir())]
    for directory in options.dir:
        if not directory.is_dir():
            arguments.error(f"{directory} is no directory")
    for path in filter(None, (options.json, options.plot)):
        if not path.absolute().parent.is_dir():
            arguments.error(f"{path.parent} is no directory")
    return options


def find_executables(peers: list[Kind]) -> dict[str, str]:
    """The path of each server that is there, by name; a peer that is missing is told and left out."""
    plexus = Path(os.environ.get("PLEXUS") or REPOSITORY / ".build/release/plexus").resolve()
    if not os.access(plexus, os.X_OK):
        raise Missing(f"{plexus} is not there: run swift build -c release --static-swift-stdlib --product plexus, or set PLEXUS")
    if not find("fio"):
        raise Missing("fio is not installed: run scripts/install-deps benchmarks")
    found = {PLEXUS.name: str(plexus)}
    for peer in peers:
        path = find(peer.executable)
        if not path:
            note(f"skipped {peer.name}: {peer.executable} is not installed (scripts/install-deps benchmarks)")
        elif obstacle := peer.obstacle():
            note(f"skipped {peer.name}: {obstacle}")
        else:
            found[peer.name] = path
    return found


def make_place(directory: Path, needed_bytes: int, resources: contextlib.ExitStack) -> Place:
    if (free := shutil.disk_usage(directory).free) < needed_bytes:
        raise Missing(f"{directory} has {free // MiB} MiB free, {needed_bytes // MiB} are needed; "
                      "choose a smaller --size")
    directories = []
    for parent in (directory.resolve(), None):
        made = Path(tempfile.mkdtemp(prefix="plexus-bench-", dir=parent))
        resources.callback(shutil.rmtree, made, ignore_errors=True)
        directories.append(made)
    resources.callback(end_descendants)
    resources.callback(ignore_signals)
    place = Place(*directories)
    if len(os.fsencode(place.control)) > SOCKET_PATH_BYTES_MAX:
        raise Missing(f"the path {place.control} is too long for a socket; set TMPDIR to a shorter one")
    return place


# Measuring.

def compare(options, directory: Path, executables: dict[str, str], about: dict) -> dict:
    kinds = [PLEXUS, *(peer for peer in options.peers if peer.name in executables)]
    with contextlib.ExitStack() as resources:
        place = make_place(directory, (2 + peer_files(kinds)) * options.size + 16 * MiB, resources)
        comparison = SideBySide(options, Rig(place, executables), kinds)
        comparison.run(resources)
        result = comparison.result()
        print(headline(about, result))
        print_table(result["summary"])
        comparison.check_mirrored()
    return result


def measure_alone(options, directory: Path, executables: dict[str, str], about: dict) -> list[dict]:
    results = []
    with contextlib.ExitStack() as resources:
        place = make_place(directory, max(SPARSE_BYTES, 2 * options.size), resources)
        rig = Rig(place, executables)
        print(f"{machine_text(about)}, {file_system(place.disks)}")
        if options.memory:
            results.append(measure_memory(rig))
            print_memory(results[-1])
        if options.growth:
            results.append(measure_growth(rig, options.seconds, options.repetitions))
            print_cases(results[-1])
        if options.bitmap:
            results.append(measure_bitmap(rig, options.repetitions))
            print_cases(results[-1])
        if options.resync:
            results.append(measure_resync(rig, options.size, options.repetitions, options.seconds))
            print_resync(results[-1])
        if options.threads:
            results.append(measure_threads(rig, options.seconds, options.repetitions))
            print_cases(results[-1])
        for result in results:
            result["fileSystem"] = file_system(place.disks)
    return results


def bench(options) -> int:
    about = machine()
    executables = find_executables(options.peers if options.compare else [])
    become_subreaper()
    results = []
    for directory in options.dir:
        on_signals(interrupt)
        if options.compare:
            results.append(compare(options, directory, executables, about))
        else:
            results += measure_alone(options, directory, executables, about)
    document = {"version": 2, "date": datetime.date.today().isoformat(), "machine": about, "results": results}
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if options.plot:
        write_plots(options.plot, document)
    runs = [run for result in results for run in result.get("runs", [])]
    failed = sum(run["error"] is not None for run in runs)
    if failed:
        note(f"{failed} of {len(runs)} runs failed")
    return 1 if failed else 0


def interrupt(_number, _frame):
    raise KeyboardInterrupt


def on_signals(action):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, action)


def ignore_signals():
    """While one directory is cleaned up, which a second Ctrl-C must not stop."""
    on_signals(signal.SIG_IGN)


def main() -> int:
    options = parse()
    try:
        return bench(options)
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
