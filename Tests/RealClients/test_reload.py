"""SIGHUP: the configuration is read again while clients work."""

import os
import signal
import socket
import unittest

from plexus import Case, FioLoad, MiB, wait_until

SIZE = 48 * MiB


class Reload(Case):
    def setUp(self):
        super().setUp()
        self.config = self.dir / "plexus.toml"

    def write(self, disks, *lines):
        names = ", ".join(f'"{disk}"' for disk in disks)
        self.config.write_text("\n".join((f"disks = [{names}]", *lines)) + "\n")

    def log(self) -> str:
        return (self.dir / "serve.log").read_text(errors="replace")

    def reload(self, server, expected: str = "the configuration was read again"):
        before = self.log().count(expected)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.log().count(expected) > before, f"the log to say: {expected}")

    def free_port(self) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    def names(self, server) -> list[str]:
        return [mirror["name"] for mirror in server.status()["mirrors"]]

    def test_mirrors_sockets_and_policies_change_under_load(self):
        self.need("fio", "nbdinfo")
        first = self.create(size=SIZE)
        second = self.create("more", disks=("c.img", "d.img"), size=SIZE)
        self.write(first, "auto-rejoin = false")
        server = self.serve([], "--config", self.config)
        server.wait_healthy()
        load = FioLoad(self, server.uri(), size="16m")
        load.wait_rounds()
        port = self.free_port()
        self.write(first + second, f'listen = ["127.0.0.1:{port}"]', "auto-rejoin = true", "rejoin-delay = 0")
        self.reload(server)
        self.assertEqual(self.names(server), ["data", "more"])
        server.wait_healthy("more")
        self.call("nbdinfo", f"nbd://127.0.0.1:{port}/more")
        self.call("nbdinfo", server.uri("more"))
        # A mirror that is not named any more is served on; a socket that is not is closed.
        self.write(first, "auto-rejoin = true", 'default = "data"')
        self.reload(server)
        self.assertIn("default: taken over by the next start only", self.log())
        self.assertIn("still in use", self.log())
        self.assertEqual(self.names(server), ["data", "more"])
        self.call("nbdinfo", f"nbd://127.0.0.1:{port}/more", code=1)
        load.wait_rounds()
        load.finish()
        self.assert_clean_end(server, *first)
        self.assertEqual(load.failure, None)

    def test_what_is_wrong_changes_nothing(self):
        disks = self.create(size=SIZE)
        self.write(disks)
        server = self.serve([], "--config", self.config)
        server.wait_healthy()
        self.config.write_text("disks = [\nnonsense")
        self.reload(server, "the configuration is not taken over")
        self.assertIn("line 2", self.log())
        self.write(disks + [self.dir / "none.img"], f'listen = "127.0.0.1:{self.free_port()}"')
        self.reload(server, "none.img: can't be opened")
        self.assertNotIn("listening:", self.log())
        self.write(disks, 'on-event = "/nonexistent"')
        self.reload(server, "on-event: /nonexistent")
        self.assertEqual(server.mirror()["state"], "healthy")
        server.stop()

    def test_spares_and_returning_plexes_are_found_by_their_new_names(self):
        disks = self.create(size=SIZE)
        self.write(disks)
        server = self.serve([], "--config", self.config)
        server.wait_healthy()
        spare = self.dir / "spare.img"
        server.verb("spare", "data", spare, "--create")
        server.stop()
        away = self.dir / "away"
        away.mkdir()
        os.rename(disks[1], away / "b.img")
        self.write(disks[:1], "degraded = true", "spare-delay = 3600")
        server = self.serve([], "--config", self.config)
        self.assertEqual(server.mirror()["hotSpares"], [])
        self.write([disks[0], away / "b.img", spare], "degraded = true", "rejoin-delay = 0", "spare-delay = 3600")
        self.reload(server)
        server.wait_healthy()
        mirror = server.mirror()
        self.assertEqual([spare["disk"] for spare in mirror["hotSpares"]], [str(spare)])
        self.assertEqual(server.plex(1)["disk"], str(away / "b.img"))
        self.assert_clean_end(server, disks[0], away / "b.img")

    def test_without_a_configuration_it_stops_the_server(self):
        server = self.serve(self.create(size=SIZE))
        server.wait_healthy()
        server.process.send_signal(signal.SIGHUP)
        self.assertEqual(server.process.wait(60), 0)


class ReloadWithThreads(Reload):
    """The mirrors, and their spares, are on other threads."""
    threads = 3


if __name__ == "__main__":
    unittest.main()
