"""scripts/bench: not how fast anything is, only that it measures, draws and cleans up."""

import contextlib
import io
import json
import os
import sys
import unittest
from dataclasses import replace
from unittest import mock
from xml.etree import ElementTree

from plexus import Case, MiB, REPOSITORY, binary

sys.path.append(str(REPOSITORY / "Benchmarks"))

import bench
import md
import memory
import plot
from peers import PEERS
from servers import Place, Rig

BENCH = REPOSITORY / "scripts" / "bench"


class Comparison(Case):
    def setUp(self):
        super().setUp()
        self.need("fio", "nbdkit")
        self.environment = os.environ | {"PLEXUS": str(binary()), "TMPDIR": str(self.dir)}
        self.place = self.dir / "place"
        self.place.mkdir()

    def bench(self, *argv, **options):
        return self.call(BENCH, "--dir", self.place, *argv, env=self.environment, **options)

    def test_quick_run_measures_draws_and_leaves_nothing_behind(self):
        record, drawing = self.dir / "result.json", self.dir / "result.svg"
        done = self.bench("--size", "64M", "--seconds", 1, "--repetitions", 1, "--only", "mixed", "--peers",
                          "nbdkit,md-raid1" if md.obstacle() else "nbdkit", "--json", record, "--plot", drawing)
        self.assertEqual(md.obstacle() is not None, "skipped md-raid1" in done.stderr)
        self.assertIn("CPU us/req", done.stdout)
        self.assertIn("both plexes hold the same data", done.stderr)
        document = json.loads(record.read_text())
        result, = document["results"]
        self.assertEqual([(run["server"], run["error"]) for run in result["runs"]], [("plexus", None), ("nbdkit", None)])
        for row in result["summary"]:
            self.assertGreater(row["measures"]["iops"]["median"], 0)
        self.assertEqual(ElementTree.parse(drawing).getroot().tag, "{http://www.w3.org/2000/svg}svg")
        self.assertEqual(sorted(path.name for path in self.dir.iterdir()), ["place", "result.json", "result.svg"])
        self.assertEqual(list(self.place.iterdir()), [])

    def test_usage_errors_are_told_before_anything_is_made(self):
        for argv in (["--peers", "nobody"], ["--only", "nothing"], ["--memory", "--plot", "x.svg"], ["--quick", "--full"]):
            with self.subTest(argv):
                self.bench(*argv, code=64)


class Peers(unittest.TestCase):
    def test_missing_peer_is_left_out_with_a_reason(self):
        absent = replace(PEERS[0], name="absent", executable="no-such-server")
        hindered = replace(PEERS[0], name="hindered", executable="sh", obstacle=lambda: "it rains")
        told = io.StringIO()
        with (mock.patch.dict(os.environ, {"PLEXUS": str(binary())}), contextlib.redirect_stderr(told),
              mock.patch.object(bench, "find", lambda name: None if name == "no-such-server" else f"/bin/{name}")):
            found = bench.find_executables([absent, hindered])
        self.assertEqual(list(found), ["plexus"])
        self.assertIn("skipped absent: no-such-server is not installed", told.getvalue())
        self.assertIn("skipped hindered: it rains", told.getvalue())


class Plot(unittest.TestCase):
    @staticmethod
    def document(file_systems: list[str]) -> dict:
        """A server that failed has no measures; names may hold what XML gives a meaning to."""
        measures = {name: {"median": 12.5, "low": 1, "high": 20}
                    for name in ("iops", "megabytes_per_second", "cpu_microseconds_per_request")}
        rows = [{"workload": "<4k> & more", "countsBytes": False, "server": server, "io": "direct", "measures": values}
                for server, values in (("plexus", measures), ("failing", {}))]
        return {"date": "2026-01-31",
                "machine": {"processor": "A & B", "processors": 1, "isVirtual": False, "kernel": "6.18.1"},
                "results": [{"kind": "side by side", "fileSystem": name, "sizeBytes": 64 * MiB, "pageCache": "cold",
                             "seconds": 1, "repetitions": 1, "servers": [{"name": "plexus", "io": "direct"}],
                             "summary": rows} for name in file_systems]}

    def test_drawing_is_well_formed_and_says_what_failed(self):
        document = self.document(["tmpfs"])
        drawn = ElementTree.fromstring(plot.svg(document["date"], document["machine"], document["results"][0]))
        texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
        for expected in ("<4k> & more", "12.5 IOPS", "12.5 us", "failed"):
            self.assertIn(expected, texts)
        self.assertTrue(any("2026-01-31: A & B, 1 processor, Linux 6.18.1, tmpfs" in text for text in texts))


class Drawings(Case):
    def test_each_file_system_has_its_own(self):
        written = plot.write_plots(self.dir / "plot.svg", Plot.document(["tmpfs", "ext4"]))
        self.assertEqual([path.name for path in written], ["plot-tmpfs.svg", "plot-ext4.svg"])
        for path in written:
            ElementTree.parse(path)


class Memory(Case):
    def test_stalled_and_deaf_clients_are_measured_while_another_is_served(self):
        rig = Rig(Place(self.dir, self.dir), {"plexus": str(binary())})
        mirror_bytes = memory.create_sparse(rig, [64 * MiB])
        with mock.patch.object(memory, "REST_SECONDS", 0.1):
            for act in (memory.idle, memory.stall_writes, memory.stop_listening, memory.ignore_refusals):
                with self.subTest(act.__name__):
                    state = memory.at_rest(rig, act.__name__, mirror_bytes, 8, act)
                    self.assertGreater(state.rss_bytes, MiB)
                    self.assertGreaterEqual(state.peak_bytes, state.rss_bytes)
                    self.assertIsNotNone(state.probe_milliseconds)


if __name__ == "__main__":
    unittest.main()
