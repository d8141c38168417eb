"""A running QEMU with its three channels: monitor, control port and output.

Everything is emulated (no KVM), which runs anywhere. Two things make it bearable: the memory of a booted machine is a file
that every run maps copy-on-write (see template.py), and there is one processor, because QEMU 7.2 with two of them has been
seen to crash in code that the guest's kernel had just patched.
"""

import contextlib
import json
import os
import shlex
import socket
import subprocess
import time
from pathlib import Path

import children
from cache import Broken
from disk import Disk
from kernel import Kernel

PROGRAM = os.environ.get("PLEXUS_TEST_QEMU", "qemu-system-x86_64")
MEMORY_MIB = 1024

# A processor with "erms" has its memory copied bytewise in emulation, five times slower; the others cost time as well.
PROCESSOR = "max,-erms,-smap,-smep,-umip,-pku,-la57"

KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 oops=panic reboot=t mitigations=off nokaslr tsc=reliable noreplace-smp "
    "initcall_blacklist=load_system_certificate_list,jent_mod_init,bpf_tcp_ca_kfunc_init,bpf_dummy_struct_ops_init"
)


class Monitor:
    """QEMU's machine protocol. Events are passed over."""

    def __init__(self, connection: socket.socket):
        self.stream = connection.makefile("rwb")
        self._read()  # The greeting.
        self.run("qmp_capabilities")

    def _read(self) -> dict:
        line = b""
        with contextlib.suppress(OSError):
            line = self.stream.readline()
        if not line:
            raise Broken("QEMU ended early")
        return json.loads(line)

    def run(self, command: str, arguments: dict | None = None):
        request = {"execute": command, "arguments": arguments or {}}
        self.stream.write(json.dumps(request).encode() + b"\n")
        self.stream.flush()
        while True:
            answer = self._read()
            if "error" in answer:
                raise Broken(f"QEMU: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]


class Qemu:
    """One process. `work` is a directory of its own for sockets, and short, for a socket's path has at most 107 bytes."""

    def __init__(self, kernel: Kernel, initramfs: Path, work: Path, memory: Path, share: Path, *, from_template: bool):
        self.work = work
        self.console = work / "console"
        listeners = [self._listen(name) for name in ("monitor", "control", "output")]
        with open(work / "qemu.log", "wb") as log:
            line = self._command_line(kernel, initramfs, memory, share, from_template)
            self.process = children.start(line, stdout=log, stderr=log)
        monitor, self.control_socket, self.output = (self._accept(listener) for listener in listeners)
        self.control = self.control_socket.makefile("rwb")
        self.monitor = Monitor(monitor)

    def _listen(self, name: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.work / name))
        listener.listen(1)
        listener.settimeout(0.1)
        return listener

    def _accept(self, listener: socket.socket) -> socket.socket:
        with listener:
            for _ in range(300):
                with contextlib.suppress(socket.timeout):
                    connection = listener.accept()[0]
                    connection.settimeout(None)
                    return connection
                if self.process.poll() is not None:
                    break
        self.kill()
        raise Broken("QEMU did not start: " + (self.work / "qemu.log").read_text(errors="replace")[-2000:])

    def _command_line(self, kernel: Kernel, initramfs: Path, memory: Path, share: Path, from_template: bool) -> list[str]:
        def channel(name: str) -> list[str]:
            return ["-chardev", f"socket,id={name},path={self.work}/{name}"]

        def port(name: str) -> list[str]:
            return [*channel(name), "-device", f"virtserialport,chardev={name},name=machine.{name}"]

        def folder(tag: str, path: Path | str, readonly: bool) -> list[str]:
            model = "none" if readonly or os.geteuid() != 0 else "passthrough"
            return ["-fsdev", f"local,id={tag},path={path},multidevs=remap,security_model={model}"
                    + (",readonly=on" if readonly else ""), "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]

        return [
            PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-name", "plexus-vm-test",
            "-accel", "tcg", "-cpu", PROCESSOR, "-smp", "1", "-m", str(MEMORY_MIB),
            "-machine", "pc,hpet=off,vmport=off,usb=off,i8042=off,memory-backend=ram",
            "-object", f"memory-backend-file,id=ram,size={MEMORY_MIB}M,mem-path={memory},"
                       f"share={'off' if from_template else 'on'}",
            # A new id for every run, at which the guest reseeds its random numbers.
            "-device", "vmgenid,guid=auto",
            *channel("monitor"), "-mon", "monitor,mode=control", "-serial", f"file:{self.console}",
            "-device", "virtio-serial-pci", *port("control"), *port("output"),
            *folder("root", "/", True), *folder("share", share, False),
            "-kernel", str(kernel.vmlinux), "-initrd", str(initramfs), "-append", KERNEL_ARGUMENTS,
            *(["-incoming", "defer"] if from_template else []),
        ]

    def wait_ready(self):
        self.control_socket.settimeout(180)
        line = b""
        with contextlib.suppress(OSError):
            line = self.control.readline()
        if line != b"ready\n":
            raise Broken("the guest did not boot:\n" + self.console_end())
        self.control_socket.settimeout(None)

    def console_end(self, lines: int = 40) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.console.read_text(errors="replace").splitlines()[-lines:])
        return ""

    # The state of the devices goes to a file and comes from it; the memory is left out, because it is in its own file.

    def save(self, state: Path):
        self.monitor.run("stop")
        self._migrate("migrate", f"cat >{shlex.quote(str(state))}")

    def load(self, state: Path):
        self._migrate("migrate-incoming", f"cat {shlex.quote(str(state))}")
        self.monitor.run("cont")

    def _migrate(self, direction: str, command: str):
        self.monitor.run("migrate-set-capabilities", {"capabilities": [{"capability": "x-ignore-shared", "state": True}]})
        self.monitor.run(direction, {"uri": f"exec:{command}"})
        while (status := self.monitor.run("query-migrate").get("status")) != "completed":
            if status in ("failed", "cancelled"):
                raise Broken(f"{direction}: {status}")
            time.sleep(0.01)

    # Disks.

    def plug(self, disk: Disk):
        nodes = {node.get("node-name") for node in self.monitor.run("query-named-block-nodes")}
        if f"node-{disk.name}" not in nodes:
            self.monitor.run("blockdev-add", disk.image_node())
            self.monitor.run("blockdev-add", disk.top_node())
        for attempt in range(100):
            try:
                return self.monitor.run("device_add", disk.device())
            except Broken:  # It was pulled out a moment ago, and QEMU has not forgotten it yet.
                if attempt == 99:
                    raise
                time.sleep(0.1)

    def unplug(self, disk: Disk):
        """As if it was pulled out. It is gone when the guest has let go of it."""
        self.monitor.run("device_del", {"id": disk.name})

    def inject(self, disk: Disk, options: dict):
        fault = f"fault-{disk.name}"
        self.monitor.run("blockdev-add", {"driver": "blkdebug", "node-name": fault, "image": f"file-{disk.name}",
                                          "discard": "unmap"} | options)
        self.monitor.run("blockdev-reopen", {"options": [disk.top_node(fault)]})

    def heal(self, disk: Disk):
        self.monitor.run("blockdev-reopen", {"options": [disk.top_node()]})
        self.monitor.run("blockdev-del", {"node-name": f"fault-{disk.name}"})

    # The end.

    def kill(self):
        children.end(self.process)

    def quit(self):
        """In order: images and logs are closed properly."""
        with contextlib.suppress(Broken, OSError, ValueError):
            self.monitor.run("quit")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.kill()
