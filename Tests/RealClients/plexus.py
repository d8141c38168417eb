"""Runs the plexus binary, its clients and its failing disks for the black-box tests.

Everything a test starts (processes, mounts, loop devices, temporary directories) goes into one
ExitStack per test, which is unwound in reverse order when the test ends, and at exit if it never does.
Only processes that were started here are ended, each by its own pid. Nothing sleeps for a fixed
time: `wait_until` polls for a state, and its deadline is only there to turn a hang into a failure.
"""

import atexit
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# A hang, not slowness: generous enough for a loaded machine with a debug build under emulation.
DEADLINE_SECONDS = float(os.environ.get("PLEXUS_TEST_DEADLINE", "180"))
IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30

# How many threads servers get that are not told otherwise: the whole suite may be run with several.
THREADS = os.environ.get("PLEXUS_TEST_THREADS")

_unfinished: list[contextlib.ExitStack] = []


@atexit.register
def _release_everything():
    while _unfinished:
        with contextlib.suppress(Exception):
            _unfinished.pop().close()


def _leave_on_signal(_number, _frame):
    raise KeyboardInterrupt  # Ends the run (unittest swallows SystemExit), and then the hook above does its work.


if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, _leave_on_signal)


def binary() -> Path:
    """The plexus under test: $PLEXUS, else the release build, else the debug build."""
    if named := os.environ.get("PLEXUS"):
        return Path(named).resolve()
    for kind in ("release", "debug"):
        candidate = REPOSITORY / ".build" / kind / "plexus"
        if candidate.exists():
            return candidate
    raise SystemExit("plexus is not built: run swift build -c release --static-swift-stdlib --product plexus, or set PLEXUS")


def rejoin_options(options) -> list[str]:
    """A plex stays out until the test says so, unless the test is about that."""
    words = [str(option) for option in options]
    return [] if "--auto-rejoin" in words or "--config" in words or "--read-only" in words else ["--no-auto-rejoin"]


def thread_options(case: object = None) -> list[str]:
    """`--threads` for servers of the case: its own `threads`, else $PLEXUS_TEST_THREADS, else the default."""
    threads = getattr(case, "threads", None) or THREADS
    return ["--threads", str(threads)] if threads else []


def end(process: subprocess.Popen):
    """Ends one process that we started: politely first, because that lets it clean up after itself."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def wait_until(check, what: str, deadline: float = DEADLINE_SECONDS, interval: float = 0.05):
    """Polls `check` until it returns something true, and returns that."""
    started = time.monotonic()
    while True:
        if value := check():
            return value
        if time.monotonic() - started > deadline:
            raise AssertionError(f"gave up waiting for {what} after {deadline:.0f} s; last answer: {value!r}")
        time.sleep(interval)


def is_mount_point(path: Path) -> bool:
    """Reads the kernel's table, because stat() on a dead fuse mount fails or blocks."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        return any(line.split()[1] == str(path) for line in mounts)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(4 * MiB):
            digest.update(piece)
    return digest.hexdigest()


def resident_bytes(pid: int, field: str = "VmRSS") -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * KiB
    raise AssertionError(f"/proc/{pid}/status has no {field}")


