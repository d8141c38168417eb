"""Every bad input of the command line: a clear message that names the disk, a non-zero exit code, nothing changed."""

import os
import shutil
import struct
import subprocess
import unittest
from pathlib import Path

from plexus import Case, DEADLINE_SECONDS, KiB, MiB, binary, sha256, wait_until

SIZE = 48 * MiB
# A refusal is told at once; a server that was not refused would run for ever.
REFUSAL_SECONDS = 30
# The superblocks: four copies of 4 KiB, 16 KiB apart, in the last 64 KiB. The format's major number is at byte 8.
COPIES = [-64 * KiB + copy * 16 * KiB for copy in range(4)]


class Refusals(Case):
    def refuse(self, *argv, names=(), says=(), unchanged=(), program=()):
        """Runs plexus and expects a refusal: code, message, disks as they were, and nothing left running."""
        before = {disk: (sha256(disk), disk.stat().st_size) for disk in unchanged}
        try:
            done = self.call(*(program or (binary(),)), *argv, code=None, timeout=REFUSAL_SECONDS)
        except subprocess.TimeoutExpired:
            self.fail(f"accepted, or hung: {argv}")
        message = done.stderr
        self.assertNotEqual(done.returncode, 0, f"accepted: {argv}\n{done.stdout}{message}")
        self.assertGreater(done.returncode, 0, f"died of signal {-done.returncode}: {message}")
        self.assertTrue(message.strip(), "no message on standard error")
        self.assertNotIn("Fatal error", message)
        for word in names:
            self.assertIn(str(word), message)
        for choice in says:
            self.assertTrue(any(word.lower() in message.lower() for word in choice.split("|")),
                            f"none of {choice} in: {message}")
        self.assertEqual({disk: (sha256(disk), disk.stat().st_size) for disk in unchanged}, before, "a disk was changed")
        return message

    def as_nobody(self) -> tuple:
        """A command prefix: root may write anything, so that the test becomes somebody else."""
        if os.geteuid() != 0:
            return (binary(),)
        self.need("setpriv")
        user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
        # The build may lie in a directory that others cannot enter.
        program = self.dir / "plexus-of-nobody"
        shutil.copy(binary(), program)
        program.chmod(0o755)
        if self.call(*user, program, "--help", code=None).returncode != 0:
            self.skipTest("another user cannot run this build")
        return (*user, program)

    def serve_arguments(self, *disks) -> tuple:
        return ("serve", *disks, "--socket", self.dir / "refused.sock", "--control", self.dir / "refused.control")

    def refuse_serve(self, *disks, options=(), **expected):
        message = self.refuse(*self.serve_arguments(*disks), *options, **expected)
        self.assertFalse((self.dir / "refused.sock").exists(), "the socket is left behind")
        return message


