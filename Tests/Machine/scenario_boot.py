"""A system that was installed through a mirror starts from each disk alone, as a plain disk, and `plexus drill --boot` says so.

The computers that start are emulated here, on the host: the disk is all they have.
"""

import contextlib
import json
import shutil
import subprocess
import time
from pathlib import Path

import children
import system
from qemu import PROCESSOR, PROGRAM
from scenario import Bed, Failed, MiB, scenario

SIZE = 88 * MiB
FIRMWARE, SETTINGS = "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"
BOOT_SECONDS = 240
DEVICES = {"virtio": "virtio-blk-pci,drive=disk", "nvme": "nvme,drive=disk,serial=1", "sata": "ide-hd,drive=disk,bus=ide.0"}


class Server:
    """A mirror over two files, served here."""

    def __init__(self, bed: Bed, disks: list[Path]):
        self.bed, self.control, self.socket = bed, bed.dir / "control", bed.dir / "socket"
        with open(bed.log, "ab") as log:
            self.process = children.start([str(bed.binary), "serve", *map(str, disks), "--socket", str(self.socket),
                                           "--control", str(self.control)], stdout=log, stderr=log)

    def __enter__(self):
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(Failed):
                self.plexus("wait", "data", "--timeout", 60)
                return self
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed("the server did not start")
            time.sleep(0.1)

    def __exit__(self, *_):
        children.end(self.process, 15)

    def plexus(self, verb: str, *words):
        self.bed.host(self.bed.binary, verb, *words, "--control", self.control)

    def report(self, verb: str, *words, code: int = 0) -> dict:
        done = subprocess.run([self.bed.binary, verb, *map(str, words), "--json", "--control", self.control], text=True,
                              capture_output=True, check=False, timeout=3 * BOOT_SECONDS)
        self.bed.write_log(f"--- {verb} {words}\n{done.stdout}\n{done.stderr}\n")
        if done.returncode != code:
            raise Failed(f"{verb} ended with {done.returncode}, not {code}")
        return json.loads(done.stdout)


def start_alone(bed: Bed, disk: Path, kind: str, proof: str):
    """Starts a plain computer with this one disk, which it may write to: a copy."""
    work = bed.dir / f"alone-{disk.parent.name}-{kind}"
    work.mkdir()
    bed.host("cp", "--sparse=always", disk, work / "disk")
    shutil.copy(SETTINGS, work / "settings")
    words = [PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35,hpet=off,vmport=off",
             "-accel", "tcg", "-cpu", PROCESSOR, "-m", "512", "-serial", f"file:{work}/console",
             "-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE}", "-drive", f"if=pflash,format=raw,file={work}/settings",
             "-drive", f"if=none,id=disk,format=raw,file={work}/disk", "-device", f"{DEVICES[kind]},bootindex=0"]
    started = time.monotonic()
    bed.host(*words, timeout=BOOT_SECONDS)
    said = (work / "console").read_text(errors="replace")
    bed.write_log(f"--- console of {disk}, {kind}\n{said}\n")
    if proof not in said or "plexus login:" not in said:
        raise Failed(f"{disk} alone, {kind}: does not start")
    bed.note(f"{disk.parent.name} alone, {kind}: started in {time.monotonic() - started:.0f} s")


@scenario("boot", needs=(*system.NEEDS, "nbdcopy", "qemu-img", "cp", FIRMWARE, SETTINGS))
def boot(bed: Bed):
    plexes = [bed.disk("0", SIZE, folder="plex-0").file, bed.disk("1", SIZE, folder="plex-1").file]
    bed.host(bed.binary, "create", "data", *plexes)
    with Server(bed, plexes) as server:
        size = server.report("status", "data")["mirrors"][0]["size"]
        image, proof = system.build(bed, bed.template.kernel, size)
        bed.host("nbdcopy", "--flush", image, f"nbd+unix:///data?socket={server.socket}")
        drill(bed, server, proof)
    kinds = [(0, "virtio"), (1, "nvme")]
    if bed.everything:
        kinds += [(0, "nvme"), (1, "virtio"), (0, "sata"), (1, "sata")]
    for plex, kind in kinds:
        start_alone(bed, plexes[plex], kind, proof)
    if bed.everything:
        damage(bed, plexes)


def drill(bed: Bed, server: Server, proof: str):
    """While the mirror is served."""
    report = server.report("drill", "data", "--boot", "--expect", proof, "--timeout", BOOT_SECONDS)
    for plex in report["plexes"]:
        found = {check["name"]: check["outcome"] for check in plex["checks"]}
        if found.get("boot") != "pass" or set(found.values()) != {"pass"}:
            raise Failed(f"drill --boot: plex {plex['index']}: {found}")
    if not bed.everything:
        return
    # It switches itself off after the prompt: another text never comes.
    report = server.report("drill", "data", "--boot", "--expect", "another system", "--timeout", BOOT_SECONDS, "--bus", "nvme",
                           code=1)
    for plex in report["plexes"]:
        last = plex["checks"][-2]
        if (last["name"], last["outcome"]) != ("boot", "fail") or "plexus login:" not in last["text"]:
            raise Failed(f"drill --boot with another text: {plex}")


def damage(bed: Bed, plexes: list[Path]):
    """Plex 1 loses its loader: it alone fails, and does so at its boot as well."""
    with open(plexes[1], "r+b") as file:
        file.seek(system.SYSTEM)
        head = file.read(system.ROOT - system.SYSTEM)
        place = head.index(b"BOOTX64 EFI")
        file.seek(system.SYSTEM + place)
        file.write(b"BOOTX65 EFI")
    with Server(bed, plexes) as server:
        # A login prompt is what is waited for unless something else is said.
        report = server.report("drill", "data", "--boot", "--timeout", 60, "--bus", "sata", code=1)
        failed = {check["name"] for check in report["plexes"][1]["checks"] if check["outcome"] == "fail"}
        if report["plexes"][0]["outcome"] != "pass" or not {"EFI system partition", "boot"} <= failed:
            raise Failed(f"drill after the loss of a loader: {report}")
