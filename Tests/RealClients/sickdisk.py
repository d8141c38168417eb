"""A disk with one bad block, on demand, and tests of a mirror that has one."""

from plexus import Case, MiB, wait_until

BLOCK = 4096
SIZE = 32 * MiB
PLACE = 5 * MiB + 3 * BLOCK


class SickDisk:
    """nbdkit's eval plugin behind nbdfuse; `file` is handed to plexus as a disk.

    The block at `place` can't be read while `unreadable` is there; writing to it cures that, unless `stubborn` is there: then
    writing fails, too; or `liar`: then something else is written there, and nothing is said."""

    def __init__(self, case: Case, name: str, size: int, place: int):
        # Not beside the disks, where a search would take it for a clone of itself.
        (case.dir / "legs").mkdir(exist_ok=True)
        self.image = case.disk(f"legs/{name}.img", size)
        self.unreadable, self.stubborn, self.liar = (case.dir / f"{name}.{word}" for word in
                                                     ("unreadable", "stubborn", "liar"))
        socket = case.dir / f"{name}.sock"
        dd = "dd status=none iflag=count_bytes,skip_bytes,fullblock oflag=seek_bytes conv=notrunc bs=256k"
        hit = f"[ $4 -lt {place + BLOCK} ] && [ $(($4 + $3)) -gt {place} ]"
        case.spawn(
            f"nbdkit-{name}", "nbdkit", "-f", "-U", socket, "eval", f"get_size=stat -c %s {self.image}",
            f"pread=if [ -e {self.unreadable} ] && {hit}; then echo EIO bad block >&2; exit 1; fi; "
            f"{dd} if={self.image} skip=$4 count=$3",
            f"pwrite=if [ -e {self.stubborn} ] && {hit}; then cat >/dev/null; echo EIO bad block >&2; exit 1; fi; "
            f"{dd} of={self.image} seek=$4 count=$3 || exit 1; if {hit}; then rm -f {self.unreadable}; "
            f"if [ -e {self.liar} ]; then {dd} if=/dev/urandom of={self.image} seek={place} count={BLOCK}; fi; fi",
            "can_write=exit 0", "can_flush=exit 0", "flush=exit 0")
        wait_until(socket.exists, f"nbdkit to listen on {socket}")
        self.file = case.fuse(f"nbd+unix:///?socket={socket}", name)


class BadBlock(Case):
    """A mirror of a good disk and one whose block at PLACE is bad when the test says so."""

    def setUp(self):
        super().setUp()
        self.need("nbdkit", "nbdfuse", "qemu-io")
        self.need_fuse()
        self.sick = SickDisk(self, "sick", SIZE, PLACE)
        self.good = self.disk("good.img", SIZE)

    def start(self, *options):
        self.plexus("create", "data", self.sick.file, self.good, *options)
        self.server = self.serve((self.sick.file, self.good))
        self.server.wait_healthy()

    def io(self, *commands: str, code: int = 0):
        words = [word for command in commands for word in ("-c", command)]
        return self.call("qemu-io", "-f", "raw", *words, self.server.uri(), code=code)

    def read_all(self, pattern: str = "0x5a", times: int = 4):
        """Plexes take turns: more than once."""
        for _ in range(times):
            self.io(f"read -P {pattern} 4M 2M")
