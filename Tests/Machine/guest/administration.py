"""What README.md tells administrators to type, typed."""

import re
import shutil
import subprocess
from pathlib import Path

from guest import Files, disk, main, say, vmhost, wait_until
from package import SERVICE, Service

README = Path(__file__).resolve().parents[3] / "README.md"


def commands(heading: str) -> list[str]:
    """The indented lines of a part of the page."""
    page = README.read_text(encoding="utf-8").split("\n## For administrators\n")[1].split("\n## ")[0]
    part = page.split(f"\n### {heading}\n")[1].split("\n### ")[0]
    return re.findall(r"^    (.+)$", part, re.MULTILINE)


class Administration(Service):
    def type_in(self, heading: str):
        found = commands(heading)
        self.assertTrue(found, heading)
        for line in found:
            for place, name in (("DISK1", "a"), ("DISK2", "b"), ("DISK3", "c")):
                line = line.replace(f"/dev/disk/by-id/{place}", str(disk(name)) if disk(name).exists() else self.pulled)
            try:
                done = self.inside("bash", "-c", line, code=None, timeout=100)
            except subprocess.TimeoutExpired:
                say(self.systemctl("status", "plexus.service", code=None).stdout)
                say(self.call("ps", "-eo", "pid,ppid,stat,wchan:25,args", code=None).stdout)
                raise
            say(f"# {line}\n{done.stdout}{done.stderr}")
            if done.returncode != 0:
                log = self.inside("journalctl", "--no-pager", "-n", "50", code=None).stdout
                self.fail(f"{line}: ended with {done.returncode}\n{log}")

    def in_namespace(self, path: str) -> Path:
        return Path(f"/proc/{self.init}/root{path}")

    def test_page(self):
        # As udev would.
        shutil.chown(disk("c"), "root", "disk")
        disk("c").chmod(0o660)
        # Nobody types it as it stands there, but for this: without it the machine's own lines would be mounted, too.
        self.inside("bash", "-c", "echo > /etc/fstab")
        self.type_in("Set up")
        files = Files(self.in_namespace("/srv/data"))
        files.write("first", count=4)
        self.type_in("Watch")
        self.pulled = str(disk("b"))
        vmhost("unplug", "b")
        wait_until(lambda: not Path(self.pulled).exists(), "the disk to be gone")
        files.write("second", count=4)
        self.type_in("When a disk fails")
        self.wait_healthy()
        self.type_in("A consistent copy")
        self.wait_healthy()
        before = self.server_pid
        old = self.shown("MainPID")
        self.type_in("Upgrade")
        wait_until(lambda: self.shown("MainPID") not in ("0", old), "another server", interval=0.5)
        self.wait_healthy()
        self.assertNotEqual(self.server_pid, before)
        files.write("third", count=4)
        self.assert_files(files)
        # Killed, it is started again, and what is mounted only waits.
        self.systemctl("kill", "--signal=KILL", SERVICE)
        files.write("fourth", count=4)
        self.assert_files(files)
        wait_until(lambda: self.shown("ActiveState") == "active", "the service to be up again", interval=0.5)
        self.type_in("Take down")
        self.assertFalse(self.attached())
        self.assertEqual((self.shown("ActiveState"), self.shown("Result")), ("inactive", "success"))


if __name__ == "__main__":
    main()
