"""What README.md tells administrators to type, typed."""

import re
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
            done = self.inside("bash", "-c", line, code=None)
            say(f"# {line}\n{done.stdout}{done.stderr}")
            if done.returncode != 0:
                log = self.inside("journalctl", "--no-pager", "-n", "50", code=None).stdout
                self.fail(f"{line}: ended with {done.returncode}\n{log}")

    def in_namespace(self, path: str) -> Path:
        return Path(f"/proc/{self.init}/root{path}")

    def test_page(self):
        # Nobody types it as it stands there, but for this: without it the machine's own lines would be mounted, too.
        self.inside("bash", "-c", "echo > /etc/fstab")
        self.type_in("Set up")
        files = Files(self.in_namespace("/srv/data"))
        files.write("first", count=4)
        self.type_in("Watch")
        self.pulled = str(disk("b"))
        vmhost("qmp", '{"execute":"device_del","arguments":{"id":"b"}}')
        wait_until(lambda: not Path(self.pulled).exists(), "the disk to be gone")
        files.write("second", count=4)
        self.type_in("When a disk fails")
        self.wait_healthy()
        self.type_in("A consistent copy")
        self.wait_healthy()
        before = self.server_pid
        self.type_in("Upgrade")
        wait_until(lambda: self.shown("MainPID") not in ("0", str(self.pid_inside(before))), "another server", interval=0.5)
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
        self.assertEqual((self.shown("ActiveState"), self.shown("Result")), ("inactive", "success"))

    @staticmethod
    def pid_inside(pid: int) -> int:
        """As systemd knows it."""
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"^NSpid:.*?(\d+)$", status, re.MULTILINE)[1])


if __name__ == "__main__":
    main()
