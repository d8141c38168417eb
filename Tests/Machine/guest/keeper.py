"""A mirror attached by `plexus attach`, whose server is not always there."""

import errno
import os
import signal
import threading
import time
from pathlib import Path

from guest import NBD, Files, MachineCase, disk, main, say, sha256, wait_until

NAME = Path("/dev/plexus/data")


class Writer(threading.Thread):
    """Writes one file after the other, each on the disk before the next, until it is told to stop or one fails."""

    def __init__(self, directory: Path):
        super().__init__(daemon=True)
        self.directory = directory
        self.sums: dict[str, str] = {}
        self.longest = 0.0
        self.error: OSError | None = None
        self.ending = threading.Event()

    def run(self):
        number = 0
        while not self.ending.is_set():
            path = self.directory / f"written-{number}"
            started = time.monotonic()
            try:
                with open(path, "wb") as file:
                    file.write(os.urandom(64 << 10))
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                self.error = error
                return
            self.longest = max(self.longest, time.monotonic() - started)
            self.sums[path.name] = sha256(path)
            number += 1
            time.sleep(0.1)

    def end(self) -> dict[str, str]:
        self.ending.set()
        self.join(120)
        return self.sums


class Keeper(MachineCase):
    serve_options = ("--auto-rejoin", "--rejoin-delay", "1")

    def attach_it(self, *options, device: str | None = None, name: str = "data"):
        done = self.server.verb("attach", name, *([device] if device else []), *options)
        self.resources.callback(self.detach)
        say(done.stdout)
        return done

    def refuse(self, expected: str, *argv):
        """A refusal with these words on stderr."""
        done = self.plexus(*argv, code=1, timeout=60)
        self.assertRegex(done.stderr, expected)
        say(f"refused: {done.stderr.strip()}")

    def refuse_attach(self, expected: str, *argv):
        self.refuse(expected, "attach", *argv, "--control", self.server.control)

    def wait_progress(self, writer: Writer):
        """Until more was written. If not, what the keeper says comes now: nothing can be unmounted that waits for ever."""
        written = len(writer.sums)
        try:
            wait_until(lambda: writer.error or len(writer.sums) > written + 3, "more files", 60)
        except AssertionError:
            say(self.keeper_log() + self.kernel_log()[-3000:])
            say(self.call("ps", "-eo", "pid,stat,wchan:30,args", code=None).stdout)
            self.show()
            raise
        self.assertIsNone(writer.error)

    @staticmethod
    def keeper_log() -> str:
        return Path("/run/plexus-attached/data.log").read_text(encoding="utf-8")

    def keeper_pid(self) -> int:
        return next(int(process.name) for process in Path("/proc").iterdir() if process.name.isdigit()
                    and b"attach\0data" in self.command_line(process))

    @staticmethod
    def command_line(process: Path) -> bytes:
        try:
            return (process / "cmdline").read_bytes()
        except OSError:
            return b""

    def kill_and_restart(self, seconds: float):
        self.server.kill()
        say("server killed")
        time.sleep(seconds)
        self.serve_again()

    def kernel_log(self) -> str:
        return self.call("dmesg").stdout

    def mounted(self, device: str = NBD) -> Files:
        self.call("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", device)
        self.kind = "ext4"
        self.mount(device, self.mountpoint)
        return Files(self.mountpoint)

    def finish(self, files: Files):
        """Unmounted, detached, clean, and the plexes alike."""
        self.assert_files(files)
        self.call("umount", self.mountpoint)
        self.check_file_system(NBD)
        self.plexus("detach", "data")
        self.assertFalse(self.attached())
        self.assertNotIn("I/O error", self.kernel_log())
        self.server.wait_healthy()
        self.server.verb("scrub", "data")
        self.server.verb("wait", "data", "--for", "idle", "--timeout", "120")
        self.assertEqual(self.server.mirror()["scrub"]["mismatches"], 0)
        self.server.stop()

    def test_server_is_killed_while_mounted(self):
        self.start()
        self.attach_it(device=NBD)
        files = self.mounted()
        files.write("before", count=4)
        writer = Writer(self.mountpoint)
        writer.start()
        fio = self.spawn("fio", "fio", "--name=verify", f"--directory={self.mountpoint}", "--direct=1", "--rw=randwrite", "--bs=4k",
                         "--size=8M", "--iodepth=8", "--ioengine=libaio", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1",
                         "--verify_state_save=0", "--rate_iops=400", cwd=self.dir)
        for seconds in (1.0, 4.0, 0.0):
            time.sleep(1.5)
            self.kill_and_restart(seconds)
            self.wait_progress(writer)
        files.sums |= writer.end()
        self.assertIsNone(writer.error)
        self.assertEqual(fio.wait(300), 0, (self.dir / "fio.log").read_text(errors="replace"))
        say(f"{len(writer.sums)} files were written meanwhile, the longest write took {writer.longest:.1f} s")
        self.assertGreater(writer.longest, 3.5)
        log = self.keeper_log()
        say(log)
        self.assertGreaterEqual(log.count("reconnected"), 3, log)
        self.finish(files)

    def test_refusals_and_names(self):
        self.start()
        self.attach_it("--connections", "4", device=NBD)
        self.assertEqual(os.readlink(NAME), "../nbd0")
        self.assertEqual(self.call("blockdev", "--getss", NAME).stdout.strip(), "4096")
        self.refuse_attach(r"attached as /dev/nbd0 already", "data")
        self.refuse_attach(r"attached as /dev/nbd0 already, not as /dev/nbd1", "data", "/dev/nbd1")
        self.refuse_attach(r"no mirror photos", "photos")
        # A program that has it open, a mount, and a partition that is mounted.
        with open(NBD, "rb"):
            self.refuse(r"/dev/nbd0 is open in python3", "detach", "data")
        files = self.mounted()
        self.refuse(r"/dev/nbd0 is mounted on ", "detach", "data")
        self.refuse(r"/dev/nbd0 is mounted on ", "detach", NBD, "--force")
        files.write("before", count=2)
        self.call("umount", self.mountpoint)
        self.plexus("detach", NAME)
        self.assertFalse(NAME.is_symlink())
        self.refuse("not attached", "detach", "data")
        # Blocks of 512 bytes: a table that was made for them is found again without being told so.
        self.attach_it("--block-size", "512")
        self.call("sgdisk", "-n", "1:2048:0", NBD)
        self.plexus("detach", "data")
        self.attach_it("--server", self.server.socket)
        self.assertEqual(self.call("blockdev", "--getss", NBD).stdout.strip(), "512")
        part = f"{NBD}p1"
        wait_until(lambda: Path(part).exists(), f"{part}")
        files = self.mounted(part)
        files.write("in a partition", count=2)
        self.refuse(r"/dev/nbd0p1 is mounted on ", "detach", "data")
        self.call("umount", self.mountpoint)
        # A server of other disks with a mirror of that name and size: it must not get what is meant for ours.
        self.server.stop()
        ours = self.server
        self.plexus("create", "data", disk("c"), disk("d"))
        theirs = self.serve([disk("c"), disk("d")], label="serve", socket=ours.socket)
        wait_until(lambda: "another mirror" in self.keeper_log(), "the keeper to notice")
        theirs.stop()
        self.refuse(r"start the server, or lose that", "detach", "data")
        self.serve_again()
        self.mount(part, self.mountpoint)
        self.assert_files(files)
        self.call("umount", self.mountpoint)
        # Without the server only by force; the kernel holds nothing that is not written.
        self.server.stop()
        self.plexus("detach", "data", "--force")
        self.serve_again()
        # Over TCP.
        self.server.stop()
        self.call("busybox", "ip", "link", "set", "lo", "up")
        self.serve_options = (*self.serve_options, "--listen", "127.0.0.1:10809")
        self.serve_again()
        self.attach_it("--server", "127.0.0.1:10809")
        self.fio(f"--filename={NBD}", "--ioengine=libaio", "--rw=randwrite", "--bs=4k", "--size=2M", "--iodepth=4")
        self.plexus("detach", "data")
        self.server.stop()

    def test_keeper_is_killed_and_taken_over(self):
        self.start()
        self.attach_it(device=NBD)
        files = self.mounted()
        writer = Writer(self.mountpoint)
        writer.start()
        wait_until(lambda: writer.sums, "a file")
        os.kill(self.keeper_pid(), signal.SIGKILL)
        self.kill_and_restart(1)
        written = len(writer.sums)
        time.sleep(3)
        self.assertLessEqual(len(writer.sums), written + 1, "somebody reconnected it")
        self.assertIsNone(writer.error)
        self.attach_it()
        self.wait_progress(writer)
        files.sums |= writer.end()
        self.assertIsNone(writer.error)
        self.finish(files)

    def test_device_of_nbd_client_is_adopted(self):
        self.start()
        # As it is without Plexus' help: what is mounted dies with the server, and does not come back with it.
        self.attach(2)
        files = self.mounted()
        writer = Writer(self.mountpoint)
        writer.start()
        wait_until(lambda: writer.sums, "a file")
        self.kill_and_restart(1)
        wait_until(lambda: writer.error, "the file system to die")
        self.assertIn(writer.error.errno, (errno.EIO, errno.EROFS))
        say(f"stock nbd-client: {writer.error}")
        self.call("umount", self.mountpoint)
        self.detach()
        # Adopted, it only waits.
        self.plexus("create", "other", disk("c"), disk("d"))
        other = self.serve([disk("c"), disk("d")], label="other")
        self.attach(2)
        self.refuse_attach("--adopt", "data", NBD)
        self.refuse_attach("needs the device", "data", "--adopt")
        self.refuse_attach("not attached", "data", "/dev/nbd1", "--adopt")
        self.refuse("is not other", "attach", "other", NBD, "--adopt", "--control", other.control)
        other.stop()
        self.attach_it("--adopt", device=NBD)
        self.refuse_attach("already", "data")
        files = self.mounted()
        files.write("before", count=2)
        self.call("dmesg", "-C")
        writer = Writer(self.mountpoint)
        writer.start()
        wait_until(lambda: writer.sums, "a file")
        self.kill_and_restart(2)
        self.wait_progress(writer)
        files.sums |= writer.end()
        self.assertIsNone(writer.error)
        say(f"adopted: {len(writer.sums)} files, the longest write took {writer.longest:.1f} s")
        self.finish(files)

    def test_server_hangs(self):
        self.start()
        self.attach_it("--request-timeout", "15", device=NBD)
        files = self.mounted()
        writer = Writer(self.mountpoint)
        writer.start()
        wait_until(lambda: writer.sums, "a file")
        os.kill(self.server.pid, signal.SIGSTOP)
        time.sleep(40)
        os.kill(self.server.pid, signal.SIGCONT)
        self.wait_progress(writer)
        files.sums |= writer.end()
        self.assertIsNone(writer.error)
        self.assertGreater(writer.longest, 35)
        self.finish(files)


if __name__ == "__main__":
    main()