class Case(unittest.TestCase):
    """A test with a directory of its own and a stack of everything that it started."""

    maxDiff = None

    def setUp(self):
        self.resources = contextlib.ExitStack()
        _unfinished.append(self.resources)
        self.addCleanup(self._release)
        self.logs: list[Path] = []
        self.log_tails: list[str] = []
        # Short on purpose: the path of a Unix socket has at most 107 bytes.
        self.dir = Path(tempfile.mkdtemp(prefix="plexus-"))
        self.dir.chmod(0o755)  # So that a test can run plexus as another user.
        if not os.environ.get("PLEXUS_TEST_KEEP"):
            self.resources.callback(shutil.rmtree, self.dir, ignore_errors=True)

    def _release(self):
        for log in self.logs:
            with contextlib.suppress(OSError):
                self.log_tails.append(f"--- {log.name}\n" + log.read_text(errors="replace")[-4000:])
        if self.resources in _unfinished:
            _unfinished.remove(self.resources)
        self.resources.close()

    def run(self, result=None):
        """As inherited; when the test fails, what the servers logged follows its name."""
        before = len(result.failures) + len(result.errors) if result else 0
        outcome = super().run(result)
        if result and len(result.failures) + len(result.errors) > before:
            print(f"\n=== {self.id()}: what its processes logged", file=sys.stderr)
            print("\n".join(getattr(self, "log_tails", [])), file=sys.stderr, flush=True)
        return outcome

    # What the machine must have.

    def need(self, *tools: str):
        """Skips when a client is missing; in CI that fails, because scripts/install-deps installs them all."""
        if missing := [tool for tool in tools if shutil.which(tool) is None]:
            reason = f"not installed: {' '.join(missing)} (scripts/install-deps tests)"
            self.fail(reason) if IN_CI else self.skipTest(reason)

    def need_libnbd(self):
        try:
            import nbd  # pylint: disable=import-outside-toplevel
        except ImportError:
            reason = "python3-libnbd is not installed for this Python (scripts/install-deps tests)"
            return self.fail(reason) if IN_CI else self.skipTest(reason)
        return nbd

    def need_root(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")

    def need_fuse(self):
        """FUSE mounts: the tools can be installed, the device cannot."""
        self.need("nbdfuse", "fusermount3")
        try:
            os.close(os.open("/dev/fuse", os.O_RDWR))
        except OSError as error:
            self.skipTest(f"/dev/fuse: {error.strerror}")

    def need_loop(self):
        self.need_root()
        self.need("losetup", "mount", "umount")
        found = subprocess.run(["losetup", "-f"], capture_output=True, text=True, check=False)
        if found.returncode != 0:
            self.skipTest(f"no loop device: {found.stderr.strip()}")

    # Processes.

    def spawn(self, name: str, *argv, **options) -> subprocess.Popen:
        """Starts a process in the background, logging to NAME.log; it is ended with the test."""
        log = self.dir / f"{name}.log"
        with open(log, "ab") as output:
            options = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output} | options
            process = subprocess.Popen([str(word) for word in argv], **options)
        if log not in self.logs:
            self.logs.append(log)
        self.resources.callback(end, process)
        return process

    def call(self, *argv, code: int | None = 0, **options) -> subprocess.CompletedProcess:
        """Runs a command to its end. `code` is the exit code that it must have, None for any."""
        command = [str(word) for word in argv]
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace",
                   "timeout": DEADLINE_SECONDS} | options
        done = subprocess.run(command, check=False, **options)
        if code is not None and done.returncode != code:
            self.fail(f"exit code {done.returncode}, not {code}: {' '.join(command)}\n"
                      f"--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}")
        return done

    def plexus(self, *argv, code: int | None = 0, **options) -> subprocess.CompletedProcess:
        return self.call(binary(), *argv, code=code, **options)

    # Mirrors.

    def disk(self, name: str, size: int | None = None) -> Path:
        """The path of a disk file; with a size, a sparse file of that length."""
        path = self.dir / name
        if size is not None:
            with open(path, "wb") as file:
                file.truncate(size)
        return path

    def random_disk(self, name: str, size: int, seed: int = 7) -> Path:
        """A file of random data with holes in it, so that copies must carry both."""
        source, path = random.Random(seed), self.disk(name, size)
        with open(path, "r+b") as file:
            for offset in range(0, size, MiB):
                if source.random() < 0.6:
                    file.seek(offset)
                    file.write(source.randbytes(min(MiB, size - offset)))
        return path

    def create(self, name: str = "data", *options, disks=("a.img", "b.img"), size: int = 128 * MiB) -> list[Path]:
        """Creates a mirror over new files of `size` bytes each; the mirror is smaller by its private area."""
        paths = [self.disk(disk, size) if isinstance(disk, str) else disk for disk in disks]
        self.plexus("create", name, *paths, *options)
        return paths

    def serve(self, disks, *options, **settings) -> "Server":
        return Server(self, disks, *options, **settings)

    def mirror(self, name: str = "data", *, size: int = 128 * MiB, disks=("a.img", "b.img")) -> "Server":
        """A healthy, served mirror over new files."""
        server = self.serve(self.create(name, disks=disks, size=size))
        server.wait_healthy(name)
        return server

    def assert_identical(self, size: int, *disks: Path):
        """The plexes are byte for byte the same over the data area, which starts at offset 0."""
        for other in disks[1:]:
            self.call("cmp", "-n", size, disks[0], other)

    def assert_clean_end(self, server: "Server", *disks: Path, name: str = "data"):
        """Waits for health, stops the server, and compares the plexes."""
        server.wait_healthy(name)
        size = server.mirror(name)["size"]
        server.stop()
        self.assert_identical(size, *(disks or server.disks))

    # Attaching without the nbd driver.

    def fuse(self, uri: str, name: str, connections: int = 1) -> Path:
        """Mounts an NBD export as a file through nbdfuse; returns the file."""
        directory = self.dir / f"fuse-{name}"
        directory.mkdir(exist_ok=True)
        file = directory / "nbd"
        # nbdfuse can outlive its server and can die without unmounting; both leave a mount behind.
        self.resources.callback(self.unfuse, directory)
        process = self.spawn(f"nbdfuse-{name}", "nbdfuse", "-C", connections, directory, uri)

        def mounted():
            if process.poll() is not None:
                raise AssertionError(f"nbdfuse left with {process.returncode}:\n"
                                     + (self.dir / f"nbdfuse-{name}.log").read_text(errors="replace"))
            return is_mount_point(directory) and file.exists()

        wait_until(mounted, f"{file} to appear")
        return file

    def unfuse(self, directory: Path):
        """Lazily, because a server may still hold the file of a dead mount open."""
        if is_mount_point(directory):
            subprocess.run(["fusermount3", "-uz", str(directory)], check=False, stderr=subprocess.DEVNULL)
            wait_until(lambda: not is_mount_point(directory), f"{directory} to be unmounted", 15)

    def loop(self, file: Path, *options) -> str:
        """A loop device over a file; returns its path."""
        device = self.call("losetup", "-f", "--show", *options, file).stdout.strip()
        self.resources.callback(self.unloop, device)
        return device

    def unloop(self, device: str):
        subprocess.run(["losetup", "-d", device], check=False, capture_output=True)

    def mount(self, device: str, directory: Path, *options):
        directory.mkdir(exist_ok=True)
        self.resources.callback(self.unmount, directory)
        self.call("mount", *options, device, directory)
        self.assertTrue(is_mount_point(directory), f"{directory} is not mounted")

    def unmount(self, directory: Path):
        if is_mount_point(directory):
            done = subprocess.run(["umount", str(directory)], check=False, capture_output=True)
            if done.returncode != 0:
                subprocess.run(["umount", "-l", str(directory)], check=False, capture_output=True)


