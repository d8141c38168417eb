"""What the package brings is put in place, systemd is started beside the test, and the services run as on any machine."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from guest import NBD, SHARE, Files, MachineCase, MiB, disk, main, say, wait_until

SOCKET = "/run/plexus/nbd.sock"
SERVICE = "plexus.service"
# Of these targets nothing but what the package brings: the rest of this system is slow to start here, and not the matter.
TARGETS = ("sysinit", "basic", "sockets", "paths", "timers", "local-fs", "multi-user")
CAP_SYS_RESOURCE = 1 << 24
# PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, <linux/sched.h>.
IO_FLUSHER = 0x180000


class Service(MachineCase):
    def setUp(self):
        super().setUp()
        self.need("unshare", "nsenter", "systemctl", "nbd-client")
        self.call("cp", "-a", f"{SHARE}/root/.", "/")
        self.call("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
        self.resources.callback(subprocess.run, ["umount", "/sys/fs/cgroup"], check=False)
        units = Path("/run/systemd/system")
        units.mkdir(parents=True, exist_ok=True)
        for unit in self.others():
            if not (units / unit).is_symlink():
                (units / unit).symlink_to("/dev/null")
        # As udev would.
        for device in (disk("a"), disk("b")):
            shutil.chown(device, "root", "disk")
            device.chmod(0o660)
        # PID 1 of a space of its own; it is killed with `unshare`. What is unmounted there must be so for the services, too, whose
        # spaces are copies: systemd sees to that where it is the first of the machine.
        init = self.spawn("systemd", "unshare", "--pid", "--mount", "--propagation", "shared", "--fork", "--mount-proc", "--kill-child",
                          "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_IGNORE_CHROOT=1",
                          "/lib/systemd/systemd", "--system", "--unit=basic.target")
        children = Path(f"/proc/{init.pid}/task/{init.pid}/children")
        self.init = wait_until(lambda: children.read_text(encoding="ascii").split(), "systemd to begin")[0]
        self.wait_for_systemd()
        say("systemd is up")
        self.inside(SHARE / "control" / "postinst", "configure", "")
        say("installed")

    def others(self) -> list[str]:
        found = [unit.name for target in TARGETS for place in ("/usr/lib/systemd/system", "/etc/systemd/system")
                 for unit in Path(place).glob(f"{target}.target.wants/*")]
        targets = {f"{target}.target" for target in TARGETS}
        return [unit for unit in found if unit not in targets]

    def wait_for_systemd(self):
        def is_up() -> bool:
            return self.systemctl("is-active", "basic.target", code=None).stdout.strip() == "active"
        try:
            wait_until(is_up, "systemd to be up", deadline=60, interval=0.5)
        except AssertionError:
            say(self.systemctl("list-jobs", code=None).stdout)
            say(self.call("dmesg").stdout[-4000:])
            raise

    def inside(self, *argv, code: int | None = 0, **options):
        """Beside systemd: in its spaces."""
        return self.call("nsenter", "--target", self.init, "--mount", "--pid", "--root", "--wd",
                         "env", "SYSTEMD_IGNORE_CHROOT=1", *argv, code=code, **options)

    def systemctl(self, *argv, code: int | None = 0):
        return self.inside("systemctl", "--no-pager", *argv, code=code)

    def shown(self, name: str) -> str:
        return self.systemctl("show", "--value", "--property", name, SERVICE).stdout.strip()

    def wait_shown(self, name: str, pattern: str):
        return wait_until(lambda: re.search(pattern, self.shown(name)), f"{name} of the service to be like {pattern}", interval=0.5)

    def start_it(self, *words: str):
        done = self.systemctl(*words, SERVICE, code=None)
        if done.returncode != 0:
            self.fail(done.stderr + self.inside("journalctl", "--no-pager", "-u", SERVICE, code=None).stdout)

    @property
    def server_pid(self) -> int:
        """As this side of the spaces knows it."""
        for directory in Path("/proc").glob("[0-9]*"):
            words = (directory / "cmdline").read_bytes().split(b"\0")
            if words[:2] == [b"/usr/bin/plexus", b"serve"]:
                return int(directory.name)
        raise AssertionError("the server does not run")

    def facts(self) -> dict[str, str]:
        text = Path(f"/proc/{self.server_pid}/status").read_text(encoding="utf-8")
        return dict(line.split(":", 1) for line in text.splitlines())

    def status(self) -> dict:
        done = self.call("/usr/bin/plexus", "status", "--json", "--control", "/run/plexus/control.sock", code=None)
        return json.loads(done.stdout)["mirrors"][0] if done.stdout else {"state": done.stderr}

    def wait_healthy(self):
        wait_until(lambda: self.status()["state"] == "healthy", "the mirror to be healthy", interval=0.5)

    def test_service(self):
        # No disks are named: it is not started by anybody, and says why it can't be.
        self.assertEqual(self.systemctl("is-enabled", SERVICE, code=None).stdout.strip(), "disabled")
        self.rule_is_understood()
        self.call("/usr/bin/plexus", "create", "data", disk("a"), disk("b"))
        with open("/etc/plexus/plexus.toml", "a", encoding="utf-8") as file:
            file.write(f'disks = ["{disk("a")}", "{disk("b")}"]\n')
        self.start_it("enable", "--now")
        say("started")
        self.wait_shown("StatusText", "^1 mirror: data healthy$")
        self.is_confined()
        self.has_its_memory()
        files = self.is_used()
        self.is_told()
        self.is_reloaded()
        self.comes_back(files)
        self.is_removed(files)

    def rule_is_understood(self):
        done = self.call("udevadm", "test", "/sys/block/nbd0", env=os.environ | {"SYSTEMD_LOG_LEVEL": "debug"})
        said = [line for line in (done.stdout + done.stderr).splitlines() if "60-plexus" in line]
        # "Reading rules file: ...", and no complaint about a line of it.
        self.assertEqual([line.split(":")[0] for line in said], ["Reading rules file"], said)

    def is_confined(self):
        facts = self.facts()
        user = self.call("id", "-u", "plexus").stdout.strip()
        self.assertEqual(facts["Uid"].split(), [user] * 4)
        self.assertEqual(int(facts["CapBnd"], 16), CAP_SYS_RESOURCE)
        # What is run for events has not even that.
        self.assertEqual(int(facts["CapAmb"], 16), 0)
        self.assertEqual((facts["NoNewPrivs"].strip(), facts["Seccomp"].strip()), ("1", "2"))
        self.assertEqual(Path(f"/proc/{self.server_pid}/oom_score_adj").read_text(encoding="ascii").strip(), "-900")
        mounts = Path(f"/proc/{self.server_pid}/mountinfo").read_text(encoding="utf-8")
        self.assertRegex(mounts, r" / / ro[, ]")
        self.assertRegex(mounts, r" /run/plexus rw[, ]")
        self.assertRegex(mounts, r" /var/lib/plexus rw[, ]")
        modes = self.call("stat", "-c", "%U %G %a", SOCKET, "/run/plexus/control.sock").stdout.splitlines()
        self.assertEqual(modes, ["plexus disk 660", "plexus disk 600"])
        say("confined")

    def has_its_memory(self):
        facts = self.facts()
        # The pools of one thread: 128 + 192 + 16 + 128 MiB.
        for name in ("VmLck", "VmRSS"):
            self.assertGreater(int(facts[name].split()[0]), 464 * 1024, name)
        self.assertEqual(self.call("prlimit", "--pid", self.server_pid, "--memlock", "--noheadings", "--output", "SOFT").stdout.strip(),
                         "unlimited")
        self.all_threads_flush()
        say(f"locked {facts['VmLck'].strip()}")

    def all_threads_flush(self):
        threads = list(Path(f"/proc/{self.server_pid}/task").iterdir())
        for thread in threads:
            flags = int((thread / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[6])
            self.assertEqual(flags & IO_FLUSHER, IO_FLUSHER, (thread / "comm").read_text(encoding="utf-8"))

    def attach_it(self):
        self.call("nbd-client", "-unix", SOCKET, NBD, "-N", "data", "-b", "4096")
        self.resources.callback(self.detach)
        wait_until(lambda: self.call("blockdev", "--getsize64", NBD).stdout.strip() != "0", f"{NBD} to have a size")

    def is_used(self) -> Files:
        self.attach_it()
        self.make_file_system("ext4")
        files = self.mount_it()
        files.write("first", count=6)
        self.assert_files(files)
        # The workers that io_uring has begun meanwhile are threads, too.
        self.all_threads_flush()
        return files

    def is_told(self):
        self.call("/usr/bin/plexus", "offline", "data", "1", "--control", "/run/plexus/control.sock")
        self.wait_shown("StatusText", r"^1 mirror: data degraded: plex 1 \(/dev/vd.\) offline")
        self.call("/usr/bin/plexus", "online", "data", "1", "--control", "/run/plexus/control.sock")
        self.wait_shown("StatusText", "^1 mirror: data healthy$")
        say("told")

    def is_reloaded(self):
        before = self.server_pid
        with open("/etc/plexus/plexus.toml", "a", encoding="utf-8") as file:
            file.write("nonsense = 1\n")
        self.systemctl("reload", SERVICE)
        self.wait_shown("StatusText", "data healthy; the configuration is not taken over: .*nonsense")
        text = Path("/etc/plexus/plexus.toml").read_text(encoding="utf-8")
        Path("/etc/plexus/plexus.toml").write_text(text.replace("nonsense = 1\n", ""), encoding="utf-8")
        self.systemctl("reload", SERVICE)
        self.wait_shown("StatusText", "^1 mirror: data healthy$")
        self.assertEqual(self.server_pid, before)
        say("reloaded")

    def comes_back(self, files: Files):
        """Killed, it is started again; stopped and started, its socket stays."""
        self.unmount_and_check()
        self.detach()
        socket = os.stat(SOCKET).st_ino
        before = self.server_pid
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: int(self.shown("NRestarts")) == 1, "systemd to start it again", interval=0.5)
        self.wait_shown("StatusText", "^1 mirror: data healthy$")
        self.assertNotEqual(self.server_pid, before)
        self.start_it("restart")
        self.wait_healthy()
        self.assertEqual(os.stat(SOCKET).st_ino, socket)
        self.assertEqual(self.shown("Result"), "success")
        self.attach_it()
        self.mount(NBD, self.mountpoint)
        self.assert_files(files)
        say("came back")

    def is_removed(self, files: Files):
        """Not under a mounted file system; an upgrade does not touch it at all."""
        before = self.server_pid
        prerm, postinst = SHARE / "control" / "prerm", SHARE / "control" / "postinst"
        self.inside(prerm, "upgrade", "0.2.0")
        done = self.inside(postinst, "configure", "0.0.1")
        self.assertIn("the server that runs is still the old one", done.stdout)
        done = self.inside(prerm, "remove", code=1)
        self.assertIn("mirrors are in use", done.stderr)
        self.assertEqual(self.server_pid, before)
        files.write("second", count=2)
        self.assert_files(files)
        self.unmount_and_check()
        self.detach()
        wait_until(lambda: self.status()["clients"] == 0, "the client to be gone")
        self.inside(prerm, "remove")
        self.assertEqual((self.shown("ActiveState"), self.shown("Result")), ("inactive", "success"))
        say("removed")


if __name__ == "__main__":
    main()
