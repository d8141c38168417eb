"""`serve --takeover`: another process serves from now on, and no client notices."""

import json
import os
import shutil
import signal
import threading
import unittest
from pathlib import Path

from nbdwire import READ, WRITE, Wire
from plexus import Case, Server, binary, wait_until


class Takeover(Case):
    def take_over(self, server: Server, *words, label: str = "next", ready: bool = True) -> Server:
        """Another process for the same sockets; `server` is what the tests ask from then on."""
        out = self.dir / f"{label}.out"
        with open(out, "ab") as output:
            process = self.spawn(label, binary(), "serve", *words, "--takeover", "--control", server.control, stdout=output)
        if ready:
            def printed():
                if process.poll() is not None:
                    self.fail(f"left with {process.returncode}: " + (self.dir / f"{label}.log").read_text(errors="replace"))
                return "nbd+unix://" in out.read_text(errors="replace")
            wait_until(printed, "the next server to serve")
            self.assertEqual(server.process.wait(60), 0, "exit code of the one before")
            self.assertNotEqual(process.pid, server.pid)
            server.process = process
            self.assertEqual(server.status()["server"]["pid"], process.pid)
        else:
            server.candidate = process
        return server

    def test_fio_goes_on_through_three_of_them(self):
        """Verified load over several connections while servers take over from each other, one of them with other disks added."""
        self.need("fio")
        self.need_libnbd()
        server = self.mirror()
        fio = self.spawn(
            "fio", "fio", "--name=verify", "--ioengine=nbd", f"--uri={server.uri()}", "--rw=randrw", "--bsrange=4k-64k", "--size=96M",
            "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--verify_state_save=0", "--loops=20",
            "--rate_iops=3000", "--fsync=50", "--numjobs=1", "--verify_backlog=256", cwd=self.dir)
        for number in range(3):
            server.wait_clients()
            before = self.requests(server)
            wait_until(lambda: self.requests(server) > before + 500, "fio to work")  # pylint: disable=cell-var-from-loop
            self.assertIsNone(fio.poll(), (self.dir / "fio.log").read_text(errors="replace"))
            self.take_over(server, label=f"next{number}")
            if number == 0:
                server.verb("add", "data", self.dir / "c.img", "--create")
        server.wait_clients()
        wait_until(lambda: self.requests(server) > 500, "fio to work")
        self.assertIsNone(fio.poll(), (self.dir / "fio.log").read_text(errors="replace"))
        fio.send_signal(signal.SIGINT)
        fio.wait(120)
        text = (self.dir / "fio.log").read_text(errors="replace")
        self.assertRegex(text, r"err= 0:")
        self.assertNotIn("verify: bad", text)
        server.wait_healthy()
        # What was added while it ran is known to the one that came after, though it was not told.
        self.assertEqual(len(server.mirror()["plexes"]), 3)
        for label in ("next1", "next2"):
            # It may go on with what was added; nothing else is copied.
            self.assertNotIn("dirty regions", (self.dir / f"{label}.log").read_text(encoding="utf-8"))
        size = server.mirror()["size"]
        server.stop()
        self.assert_identical(size, self.dir / "a.img", self.dir / "b.img", self.dir / "c.img")
        self.assertFalse(server.socket.exists())

    @staticmethod
    def requests(server: Server) -> int:
        latency = server.mirror()["latency"]
        return latency["read"]["requests"] + latency["write"]["requests"]

    def test_sigusr2_begins_the_program_that_is_installed_now(self):
        """As a package does after an upgrade: the file of the running program is another one, or gone."""
        program = self.dir / "plexus"
        shutil.copy(binary(), program)
        disks = self.create()
        out = self.dir / "serve.out"
        with open(out, "wb") as output:
            process = self.spawn("serve", program, "serve", *disks, "--socket", self.dir / "n.sock", "--control", self.dir / "c.sock",
                                 "--no-auto-rejoin", stdout=output)
        wait_until(lambda: "nbd+unix://" in out.read_text(encoding="utf-8"), "serve to print an NBD URI")
        with Wire(self.dir / "n.sock") as client:
            client.go("data")
            client.ask(WRITE, 0, 4096, payload=b"here" * 1024)
            (self.dir / "new").write_bytes(program.read_bytes())
            (self.dir / "new").chmod(0o755)
            (self.dir / "new").rename(program)
            process.send_signal(signal.SIGUSR2)
            self.assertEqual(process.wait(60), 0)
            self.assertEqual(client.read(0, 4), b"here")
            report = json.loads(self.plexus("status", "--json", "--control", self.dir / "c.sock", code=None).stdout)
            new = report["server"]["pid"]
            self.assertNotEqual(new, process.pid)
            # Without a program it stays.
            program.unlink()
            os.kill(new, signal.SIGUSR2)
            wait_until(lambda: "can't be run" in (self.dir / "serve.log").read_text(encoding="utf-8"), "the refusal")
            self.assertEqual(client.read(0, 4), b"here")
        self.plexus("stop", "--control", self.dir / "c.sock")
        wait_until(lambda: not Path(f"/proc/{new}").exists(), "the server to leave")

    def test_half_a_request_is_taken_over(self):
        """A header cut in two, a write whose payload comes later, requests that nobody has read yet, a plain socket."""
        server = self.mirror()
        with Wire(server.socket) as half, Wire(server.socket) as simple:
            half.go("data")
            simple.go("data")
            simple.ask(WRITE, 8192, 4096, payload=b"kept" * 1024)
            header = self.request(half, READ, 8192, 4096)
            half.socket.sendall(header[:11])
            payload = b"late" * 1024
            writing = self.request(simple, WRITE, 4096, 4096)
            simple.socket.sendall(writing + payload[:1000])
            # The payload has begun: the old server waits for the rest of it, and answers.
            timer = threading.Timer(1.0, lambda: simple.socket.sendall(payload[1000:]))
            timer.start()
            self.take_over(server)
            timer.join()
            self.assertEqual(simple.reply()[0], 0)
            half.socket.sendall(header[11:])
            error, _, data = half.reply()
            self.assertEqual((error, data), (0, b"kept" * 1024))
            self.assertEqual(simple.read(4096, 4096), payload)
        self.assertEqual(server.mirror()["state"], "healthy")
        server.stop()

    @staticmethod
    def request(wire: Wire, command: int, offset: int, length: int) -> bytes:
        """The bytes of a request, not sent."""
        sent = []
        send, wire.send = wire.send, sent.append
        try:
            wire.request(command, offset, length, payload=b"")
        finally:
            wire.send = send
        return b"".join(sent)

    def test_the_old_one_goes_on_if_the_new_one_can_not(self):
        server = self.mirror()
        pid = server.pid
        with Wire(server.socket) as client:
            client.go("data")
            client.ask(WRITE, 0, 4096, payload=b"here" * 1024)
            # Wrong before anything is asked of the other; and wrong when everything was left to it.
            for words, expected in ((("--threads", "0", "a.img"), "--threads"), (("--default", "photos", server.disks[0]), "no such mirror"),
                                    (("--config", self.dir / "no.toml"), "no.toml")):
                done = self.plexus("serve", *words, "--takeover", "--control", server.control, code=1)
                self.assertIn(expected, done.stderr)
                self.assertEqual(client.read(0, 4), b"here")
                self.assertEqual(server.status()["server"]["pid"], pid)
            # It is killed in between.
            for _ in range(5):
                self.take_over(server, label="killed", ready=False)
                server.candidate.kill()
                server.candidate.wait()
                # Killed as late as that, it had the clients already, and was a server that crashed.
                if server.process.poll() is not None:
                    break
                self.assertEqual(client.read(0, 4), b"here")
                client.ask(WRITE, 0, 4096, payload=b"here" * 1024)
            else:
                self.assertEqual(server.status()["server"]["pid"], pid)
                server.wait_healthy()
                server.stop()

    def test_nobody_to_take_over_from(self):
        disks = self.create()
        done = self.plexus("serve", *disks, "--takeover", "--control", self.dir / "nobody", code=1)
        self.assertRegex(done.stderr, "no server answers at .*start without --takeover")
        done = self.plexus("serve", "--takeover", "--control", self.dir / "nobody", code=1)
        self.assertRegex(done.stderr, "start without --takeover")

    def test_many_clients_and_threads(self):
        """More sockets than fit one message, and mirrors on several threads."""
        other = [self.disk(name) for name in ("c.img", "d.img")]
        disks = self.create()
        self.plexus("create", "other", *other, "--size", "64M")
        server = self.serve([*disks, *other], "--threads", "3")
        server.wait_healthy()
        server.wait_healthy("other")
        wires = []
        for number in range(150):
            wire = Wire(server.socket)
            self.resources.callback(wire.close)
            wire.go("data" if number % 2 else "other")
            wires.append(wire)
        for number, wire in enumerate(wires):
            wire.ask(WRITE, number * 4096, 4096, payload=number.to_bytes(4, "big") * 1024)
        self.take_over(server)
        for number, wire in enumerate(wires):
            self.assertEqual(wire.read(number * 4096, 4), number.to_bytes(4, "big"))
        for name in ("data", "other"):
            self.assertEqual(server.mirror(name)["clients"], 75)
            self.assertEqual(server.mirror(name)["state"], "healthy")
        server.stop()


if __name__ == "__main__":
    unittest.main()