class Server:
    """One running `plexus serve` and the verbs that talk to it."""

    def __init__(self, case: Case, disks, *options, label: str = "serve", socket: Path | None = None,
                 ready: bool = True, user: list[str] | None = None, **popen):
        self.case = case
        self.disks = [Path(disk) for disk in disks]
        self.socket = socket or case.dir / f"{label}.sock"
        self.control = case.dir / f"{label}.control"
        self.stdout = case.dir / f"{label}.out"
        self.stdout.write_bytes(b"")
        with open(self.stdout, "ab") as output:
            self.process = case.spawn(
                label, *(user or []), binary(), "serve", *self.disks, "--socket", self.socket, "--control", self.control,
                *thread_options(case), *rejoin_options(options), *options, stdout=output, **popen)
        if ready:
            self.wait_ready()

    def wait_ready(self):
        """`serve` prints the NBD URI of each export when it can be used, not before."""
        def printed():
            if self.process.poll() is not None:
                self.case.fail(f"plexus serve left with {self.process.returncode} before it was ready")
            return "nbd+unix://" in self.stdout.read_text(errors="replace")
        wait_until(printed, "serve to print an NBD URI")

    @property
    def pid(self) -> int:
        return self.process.pid

    def uri(self, name: str = "data") -> str:
        return f"nbd+unix:///{name}?socket={self.socket}"

    def verb(self, verb: str, *argv, code: int | None = 0) -> subprocess.CompletedProcess:
        return self.case.plexus(verb, *argv, "--control", self.control, code=code)

    def status(self) -> dict:
        done = self.verb("status", "--json", code=None)
        self.case.assertIn(done.returncode, (0, 1, 2), f"status could not tell: {done.stderr}")
        return json.loads(done.stdout)

    def mirror(self, name: str = "data") -> dict:
        for mirror in self.status()["mirrors"]:
            if mirror["name"] == name:
                return mirror
        raise AssertionError(f"status shows no mirror {name}")

    def plex(self, index: int, name: str = "data") -> dict | None:
        return next((plex for plex in self.mirror(name)["plexes"] if plex["index"] == index), None)

    def plex_on(self, disk: Path, name: str = "data") -> dict | None:
        """The plex on a disk, or None once it was broken off."""
        return next((plex for plex in self.mirror(name)["plexes"] if plex["disk"] == str(disk)), None)

    def bring_back(self, disk: Path, name: str = "data"):
        """What a user types for a plex that did not come back by itself after a restart."""
        plex = self.plex_on(disk, name)
        if plex and plex["state"] == "offline":
            self.verb("online", name, plex["index"])
        elif not plex or plex["state"] not in ("in-sync", "rebuilding"):
            self.verb("join", name, disk)

    def events(self, name: str = "data") -> list[dict]:
        """The event log: one JSON object per line, or one document with a list of them."""
        text = self.verb("events", name, "--json").stdout
        try:
            document = json.loads(text)
        except ValueError:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        if isinstance(document, dict):
            return document["events"] if "events" in document else [document]
        return document

    def event_codes(self, name: str = "data") -> list[str]:
        return [event["code"] for event in self.events(name)]

    def wait_state(self, state: str, name: str = "data") -> dict:
        def reached():
            mirror = self.mirror(name)
            return mirror if mirror["state"] == state else None
        return wait_until(reached, f"{name} to be {state}")

    def wait_healthy(self, name: str = "data") -> dict:
        return self.wait_state("healthy", name)

    def wait_clients(self, name: str = "data"):
        """Until a client is connected: what happens next happens under load."""
        wait_until(lambda: self.mirror(name)["clients"] > 0, f"a client on {name}")

    def stop(self):
        """SIGTERM: flush, mark clean, leave with 0."""
        self.process.send_signal(signal.SIGTERM)
        self.case.assertEqual(self.process.wait(DEADLINE_SECONDS), 0, "exit code of serve after SIGTERM")

    def kill(self):
        self.process.kill()
        self.process.wait()


