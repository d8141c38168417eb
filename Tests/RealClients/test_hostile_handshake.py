"""Clients that lie, stall and hang up in the handshake.

Each test names the rule or the bug it comes from: H and numbers are of the NBD protocol text, CVEs are those of
other NBD servers. After every test an ordinary client must be served, and both plexes must be identical.
"""

import contextlib
import random
import socket
import struct
import unittest

from hostile import Hostile
from nbdwire import (
    ABORT, ACK, BLOCK_STATUS, EINVAL, ERR_INVALID, ERR_POLICY, ERR_TOO_BIG, ERR_UNKNOWN, ERR_UNSUP, EXPORT_NAME,
    EXTENDED_HEADERS, FIXED_NEWSTYLE, GO, INFO, LIST, LIST_META_CONTEXT, META_CONTEXT, NO_ZEROES, READ, REPLY_INFO,
    SERVER, SET_META_CONTEXT, STARTTLS, STRUCTURED_REPLY, Closed, Wire, context_data, info_data)
from plexus import KiB, MiB, resident_bytes

REFUSED_NAME = (ERR_INVALID, ERR_UNKNOWN, ERR_TOO_BIG, ERR_POLICY)


class Handshake(Hostile):
    def test_greeting_has_the_two_flags_and_no_other(self):
        self.assertEqual(self.connect().handshake_flags, FIXED_NEWSTYLE | NO_ZEROES)

    def test_unknown_client_flag_closes(self):
        for flags in (4 | FIXED_NEWSTYLE, 0x80000001, 0xFFFFFFFF):
            with self.subTest(flags=hex(flags)):
                wire = self.connect(flags=flags)
                with contextlib.suppress(Closed):
                    wire.send_option(LIST)
                self.assertTrue(wire.is_closed())
        self.assert_unharmed()

    def test_wrong_option_magic_closes(self):
        wire = self.connect()
        wire.send_option(LIST, magic=0x4E42444D41474943)
        self.assertTrue(wire.is_closed())
        self.assert_unharmed()

    def test_unknown_options_are_refused_in_step(self):
        wire = self.connect()
        for option in (0, 4, 12, 99, 0x7FFFFFFF, 0xFFFFFFFF):
            for data in (b"", b"x", bytes(4000)):
                self.assertEqual(wire.outcome(option, data), ERR_UNSUP, f"option {option}, {len(data)} bytes")
        self.assertTrue(wire.in_step())

    def test_options_that_take_no_data_refuse_data_in_step(self):
        wire = self.connect()
        for option in (LIST, STRUCTURED_REPLY, STARTTLS, EXTENDED_HEADERS):
            # Options that are not offered may also be refused as such.
            self.assertIn(wire.outcome(option, b"unwanted"), (ERR_INVALID, ERR_UNSUP, ERR_POLICY), f"option {option}")
        self.assertTrue(wire.in_step())

    def test_starttls_without_tls_is_refused_as_unsupported(self):
        wire = self.connect()
        self.assertIn(wire.outcome(STARTTLS), (ERR_UNSUP, ERR_POLICY))
        self.assertTrue(wire.in_step())

    def test_abort_is_acknowledged_and_closes(self):
        for data in (b"", b"ignored"):
            wire = self.connect()
            self.assertEqual(wire.outcome(ABORT, data), ACK)
            self.assertTrue(wire.is_closed())

    def test_list_names_each_export(self):
        replies = self.connect().option(LIST)
        self.assertEqual([kind for kind, _ in replies], [SERVER, ACK])
        length, = struct.unpack_from(">I", replies[0][1])
        self.assertEqual(replies[0][1][4:4 + length], b"data")

    def test_export_name_gives_size_and_flags_with_and_without_zeroes(self):
        for flags, tail in ((FIXED_NEWSTYLE | NO_ZEROES, 0), (FIXED_NEWSTYLE, 124), (0, 124)):
            with self.subTest(flags=flags):
                wire = self.connect(flags=flags)
                wire.send_option(EXPORT_NAME, b"data")
                size, transmission_flags = struct.unpack(">QH", wire.receive(10))
                self.assertEqual(size, self.size)
                self.assertTrue(transmission_flags & 1)
                self.assertEqual(wire.receive(tail), bytes(tail))
                self.assertTrue(wire.alive())

    def test_export_name_that_is_unknown_closes(self):
        """CVE-2011-1925, CVE-2013-7441: it must not take the server with it."""
        for name in (b"nothing", b"data\0", b"data ", b"x" * 4096, b"\xff\xfe", b"../data"):
            wire = self.connect()
            wire.send_option(EXPORT_NAME, name)
            self.assertTrue(wire.is_closed(), name[:16])
        self.assert_unharmed()

    def test_go_with_an_unknown_name_is_refused_without_information(self):
        wire = self.connect()
        for option in (INFO, GO):
            self.assertEqual([kind for kind, _ in wire.option(option, info_data("nothing"))], [ERR_UNKNOWN])
        self.assertTrue(wire.in_step())

    def test_go_ignores_unknown_information_types(self):
        wire = self.connect()
        replies = wire.option(GO, info_data("data", (3, 1, 2, 77, 0xFFFF, 3)))
        self.assertEqual(replies[-1][0], ACK)
        kinds = [struct.unpack_from(">H", body)[0] for kind, body in replies if kind == REPLY_INFO]
        self.assertEqual(len(kinds), len(set(kinds)), "an information type came twice")
        self.assertIn(0, kinds)
        self.assertTrue(wire.alive())

    def test_info_then_go_says_the_same_and_info_may_be_followed_by_anything(self):
        """CVE-2019-14851: INFO, then something else."""
        wire = self.connect()
        first = wire.option(INFO, info_data("data", (3,)))
        self.assertEqual(first, wire.option(INFO, info_data("data", (3,))))
        self.assertEqual(wire.outcome(LIST), ACK)
        self.assertEqual(sorted(first), sorted(wire.option(GO, info_data("data", (3,)))))
        other = self.connect()
        other.option(INFO, info_data("data"))
        other.send_option(EXPORT_NAME, b"data")
        self.assertEqual(struct.unpack(">QH", other.receive(10))[0], self.size)
        self.assertTrue(other.alive())

    def test_go_lengths_that_lie_are_refused_in_step_and_never_waited_for(self):
        """CVE-2022-26495 and -26496: a name length of 2^32-1; nbd-server also hangs on a short one."""
        lies = [b"", b"\0", bytes(3), bytes(4), bytes(5), struct.pack(">I", 0xFFFFFFFF), struct.pack(">I", 1),
                info_data("data", name_length=0xFFFFFFFF), info_data("data", name_length=0x7FFFFFFF),
                info_data("data", name_length=5), info_data("data", name_length=3), info_data("data", name_length=6),
                info_data("data", count=1), info_data("data", count=0xFFFF), info_data("data", (3,), count=0),
                info_data("data", (3,), count=2), info_data("data", (3, 3, 3), count=1), info_data("data") + b"x"]
        wire = self.connect()
        for option in (INFO, GO):
            for data in lies:
                self.assertIn(wire.outcome(option, data), REFUSED_NAME, data[:24])
        self.assertTrue(wire.in_step())
        self.assert_unharmed()

    def test_names_at_and_beyond_the_limit(self):
        """CVE-2017-15118 (256 bytes), CVE-2020-10761 (an error that repeats a name of 4096 bytes)."""
        wire = self.connect()
        for length in (255, 256, 257, 4095, 4096):
            self.assertIn(wire.outcome(GO, info_data(b"n" * length)), REFUSED_NAME, length)
        for data in (info_data(b"n" * 4097), info_data(b"n" * 8000), info_data(b"data\0"), info_data(b"da\0ta"),
                     info_data(b"\xff\xfe\xfd"), info_data(b"\xc3")):
            self.assertIn(wire.outcome(GO, data), REFUSED_NAME, data[:24])
        self.assertTrue(wire.in_step())

    def test_option_of_a_huge_length_is_refused_or_dropped_and_never_allocated(self):
        """CVE-2017-15119: options of 4 GiB must not be read for ever."""
        before = resident_bytes(self.server.pid)
        for option in (99, GO, LIST, SET_META_CONTEXT, EXPORT_NAME):
            for length in (1 * MiB, 100 * MiB, 0x80000000, 0xFFFFFFFF):
                wire = self.connect()
                wire.send_option(option, b"", length=length)
                sent = 0
                try:
                    # A server may skip a bounded amount; it may not eat 256 MiB.
                    while sent < 256 * MiB and sent < length:
                        wire.send(bytes(256 * KiB))
                        sent += 256 * KiB
                except (Closed, socket.timeout):
                    pass
                self.assertLess(sent, 65 * MiB, f"option {option} of {length} bytes was read")
                wire.close()
        self.assertLess(resident_bytes(self.server.pid), before + 64 * MiB)
        self.assert_unharmed()

    def test_structured_replies_twice(self):
        wire = self.connect()
        self.assertEqual(wire.outcome(STRUCTURED_REPLY), ACK)
        self.assertIn(wire.outcome(STRUCTURED_REPLY), (ACK, ERR_INVALID))
        wire.go("data")
        self.assertTrue(wire.alive())

    def test_meta_context_lengths_that_lie_are_refused_in_step(self):
        wire = self.connect()
        self.assertEqual(wire.outcome(STRUCTURED_REPLY), ACK)
        query = ("base:allocation",)
        lies = [b"", bytes(3), bytes(7), context_data("data", query, name_length=0xFFFFFFFF), context_data("data", query, name_length=5),
                context_data("data", query, count=2), context_data("data", query, count=0xFFFFFFFF),
                context_data("data", query, query_length=0xFFFFFFFF), context_data("data", query, query_length=99),
                context_data("data", query, query_length=3), context_data("data", query, count=0),
                context_data("data", query) + b"trailing"]
        for option in (LIST_META_CONTEXT, SET_META_CONTEXT):
            for data in lies:
                self.assertIn(wire.outcome(option, data), (ERR_INVALID, ERR_TOO_BIG, ERR_UNKNOWN), data[:24])
        self.assertTrue(wire.in_step())
        replies = wire.option(SET_META_CONTEXT, context_data("data", query * 3))
        self.assertEqual([kind for kind, _ in replies], [META_CONTEXT, ACK], "a query given twice selects once")
        self.assert_unharmed()

    def test_meta_context_queries_that_select_nothing(self):
        wire = self.connect()
        wire.option(STRUCTURED_REPLY)
        for queries in ((), ("base:",), ("base:unknown",), ("other:thing",), ("",), (":",), ("base:allocation ",)):
            self.assertEqual([kind for kind, _ in wire.option(SET_META_CONTEXT, context_data("data", queries))], [ACK], queries)
        # Whether the name exists may be told here or only by GO.
        self.assertIn(wire.outcome(SET_META_CONTEXT, context_data("nothing", ("base:allocation",))), (ACK, ERR_UNKNOWN, META_CONTEXT))
        many = tuple(f"x:{number}" for number in range(1000))
        self.assertIn(wire.outcome(SET_META_CONTEXT, context_data("data", many)), (ACK, ERR_TOO_BIG, ERR_INVALID))
        self.assertTrue(wire.in_step())

    def test_meta_context_before_structured_replies_is_refused(self):
        wire = self.connect()
        self.assertEqual(wire.outcome(SET_META_CONTEXT, context_data("data", ("base:allocation",))), ERR_INVALID)
        self.assertTrue(wire.in_step())

    def test_context_of_another_name_does_not_survive_go(self):
        wire = self.connect()
        wire.option(STRUCTURED_REPLY)
        wire.option(SET_META_CONTEXT, context_data("", ("base:allocation",)))
        wire.go("data")
        self.assertEqual(wire.ask(BLOCK_STATUS, 0, 4096), EINVAL)
        self.assertTrue(wire.alive())

    def test_many_options_one_after_the_other(self):
        """Either all are answered or the server ends a negotiation that goes nowhere; it never stops in between."""
        wire = self.connect()
        try:
            for _ in range(5000):
                outcome = wire.outcome(99, b"data")
                if outcome == ERR_POLICY:
                    break
                self.assertEqual(outcome, ERR_UNSUP)
        except Closed:
            pass
        self.assert_unharmed()

    def test_hanging_up_at_every_byte_of_the_handshake(self):
        """CVE-2017-7539, CVE-2017-9524 and an assertion of nbdkit 1.32."""
        whole = struct.pack(">I", FIXED_NEWSTYLE | NO_ZEROES)
        whole += struct.pack(">QII", 0x49484156454F5054, STRUCTURED_REPLY, 0)
        data = context_data("data", ("base:allocation",))
        whole += struct.pack(">QII", 0x49484156454F5054, SET_META_CONTEXT, len(data)) + data
        data = info_data("data", (3,))
        whole += struct.pack(">QII", 0x49484156454F5054, GO, len(data)) + data
        whole += struct.pack(">IHHQQI", 0x25609513, 0, READ, 1, 0, 4096)
        for length in range(len(whole) + 1):
            for abruptly in (False, True):
                with Wire(self.server.socket, flags=None, greeting=length % 2 == 0) as wire:
                    if abruptly:  # RST where the transport has it; pending input is lost.
                        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    with contextlib.suppress(Closed):
                        wire.send(whole[:length])
        self.assert_unharmed()

    def test_handshake_sent_byte_by_byte(self):
        wire = self.connect(flags=None)
        data = info_data("data", (3,))
        for byte in struct.pack(">I", 3) + struct.pack(">QII", 0x49484156454F5054, GO, len(data)) + data:
            wire.send(bytes([byte]))
        while True:
            _, kind, _ = wire.option_reply()
            if kind == ACK:
                break
            self.assertEqual(kind, REPLY_INFO)
        self.assertTrue(wire.alive())

    def test_requests_sent_along_with_go_are_answered(self):
        """Not pipelining, but a fast client: the request is in the same segment as the option."""
        wire = self.connect()
        data = info_data("data")
        wire.send(struct.pack(">QII", 0x49484156454F5054, GO, len(data)) + data
                  + struct.pack(">IHHQQI", 0x25609513, 0, READ, 7, 0, 512))
        wire.reads[7] = [(0, 512)]
        while wire.option_reply()[1] != ACK:
            pass
        error, cookie, data = wire.reply()
        self.assertEqual((error, cookie, len(data)), (0, 7, 512))

    def test_random_noise(self):
        choice = random.Random(20261)
        for _ in range(300):
            greeting = choice.random() < 0.7
            with Wire(self.server.socket, flags=3 if greeting else None, greeting=greeting) as wire:
                with contextlib.suppress(Closed):
                    wire.send(choice.randbytes(choice.randrange(200)))
        self.assert_unharmed()

    def test_idle_handshakes_are_ended_and_block_nobody(self):
        """CVE-2024-7409: abandoned handshakes must not pile up. The limit is about ten seconds."""
        idle = [self.connect(greeting=False) for _ in range(20)] + [self.connect() for _ in range(20)]
        half = self.connect()
        half.send(struct.pack(">QII", 0x49484156454F5054, GO, 400) + b"x")
        served = self.connected()
        self.assert_serving()
        for wire in idle + [half]:
            self.assertTrue(wire.is_closed(), "an idle handshake is still open")
        self.assertTrue(served.alive(), "the limit is one of the handshake only")
        self.assert_unharmed()

    def test_stop_with_handshakes_open(self):
        for number in range(50):
            self.connect(greeting=number % 2 == 0)
        self.assert_clean_end(self.server)


if __name__ == "__main__":
    unittest.main()
