"""Everyday NBD clients: libnbd's tools, qemu's tools, nbd-client, socket activation, service notification."""

import json
import os
import socket
import unittest

from plexus import Case, DEADLINE_SECONDS, KiB, MiB, binary, wait_until


class Information(Case):
    def setUp(self):
        super().setUp()
        self.need("nbdinfo")
        self.server = self.mirror()

    def test_size_is_the_one_that_status_shows(self):
        size = int(self.call("nbdinfo", "--size", self.server.uri()).stdout)
        self.assertEqual(size, self.server.mirror()["size"])
        self.assertEqual(size % 4096, 0)
        self.assertLess(size, 128 * MiB)

    def test_capabilities_of_a_writable_mirror(self):
        for capability in ("multi-conn", "flush", "fua", "trim", "zero", "df", "connect"):
            with self.subTest(capability=capability):
                self.call("nbdinfo", "--can", capability, self.server.uri())
        self.call("nbdinfo", "--is", "read-only", self.server.uri(), code=2)

    def test_json_names_the_export_and_its_block_sizes(self):
        document = json.loads(self.call("nbdinfo", "--json", self.server.uri()).stdout)
        self.assertEqual(document["protocol"], "newstyle-fixed")
        self.assertTrue(document["structured"])
        export = document["exports"][0]
        self.assertEqual(export["export-name"], "data")
        self.assertEqual(export["export-size"], self.server.mirror()["size"])
        self.assertIn(export["block_size_minimum"], (1, 512))
        self.assertEqual(export["block_size_preferred"], 4 * KiB)
        self.assertEqual(export["block_size_maximum"], 32 * MiB)
        self.assertIn("base:allocation", export["contexts"])

    def test_list_shows_the_mirror_by_name(self):
        document = json.loads(self.call("nbdinfo", "--list", "--json", f"nbd+unix://?socket={self.server.socket}").stdout)
        self.assertEqual([export["export-name"] for export in document["exports"]], ["data"])

    def test_map_covers_the_whole_mirror_without_a_gap(self):
        extents = json.loads(self.call("nbdinfo", "--map", "--json", self.server.uri()).stdout)
        expected = 0
        for extent in extents:
            self.assertEqual(extent["offset"], expected)
            self.assertGreater(extent["length"], 0)
            expected += extent["length"]
        self.assertEqual(expected, self.server.mirror()["size"])

    def test_nbd_client_lists_the_exports(self):
        self.need("nbd-client")
        listed = self.call("nbd-client", "-l", "-unix", self.server.socket).stdout
        self.assertIn("data", listed.split())

    def test_unknown_export_is_refused_and_the_server_lives_on(self):
        refused = self.call("nbdinfo", self.server.uri("nothing-of-this-name"), code=None)
        self.assertNotEqual(refused.returncode, 0)
        self.call("nbdinfo", self.server.uri())


