"""The script that the README's first command runs."""

import os
import re
import shutil
import unittest
from pathlib import Path

from plexus import Case, DEADLINE_SECONDS, REPOSITORY, binary, is_mount_point, wait_until

QUICKSTART = REPOSITORY / "scripts" / "quickstart"


class Quickstart(Case):
    def setUp(self):
        super().setUp()
        self.need("nbdinfo", "nbdcopy", "nbdfuse")
        # With PLEXUS the script uses that build and does not make one.
        self.environment = os.environ | {"PLEXUS": str(binary())}

    def quickstart(self, *argv, **options):
        options = {"cwd": self.dir, "env": self.environment, "timeout": 4 * DEADLINE_SECONDS} | options
        return self.call(QUICKSTART, *argv, **options)

    def assert_gone(self, directory):
        self.assertFalse(directory.exists(), "the check left its directory behind")
        self.assertFalse(is_mount_point(directory / "mnt") or is_mount_point(directory / "fuse"))

    def test_check_passes_and_leaves_nothing_behind(self):
        done = self.quickstart("--check")
        self.assertEqual(done.stdout.splitlines()[-1], "quickstart: all checks passed")
        self.assert_gone(self.dir / "plexus-demo")

    def test_check_in_a_directory_with_a_space(self):
        done = self.quickstart("my demo", "--check")
        self.assertEqual(done.stdout.splitlines()[-1], "quickstart: all checks passed")
        self.assert_gone(self.dir / "my demo")

    def test_check_passes_without_root(self):
        if os.geteuid() != 0:
            self.skipTest("it is what the first test does for this user")
        self.need("setpriv")
        copy = self.dir / "plexus-of-nobody"
        shutil.copy(binary(), copy)
        copy.chmod(0o755)
        scripts = self.dir / "repository" / "scripts"
        shutil.copytree(REPOSITORY / "scripts", scripts)
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
        if self.call(*nobody, copy, "--help", code=None).returncode != 0:
            self.skipTest("another user cannot run this build")
        place = self.dir / "place"
        place.mkdir(mode=0o777)
        place.chmod(0o777)
        done = self.call(*nobody, scripts / "quickstart", "--check", cwd=place, env=self.environment | {"PLEXUS": str(copy)},
                         timeout=4 * DEADLINE_SECONDS)
        self.assertEqual(done.stdout.splitlines()[-1], "quickstart: all checks passed")
        self.assert_gone(place / "plexus-demo")

    def test_server_keeps_running_and_a_second_run_says_so(self):
        self.need("nbdinfo")
        demo = self.dir / "demo"
        control = demo / "control.sock"
        self.resources.callback(lambda: self.plexus("stop", "--control", control, code=None))
        first = self.quickstart(demo)
        uri = re.search(r"nbd\+unix://\S+", first.stdout).group()
        self.assertEqual(uri, f"nbd+unix:///demo?socket={demo / 'nbd.sock'}")
        self.call("nbdinfo", uri)
        second = self.quickstart(demo)
        self.assertIn("already running", second.stdout)
        self.assertIn(uri, second.stdout)
        self.assertIn("has one", self.quickstart(demo, "--check", code=1).stderr)
        # The commands that it prints work as they are.
        commands = [line.strip() for line in first.stdout.splitlines() if re.match(r"\s*\S*/plexus (status|break|join|stop)\b", line)]
        self.assertEqual([command.split()[1] for command in commands], ["status", "break", "join", "stop"])
        pid = int((demo / "plexus.pid").read_text())
        for command in commands:
            self.call("bash", "-c", command)
            if " join " in command:
                self.plexus("wait", "demo", "--for", "healthy", "--control", control, "--timeout", int(DEADLINE_SECONDS))
        wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3],
                   "the server to leave")
        third = self.quickstart(demo)  # The same mirror, served again.
        self.assertNotIn("Creating", third.stdout)
        self.call("nbdinfo", uri)

    def test_failure_says_why(self):
        place = self.dir / ("long-" * 25)
        place.mkdir()
        refused = self.quickstart(place, code=1)
        self.assertIn("too long", refused.stderr)
        self.quickstart("--no-such-option", code=64)


class InstallDependencies(Case):
    def test_list_names_packages_by_purpose(self):
        listed = self.call(REPOSITORY / "scripts" / "install-deps", "--list").stdout
        for purpose, package in (("build", "liburing-dev"), ("clients", "libnbd-bin"), ("tests", "python3-libnbd")):
            line = next(line for line in listed.splitlines() if line.startswith(purpose + ":"))
            self.assertIn(package, line.split())

    def test_unknown_purpose_is_refused(self):
        self.call(REPOSITORY / "scripts" / "install-deps", "everything", code=64)


if __name__ == "__main__":
    unittest.main()