class FailingLeg:
    """A disk that fails on demand: nbdkit's error filter behind nbdfuse. `file` is handed to plexus as a disk."""

    def __init__(self, case: Case, name: str, size: int, rate: str = "100%"):
        self.case, self.name, self.rate = case, name, rate
        # Not beside the disks, where a search would take it for a clone of itself.
        (case.dir / "legs").mkdir(exist_ok=True)
        self.image = case.disk(f"legs/{name}.img", size)
        self.trigger = case.dir / f"{name}.fail"
        self.socket = case.dir / f"{name}.sock"
        self.directory = case.dir / f"fuse-{name}"
        self.file = self.directory / "nbd"
        self.start()

    def start(self):
        self.socket.unlink(missing_ok=True)
        self.nbdkit = self.case.spawn(
            f"nbdkit-{self.name}", "nbdkit", "-f", "-U", self.socket, "--filter=error", "file", self.image,
            "error=EIO", f"error-rate={self.rate}", f"error-file={self.trigger}")
        wait_until(self.socket.exists, f"nbdkit to listen on {self.socket}")
        self.case.fuse(f"nbd+unix:///?socket={self.socket}", self.name)

    def fail(self):
        self.trigger.touch()

    def heal(self):
        self.trigger.unlink(missing_ok=True)

    def kill(self):
        """As if the cable was pulled: every request fails from now on, and the file may vanish."""
        self.nbdkit.kill()
        self.nbdkit.wait()

    def restart(self):
        self.kill()
        self.case.unfuse(self.directory)
        self.start()