class Create(Refusals):
    def test_disk_that_is_too_small(self):
        a, b = self.disk("a.img", SIZE), self.disk("b.img", 64 * KiB)
        self.refuse("create", "data", a, b, names=(b,), says=("small|least",), unchanged=(a, b))

    def test_empty_disk(self):
        a, b = self.disk("a.img", SIZE), self.disk("b.img", 0)
        self.refuse("create", "data", a, b, names=(b,), unchanged=(a, b))

    def test_disk_that_does_not_exist_without_a_size(self):
        a, b = self.disk("a.img", SIZE), self.disk("missing.img")
        self.refuse("create", "data", a, b, names=(b,), says=("--size",), unchanged=(a,))
        self.assertFalse(b.exists())

    def test_directory_that_does_not_exist(self):
        a, b = self.disk("a.img", SIZE), self.dir / "nowhere" / "b.img"
        self.refuse("create", "data", a, b, "--size", "48M", names=(b,), unchanged=(a,))

    def test_directory_instead_of_a_disk(self):
        a, b = self.disk("a.img", SIZE), self.dir / "directory"
        b.mkdir()
        self.refuse("create", "data", a, b, names=(b,), unchanged=(a,))

    def test_one_disk_only(self):
        a = self.disk("a.img", SIZE)
        self.refuse("create", "data", a, unchanged=(a,))

    def test_the_same_disk_twice(self):
        a = self.disk("a.img", SIZE)
        link, hard = self.dir / "link.img", self.dir / "hard.img"
        link.symlink_to(a)
        os.link(a, hard)
        for twin in (a, Path(f"{self.dir}/./a.img"), link, hard):
            with self.subTest(twin=twin.name):
                self.refuse("create", "data", a, twin, says=(f"{a}|{twin}", "twice|same"), unchanged=(a,))

    def test_disk_that_is_not_writable(self):
        a, b = self.disk("a.img", SIZE), self.disk("b.img", SIZE)
        a.chmod(0o666)
        b.chmod(0o444)
        self.refuse("create", "data", a, b, names=(b,), says=("permission|writable",), unchanged=(a, b),
                    program=self.as_nobody())

    def test_disk_with_a_file_system_is_named_and_kept(self):
        self.need("mkfs.ext4")
        a, b = self.disk("a.img", SIZE), self.disk("b.img", SIZE)
        self.call("mkfs.ext4", "-q", "-F", b)
        self.refuse("create", "data", a, b, names=(b, "ext4", "--force"), unchanged=(a, b))
        self.plexus("create", "data", a, b, "--force")

    def test_disk_with_another_file_system_is_named_and_kept(self):
        self.need("mkfs.xfs")
        a, b = self.disk("a.img", 320 * MiB), self.disk("b.img", 320 * MiB)
        self.call("mkfs.xfs", "-q", "-f", a)
        self.refuse("create", "data", a, b, names=(a, "xfs", "--force"), unchanged=(a, b))

    def test_disk_with_a_partition_table_is_named_and_kept(self):
        self.need("sgdisk")
        a, b = self.disk("a.img", SIZE), self.disk("b.img", SIZE)
        self.call("sgdisk", "-n", "1:0:0", b)
        self.refuse("create", "data", a, b, names=(b, "--force"), says=("gpt|partition",), unchanged=(a, b))

    def test_disk_of_another_mirror_is_named_and_kept(self):
        a, b = self.create("first", disks=("a.img", "b.img"), size=SIZE)
        c = self.disk("c.img", SIZE)
        self.refuse("create", "second", b, c, names=(b, "first", "--force"), unchanged=(a, b, c))

    def test_disk_in_use_by_a_server(self):
        server = self.mirror(size=SIZE)
        c = self.disk("c.img", SIZE)
        self.refuse("create", "second", server.disks[0], c, "--force", names=(server.disks[0],), says=("in use",),
                    unchanged=(c,))
        self.assert_clean_end(server)

    def test_bad_names_and_sizes(self):
        a, b = self.disk("a.img", SIZE), self.disk("b.img", SIZE)
        for name in ("", "x" * 5000, "with\nnewline"):
            with self.subTest(name=name[:20]):
                self.refuse("create", name, a, b, unchanged=(a, b))
        for option, value in (("--size", "0"), ("--size", "-5"), ("--size", "12Q"), ("--size", "99999999T"), ("--size", ""),
                              ("--region", "3K"), ("--region", "0"), ("--region", "1000000"), ("--region", "1T"),
                              ("--spares", "1T"), ("--spares", "x")):
            with self.subTest(option=option, value=value):
                self.refuse("create", "data", a, b, f"{option}={value}", unchanged=(a, b))

    def test_plan_changes_nothing(self):
        a, b = self.disk("a.img", SIZE), self.disk("b.img", SIZE)
        before = sha256(a), sha256(b)
        done = self.plexus("create", "data", a, b, "--plan")
        self.assertIn(str(a), done.stdout)
        self.assertIn(str(b), done.stdout)
        self.assertEqual((sha256(a), sha256(b)), before)

    def test_plan_creates_no_file(self):
        a, b = self.disk("new-a.img"), self.disk("new-b.img")
        self.plexus("create", "data", a, b, "--size", "48M", "--plan")
        self.assertFalse(a.exists() or b.exists())

    def test_size_creates_sparse_files(self):
        a, b = self.disk("new-a.img"), self.disk("new-b.img")
        self.plexus("create", "data", a, b, "--size", "1G")
        server = self.serve((a, b))
        server.wait_healthy()
        for disk in (a, b):
            self.assertLess(disk.stat().st_blocks * 512, 200 * MiB, "the data area is not sparse")
        self.assert_clean_end(server)

    def test_no_space_for_the_private_area(self):
        self.need_root()
        tiny = self.dir / "tiny"
        tiny.mkdir()
        self.resources.callback(self.unmount, tiny)
        if self.call("mount", "-t", "tmpfs", "-o", "size=256k", "plexus-test", tiny, code=None).returncode != 0:
            self.skipTest("cannot mount a tmpfs")
        a, b = self.disk("a.img", SIZE), tiny / "b.img"
        self.refuse("create", "data", a, b, "--size", "32M", names=(b,), says=("space",))
        self.assertEqual(os.listdir(tiny), [], "a half-made disk is left behind")
        # The other disk must not be left as half a mirror: it can be used at once.
        self.plexus("create", "data", a, self.disk("c.img", SIZE))

    def test_disks_of_different_sizes_give_a_mirror_of_the_smaller(self):
        a, b = self.create(disks=[self.disk("a.img", SIZE), self.disk("b.img", 2 * SIZE)])
        server = self.serve((a, b))
        self.assertLess(server.wait_healthy()["size"], SIZE)
        self.assert_clean_end(server)


