"""What a service manager sees of the server: sd_notify(3), its watchdog, and memory that is locked."""

import contextlib
import ctypes
import os
import re
import signal
import socket
import time
import unittest
from pathlib import Path

from plexus import Case, DEADLINE_SECONDS, FailingLeg, MiB, binary, resident_bytes, wait_until

SIZE = 48 * MiB


@contextlib.contextmanager
def held(case: Case, thread: int):
    """Stops one thread of a process that we started, and lets it go on at the end. Source: ptrace(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    seize, interrupt, detach, wait_all = 0x4206, 0x4207, 17, 0x40000000
    if libc.ptrace(seize, thread, None, None) != 0:
        case.skipTest(f"ptrace: {os.strerror(ctypes.get_errno())}")
    case.assertEqual(libc.ptrace(interrupt, thread, None, None), 0)
    os.waitpid(thread, wait_all)
    try:
        yield
    finally:
        libc.ptrace(detach, thread, None, None)


class Manager:
    """The socket that NOTIFY_SOCKET names, and what came through it."""

    def __init__(self, case: Case):
        self.case = case
        self.path = case.dir / "notify"
        self.socket = case.resources.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.socket.bind(str(self.path))
        self.messages: list[dict[str, str]] = []

    def environment(self, **more) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WATCHDOG_")}
        return inherited | {"NOTIFY_SOCKET": str(self.path)} | more

    def next(self, timeout: float = DEADLINE_SECONDS) -> dict[str, str] | None:
        """The next message, or None if there is none for so long."""
        self.socket.settimeout(timeout)
        try:
            text = self.socket.recv(65536).decode()
        except (TimeoutError, BlockingIOError):
            return None
        message = dict(line.split("=", 1) for line in text.split("\n"))
        self.messages.append(message)
        return message

    def wait(self, what: str, check) -> dict[str, str]:
        """Reads messages until one is it."""
        while True:
            message = self.next()
            if message is None:
                self.case.fail(f"the server did not tell {what}; it told {self.messages}")
            if check(message):
                return message

    def ready(self) -> dict[str, str]:
        return self.wait("READY=1", lambda message: message.get("READY") == "1")

    def status(self, pattern: str) -> dict[str, str]:
        return self.wait(f"a status like {pattern}", lambda message: re.search(pattern, message.get("STATUS", "")))


class Notification(Case):
    def setUp(self):
        super().setUp()
        self.manager = Manager(self)

    def serve_supervised(self, disks, *options, **more):
        return self.serve(disks, *options, env=self.manager.environment(**more))

    def test_status_names_every_mirror_when_ready(self):
        disks = self.create("photos", disks=("c.img", "d.img"), size=SIZE) + self.create(size=SIZE)
        server = self.serve_supervised(disks)
        ready = self.manager.ready()
        # A new mirror is made equal at first; then it is healthy.
        self.assertRegex(ready["STATUS"], r"^2 mirrors: data (healthy|rebuilding: .+); photos (healthy|rebuilding: .+)$")
        self.manager.status(r"^2 mirrors: data healthy; photos healthy$")
        server.stop()
        stopping = self.manager.wait("STOPPING=1", lambda message: message.get("STOPPING") == "1")
        self.assertTrue(stopping["STATUS"].startswith("stopping"))
        self.assertFalse([one for one in self.manager.messages if "WATCHDOG" in one], "nobody watches")

    def test_status_follows_the_states_of_mirrors(self):
        first, second = self.create(size=SIZE)
        server = self.serve_supervised([first, second])
        self.manager.status(r"^1 mirror: data healthy$")
        server.verb("offline", "data", "1")
        told = self.manager.status(r"data degraded: ")["STATUS"]
        self.assertEqual(told, f"1 mirror: data degraded: {server.mirror()['reason']}")
        self.assertIn(str(second), told)
        server.verb("online", "data", "1")
        self.manager.status(r"^1 mirror: data healthy$")
        # What did not change is not told again.
        self.assertIsNone(self.manager.next(2))
        server.stop()

    def test_disk_that_fails_under_a_client_is_told(self):
        self.need("nbdkit", "qemu-io")
        self.need_fuse()
        leg = FailingLeg(self, "leg", SIZE)
        good = self.disk("good.img", SIZE)
        self.plexus("create", "data", good, leg.file)
        server = self.serve_supervised([good, leg.file])
        self.manager.status(r"^1 mirror: data healthy$")
        leg.kill()
        self.call("qemu-io", "-f", "raw", "-c", "write -P 1 1M 64k", "-c", "flush", server.uri())
        self.manager.status(r"data degraded: plex 1 .*leg")
        server.stop()

    def test_mirror_that_is_not_served_is_told(self):
        first, second = self.create(size=SIZE)
        more = self.create("more", disks=("c.img", "d.img"), size=SIZE)
        server = self.serve_supervised([first, *more])
        told = self.manager.status("more healthy")["STATUS"]
        self.assertRegex(told, r"^2 mirrors: more healthy; data not served \(\w+\): .")
        server.stop()
        self.assertTrue(second.exists())

    def test_line_break_in_a_path_is_no_other_variable(self):
        first, second = self.create(disks=("a.img", "b\nMAINPID=1\n.img"), size=SIZE)
        server = self.serve_supervised([first, second])
        self.manager.status("healthy")
        server.verb("offline", "data", "1")
        told = self.manager.status(r"data degraded: ")
        self.assertIn("MAINPID=1", told["STATUS"])
        self.assertEqual(list(told), ["STATUS"])
        server.stop()

    def test_reload_is_told_from_its_begin_to_its_end(self):
        disks = self.create(size=SIZE)
        config = self.dir / "plexus.toml"
        names = ", ".join(f'"{disk}"' for disk in disks)
        config.write_text(f"disks = [{names}]\n")
        server = self.serve_supervised([], "--config", config)
        self.manager.status(r"^1 mirror: data healthy$")
        server.process.send_signal(signal.SIGHUP)
        reloading = self.manager.wait("RELOADING=1", lambda message: message.get("RELOADING") == "1")
        self.assertGreater(int(reloading["MONOTONIC_USEC"]), 0)
        ready = self.manager.ready()
        self.assertEqual(ready["STATUS"], "1 mirror: data healthy")
        # A file with a fault: the reload ends, and the status says what the log says.
        config.write_text("disks = [\n")
        server.process.send_signal(signal.SIGHUP)
        ready = self.manager.ready()
        self.assertRegex(ready["STATUS"], r"data healthy; the configuration is not taken over: .*line \d")
        config.write_text(f"disks = [{names}]\n")
        server.process.send_signal(signal.SIGHUP)
        ready = self.manager.ready()
        self.assertEqual(ready["STATUS"], "1 mirror: data healthy")
        server.stop()

    def test_supervisor_that_reads_nothing_holds_nobody_up(self):
        self.need("qemu-io")
        server = self.serve_supervised(self.create(size=SIZE), WATCHDOG_USEC="300000")
        # The queue of a datagram socket is short, and has been full for long.
        pets = Path("/proc/sys/net/unix/max_dgram_qlen").read_text(encoding="ascii")
        for _ in range(int(pets) // 2 + 2):
            server.verb("offline", "data", "1")
            server.verb("online", "data", "1")
        self.call("qemu-io", "-f", "raw", "-c", "write -P 1 1M 64k", "-c", "flush", server.uri(), timeout=30)
        # What it had to say last is there as soon as there is room.
        self.manager.status("healthy")
        server.stop()
        self.manager.wait("STOPPING=1", lambda message: message.get("STOPPING") == "1")


class NotificationWithThreads(Notification):
    """The mirrors are on other threads."""
    threads = 3


class Watchdog(Case):
    def setUp(self):
        super().setUp()
        self.manager = Manager(self)

    def is_pet(self, message) -> bool:
        return message.get("WATCHDOG") == "1"

    def test_loop_that_hangs_stops_petting(self):
        server = self.serve(self.create(size=SIZE), env=self.manager.environment(WATCHDOG_USEC="1500000"))
        for _ in range(4):
            self.manager.wait("WATCHDOG=1", self.is_pet)
        server.process.send_signal(signal.SIGSTOP)
        try:
            while self.manager.next(0.01):
                pass
            self.assertIsNone(self.manager.next(4), "it is stopped, and says that it lives")
        finally:
            server.process.send_signal(signal.SIGCONT)
        self.manager.wait("WATCHDOG=1", self.is_pet)
        server.stop()

    def test_one_thread_that_hangs_stops_petting(self):
        """The first thread, which pets, goes on."""
        disks = self.create(size=SIZE) + self.create("more", disks=("c.img", "d.img"), size=SIZE)
        server = self.serve(disks, "--threads", "2", env=self.manager.environment(WATCHDOG_USEC="1500000"))
        server.wait_healthy("data")
        server.wait_healthy("more")
        other = wait_until(lambda: self.other_thread(server), "there to be two threads")
        with held(self, other):
            # The other one answers.
            nbd = self.need_libnbd()
            names = [name for name in ("data", "more") if self.answers(nbd, server.uri(name))]
            self.assertEqual(len(names), 1, "one thread is held, and one is not")
            while self.manager.next(0.01):
                pass
            self.assertIsNone(self.manager.next(4), "one of its loops hangs, and it says that it lives")
        self.manager.wait("WATCHDOG=1", self.is_pet)
        server.stop()

    def other_thread(self, server) -> int | None:
        """The one besides the first, when nothing else is under way."""
        tasks = [int(task.name) for task in Path(f"/proc/{server.pid}/task").iterdir()]
        workers = [task for task in tasks if not self.command(server, task).startswith("iou-")]
        return max(workers) if len(workers) == 2 else None

    def command(self, server, task: int) -> str:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{server.pid}/task/{task}/comm").read_text(encoding="utf-8")
        return "iou-gone"

    def answers(self, nbd, uri: str) -> bool:
        """Whether a read comes back within two seconds."""
        handle = nbd.NBD()
        handle.aio_connect_uri(uri)
        end = time.monotonic() + 2
        read = None
        while time.monotonic() < end:
            handle.poll(100)
            if handle.aio_is_ready() and read is None:
                read = handle.aio_pread(nbd.Buffer(512), 0)
            if read is not None and handle.aio_command_completed(read):
                return True
        return False

    def test_other_process_is_meant(self):
        server = self.serve(self.create(size=SIZE),
                            env=self.manager.environment(WATCHDOG_USEC="300000", WATCHDOG_PID=str(os.getpid())))
        self.manager.status(r"^1 mirror: data healthy$")
        self.assertIsNone(self.manager.next(2))
        server.stop()


class LockedMemory(Case):
    def start(self, *options, **settings):
        return self.serve(self.create(size=SIZE), "--lock-memory", *options, **settings)

    def need_capability(self):
        self.need_root()
        done = self.call("setpriv", "--dump")
        if "sys_resource" not in done.stdout:
            reason = "needs CAP_SYS_RESOURCE; scripts/vm-test locked-memory has it"
            self.fail(reason) if os.environ.get("MUST_LOCK") else self.skipTest(reason)

    def test_all_buffers_are_in_memory_and_locked_before_anything_is_served(self):
        self.need("setpriv", "nbdcopy", "cmp")
        self.need_capability()
        server = self.start()
        locked, mapped = resident_bytes(server.pid, "VmLck"), resident_bytes(server.pid)
        # The pools of one thread: 128 + 192 + 16 + 128 MiB.
        self.assertGreater(locked, 464 * MiB)
        self.assertGreater(mapped, 464 * MiB)
        for task in Path(f"/proc/{server.pid}/task").iterdir():
            flags = int((task / "stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[6])
            # PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, <linux/sched.h>.
            self.assertEqual(flags & 0x180000, 0x180000, f"thread {(task / 'comm').read_text().strip()}")
        image = self.random_disk("source.img", server.mirror()["size"])
        faults = self.major_faults(server)
        self.call("nbdcopy", "--flush", image, server.uri())
        self.assertEqual(self.major_faults(server), faults)
        back = self.dir / "back.img"
        self.call("nbdcopy", server.uri(), back)
        self.call("cmp", image, back)
        self.assert_clean_end(server)

    def major_faults(self, server) -> int:
        return int(Path(f"/proc/{server.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[9])

    def test_configuration_file_and_several_threads(self):
        self.need("setpriv")
        self.need_capability()
        config = self.dir / "plexus.toml"
        config.write_text("lock-memory = true\nthreads = 3\n")
        server = self.serve(self.create(size=SIZE), "--config", config)
        self.assertGreater(resident_bytes(server.pid, "VmLck"), 400 * MiB)
        server.stop()
        # The command line decides.
        server = self.serve(server.disks, "--config", config, "--no-lock-memory")
        self.assertEqual(resident_bytes(server.pid, "VmLck"), 0)
        server.stop()

    def test_without_the_capability_nothing_is_served_and_the_error_says_what_to_do(self):
        disks = self.create(size=SIZE)
        plain = self.without_capability()
        before = [disk.read_bytes() for disk in disks]
        done = self.call(*plain, binary(), "serve", *disks, "--lock-memory", "--socket", self.dir / "socket",
                         "--control", self.dir / "control", code=1)
        self.assertIn("--lock-memory: PR_SET_IO_FLUSHER: ", done.stderr)
        self.assertIn("CAP_SYS_RESOURCE", done.stderr)
        self.assertEqual([disk.read_bytes() for disk in disks], before)

    def without_capability(self) -> list[str]:
        if os.geteuid() != 0:
            return []
        self.need("setpriv")
        return ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"]


if __name__ == "__main__":
    unittest.main()
