"""Disks that fail under a mounted file system: bad sectors, disks that are pulled out and come back, plexes broken off."""

from scenario import Bed, MiB, scenario

SIZE = 128 * MiB
# More than Plexus keeps at the end of every disk, which is not the same on all.
PRIVATE = 16 * MiB


def faults(bed: Bed, test: str):
    # One that is larger has room for Plexus' own area behind all that fits on the other.
    disks = [bed.disk("a", SIZE), bed.disk("b", SIZE + PRIVATE)]
    bed.guest("faults", test, disks=disks)
    bed.host("cmp", "-n", SIZE - PRIVATE, *(disk.file for disk in disks))


@scenario("bad-sector-corrected")
def corrected(bed: Bed):
    """The disk can't read a block until something is written to it."""
    faults(bed, "BadSectors.test_unreadable_block_is_written_anew")


@scenario("bad-sector-spared")
def spared(bed: Bed):
    """The disk can neither read nor write a block any more."""
    faults(bed, "BadSectors.test_dead_block_is_spared_and_comes_back")


@scenario("bad-sector-device-mapper", only_with_all=True, needs=("dmsetup",))
def device_mapper(bed: Bed):
    """The same, seen through another driver: found by writes."""
    faults(bed, "BadSectors.test_dead_block_of_device_mapper_is_spared")


@scenario("unplugged")
def unplugged(bed: Bed):
    faults(bed, "Plexes.test_disk_is_pulled_out_under_load_and_comes_back")


@scenario("unplugged-at-flush", only_with_all=True)
def unplugged_at_flush(bed: Bed):
    faults(bed, "Plexes.test_disk_is_pulled_out_before_a_flush")


@scenario("break-join")
def break_join(bed: Bed):
    faults(bed, "Plexes.test_break_and_join_while_mounted")
