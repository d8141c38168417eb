"""A kernel for the guest, out of Debian's package: uncompressed, with those modules that the scenarios use.

The package is fetched by apt and never installed. Its kernel has nbd, md, device-mapper and 9p as modules, which many
kernels of containers and of small virtual machines lack.
"""

import hashlib
import lzma
import os
import re
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import cache
from cache import Broken, Unavailable

# Depends on the newest image of its series. The cloud flavour has no 9p.
PACKAGE = os.environ.get("PLEXUS_TEST_KERNEL", "linux-image-6.12-amd64")

# Below lib/modules/VERSION/kernel.
KEPT = """
    arch/x86/crypto block crypto lib fs net/9p net/core net/ipv4 net/unix
    drivers/block drivers/md drivers/virtio drivers/scsi/sd_mod drivers/scsi/scsi_mod drivers/scsi/scsi_common
    drivers/scsi/scsi_debug drivers/char/hw_random drivers/char/virtio_console drivers/dax drivers/nvme drivers/ata
""".split()

# Loaded before the machine is saved as a template, so that every start has them for nothing.
PRELOADED = """
    virtio_pci virtio_console 9pnet_virtio 9p overlay virtio_blk nbd loop ext4 xfs dm_mod raid1
""".split()


def fetch(into: Path) -> Path:
    """The newest image of the series, as apt finds it. The second try is for package lists that are empty or too old."""
    said = ""
    for attempt in range(2):
        if attempt == 1 and os.geteuid() == 0:
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False, timeout=600)
        listed = subprocess.run(["apt-cache", "depends", PACKAGE], capture_output=True, text=True, check=False, timeout=120)
        found = re.findall(r"Depends: (linux-image-\S+)", listed.stdout)
        name = found[0] if found else PACKAGE
        done = subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name], cwd=into,
                              capture_output=True, text=True, check=False, timeout=900)
        if packages := list(into.glob("*.deb")):
            return packages[0]
        said = done.stderr.strip()
    raise Unavailable(f"apt cannot fetch {PACKAGE} (apt-get update?): {said}")


def extract_vmlinux(image: bytes) -> bytes:
    """The ELF kernel inside a bzImage: QEMU enters it directly, which spares the guest unpacking itself in emulation.

    The offsets are those of the kernel's x86 boot protocol: setup_sects at 0x1f1, payload_offset and payload_length at
    0x248.
    """
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start:start + length]
    tools = {b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz"}
    for magic, tool in tools.items():
        if payload.startswith(magic):
            # The payload's size follows it, at which the tool complains: what came out is judged instead.
            done = subprocess.run([tool, "-dc"], input=payload, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  check=False, timeout=120)
            if done.stdout.startswith(b"\x7fELF"):
                return done.stdout
    raise Broken("the kernel image is compressed in a way that is not known here")


def plain_module(data: bytes) -> bytes:
    """A module without compression and signature, because checking those is slow in emulation."""
    if data.startswith(b"\xfd7zXZ"):
        data = lzma.decompress(data)
    magic = b"~Module signature appended~\n"
    if data.endswith(magic):
        end = len(data) - len(magic)
        (length,) = struct.unpack(">I", data[end - 4:end])
        data = data[:end - 12 - length]
    return data


class Kernel:
    """An unpacked kernel package: `vmlinux`, `vmlinuz` as firmware starts it, `version`, and a tree with its modules."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.version = (folder / "version").read_text(encoding="ascii")
        self.vmlinux, self.vmlinuz = folder / "vmlinux", folder / "vmlinuz"
        self.modules = folder / "tree/usr/lib/modules" / self.version

    def preloaded(self) -> list[Path]:
        return self.files_of(PRELOADED)

    def files_of(self, modules: list[str]) -> list[Path]:
        """The files of modules and of what they need, in the order of loading. One that is built in has none."""
        needs = {}
        for line in (self.modules / "modules.dep").read_text(encoding="ascii").splitlines():
            path, _, rest = line.partition(":")
            needs[Path(path).name.removesuffix(".ko").replace("-", "_")] = [path, *rest.split()]
        order: list[str] = []
        for name in modules:
            order += [path for path in reversed(needs.get(name, [])) if path not in order]
        return [self.modules / path for path in order]


def unpack(package: Path, into: Path):
    kept = "|".join(map(re.escape, KEPT))
    module = re.compile(rf"^\./(?:usr/)?lib/modules/([^/]+)/(?:kernel/(?:{kept})[./]|modules\.(?:builtin|order))")
    version = None
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as reader, \
            tarfile.open(fileobj=reader.stdout, mode="r|") as archive:
        for member in archive:
            if not member.isfile():
                continue
            if member.name.startswith("./boot/vmlinuz-"):
                image = archive.extractfile(member).read()
                (into / "vmlinuz").write_bytes(image)
                (into / "vmlinux").write_bytes(extract_vmlinux(image))
            elif match := module.match(member.name):
                version = match.group(1)
                data = archive.extractfile(member).read()
                name = re.sub(r"^\./(usr/)?lib/", "tree/usr/lib/", member.name)
                if re.search(r"\.ko(\.xz)?$", name):
                    name, data = name.removesuffix(".xz"), plain_module(data)
                (into / name).parent.mkdir(parents=True, exist_ok=True)
                (into / name).write_bytes(data)
    if version is None:
        raise Broken(f"{package} is no kernel package")
    done = subprocess.run(["depmod", "-b", into / "tree/usr", version], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise Broken(f"depmod: {done.stderr.strip()}")
    (into / "version").write_text(version, encoding="ascii")


def prepare() -> Kernel:
    """The kernel in the cache, or a newly fetched one. A newer package is only looked for when the cache was deleted."""
    digest = hashlib.sha256(" ".join([PACKAGE, *KEPT]).encode()).hexdigest()[:12]
    folder = cache.directory() / f"kernel-{digest}"
    with cache.locked():
        if folder.exists():
            return Kernel(folder)
        if missing := [tool for tool in ("apt-get", "apt-cache", "dpkg-deb", "depmod", "zstd") if shutil.which(tool) is None]:
            raise Unavailable(f"not installed: {' '.join(missing)} (scripts/install-deps machine)")
        print(f"fetching a kernel ({PACKAGE}), once", flush=True)
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        package = fetch(partial)
        unpack(package, partial)
        package.unlink()
        partial.rename(folder)
    return Kernel(folder)
