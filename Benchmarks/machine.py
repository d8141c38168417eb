"""What the figures were measured on."""

import os
import platform
from pathlib import Path


def file_system(directory: Path) -> str:
    """The type of the file system that holds a directory."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        _, point, fstype = line.split()[:3]
        point = point.encode().decode("unicode_escape")
        if directory.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, fstype
    return kind


def machine() -> dict:
    entries = [line.partition(":") for line in
               Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()]
    values = {name.strip(): value.strip() for name, _, value in entries}
    return {"processor": values.get("model name", platform.machine()), "processors": os.cpu_count(),
            "isVirtual": "hypervisor" in values.get("flags", "").split(),
            "kernel": platform.release().partition("-")[0], "loadAverageAtStart": list(os.getloadavg())}


def machine_text(of: dict) -> str:
    count = f"{of['processors']} processors" if of["processors"] != 1 else "1 processor"
    return f"{of['processor']}, {count}{', virtual machine' if of['isVirtual'] else ''}, Linux {of['kernel']}"