class Copies(Case):
    def setUp(self):
        super().setUp()
        self.server = self.mirror()
        self.size = self.server.mirror()["size"]
        self.image = self.random_disk("source.img", self.size)

    def test_nbdcopy_in_and_out_gives_the_same_bytes(self):
        self.need("nbdcopy")
        self.call("nbdcopy", "--flush", self.image, self.server.uri())
        back = self.dir / "back.img"
        self.call("nbdcopy", self.server.uri(), back)
        self.call("cmp", self.image, back)
        self.assert_clean_end(self.server)
        self.assert_identical(self.size, self.image, self.server.disks[0])

    def test_status_counts_what_nbdcopy_did_and_top_shows_it(self):
        server = self.server
        image = self.random_disk("image", 16 * MiB)
        self.call("nbdcopy", "--connections=1", "--requests=4", "--request-size=65536", image, server.uri(), timeout=120)
        mirror = server.mirror()
        self.assertEqual(mirror["latency"]["write"]["requests"], mirror["latency"]["write"]["bytes"] // 65536)
        # The image has holes, which nbdcopy zeroes.
        self.assertEqual(sum(mirror["latency"][kind]["bytes"] for kind in ("write", "zero")), 16 * MiB)
        for latency in (mirror["latency"], *(plex["latency"] for plex in mirror["plexes"])):
            write = latency["write"]
            # The first start of a mirror on files that were there copies plex 0 to plex 1.
            self.assertGreaterEqual(write["bytes"], mirror["latency"]["write"]["bytes"])
            self.assertGreaterEqual(write["requests"], mirror["latency"]["write"]["requests"])
            self.assertEqual(sum(count for _, count in write["histogram"]), write["requests"])
            times = [write[f"{name}Microseconds"] for name in ("p50", "p99", "p999", "max")]
            self.assertEqual(times, sorted(times))
        self.assertGreater(mirror["plexes"][0]["latency"]["metadata"]["requests"], 0)
        self.assertEqual((mirror["latency"]["metadata"], mirror["latency"]["read"]["p50Microseconds"]), (None, None))
        self.assertEqual((mirror["queueDepth"], mirror["plexes"][1]["queueDepth"]), (0, 0))
        # Nothing happens any more: top shows what happens, not what happened.
        seen = [json.loads(line) for line in server.verb(
            "top", "--json", "--count", "2", "--interval", "0.2").stdout.splitlines()]
        self.assertEqual([one["mirrors"][0]["latency"]["write"]["requests"] for one in seen], [0, 0])
        text = server.verb("top", "data", "--count", "1", "--interval", "0.1").stdout
        self.assertIn("mirror data: healthy", text)
        self.assertEqual(text.count("p99.9"), 1)
        self.assertEqual(text.count("write "), 3)

    def test_nbdcopy_one_connection_small_requests(self):
        self.need("nbdcopy")
        self.call("nbdcopy", "--connections=1", "--requests=1", "--request-size=65536", "--flush", self.image,
                  self.server.uri())
        back = self.dir / "back.img"
        self.call("nbdcopy", "--synchronous", self.server.uri(), back)
        self.call("cmp", self.image, back)
        self.assert_clean_end(self.server)

    def test_nbdcopy_between_two_servers(self):
        self.need("nbdcopy")
        other = self.serve(self.create("other", disks=("c.img", "d.img")), label="other")
        self.call("nbdcopy", "--flush", self.image, self.server.uri())
        self.call("nbdcopy", "--flush", self.server.uri(), other.uri("other"))
        self.assert_clean_end(other, name="other")
        self.assert_identical(self.size, self.image, other.disks[0], other.disks[1])

    def test_qemu_img_convert_and_compare(self):
        self.need("qemu-img")
        self.call("qemu-img", "convert", "-n", "-W", "-m", 16, "-f", "raw", "-O", "raw", self.image, self.server.uri())
        self.call("qemu-img", "compare", "-f", "raw", "-F", "raw", self.image, self.server.uri())
        self.assert_clean_end(self.server)
        self.assert_identical(self.size, self.image, self.server.disks[0])

    def test_qemu_img_map_reads_zeroes_where_nothing_was_written(self):
        self.need("qemu-img")
        extents = json.loads(self.call("qemu-img", "map", "--output=json", "-f", "raw", self.server.uri()).stdout)
        self.assertEqual(sum(extent["length"] for extent in extents), self.size)

    def test_qemu_img_bench_writes_with_flushes(self):
        self.need("qemu-img")
        self.call("qemu-img", "bench", "-f", "raw", "-c", 4000, "-d", 32, "-s", 4096, "-w", "--flush-interval=64",
                  "--pattern=165", self.server.uri())
        self.assert_clean_end(self.server)

    def test_qemu_io_patterns_fua_zeroes_and_discard(self):
        self.need("qemu-io")
        steps = ["write -P 0xab 1M 64k", "write -z -u 2M 1M", "write -P 0x11 4M 1M", "discard 4M 1M",
                 "write -f -P 0xcd 3M 512", "write -P 0x77 5M 64k", "write -z 5128k 8k", "flush",
                 "read -P 0xab 1M 64k", "read -P 0 2M 1M", "read -P 0xcd 3M 512", "read -P 0x77 5M 8k",
                 "read -P 0 5128k 8k", "read -P 0x77 5136k 8k"]
        argv = [word for step in steps for word in ("-c", step)]
        done = self.call("qemu-io", "-f", "raw", *argv, self.server.uri())
        self.assertNotIn("Pattern verification failed", done.stdout)
        self.assertNotIn("failed", done.stdout)
        self.assert_clean_end(self.server)

    def test_requests_that_are_not_sector_aligned(self):
        """The server advertises a minimum of 1 or 512; either way neighbours of an odd write stay as they were."""
        self.need("qemu-io")
        steps = ["write -P 0x55 8M 64k", "write -P 0x66 8193k 1000", "flush", "read -P 0x55 8M 1k",
                 "read -P 0x66 8193k 1000"]
        argv = [word for step in steps for word in ("-c", step)]
        done = self.call("qemu-io", "-f", "raw", *argv, self.server.uri())
        self.assertNotIn("failed", done.stdout)
        self.assert_clean_end(self.server)


class ManyMirrors(Case):
    def test_several_mirrors_are_served_by_name(self):
        self.need("nbdinfo", "nbdcopy")
        names = ("alpha", "beta", "gamma delta")
        disks = []
        for number, name in enumerate(names):
            disks += self.create(name, disks=(f"{number}a.img", f"{number}b.img"), size=(32 + 16 * number) * MiB)
        server = self.serve(reversed(disks))
        listed = json.loads(self.call("nbdinfo", "--list", "--json", f"nbd+unix://?socket={server.socket}").stdout)
        self.assertEqual(sorted(export["export-name"] for export in listed["exports"]), sorted(names))
        for number, name in enumerate(names):
            server.wait_healthy(name)
            size = server.mirror(name)["size"]
            image = self.random_disk(f"{number}.img", size, seed=number)
            self.call("nbdcopy", "--flush", image, server.uri(name.replace(" ", "%20")))
        for number, name in enumerate(names):
            back = self.dir / f"{number}.back"
            self.call("nbdcopy", server.uri(name.replace(" ", "%20")), back)
            self.call("cmp", self.dir / f"{number}.img", back)

    def test_empty_export_name_is_the_only_mirror(self):
        self.need("nbdinfo")
        server = self.mirror()
        self.assertEqual(int(self.call("nbdinfo", "--size", server.uri("")).stdout), server.mirror()["size"])

    def test_empty_export_name_is_refused_when_it_is_ambiguous(self):
        self.need("nbdinfo")
        disks = self.create("one", disks=("1a.img", "1b.img")) + self.create("two", disks=("2a.img", "2b.img"))
        server = self.serve(disks)
        self.assertNotEqual(self.call("nbdinfo", "--size", server.uri(""), code=None).returncode, 0)

    def test_default_option_chooses_the_mirror_of_the_empty_name(self):
        self.need("nbdinfo")
        disks = self.create("one", disks=("1a.img", "1b.img"), size=32 * MiB)
        disks += self.create("two", disks=("2a.img", "2b.img"), size=64 * MiB)
        server = self.serve(disks, "--default", "two")
        self.assertEqual(int(self.call("nbdinfo", "--size", server.uri("")).stdout), server.mirror("two")["size"])


class Starting(Case):
    def test_socket_activation_by_libnbd(self):
        """libnbd starts the server itself with LISTEN_FDS and ends it with the connection."""
        self.need("nbdinfo")
        a, b = self.create()
        done = self.call("nbdinfo", "--size", "--", "[", binary(), "serve", a, b, "--socket", self.dir / "unused.sock",
                         "--control", self.dir / "unused.control", "]")
        # The server shares nbdinfo's standard output, so the size is one line of it.
        self.assertTrue([line for line in done.stdout.splitlines() if line.isdigit() and int(line) > 0], done.stdout)
        self.assertFalse((self.dir / "unused.sock").exists(), "an inherited socket replaces --socket")

    def test_socket_activation_copies_data(self):
        self.need("nbdcopy")
        a, b = self.create()
        size = self.mirror_size(a, b)
        image, back = self.random_disk("source.img", size, seed=3), self.dir / "back.img"
        command = ("[", binary(), "serve", a, b, "--socket", self.dir / "s", "--control", self.dir / "c", "]")
        self.call("nbdcopy", "--flush", "--", image, *command)
        wait_until(lambda: self.can_lock(a, b), "the activated server to be gone")
        self.call("nbdcopy", "--", *command, back)
        self.call("cmp", image, back)

    def mirror_size(self, *disks) -> int:
        server = self.serve(disks, label="size")
        size = server.mirror()["size"]
        server.stop()
        return size

    def can_lock(self, *disks) -> bool:
        """libnbd sends SIGTERM and does not wait; the disks are free when another server may have them."""
        server = self.serve(disks, label="probe", ready=False)
        code = wait_until(lambda: "left" if server.process.poll() is not None else
                          "nbd+unix" in server.stdout.read_text() and "ready", "serve to start or to refuse")
        if code == "ready":
            server.stop()
        return code == "ready"

    def test_ready_is_told_to_the_service_manager(self):
        a, b = self.create()
        path = self.dir / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(path))
            manager.settimeout(DEADLINE_SECONDS)
            server = self.serve((a, b), env=os.environ | {"NOTIFY_SOCKET": str(path)}, ready=False)
            while b"READY=1" not in manager.recv(4096):
                pass
        # Ready means ready: the very next client is served.
        if self.need("nbdinfo") is None:
            self.call("nbdinfo", "--size", server.uri())
        server.stop()

    def test_data_is_there_after_a_clean_restart_without_a_resync(self):
        self.need("nbdcopy")
        server = self.mirror()
        image = self.random_disk("source.img", server.mirror()["size"], seed=5)
        self.call("nbdcopy", "--flush", image, server.uri())
        before = server.event_codes().count("RESYNC_STARTED")
        server.stop()
        again = self.serve(server.disks)
        self.assertEqual(again.mirror()["state"], "healthy")
        self.assertEqual(again.event_codes().count("RESYNC_STARTED"), before)
        back = self.dir / "back.img"
        self.call("nbdcopy", again.uri(), back)
        self.call("cmp", image, back)

    def test_read_only_serves_reads_and_refuses_writes(self):
        self.need("nbdinfo", "nbdcopy", "qemu-io")
        server = self.mirror()
        self.call("qemu-io", "-f", "raw", "-c", "write -P 0x5a 1M 1M", "-c", "flush", server.uri())
        server.stop()
        before = [disk.read_bytes() for disk in server.disks]
        again = self.serve(server.disks, "--read-only")
        self.assertTrue(again.mirror()["readOnly"])
        self.call("nbdinfo", "--is", "read-only", again.uri())
        self.call("qemu-io", "-r", "-f", "raw", "-c", "read -P 0x5a 1M 1M", again.uri())
        nbd = self.need_libnbd()
        handle = nbd.NBD()
        handle.set_strict_mode(0)
        handle.connect_uri(again.uri())
        with self.assertRaises(nbd.Error) as refused:
            handle.pwrite(b"x" * 512, 0)
        self.assertEqual(refused.exception.errno, "EPERM")
        handle.shutdown()
        again.stop()
        self.assertEqual([disk.read_bytes() for disk in server.disks], before, "--read-only wrote to a disk")

    def test_serve_listens_on_tcp(self):
        self.need("nbdinfo")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = self.serve(self.create(), "--listen", f"127.0.0.1:{port}")
        size = int(self.call("nbdinfo", "--size", f"nbd://127.0.0.1:{port}/data").stdout)
        self.assertEqual(size, server.mirror()["size"])


if __name__ == "__main__":
    unittest.main()
