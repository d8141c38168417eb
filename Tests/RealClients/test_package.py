"""The Debian package: made from the binary under test, looked at, installed in a root of its own, used, removed, purged."""

import os
import re
import shutil
import subprocess
import unittest
from pathlib import Path

from plexus import Case, REPOSITORY, binary

PACKAGING = REPOSITORY / "scripts" / "packaging"
INSIDE = Path(__file__).resolve().parent / "package_inside.sh"


def libraries(path: Path) -> str:
    return subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=True).stdout


def debian_mirror() -> tuple[str, str, dict[str, str]] | None:
    """The release of this machine, where it comes from, and the environment to get it with."""
    if shutil.which("apt-get") is None:
        return None
    facts = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines() if "=" in line)
    release = facts.get("VERSION_CODENAME", "").strip('"')
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        capture_output=True, text=True, check=False).stdout
    sites = [line.split()[0] for line in targets.splitlines() if line.split()[1:] == [release, "main"]]
    proxy = subprocess.run(["apt-config", "--format", "%v%n", "dump", "Acquire::http::Proxy"],
                           capture_output=True, text=True, check=False).stdout.strip()
    environment = dict(os.environ) | ({"http_proxy": proxy} if proxy else {})
    return (release, sites[0], environment) if release and sites else None


