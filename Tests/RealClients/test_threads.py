"""Servers of several threads: mirrors spread over them, and sockets served by other threads than the mirror's."""

import json
import os
import socket
import subprocess
import unittest

import test_fio
import test_kill_loop
from plexus import Case, FioLoad, MiB, binary, fio, wait_until

NAMES = ("first", "second", "third")


class SocketsOnAnotherThread(test_fio.UnderLoad):
    """The sockets of four clients on one thread, the mirror on the other."""

    threads = 2
    JOBS = 4


class OneThreadForSockets(test_fio.Verify):
    threads = 2


class KilledWithSocketsOnAnotherThread(test_kill_loop.KilledServer):
    threads = 2
    # What the loop itself is worth does not depend on threads.
    test_plex_that_differs_in_one_sector_is_found = None


class MirrorsOnTwoThreads(Case):
    """Three mirrors: two on one thread, one on the other, their sockets with them."""

    threads = 2

    def setUp(self):
        super().setUp()
        self.need("fio")
        disks = []
        for name in NAMES:
            disks += self.create(name, disks=(f"{name}-a.img", f"{name}-b.img"), size=48 * MiB)
        self.server = self.serve(disks)
        for name in NAMES:
            self.server.wait_healthy(name)

    def disks(self, name: str):
        return [self.disk(f"{name}-a.img"), self.disk(f"{name}-b.img")]

    def events(self, name: str) -> list[dict]:
        done = self.server.verb("events", name, "--json")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_every_verb_finds_its_mirror_under_load(self):
        loads = {name: FioLoad(self, self.server.uri(name), "verify_backlog=256", size="16m") for name in NAMES}
        for name in NAMES:
            wait_until(lambda name=name: self.server.mirror(name)["clients"] > 0, f"a client of {name}")
            self.server.verb("offline", name, 1)
            loads[name].wait_rounds()
            self.assertEqual([mirror["name"] for mirror in self.server.status()["mirrors"]], list(NAMES))
            self.assertEqual(self.server.mirror(name)["state"], "degraded")
            self.server.verb("online", name, 1)
            self.server.wait_healthy(name)
        for name in NAMES:
            loads[name].finish()
            codes = [event["code"] for event in self.events(name)]
            self.assertIn("RESYNC_FINISHED", codes)
            self.assertEqual({event["mirror"] for event in self.events(name)}, {name})
        self.server.stop()
        for name in NAMES:
            self.assert_identical(32 * MiB, *self.disks(name))

    def test_followed_events_come_from_every_thread(self):
        with subprocess.Popen(
                [binary(), "events", "--follow", "--json", "--control", self.server.control], stdout=subprocess.PIPE, text=True) as follower:
            self.resources.callback(follower.kill)
            # What happened before comes first, and of each mirror there is something.
            seen = set()
            while len(seen) < len(NAMES):
                seen.add(json.loads(follower.stdout.readline())["mirror"])
            for name in NAMES:
                self.server.verb("break", name, 1, "--nokeep")
                while True:
                    event = json.loads(follower.stdout.readline())
                    if event["mirror"] == name and "forgotten" in event["text"]:
                        break
            follower.kill()

    def test_one_mirror_stops_and_the_others_go_on(self):
        loads = {name: FioLoad(self, self.server.uri(name), size="16m") for name in ("first", "third")}
        self.server.verb("stop", "second")
        wait_until(lambda: self.server.mirror("second")["state"] == "offline", "second to be stopped")
        self.assert_identical(32 * MiB, *self.disks("second"))
        for load in loads.values():
            load.wait_rounds()
            load.finish()
        refused = self.server.verb("offline", "second", 1, code=None)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("no mirror second", refused.stderr)

    def test_disk_of_a_mirror_on_the_other_thread_is_refused_by_name(self):
        for name, other in (("first", "second"), ("second", "third")):
            refused = self.server.verb("join", name, self.disks(other)[0], code=None)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(f"in use by mirror {other}", refused.stderr)

    def test_killed_server_resyncs_every_mirror(self):
        loads = [FioLoad(self, self.server.uri(name), size="16m") for name in NAMES]
        for load in loads:
            load.wait_rounds()
        self.server.process.kill()
        self.server.process.wait()
        for load in loads:
            load.abandon()
        self.server = self.serve([disk for name in NAMES for disk in self.disks(name)], label="again")
        for name in NAMES:
            self.server.wait_healthy(name)
            fio(self, self.server.uri(name), size="8m")
        self.server.stop()
        for name in NAMES:
            self.assert_identical(32 * MiB, *self.disks(name))


class MirrorsOnThreeAndSocketsOnTwoThreads(MirrorsOnTwoThreads):
    threads = 5


class ControlSocket(Case):
    """What programs other than plexus may do: several requests at once."""

    def answers(self, *requests: dict) -> list[dict]:
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("r", encoding="utf-8") as lines:
            connection.connect(str(self.server.control))
            connection.sendall(b"".join(json.dumps({"version": 1} | request).encode() + b"\n" for request in requests))
            connection.shutdown(socket.SHUT_WR)
            return [json.loads(line) for line in lines]

    def setUp(self):
        super().setUp()
        self.server = self.mirror()

    def test_requests_sent_at_once_are_all_answered_in_order(self):
        answers = self.answers(
            {"verb": "status"}, {"verb": "offline", "mirror": "data", "plex": "1"}, {"verb": "events"}, {"verb": "nonsense"},
            {"verb": "online", "mirror": "data", "plex": "1"}, {"verb": "offline", "mirror": "none", "plex": "1"}, {"verb": "status"})
        self.assertEqual(
            [sorted(answer.keys() & {"status", "events", "message", "error"}) for answer in answers],
            [["status"], ["message"], ["events"], ["error"], ["message"], ["error"], ["status"]])
        self.server.wait_healthy()
        self.assert_clean_end(self.server)


class ControlSocketOfTwoThreads(ControlSocket):
    threads = 2


class Options(Case):
    def test_number_of_threads_is_checked(self):
        disks = self.create()
        for wrong in ("0", "65", "-1", "two"):
            done = self.plexus("serve", *disks, f"--threads={wrong}", "--socket", self.dir / "s", "--control", self.dir / "c",
                               code=None)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("threads", done.stderr)

    def test_configuration_names_threads(self):
        disks = self.create()
        config = self.dir / "plexus.toml"
        config.write_text("threads = 2\n")
        server = self.serve(disks, "--config", config)
        server.wait_healthy()
        self.assertEqual(self.threads_of(server.pid), 2)
        server.stop()

    def test_no_thread_without_work_is_started(self):
        server = self.serve(self.create(), "--threads", 64)
        server.wait_healthy()
        self.assertEqual(self.threads_of(server.pid), 2)
        server.stop()

    def threads_of(self, pid: int) -> int:
        """Without the workers that io_uring adds to the process."""
        names = [open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8").read() for task in os.listdir(f"/proc/{pid}/task")]
        return sum(not name.startswith("iou-") for name in names)


if __name__ == "__main__":
    unittest.main()