class Serve(Refusals):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.create(size=SIZE)

    def test_no_disk_and_missing_disk_and_foreign_file(self):
        self.refuse("serve", "--socket", self.dir / "refused.sock", "--control", self.dir / "refused.control")
        self.refuse_serve(self.a, self.dir / "missing.img", names=(self.dir / "missing.img",), unchanged=(self.a,))
        plain = self.disk("plain.img", SIZE)
        self.refuse_serve(plain, names=(plain,), unchanged=(plain,))
        short = self.disk("short.img", 100)
        self.refuse_serve(short, names=(short,), unchanged=(short,))

    def test_disks_in_use_by_another_server(self):
        server = self.serve((self.a, self.b))
        server.wait_healthy()
        for disks in ((self.a, self.b), (self.b,)):
            self.refuse_serve(*disks, options=("--degraded",), names=(disks[0],), says=("in use",))
        self.assert_clean_end(server)

    def test_the_same_disk_twice(self):
        link = self.dir / "link.img"
        link.symlink_to(self.a)
        self.refuse_serve(self.a, link, self.b, says=(f"{self.a}|{link}", "twice|same"),
                          unchanged=(self.a, self.b))

    def test_clone_of_a_disk_is_refused_and_both_are_named(self):
        clone = self.dir / "clone.img"
        self.call("dd", f"if={self.a}", f"of={clone}", "bs=1M", "conv=sparse")
        self.refuse_serve(self.a, self.b, clone, names=(self.a, clone), says=("clone|same|uuid",),
                          unchanged=(self.a, self.b, clone))
        self.refuse_serve(self.a, clone, options=("--degraded",), names=(self.a, clone), unchanged=(self.a, self.b, clone))

    def test_disk_that_is_not_writable(self):
        program = self.as_nobody()
        self.a.chmod(0o666)
        self.b.chmod(0o444)
        self.dir.chmod(0o777)
        self.refuse_serve(self.a, self.b, names=(self.b,), says=("permission|writable",), unchanged=(self.a, self.b),
                          program=program)

    def test_missing_plex_is_named_with_the_ways_out(self):
        message = self.refuse_serve(self.a, says=("--degraded", "missing|absent"), unchanged=(self.a, self.b))
        self.assertIn("data", message)

    def overwrite(self, disk: Path, offset: int, data: bytes):
        with open(disk, "r+b") as file:
            file.seek(disk.stat().st_size + offset)
            file.write(data)

    def test_every_copy_of_the_private_area_is_damaged(self):
        for offset in COPIES:
            self.overwrite(self.b, offset + 512, b"\xff" * 64)
        self.refuse_serve(self.a, self.b, names=(self.b,), unchanged=(self.a, self.b))
        self.refuse("examine", self.b, names=(self.b,), unchanged=(self.b,))

    def test_private_area_is_zeroed_or_noise(self):
        for fill in (bytes(64 * KiB), os.urandom(64 * KiB)):
            self.overwrite(self.b, -64 * KiB, fill)
            self.refuse_serve(self.a, self.b, names=(self.b,), unchanged=(self.a, self.b))

    def test_one_good_copy_is_enough(self):
        """An update writes two copies of four, so that one damaged place never costs a plex."""
        with open(self.b, "rb") as file:
            tail = os.pread(file.fileno(), 64 * KiB, SIZE - 64 * KiB)
        written = [offset for offset in COPIES if any(tail[offset:][:4 * KiB])]
        self.assertGreaterEqual(len(written), 2)
        for good in written:
            with self.subTest(copy=COPIES.index(good)):
                a, b = self.dir / f"a{good}.img", self.dir / f"b{good}.img"
                shutil.copyfile(self.a, a)
                shutil.copyfile(self.b, b)
                for offset in COPIES:
                    if offset != good:
                        self.overwrite(b, offset, b"\xee" * 4096)
                server = self.serve((a, b), label=f"copy{good}")
                self.assert_clean_end(server)

    def test_format_of_the_future_is_refused_with_its_version(self):
        for offset in COPIES:
            self.overwrite(self.b, offset + 8, struct.pack("<H", 99))
        message = self.refuse_serve(self.a, self.b, names=(self.b,), unchanged=(self.a, self.b))
        self.assertTrue("99" in message or "damaged" in message or "checksum" in message.lower(), message)

    def test_truncated_disk_is_named(self):
        for remove in (4096, 64 * KiB, 8 * MiB, SIZE - 4096):
            copy = self.dir / "truncated.img"
            shutil.copyfile(self.b, copy)
            os.truncate(copy, SIZE - remove)
            self.refuse_serve(self.a, copy, names=(copy,), unchanged=(self.a, copy))

    def test_disk_that_grew_is_told(self):
        """The private area is at the end; after a growth it is in the middle, and guessing would be dangerous."""
        os.truncate(self.b, SIZE + MiB)
        self.refuse_serve(self.a, self.b, names=(self.b,), unchanged=(self.a, self.b))

    def test_degraded_start_serves_what_is_there(self):
        server = self.serve((self.a,), "--degraded")
        self.assertEqual(server.mirror()["state"], "degraded")
        self.assertIn("STARTED_DEGRADED", server.event_codes())
        server.stop()

    def test_socket_in_use(self):
        server = self.serve((self.a, self.b))
        server.wait_healthy()
        c, d = self.create("other", disks=("c.img", "d.img"), size=SIZE)
        self.refuse("serve", c, d, "--socket", server.socket, "--control", self.dir / "other.control",
                    names=(server.socket,), says=("in use",))
        self.refuse("serve", c, d, "--socket", self.dir / "other.sock", "--control", server.control,
                    names=(server.control,), says=("in use",))
        self.assertEqual(server.mirror()["state"], "healthy", "the refused server took over a socket")
        self.assert_clean_end(server)

    def test_socket_left_by_a_killed_server_is_replaced(self):
        server = self.serve((self.a, self.b))
        server.kill()
        self.assertTrue(server.socket.exists())
        again = self.serve((self.a, self.b))  # The same paths.
        again.wait_healthy()
        again.stop()

    def test_socket_path_that_cannot_be(self):
        plain = self.dir / "plain"
        plain.write_text("precious")
        self.refuse("serve", self.a, self.b, "--socket", plain, "--control", self.dir / "c", names=(plain,))
        self.assertEqual(plain.read_text(), "precious")
        for path in (self.dir / "nowhere" / "s", self.dir / ("x" * 120), self.dir):
            self.refuse("serve", self.a, self.b, "--socket", path, "--control", self.dir / "c", names=(path,))

    def test_unknown_option_and_verb(self):
        self.refuse("serve", self.a, self.b, "--no-such-option")
        self.refuse("no-such-verb")
        self.refuse("serve", self.a, self.b, "--socket", self.dir / "s", "--listen", "not-an-address", "--control",
                    self.dir / "c")

    def test_default_that_is_not_served(self):
        self.refuse_serve(self.a, self.b, options=("--default", "nothing"), names=("nothing",), unchanged=(self.a, self.b))

    def test_examine_needs_no_server_and_takes_no_lock(self):
        before = sha256(self.a)
        offline = self.plexus("examine", self.a)
        self.assertIn("data", offline.stdout)
        self.assertTrue(self.plexus("examine", self.a, "--json").stdout.strip().startswith("{"))
        self.assertEqual(sha256(self.a), before)
        server = self.serve((self.a, self.b))
        self.plexus("examine", self.a)
        server.wait_healthy()
        self.assert_clean_end(server)