class Package(Case):
    """Made once for all tests of the class."""

    package: Path | None = None
    place: Path | None = None

    @classmethod
    def tearDownClass(cls):
        if cls.place:
            shutil.rmtree(cls.place, ignore_errors=True)

    def setUp(self):
        super().setUp()
        self.need("dpkg-deb", "dpkg-shlibdeps", "strip")
        if re.search(r"lib(swift|Foundation|dispatch)", libraries(binary())):
            self.skipTest("the binary needs shared libraries of Swift: swift build -c release --static-swift-stdlib")
        if not Package.package:
            Package.place = Path(subprocess.run(["mktemp", "-d", "-t", "plexus-package-XXXXXX"], capture_output=True, text=True,
                                                check=True).stdout.strip())
            Package.place.chmod(0o755)
            Package.package = self.make(Package.place)
        self.root = Package.place / "root"
        if not self.root.exists():
            self.call("dpkg-deb", "-x", Package.package, self.root)

    def make(self, output: Path) -> Path:
        done = self.call(REPOSITORY / "scripts" / "package", "--binary", binary(), "--output", output, timeout=300)
        return Path(done.stdout.splitlines()[-1])

    def field(self, name: str) -> str:
        return self.call("dpkg-deb", "--field", self.package, name).stdout.strip()

    def verbs(self) -> list[str]:
        help_text = self.call(self.root / "usr/bin/plexus", "--help").stdout
        return re.findall(r"^  ([a-z-]+) {2,}\S", help_text.split("SUBCOMMANDS:")[1], re.MULTILINE)

    def test_package_names_what_it_depends_on_and_belongs_to_root(self):
        version = self.plexus("--version").stdout.strip()
        self.assertEqual(self.field("Version"), version)
        self.assertEqual(self.package.name, f"plexus_{version}_{self.field('Architecture')}.deb")
        depends = self.field("Depends")
        # Each library that is loaded comes from a package that is named, or from libc's.
        installed = self.root / "usr/bin/plexus"
        self.assertNotRegex(libraries(installed), r"lib(swift|Foundation|_Foundation|dispatch|BlocksRuntime)|not found")
        needed = re.findall(r"NEEDED\s+(\S+)", self.call("objdump", "-p", installed).stdout)
        self.assertGreater(len(needed), 3)
        for library, package in (("liburing.so", "liburing2"), ("libblkid.so", "libblkid1"), ("libnbd.so", "libnbd0"),
                                 ("libc.so", "libc6"), ("libstdc++.so", "libstdc++6")):
            if any(name.startswith(library) for name in needed):
                self.assertRegex(depends, rf"(^|, ){re.escape(package)} \(>= ", f"{library} is needed")
        for line in self.call("dpkg-deb", "--contents", self.package).stdout.splitlines():
            mode, owner, *_ = line.split()
            self.assertEqual(owner, "root/root", line)
            self.assertNotRegex(mode, r"^.....w|^........w|[sS]", line)

    def test_same_binary_gives_the_same_package(self):
        again = self.make(self.dir / "again")
        self.assertEqual(again.read_bytes(), self.package.read_bytes())

    def test_every_verb_has_a_page_without_faults(self):
        pages = self.root / "usr/share/man/man1"
        verbs = self.verbs()
        self.assertGreater(len(verbs), 15)
        self.assertEqual(sorted(page.name for page in pages.iterdir()),
                         sorted(["plexus.1.gz", *(f"plexus-{verb}.1.gz" for verb in verbs)]))
        self.need("groff", "man", "mandoc")
        for page in sorted(pages.iterdir()):
            source = self.dir / page.stem
            source.write_text(self.call("zcat", page).stdout, encoding="utf-8")
            formatted = self.call("groff", "-ww", "-mandoc", "-Tutf8", "-z", source)
            self.assertEqual(formatted.stderr, "", page.name)
            self.call("mandoc", "-T", "lint", "-W", "warning", source)
        # What a reader sees is what the parser knows.
        shown = self.call("man", "-l", pages / "plexus-serve.1.gz", env=os.environ | {"MANWIDTH": "400"}).stdout
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", self.plexus("serve", "--help").stdout):
            if option not in ("--version", "--help"):
                self.assertIn(option, shown)

    def test_completions_are_accepted_by_their_shells(self):
        share = self.root / "usr/share"
        for shell, path in (("bash", "bash-completion/completions/plexus"), ("zsh", "zsh/vendor-completions/_plexus"),
                            ("fish", "fish/vendor_completions.d/plexus.fish")):
            with self.subTest(shell):
                self.need(shell)
                self.call(shell, "-n", share / path)
        # And they complete.
        script = f". {share / 'bash-completion/completions/plexus'}; " \
            "COMP_WORDS=(plexus re); COMP_CWORD=1; COMP_LINE='plexus re'; COMP_POINT=9; COMP_TYPE=9; " \
            "$(complete -p plexus | sed -E 's/.* -F ([^ ]+) .*/\\1/') plexus re plexus; echo \"${COMPREPLY[@]}\""
        done = self.call("bash", "-c", script)
        self.assertEqual(sorted(done.stdout.split()), ["reactivate", "replace", "resolve", "resync"])

    def test_units_are_valid_and_confined(self):
        self.need("systemd-analyze")
        # As if it was installed: programs and pages are looked for.
        root = self.dir / "root"
        self.call("cp", "-a", self.root, root)
        for path in ("usr/lib/systemd/system", "bin", "etc", "usr/share/man/man1"):
            (root / path).mkdir(parents=True, exist_ok=True)
        host = Path("/usr/lib/systemd/system")
        for unit in host.glob("*.target"):
            if not (root / unit.relative_to("/")).exists():
                shutil.copy(unit, root / unit.relative_to("/"))
        for unit in ("modprobe@.service", "systemd-udevd.service"):
            shutil.copy(host / unit, root / "usr/lib/systemd/system" / unit)
        for program in ("bin/kill", "sbin/modprobe", "usr/lib/systemd/systemd-udevd", "lib/systemd/systemd-udevd", "bin/udevadm"):
            (root / program).parent.mkdir(parents=True, exist_ok=True)
            (root / program).touch(mode=0o755)
        units = [root / "usr/lib/systemd/system" / name for name in ("plexus.service", "plexus.socket", "plexus@.service")]
        done = self.call("systemd-analyze", "verify", "--man=no", f"--root={root}", *(unit.name for unit in units[:2]),
                         "plexus@data.service")
        complaints = [line for line in (done.stdout + done.stderr).splitlines() if "plexus" in line]
        self.assertEqual(complaints, [])
        # 0 is confined, 10 is not at all. The one that attaches has to be root.
        for unit, threshold in ((units[0], 20), (units[2], 60)):
            self.call("systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", unit)

    def test_every_key_of_the_sample_is_known_and_no_key_is_left_out(self):
        sample = (self.root / "etc/plexus/plexus.toml").read_text(encoding="utf-8")
        settings = re.findall(r"^#?([a-z-]+ = .+)$", sample, re.MULTILINE)
        keys = [setting.split(" = ")[0] for setting in settings]
        self.assertEqual(len(set(keys)), len(keys))
        config = self.dir / "plexus.toml"
        config.write_text("nonsense = 1\n")
        done = self.plexus("serve", "--config", config, code=1)
        known = re.search(r"unknown key nonsense; known: (.+)", done.stderr).group(1).split(", ")
        self.assertEqual(sorted(keys), sorted(known))
        # All of them at once: it gets as far as the disks, which are not there.
        text = "\n".join(settings) + "\n"
        self.assertIn('"/usr/local/sbin/tell-me"', text)
        config.write_text(text.replace("/usr/local/sbin/tell-me", "/bin/true"))
        done = self.plexus("serve", "--config", config, "--no-lock-memory", code=1)
        self.assertIn("/dev/disk/by-id/ata-A", done.stderr)
        self.assertNotIn("plexus.toml", done.stderr)

    def test_installed_in_a_fresh_system_used_removed_and_purged(self):
        self.need_root()
        self.need("debootstrap", "unshare", "chroot")
        if not (found := debian_mirror()):
            self.skipTest("no Debian mirror among this machine's sources of packages")
        release, site, environment = found
        system = self.dir / "system"
        self.call("debootstrap", "--variant=minbase", release, system, site, env=environment, timeout=600)
        shutil.copy("/etc/resolv.conf", system / "etc/resolv.conf")
        shutil.copy(self.package, system / "root/plexus.deb")
        shutil.copy(INSIDE, system / "root/inside.sh")
        # Mounts and processes of its own: nothing is left of them.
        done = self.call("unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={system}/proc",
                         "chroot", system, "/bin/bash", "/root/inside.sh", *self.verbs(),
                         env=environment | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}, timeout=600, code=None)
        self.assertEqual((done.returncode, done.stdout.splitlines()[-1:]), (0, ["all is well"]), done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
