"""`plexus attach`: the server is killed, restarted, hung and replaced under a mounted file system, and nothing fails."""

from scenario import Bed, MiB, scenario

SIZE = 128 * MiB
# More than Plexus keeps at the end of every disk.
PRIVATE = 16 * MiB


def keeper(bed: Bed, test: str, *others: str):
    disks = [bed.disk("a", SIZE), bed.disk("b", SIZE), *(bed.disk(name, SIZE) for name in others)]
    bed.guest("keeper", f"Keeper.{test}", disks=disks)
    bed.host("cmp", "-n", SIZE - PRIVATE, *(disk.file for disk in disks[:2]))


@scenario("server-killed")
def server_killed(bed: Bed):
    """Under a mounted file system and fio, several times: I/O waits and goes on."""
    keeper(bed, "test_server_is_killed_while_mounted")


@scenario("attach-refusals")
def refusals(bed: Bed):
    """Twice, while mounted, without a server, on the wrong disks; and partitions, names, other block sizes."""
    keeper(bed, "test_refusals_and_names", "c", "d")


@scenario("keeper-killed", only_with_all=True)
def keeper_killed(bed: Bed):
    """Nobody reconnects the device, until attach is typed again."""
    keeper(bed, "test_keeper_is_killed_and_taken_over")


@scenario("nbd-client-adopted")
def adopted(bed: Bed):
    """What plain nbd-client attached dies with the server, but not once it is adopted."""
    keeper(bed, "test_device_of_nbd_client_is_adopted", "c", "d")


@scenario("server-hung", only_with_all=True)
def hung(bed: Bed):
    """A server that stands still for longer than the kernel's patience."""
    keeper(bed, "test_server_hangs")
