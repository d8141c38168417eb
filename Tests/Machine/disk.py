"""The guest's disks: QEMU's block graph over a file, with named ends so that faults can be put in between at any time."""

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Disk:
    """A virtio disk over `file`. In the guest it is /dev/machine/NAME. With `log`, everything written goes there, too, in
    order (QEMU's blklogwrites)."""

    name: str
    file: Path
    log: Path | None = None

    @property
    def serial(self) -> str:
        return f"machine-{self.name}"

    def image_node(self) -> dict:
        """No `cache.direct`: a machine that is killed loses what QEMU did not submit, not what the host has cached."""
        return {"driver": "file", "node-name": f"file-{self.name}", "filename": str(self.file), "discard": "unmap",
                "locking": "off"}

    def top_node(self, below: str | None = None) -> dict:
        """`below` is the node that it reads from and writes to: the image's, unless a fault lies in between."""
        node = {"driver": "raw", "file": below or f"file-{self.name}", "discard": "unmap"}
        if self.log:
            node = {"driver": "blklogwrites", "file": below or f"file-{self.name}", "discard": "unmap",
                    "log": {"driver": "file", "filename": str(self.log)}}
        return node | {"node-name": f"node-{self.name}"}

    def device(self) -> dict:
        """A failed request goes to the guest: QEMU must not stop for it."""
        return {"driver": "virtio-blk-pci", "id": self.name, "drive": f"node-{self.name}", "serial": self.serial,
                "werror": "report", "rerror": "report"}
