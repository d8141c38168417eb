"""A mirror as /dev/nbd0: file systems, fio, trims, detached and attached again."""

from scenario import Bed, MiB, scenario

# xfs wants at least 300 MB.
SIZE = 400 * MiB


def attach(bed: Bed, test: str):
    disks = [bed.disk("a", SIZE), bed.disk("b", SIZE)]
    bed.guest("attach", test, disks=disks)
    # The server was stopped in order: the plexes are alike, on this side of the machine as well.
    bed.host("cmp", "-n", SIZE - 16 * MiB, *(disk.file for disk in disks))


@scenario("ext4")
def ext4(bed: Bed):
    attach(bed, "Attach.test_ext4")


@scenario("xfs", only_with_all=True, needs=("mkfs.xfs", "xfs_repair"))
def xfs(bed: Bed):
    attach(bed, "Attach.test_xfs")


@scenario("fio")
def fio(bed: Bed):
    attach(bed, "Attach.test_fio")
