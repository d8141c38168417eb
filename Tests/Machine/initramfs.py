"""The guest's first file system: busybox, the modules that are loaded at once, and the scripts of `guest/boot`."""

import hashlib
import io
import shutil
import stat
import tempfile
from pathlib import Path

from cache import Unavailable
from kernel import Kernel

BOOT = Path(__file__).resolve().parent / "guest" / "boot"
APPLETS = "sh mount mkdir mkfifo insmod cat base64 chroot cp date ln ls ip sleep strings".split()


class Archive:
    """Writes a cpio archive in the "new ASCII" format (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self):
        self.out = io.BytesIO()
        self.entries = 0

    def add(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)):
        self.entries += 1
        path = name.encode() + b"\0"
        fields = (self.entries, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
        self.out.write(b"070701" + b"".join(b"%08x" % field for field in fields) + path)
        self._pad()
        self.out.write(data)
        self._pad()

    def _pad(self):
        self.out.write(b"\0" * (-self.out.tell() % 4))

    def directory(self, name: str):
        self.add(name, stat.S_IFDIR | 0o755)

    def file(self, name: str, data: bytes):
        self.add(name, stat.S_IFREG | 0o755, data)

    def link(self, name: str, target: str):
        self.add(name, stat.S_IFLNK | 0o777, target.encode())

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return self.out.getvalue()


def busybox() -> bytes:
    found = shutil.which("busybox")
    binary = Path(found).read_bytes() if found else b""
    if not binary or b"ld-linux" in binary[:4096]:
        raise Unavailable("busybox-static is not installed (scripts/install-deps machine)")
    return binary


def build(kernel: Kernel) -> bytes:
    binary = busybox()
    archive = Archive()
    for name in "bin dev proc sys run modules lower upper root".split():
        archive.directory(name)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("dev/null", stat.S_IFCHR | 0o666, device=(1, 3))
    archive.file("bin/busybox", binary)
    for applet in APPLETS:
        archive.link(f"bin/{applet}", "busybox")
    modules = kernel.preloaded()
    for path in modules:
        archive.file(f"modules/{path.name}", path.read_bytes())
    archive.file("modules/order", "".join(f"{path.name}\n" for path in modules).encode())
    for script in ("init", "main", "vmhost", "modprobe"):
        archive.file(script, (BOOT / script).read_bytes())
    return archive.finish()


def prepare(kernel: Kernel) -> Path:
    """The path of the archive: another one as soon as anything in it changed."""
    data = build(kernel)
    path = kernel.folder / f"initramfs-{hashlib.sha256(data).hexdigest()[:12]}"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=kernel.folder, delete=False) as file:
            file.write(data)
        Path(file.name).rename(path)
    return path
