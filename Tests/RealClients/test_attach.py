"""`plexus attach` where it can't: no driver, no right, wrong words. What it does where it can is in Tests/Machine."""

import os
import signal
import subprocess
import unittest
from pathlib import Path

from nbdwire import WRITE, Wire
from plexus import Case, binary


def has_driver() -> bool:
    """In the kernel already, or as a module that could be loaded: a test must not do that to the machine."""
    return Path("/sys/module/nbd").exists() or \
        subprocess.run(["modprobe", "-nq", "nbd"], check=False, stderr=subprocess.DEVNULL).returncode == 0


class Attach(Case):
    def refuse(self, expected: str, verb: str, *argv, **options):
        done = self.plexus(verb, *argv, code=1, **options)
        self.assertRegex(done.stderr, expected)
        self.assertEqual(done.stdout, "")

    def test_advice_where_the_driver_is_missing(self):
        self.need_root()
        if has_driver():
            self.skipTest("this kernel has the nbd driver")
        server = self.mirror()
        for options in ((), ("--foreground",)):
            self.refuse("modprobe nbd(.|\n)*nbdfuse", "attach", "data", "--control", server.control, *options)
        self.refuse("modprobe nbd", "detach", "data")
        self.assertEqual(server.mirror()["clients"], 0)

    def test_words_that_are_wrong(self):
        self.need_root()
        server = self.mirror()
        control = ("--control", server.control)
        self.refuse("no mirror photos", "attach", "photos", *control)
        self.refuse("not one of /dev/nbdN", "attach", "data", "/dev/null", *control)
        self.refuse("--connections: 17", "attach", "data", "--connections", "17", *control)
        self.refuse("--request-timeout: 5", "attach", "data", "--request-timeout", "5", *control)
        self.refuse("--dead-timeout: 0", "attach", "data", "--dead-timeout", "0", *control)
        self.refuse("--block-size: 8192", "attach", "data", "--block-size", "8192", *control)
        self.refuse("neither a socket's path nor HOST:PORT", "attach", "data", "--server", "somewhere", *control)
        self.refuse("no server answers", "attach", "data", "--control", self.dir / "nobody")

    def test_other_users_may_not(self):
        self.need_root()
        self.need("setpriv")
        user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")
        for verb in ("attach", "detach"):
            done = self.call(*user, binary(), verb, "data", code=1)
            self.assertIn("only root", done.stderr)

    def test_status_says_where_clients_are_answered(self):
        server = self.serve(self.create(), "--listen", "127.0.0.1:0")
        sockets = server.status()["server"]["sockets"]
        self.assertIn(str(server.socket), sockets)
        self.assertTrue(any(text.startswith("127.0.0.1:") for text in sockets), sockets)


class Standstill(Case):
    """A server that stood still. What clients left unread who have gone since may have been sent again, and be old."""

    def test_what_a_client_left_behind_is_not_carried_out(self):
        server = self.mirror()
        with Wire(server.socket) as gone, Wire(server.socket) as again:
            gone.go("data")
            again.go("data")
            os.kill(server.pid, signal.SIGSTOP)
            try:
                # What a socket holds that nobody reads.
                for block in range(16):
                    gone.request(WRITE, block * 4096, 512, payload=b"old!" * 128)
                gone.socket.shutdown(2)
                # Longer than the server takes for granted that nobody has lost patience.
                self.call("sleep", "1.5")
            finally:
                os.kill(server.pid, signal.SIGCONT)
            for block in range(0, 16, 2):
                again.ask(WRITE, block * 4096, 4096, payload=b"new!" * 1024)
            self.assertEqual(again.read(0, 16 * 4096), (b"new!" * 1024 + bytes(4096)) * 8)
        server.stop()


if __name__ == "__main__":
    unittest.main()
