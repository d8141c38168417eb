"""Plexus and its peers: how each is told to serve the same kind of disk as well as it can.

None of nbdkit, nbd-server and Plexus can choose between O_DIRECT and the page cache: Plexus takes O_DIRECT wherever the
file system does, the others never. qemu can do both.
"""

from collections.abc import Callable

import md
from processes import find, first_line
from servers import EXPORT, Kind, Place


def plexus_arguments(place: Place) -> list:
    return ["serve", *place.plexes, "--socket", place.socket, "--control", place.control]


def qemu_arguments(cache: str, aio: str, disk: Callable[[Place], object] = lambda place: place.single) -> Callable:
    return lambda place: ["-f", "raw", f"--cache={cache}", f"--aio={aio}", "-t", "-e", "8", "-x", EXPORT,
                          "-k", place.socket, disk(place)]


def quorum_arguments(aio: str) -> Callable[[Place], list]:
    """Writes go to both files and one vote is enough; reads go to the first file alone, as a mirror would."""
    def disk(name: str, path: object) -> str:
        return f"driver=file,node-name={name},filename={path},cache.direct=on,aio={aio}"

    return lambda place: [
        "--blockdev", disk("first", place.singles[0]), "--blockdev", disk("second", place.singles[1]),
        "--blockdev", "driver=quorum,node-name=both,children.0=first,children.1=second,vote-threshold=1,read-pattern=fifo",
        "--nbd-server", f"addr.type=unix,addr.path={place.socket},max-connections=0",
        "--export", f"type=nbd,id=export,node-name=both,name={EXPORT},writable=on"]


def quorum_obstacle() -> str | None:
    """Some distributions build qemu without it. The child does not exist, so that nothing is started."""
    blockdev = "driver=quorum,node-name=both,children.0=nothing,vote-threshold=1"
    answer = first_line(find("qemu-storage-daemon"), "--blockdev", blockdev)
    return "this qemu has no quorum driver" if "driver 'quorum'" in answer else None


def nbdkit_arguments(threads: int | None = None) -> Callable[[Place], list]:
    """Without a number nbdkit takes 16 threads for each connection; with 1 it is spared their hand-over."""
    count = ["-t", threads] if threads else []
    return lambda place: ["-f", *count, "-U", place.socket, "file", place.single]


def nbdkit_null_arguments(place: Place) -> list:
    """Neither stores nor reads: what is left is the protocol."""
    return ["-f", "-t", 1, "-U", place.socket, "null", f"size={place.single.stat().st_size}"]


def nbd_server_arguments(place: Place) -> list:
    """Flush, FUA and trim are off unless asked for; that several connections are safe it always says."""
    config = place.run / "nbd-server.conf"
    config.write_text(
        f"[generic]\nunixsock = {place.socket}\n"
        f"[{EXPORT}]\nexportname = {place.single}\nflush = true\nfua = true\ntrim = true\n", encoding="utf-8")
    return ["-C", config, "-p", place.pid_file]


PLEXUS = Kind("plexus", "plexus", "direct, 2 files", plexus_arguments, files=2)
# nbd-server -d would stay in the foreground, but then serves one connection at a time.
PEERS = [
    Kind("nbdkit", "nbdkit", "page cache", nbdkit_arguments()),
    Kind("nbdkit-t1", "nbdkit", "page cache", nbdkit_arguments(1)),
    Kind("nbdkit-null", "nbdkit", "nothing stored", nbdkit_null_arguments),
    Kind("nbd-server", "nbd-server", "page cache", nbd_server_arguments, is_daemon=True),
    Kind("qemu-nbd", "qemu-nbd", "direct", qemu_arguments("none", "io_uring")),
    Kind("qemu-nbd-native", "qemu-nbd", "direct", qemu_arguments("none", "native")),
    Kind("qemu-nbd-cached", "qemu-nbd", "page cache", qemu_arguments("writeback", "io_uring")),
    Kind("qemu-nbd-threads", "qemu-nbd", "page cache", qemu_arguments("writeback", "threads")),
    Kind("quorum", "qemu-storage-daemon", "direct, 2 files", quorum_arguments("native"), files=2,
         obstacle=quorum_obstacle),
    Kind("md-raid1", "qemu-nbd", "direct, 2 files", qemu_arguments("none", "native", lambda place: place.array),
         files=2, obstacle=md.obstacle, backing=md.array),
]
QUICK_PEERS = "qemu-nbd,nbdkit,nbd-server"
FULL_PEERS = ",".join(peer.name for peer in PEERS)