class Verbs(Refusals):
    def setUp(self):
        super().setUp()
        self.server = self.mirror(size=SIZE)
        self.a, self.b = self.server.disks

    def refuse_verb(self, *argv, **expected):
        return self.refuse(*argv, "--control", self.server.control, **expected)

    def test_unknown_mirror(self):
        for verb in (("status", "nothing"), ("break", "nothing", "1"), ("join", "nothing", self.b), ("offline", "nothing", "1"),
                     ("online", "nothing", "1"), ("stop", "nothing"), ("events", "nothing"), ("wait", "nothing", "--timeout", "1")):
            with self.subTest(verb=verb[0]):
                self.refuse_verb(*verb, names=("nothing",))
        self.assertEqual(self.server.verb("status", "nothing", code=None).returncode, 4)

    def test_unknown_plex(self):
        for verb in ("break", "offline", "online"):
            for plex in ("7", "-1", "/nowhere.img", "00000000-0000-0000-0000-000000000000", ""):
                with self.subTest(verb=verb, plex=plex):
                    self.refuse_verb(verb, "data", "--", plex) if plex == "-1" else self.refuse_verb(verb, "data", plex)
        self.assertEqual(self.server.mirror()["state"], "healthy")

    def test_last_good_plex_cannot_be_taken_away(self):
        self.server.verb("offline", "data", 1)
        for verb in (("break", "data", "0"), ("break", "data", "0", "--nokeep"), ("offline", "data", "0")):
            with self.subTest(verb=verb):
                self.refuse_verb(*verb, names=(self.a,), says=("last",))
        self.server.verb("online", "data", 1)
        self.assert_clean_end(self.server)

    def test_last_plex_after_a_break_cannot_be_broken_off(self):
        self.server.verb("break", "data", 1)
        self.refuse_verb("break", "data", "0", names=(self.a,), says=("last",))
        self.refuse_verb("offline", "data", "0", names=(self.a,), says=("last",))

    def test_plex_that_is_not_in_sync_is_no_backup(self):
        self.server.verb("offline", "data", 1)
        self.refuse_verb("break", "data", "1", "--keep", names=(self.b,))
        self.server.verb("break", "data", "1", "--nokeep")

    def test_join_of_what_cannot_join(self):
        self.server.verb("break", "data", 1)
        small, plain = self.disk("small.img", SIZE // 2), self.dir / "missing.img"
        message = self.refuse_verb("join", "data", small, names=(small,), says=("small",), unchanged=(small,))
        self.assertIn(str(SIZE // 2), message.replace(",", "").replace("_", ""), "both sizes are named")
        self.refuse_verb("join", "data", plain, names=(plain,))
        self.refuse_verb("join", "data", self.a, names=(self.a,))
        other = self.create("other", disks=("c.img", "d.img"), size=SIZE)
        self.refuse_verb("join", "data", other[0], names=(other[0],), unchanged=other)
        # The plex that was broken off stays known, so that it can be joined again; nobody else came in.
        self.assertEqual([plex["state"] for plex in self.server.mirror()["plexes"]], ["in-sync", "offline"])

    def test_join_of_a_disk_with_a_file_system_is_refused(self):
        self.need("mkfs.ext4")
        self.server.verb("break", "data", 1)
        stranger = self.disk("stranger.img", SIZE)
        self.call("mkfs.ext4", "-q", "-F", stranger)
        self.refuse_verb("join", "data", stranger, names=(stranger, "ext4"), unchanged=(stranger,))

    def test_plexes_can_be_named_by_index_disk_and_uuid(self):
        uuid = self.server.plex(1)["uuid"]
        for name in ("1", self.b, uuid):
            self.server.verb("offline", "data", name)
            self.assertEqual(self.server.plex(1)["state"], "offline")
            self.server.verb("online", "data", name)
            self.server.wait_healthy()

    def test_exit_codes_of_status(self):
        self.assertEqual(self.server.verb("status", code=None).returncode, 0)
        self.assertEqual(self.server.verb("status", "data", "--json", code=None).returncode, 0)
        self.server.verb("offline", "data", 1)
        self.assertEqual(self.server.verb("status", code=None).returncode, 1)
        self.assertEqual(self.server.verb("status", "--json", code=None).returncode, 1)
        self.assertEqual(self.server.verb("status", "-x", code=None).returncode, 1)
        self.server.verb("online", "data", 1)
        self.server.wait_healthy()
        self.server.stop()
        for arguments in (("status",), ("status", "--json"), ("status", "-x"), ("status", "data")):
            done = self.server.verb(*arguments, code=None)
            self.assertEqual(done.returncode, 4, arguments)
            self.assertIn(str(self.server.control), done.stderr)

    def test_status_x_is_one_line_when_all_is_well(self):
        done = self.server.verb("status", "-x")
        self.assertEqual(len(done.stdout.strip().splitlines()), 1, done.stdout)
        self.server.verb("offline", "data", 1)
        done = self.server.verb("status", "-x", code=1)
        self.assertIn(str(self.b), done.stdout)

    def test_status_has_no_colour_when_it_is_not_a_terminal(self):
        self.assertNotIn("\x1b", self.server.verb("status").stdout)

    def test_status_json_has_every_documented_field(self):
        document = self.server.status()
        self.assertEqual(document["version"], 1)
        self.assertEqual(document["server"]["pid"], self.server.pid)
        self.assertTrue(document["server"]["version"])
        mirror = document["mirrors"][0]
        for key in ("name", "uuid", "size", "state", "reason", "action", "generation", "epoch", "readOnly", "clients", "bitmap",
                    "resync", "scrub", "plexes"):
            self.assertIn(key, mirror)
        self.assertIsNone(mirror["reason"])
        self.assertIsNone(mirror["action"])
        for key in ("regionSize", "regions", "dirty"):
            self.assertIsInstance(mirror["bitmap"][key], int)
        for index, (plex, disk) in enumerate(zip(mirror["plexes"], self.server.disks, strict=True)):
            self.assertEqual((plex["index"], plex["disk"], plex["state"], plex["reason"]), (index, str(disk), "in-sync", None))
            for key in ("uuid", "readErrors", "writeErrors", "corrected", "spared", "sparesFree", "badRanges"):
                self.assertIn(key, plex)

    def test_wait_returns_when_the_state_is_reached_and_fails_when_it_is_not(self):
        self.server.verb("wait", "data", "--for", "healthy", "--timeout", "60")
        self.server.verb("offline", "data", 1)
        self.assertNotEqual(self.server.verb("wait", "data", "--for", "healthy", "--timeout", "1", code=None).returncode, 0)
        self.server.verb("online", "data", 1)
        self.server.verb("wait", "data", "--for", "in-sync", "--timeout", str(int(DEADLINE_SECONDS)))
        self.server.verb("wait", "data", "--for", "idle", "--timeout", str(int(DEADLINE_SECONDS)))
        self.assertEqual(self.server.mirror()["state"], "healthy")
        self.refuse_verb("wait", "data", "--for", "nonsense")

    def test_events_tell_the_story_in_order_and_survive_a_restart(self):
        self.server.verb("break", "data", 1)
        self.server.verb("join", "data", self.b)
        self.server.wait_healthy()

        def finished():
            codes = self.server.event_codes()
            return codes if "RESYNC_FINISHED" in codes[codes.index("JOINED"):] else None
        codes = wait_until(finished, "the event of the finished resync")
        # Disks that existed are made equal when first served: that resync comes before the story.
        told = codes[codes.index("BROKEN_OFF"):]
        story = [told.index(code) for code in ("BROKEN_OFF", "JOINED", "RESYNC_STARTED", "RESYNC_FINISHED")]
        self.assertEqual(story, sorted(story), codes)
        for event in self.server.events():
            self.assertTrue(event["time"])
            self.assertEqual(event["mirror"], "data")
        self.server.stop()
        again = self.serve(self.server.disks)
        self.assertEqual(again.event_codes()[:len(codes)], codes)

    def test_stop_of_one_mirror_leaves_the_others(self):
        self.server.stop()
        disks = self.create("other", disks=("c.img", "d.img"), size=SIZE)
        server = self.serve([self.a, self.b, *disks], label="two")
        server.wait_healthy()
        server.wait_healthy("other")
        server.verb("stop", "data")
        self.assertIsNone(server.process.poll())
        self.assertEqual(server.mirror("other")["state"], "healthy")
        self.serve((self.a, self.b), label="taken")  # Its disks are free.
        server.verb("stop")
        self.assertEqual(server.process.wait(DEADLINE_SECONDS), 0)

    def test_version_and_help(self):
        for arguments in (("--version",), ("--help",), ("help",), ("create", "--help"), ("serve", "--help"), ("status", "--help")):
            done = self.plexus(*arguments)
            self.assertTrue(done.stdout.strip())


if __name__ == "__main__":
    unittest.main()
