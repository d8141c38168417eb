"""What the Debian package brings, under systemd, in a machine: the services, their confinement, and locked memory."""

from pathlib import Path

from scenario import Bed, MiB, scenario

PACKAGE = Path(__file__).resolve().parents[2] / "scripts" / "package"
SIZE = 128 * MiB


NEEDS = ("dpkg-deb", "dpkg-shlibdeps", "systemctl", "nsenter", "adduser")


def unpack(bed: Bed):
    bed.host(PACKAGE, "--binary", bed.binary, "--output", bed.dir, timeout=300)
    # Unpacked here: it takes the machine minutes. Tests/RealClients/test_package.py has dpkg do all of it.
    package, = bed.dir.glob("*.deb")
    bed.host("dpkg-deb", "-x", package, bed.share / "root")
    bed.host("dpkg-deb", "-e", package, bed.share / "control")


@scenario("package", only_with_all=True, needs=NEEDS)
def package(bed: Bed):
    disks = [bed.disk("a", SIZE), bed.disk("b", SIZE)]
    unpack(bed)
    bed.guest("package", "Service", disks=disks)
    # It was stopped by systemd, in order.
    bed.host("cmp", "-n", SIZE - 16 * MiB, *(disk.file for disk in disks))


@scenario("administration", needs=NEEDS)
def administration(bed: Bed):
    """What README.md tells administrators to type."""
    disks = [bed.disk(name, SIZE) for name in ("a", "b", "c")]
    unpack(bed)
    bed.guest("administration", "Administration.test_page", disks=disks, timeout=900)
    bed.host("cmp", "-n", SIZE - 16 * MiB, disks[0].file, disks[2].file)


@scenario("locked-memory", only_with_all=True, needs=("nbdcopy", "setpriv", "cmp"))
def locked_memory(bed: Bed):
    bed.guest("locked", "LockedMemory", disks=[], MUST_LOCK="1")
