"""How fast a plex is copied, beside a plain copy between the same two files, and what clients feel meanwhile.

The second plex is forgotten and joined again, so that everything is copied, again and again; clients are first
measured while nothing runs, then while a resync does.
"""

import contextlib
import json
import socket
import statistics
import threading
import time
from dataclasses import asdict, dataclass

from peers import PLEXUS
from processes import Failure, call, note
from runs import Run, Spread, measure
from servers import EXPORT, Rig, Server
from side_by_side import fill
from workloads import KiB, MiB, Workload

DEADLINE_SECONDS = 600
# An answer costs the server about as much as some hundred requests: rarely where clients are measured.
POLL_SECONDS, RARE_POLL_SECONDS = 0.02, 0.5
# A client that always waits for one answer, and one that keeps some requests in flight.
WORKLOADS = [Workload("4k randread d1", "randread", 4 * KiB, 1), Workload("4k randwrite d1", "randwrite", 4 * KiB, 1),
             Workload("4k mixed 70/30 d16", "randrw", 4 * KiB, 16, read_percent=70)]


@dataclass
class Copy:
    """One plain copy and one resync right after it; MB/s."""

    repetition: int
    plain: float
    resync: float


class Control:
    """The server's control socket: a verb, an answer, without a process in between."""

    def __init__(self, server: Server):
        self.path = str(server.place.control)

    def ask(self, verb: str, **words) -> dict:
        with socket.socket(socket.AF_UNIX) as connection, contextlib.ExitStack() as stack:
            connection.settimeout(DEADLINE_SECONDS)
            connection.connect(self.path)
            lines = stack.enter_context(connection.makefile("rw", encoding="utf-8"))
            lines.write(json.dumps({"version": 1, "verb": verb, "mirror": EXPORT} | words) + "\n")
            lines.flush()
            answer = json.loads(lines.readline())
        if error := answer.get("error"):
            raise Failure(f"{verb}: {error}")
        return answer

    def mirror(self) -> dict:
        return self.ask("status")["status"]["mirrors"][0]

    def copy_again(self, server: Server, poll_seconds: float = POLL_SECONDS):
        """Forgets the second plex, joins its disk as a new one, and waits until it is in sync."""
        disk = str(server.place.plexes[1])
        self.ask("break", plex=disk, keep=False)
        self.ask("join", disk=disk, force=True)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.mirror()["state"] != "healthy":
            if time.monotonic() > deadline:
                raise Failure("a resync that does not end")
            time.sleep(poll_seconds)


def create(rig: Rig, size_bytes: int):
    for path in rig.place.plexes:
        fill(path, size_bytes)
    rig.plexus("create", EXPORT, *rig.place.plexes, "--spares", 0)


def plain_copy(rig: Rig, mirror_bytes: int) -> float:
    """Seconds for what one would type, past the page cache where the file system can."""
    source, target = rig.place.plexes
    begun = time.monotonic()
    # On the mirror's own data only: its metadata lies behind.
    call("dd", f"if={source}", f"of={target}", "bs=1M", f"count={mirror_bytes // MiB}", "iflag=direct", "oflag=direct",
         "conv=notrunc,fdatasync", timeout=DEADLINE_SECONDS)
    return time.monotonic() - begun


def copies(rig: Rig, repetitions: int) -> list[Copy]:
    result = []
    with rig.server(PLEXUS) as server:
        mirror_bytes = Control(server).mirror()["size"]
    for repetition in range(1, repetitions + 1):
        plain = plain_copy(rig, mirror_bytes)
        with rig.server(PLEXUS) as server:
            begun = time.monotonic()
            Control(server).copy_again(server)
            seconds = time.monotonic() - begun
        result.append(Copy(repetition, mirror_bytes / 1e6 / plain, mirror_bytes / 1e6 / seconds))
        note(f"{repetition}  plain copy {result[-1].plain:.0f} MB/s, resync {result[-1].resync:.0f} MB/s")
    return result


@contextlib.contextmanager
def resyncs(server: Server):
    """One after the other, as long as the context lasts."""
    ends, failures = threading.Event(), []

    def work():
        try:
            while not ends.is_set():
                Control(server).copy_again(server, RARE_POLL_SECONDS)
        except (Failure, OSError) as failure:
            failures.append(failure)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
    if failures:
        raise Failure(str(failures[0]))


def beside_clients(rig: Rig, size_bytes: int, repetitions: int, seconds: int) -> list[Run]:
    runs = []
    for repetition in range(1, repetitions + 1):
        for workload in WORKLOADS:
            alone, beside = (Run(repetition, workload.name, name) for name in ("alone", "beside a resync"))
            with rig.server(PLEXUS) as server:
                measure(alone, server, workload, size_bytes, seconds)
                with resyncs(server):
                    measure(beside, server, workload, size_bytes, seconds)
            runs += [alone, beside]
            note(f"{repetition}  {workload.name}: p99 {alone.p99_microseconds:.0f} us alone, "
                 f"{beside.p99_microseconds:.0f} us beside a resync")
    return runs


def measure_resync(rig: Rig, size_bytes: int, repetitions: int, seconds: int) -> dict:
    create(rig, size_bytes)
    copied = copies(rig, repetitions)
    runs = beside_clients(rig, size_bytes // 2, repetitions, seconds)
    return {"kind": "resync", "copies": [asdict(copy) for copy in copied], "runs": [asdict(run) for run in runs],
            "ratio": asdict(Spread.of([copy.resync / copy.plain for copy in copied]))}


def print_resync(result: dict):
    print(f"\n{'plain copy MB/s':>16}  {'resync MB/s':>12}  resync / plain")
    for copy in result["copies"]:
        print(f"{copy['plain']:16.0f}  {copy['resync']:12.0f}  {copy['resync'] / copy['plain']:14.2f}")
    print(f"median {result['ratio']['median']:.2f}; asked for: 0.80")
    print(f"\n{'clients':24}  {'p99 us alone':>12}  {'beside a resync':>15}  ratio (median of {len(result['copies'])})  IOPS ratio")
    for workload in WORKLOADS:
        runs = [run for run in result["runs"] if run["workload"] == workload.name]
        pairs = list(zip(runs[::2], runs[1::2]))
        p99 = [statistics.median(run["p99_microseconds"] for run in side) for side in zip(*pairs)]
        ratio = statistics.median(beside["p99_microseconds"] / alone["p99_microseconds"] for alone, beside in pairs)
        rate = statistics.median(beside["iops"] / alone["iops"] for alone, beside in pairs)
        print(f"{workload.name:24}  {p99[0]:12.0f}  {p99[1]:15.0f}  {ratio:21.2f}  {rate:10.2f}")
    print("asked for: a p99 of at most twice that alone")
