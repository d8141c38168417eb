"""A small system that starts from a disk by UEFI: a GPT, an EFI system partition with a kernel that is its own boot loader, and
a root file system whose first program says what it finds, like a login prompt."""

import hashlib
import random
from pathlib import Path

import initramfs
from kernel import Kernel
from scenario import Bed, MiB

STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
NEEDS = ("sgdisk", "mformat", "mmd", "mcopy", "mke2fs", "objcopy", STUB)

SYSTEM, ROOT, ROOT_SIZE = 1 * MiB, 49 * MiB, 24 * MiB
CONSOLE = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr"
MODULES = ["crc32c_generic", "virtio_blk", "nvme", "ahci", "sd_mod", "ext4"]

INIT = """#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
for module in $(busybox cat /modules/order); do busybox insmod /modules/$module; done
for attempt in $(busybox seq 100); do
    for disk in /dev/vda2 /dev/nvme0n1p2 /dev/sda2; do
        busybox mount -t ext4 $disk /root 2>/dev/null && exec busybox switch_root /root /sbin/init $disk
    done
    busybox sleep 0.1
done
echo "no root file system"
busybox poweroff -f
"""

# Writes as well: a root file system that can only be read is no system.
FIRST = """#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
echo "started from $1" >/etc/started && busybox sync
echo "proof $(busybox sha256sum /etc/proof)" >/dev/console
echo "plexus login:" >/dev/console
busybox sleep 3
busybox poweroff -f
"""


def build(bed: Bed, kernel: Kernel, size: int) -> tuple[Path, str]:
    """The image of a disk of `size` bytes, and what it says on its console that no other disk says."""
    work = bed.dir / "system"
    root = work / "root"
    for folder in ("bin", "sbin", "etc", "dev"):
        (root / folder).mkdir(parents=True)
    proof = random.Random(bed.seed).randbytes(3 * MiB)
    (root / "etc/proof").write_bytes(proof)
    (root / "bin/busybox").write_bytes(initramfs.busybox())
    (root / "sbin/init").write_text(FIRST, encoding="ascii")
    for program in ("bin/busybox", "sbin/init"):
        (root / program).chmod(0o755)
    image = work / "image"
    with open(image, "wb") as file:
        file.truncate(size)
    bed.host("sgdisk", "-n", f"1:{SYSTEM // 512}:{ROOT // 512 - 1}", "-t", "1:ef00",
             "-n", f"2:{ROOT // 512}:{(ROOT + ROOT_SIZE) // 512 - 1}", "-t", "2:8300", image)
    partition = f"{image}@@{SYSTEM}"
    bed.host("mformat", "-i", partition, "-F", "-T", (ROOT - SYSTEM) // 512, "-h", 64, "-s", 32, "-c", 1, "-v", "ESP", "::")
    bed.host("mmd", "-i", partition, "::/EFI", "::/EFI/BOOT")
    bed.host("mcopy", "-i", partition, loader(bed, kernel, work), "::/EFI/BOOT/BOOTX64.EFI")
    data = work / "root.img"
    bed.host("mke2fs", "-q", "-t", "ext4", "-d", root, data, f"{ROOT_SIZE // MiB}M")
    with open(image, "r+b") as file:
        file.seek(ROOT)
        file.write(data.read_bytes())
    return image, f"proof {hashlib.sha256(proof).hexdigest()}"


def loader(bed: Bed, kernel: Kernel, work: Path) -> Path:
    """A unified kernel image: systemd's stub with the kernel, its command line and the first file system as sections."""
    archive = initramfs.Archive()
    for name in "bin dev proc root modules".split():
        archive.directory(name)
    archive.file("bin/busybox", initramfs.busybox())
    archive.link("bin/sh", "busybox")
    files = kernel.files_of(MODULES)
    for path in files:
        archive.file(f"modules/{path.name}", path.read_bytes())
    archive.file("modules/order", " ".join(path.name for path in files).encode())
    archive.file("init", INIT.encode())
    sections = {".osrel": (b"ID=plexus-test\n", 0x20000), ".cmdline": (CONSOLE.encode(), 0x30000),
                ".linux": (kernel.vmlinuz.read_bytes(), 0x2000000), ".initrd": (archive.finish(), 0x3000000)}
    words = []
    for name, (data, address) in sections.items():
        path = work / f"section{name}"
        path.write_bytes(data)
        words += ["--add-section", f"{name}={path}", "--change-section-vma", f"{name}={address:#x}"]
    bed.host("objcopy", *words, STUB, work / "loader.efi")
    return work / "loader.efi"