class FioLoad:
    """Keeps a verified fio load running in rounds until it is stopped; any error in any round is kept.

    fio runs in rounds rather than for a time, so that a test can wait for "one whole round since then"
    instead of sleeping.
    """

    def __init__(self, case: Case, uri: str, *options, size: str = "32m", jobs: int = 1):
        self.case, self.uri, self.size, self.jobs = case, uri, size, jobs
        self.options = options
        self.rounds = 0
        self.failure: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        case.resources.callback(self._join)

    def _loop(self):
        while not self._stop.is_set() and self.failure is None:
            try:
                fio(self.case, self.uri, *self.options, size=self.size, jobs=self.jobs, seed=self.rounds + 1)
                self.rounds += 1
            except Exception as error:  # pylint: disable=broad-except
                self.failure = str(error)

    def _join(self):
        self._stop.set()
        self._thread.join()

    def check(self):
        if self.failure:
            self.case.fail(self.failure)

    def wait_rounds(self, count: int = 1):
        """Until `count` rounds that start from now on are done (the one under way does not count)."""
        goal = self.rounds + count + 1
        wait_until(lambda: self.rounds >= goal or self.failure, f"{count} more rounds of fio")
        self.check()

    def abandon(self):
        """Its server was killed: whatever fio says of that."""
        self._join()

    def finish(self):
        self._join()
        self.check()
        self.case.assertGreater(self.rounds, 0, "fio finished no round")


def fio(case: Case, uri: str, *options, size: str = "32m", jobs: int = 1, seed: int = 1) -> dict:
    """One run of fio's nbd engine with verification; fails unless every job ends without an error."""
    defaults = {
        "name": "verify", "ioengine": "nbd", "uri": uri, "rw": "randwrite", "bs": "4k", "size": size, "iodepth": 16,
        "verify": "crc32c", "verify_fatal": 1, "verify_state_save": 0, "randseed": seed, "numjobs": jobs, "output-format": "json",
    }
    if jobs > 1:
        defaults["offset_increment"] = size
    for option in options:
        key, _, value = option.partition("=")
        if key in ("bsrange", "bssplit"):
            defaults.pop("bs", None)
        defaults[key] = value
    argv = [f"--{key}={value}" if value != "" else f"--{key}" for key, value in defaults.items()]
    done = case.call("fio", *argv, cwd=case.dir, code=None)
    if done.returncode != 0:  # Without the report of 300 lines.
        complaints = [line for line in done.stdout.splitlines() if line.startswith(("fio:", "verify:"))]
        case.fail("\n".join([f"exit code {done.returncode}: fio {' '.join(argv)}", *complaints, done.stderr]))
    # fio may print warnings before the document.
    report = json.loads(done.stdout[done.stdout.index("{"):])
    case.assertEqual(len(report["jobs"]), jobs)
    for job in report["jobs"]:
        case.assertEqual(job["error"], 0, f"fio job {job['jobname']}: error {job['error']}\n{done.stderr}")
        case.assertGreater(job["write"]["total_ios"], 0)
        if defaults["verify"] != "0":
            case.assertGreater(job["read"]["total_ios"], 0, "fio verified nothing")
    return report

