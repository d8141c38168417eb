"""Memory and CPU of a Plexus server at rest: with a huge mirror, a thousand idle clients, a thousand stalled ones."""

import contextlib
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from nbd_client import READ, WRITE, Client, connected, count_open, push, request
from peers import PLEXUS
from processes import Failure, cpu_nanoseconds, memory_bytes, note
from servers import EXPORT, Rig, Server
from workloads import GiB, KiB, MiB, TiB

CLIENTS = 1000
# ext4 with 4 KiB blocks ends just below 16 TiB.
LARGEST_BYTES = [16 * TiB, 15 * TiB, 8 * TiB, TiB]
TARGET_IDLE_BYTES = 64 * MiB
TARGET_CLIENTS_BYTES = 256 * MiB
# What stalled clients ask for, in turns: one fits into many small buffers, the other needs large ones.
TRANSFER_BYTES = [128 * KiB, 4 * MiB]
READS_PER_DEAF_CLIENT = 16
# A socket of 208 KiB holds 13,000 replies of 16 bytes; what comes after stays in the server.
REQUESTS_PER_REFUSED_CLIENT = 20_000
REST_SECONDS = 3
QUIET_SECONDS = 1
PUSH_DEADLINE_SECONDS = 30


@dataclass
class State:
    """One server at rest. RSS in bytes; `peak` since its start. A probe is another client's connection and read."""

    name: str
    mirror_bytes: int
    clients: int
    clients_left: int = 0
    rss_bytes: int = 0
    peak_bytes: int = 0
    cpu_percent: float = 0
    probe_milliseconds: float | None = None
    target_bytes: int = 0


def idle(_clients: list[Client], _mirror_bytes: int):
    """They have done the handshake and say nothing."""


def stall_writes(clients: list[Client], mirror_bytes: int):
    """Each announces a write and sends half of it."""
    sizes = [TRANSFER_BYTES[index % len(TRANSFER_BYTES)] for index in range(len(clients))]
    messages = {size: request(WRITE, mirror_bytes // 2, size) + bytes(size // 2) for size in TRANSFER_BYTES}
    push(clients, [messages[size] for size in sizes], QUIET_SECONDS, PUSH_DEADLINE_SECONDS)


def stop_listening(clients: list[Client], mirror_bytes: int):
    """Each asks for much more than a socket holds, and takes none of it."""
    sizes = [TRANSFER_BYTES[index % len(TRANSFER_BYTES)] for index in range(len(clients))]
    messages = {size: request(READ, mirror_bytes // 2, size) * READS_PER_DEAF_CLIENT for size in TRANSFER_BYTES}
    push(clients, [messages[size] for size in sizes], QUIET_SECONDS, PUSH_DEADLINE_SECONDS)


def ignore_refusals(clients: list[Client], mirror_bytes: int):
    """Each asks for what lies beyond the end, and takes no answer: many small replies, without a payload."""
    message = request(READ, mirror_bytes, 4 * KiB) * REQUESTS_PER_REFUSED_CLIENT
    push(clients, [message] * len(clients), QUIET_SECONDS, PUSH_DEADLINE_SECONDS)


def raise_file_limit():
    """Here and, by inheritance, in the server: both ends of each connection are open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = CLIENTS + 256
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise Failure(f"{needed} open files are needed, {hard} are allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def create_sparse(rig: Rig, sizes_bytes: list[int]) -> int:
    """A mirror on new files without data, of the first size that the file system takes. Without a spare pool, which
    is written in full: 3.3 GiB on each disk of 16 TiB.
    """
    for size in sizes_bytes:
        for path in rig.place.plexes:
            path.unlink(missing_ok=True)
        try:
            rig.plexus("create", EXPORT, *rig.place.plexes, "--size", size, "--spares", 0)
            return size
        except Failure as failure:
            note(f"no mirror of {size // GiB} GiB here: {str(failure).splitlines()[-1]}")
            last = failure
    raise last


def probe(server: Server, state: State):
    state.rss_bytes = memory_bytes(server.pid, "VmRSS")
    begun, cpu = time.monotonic_ns(), cpu_nanoseconds(server.pid)
    time.sleep(REST_SECONDS)
    state.cpu_percent = 100 * (cpu_nanoseconds(server.pid) - cpu) / (time.monotonic_ns() - begun)
    with contextlib.suppress(Failure, OSError):
        begun = time.monotonic_ns()
        client = Client(server.place.socket, EXPORT)
        try:
            client.read(0, 4 * KiB)
            state.probe_milliseconds = (time.monotonic_ns() - begun) / 1e6
        finally:
            client.close()
    state.rss_bytes = max(state.rss_bytes, memory_bytes(server.pid, "VmRSS"))
    state.peak_bytes = memory_bytes(server.pid, "VmHWM")


def at_rest(rig: Rig, name: str, mirror_bytes: int, clients: int, act: Callable[[list[Client], int], None]) -> State:
    state = State(name, mirror_bytes, clients, target_bytes=TARGET_CLIENTS_BYTES if clients else TARGET_IDLE_BYTES)
    with rig.server(PLEXUS) as server, connected(server.place.socket, EXPORT, clients) as connections:
        act(connections, mirror_bytes)
        probe(server, state)
        state.clients_left = count_open(connections)
    note(f"memory: {name}, mirror of {mirror_bytes // GiB} GiB: {state.rss_bytes / MiB:.0f} MiB")
    return state


def measure_memory(rig: Rig) -> dict:
    raise_file_limit()
    small = create_sparse(rig, [GiB])
    states = [at_rest(rig, "idle", small, 0, idle)]
    large = create_sparse(rig, LARGEST_BYTES)
    states += [
        at_rest(rig, "idle", large, 0, idle),
        at_rest(rig, f"{CLIENTS} idle clients", large, CLIENTS, idle),
        at_rest(rig, f"{CLIENTS} clients with half a write", large, CLIENTS, stall_writes),
        at_rest(rig, f"{CLIENTS} clients that take no data", large, CLIENTS, stop_listening),
        at_rest(rig, f"{CLIENTS} clients that take no refusals", large, CLIENTS, ignore_refusals),
    ]
    return {"kind": "memory", "states": [asdict(state) for state in states]}


def print_memory(result: dict):
    print(f"\n{'state':38}  mirror GiB  clients left  RSS MiB  peak MiB  asked MiB  CPU %  other client ms")
    for state in (State(**each) for each in result["states"]):
        verdict = "" if state.peak_bytes <= state.target_bytes else "  MISSED"
        probe = "no answer" if state.probe_milliseconds is None else f"{state.probe_milliseconds:.1f}"
        print(f"{state.name:38}  {state.mirror_bytes // GiB:10}  {state.clients_left:12}  "
              f"{state.rss_bytes / MiB:7.1f}  {state.peak_bytes / MiB:8.1f}  {state.target_bytes // MiB:>9}  "
              f"{state.cpu_percent:5.2f}  {probe:>15}{verdict}")
    print("RSS is what /proc/PID/status says; what the kernel holds for sockets is not in it. Peak is since the start\n"
          "of that server. CPU is of one processor, over 3 s after all had come to rest.")
