"""Clients that lie, stall, hang up and flood once they are connected. A server must answer or drop, and live on.

Each test names the rule or the bug it comes from: H and numbers are of the NBD protocol text, CVEs are those of
other NBD servers. After every test an ordinary client must be served, and both plexes must be identical.
"""

import contextlib
import random
import socket
import struct
import threading
import unittest

from hostile import Hostile
from nbdwire import (
    ACK, BLOCK_STATUS, CACHE, DF, DISC, EINVAL, ENOSPC, ENOTSUP, EOVERFLOW, FAST_ZERO, FLUSH, FUA, NO_HOLE,
    PAYLOAD_LEN, READ, REQ_ONE, RESIZE, SET_META_CONTEXT, STRUCTURED_REPLY, TRIM, WRITE, WRITE_ZEROES, Closed,
    Wire, context_data)
from plexus import GiB, MiB, resident_bytes, wait_until


class Requests(Hostile):
    def test_wrong_request_magic_closes(self):
        wire = self.connected()
        wire.request(READ, 0, 512, magic=0x12345678)
        self.assertTrue(wire.is_closed())
        self.assert_unharmed()

    def test_unknown_commands_are_refused_in_step(self):
        wire = self.connected()
        for command in (RESIZE, 9, 100, 0x7FFF, 0xFFFF):
            self.assertEqual(wire.ask(command, 0, 4096), EINVAL, command)
        self.assertTrue(wire.alive())
        self.assert_unharmed()

    def test_unknown_and_misplaced_flags_are_refused_after_the_payload(self):
        wire = self.connected()
        for command, flags in ((WRITE, 1 << 15), (WRITE, 1 << 6), (WRITE, DF), (WRITE, NO_HOLE), (WRITE, REQ_ONE), (WRITE, PAYLOAD_LEN),
                               (READ, NO_HOLE), (READ, FAST_ZERO), (READ, 1 << 14), (TRIM, NO_HOLE), (TRIM, DF),
                               (FLUSH, DF), (FLUSH, 1 << 9), (WRITE_ZEROES, DF), (WRITE_ZEROES, 1 << 12), (CACHE, 1 << 12)):
            payload = b"\xee" * 4096 if command == WRITE else b""
            length = 0 if command == FLUSH else 4096
            self.assertEqual(wire.ask(command, 0, length, flags, payload), EINVAL, (command, flags))
        self.assertEqual(wire.read(0, 4096), bytes(4096), "a refused write was applied")
        self.assert_unharmed()

    def test_fast_zero_that_was_not_offered_is_refused(self):
        """nbdkit 1.32 and 1.48 abort on it."""
        wire = self.connected()
        offered = bool(wire.flags & (1 << 11))
        error = wire.ask(WRITE_ZEROES, 0, 4096, FAST_ZERO)
        self.assertIn(error, (0, ENOTSUP) if offered else (EINVAL,))
        self.assertTrue(wire.alive())

    def test_fua_is_accepted_on_every_command(self):
        wire = self.connected()
        self.assertTrue(wire.flags & (1 << 3))
        for command, payload in ((READ, b""), (WRITE, b"\x11" * 4096), (TRIM, b""), (WRITE_ZEROES, b"")):
            self.assertEqual(wire.ask(command, 8192, 4096, FUA, payload), 0, command)
        self.assertEqual(wire.ask(FLUSH, 0, 0, FUA), 0)
        self.assert_unharmed()

    def test_ranges_beyond_the_end(self):
        """Overflow beyond 2^64 included; nothing is applied, not even the part that would fit."""
        wire = self.connected()
        last = self.size - 4096
        self.assertEqual(wire.ask(WRITE, last, 4096, payload=b"\x44" * 4096), 0)
        for offset in (last + 512, self.size, self.size + 4096, 1 << 40, (1 << 63) - 4096, (1 << 64) - 512, (1 << 64) - 4096):
            self.assertEqual(wire.ask(READ, offset, 4096), EINVAL, offset)
            self.assertEqual(wire.ask(WRITE, offset, 4096, payload=b"\x99" * 4096), ENOSPC, offset)
            self.assertEqual(wire.ask(WRITE_ZEROES, offset, 4096), ENOSPC, offset)
            self.assertEqual(wire.ask(TRIM, offset, 4096), EINVAL, offset)
        self.assertEqual(wire.ask(TRIM, 4096, 0xFFFFFFFF), EINVAL)
        self.assertEqual(wire.ask(WRITE_ZEROES, 0, 0xFFFFFFFF), ENOSPC)
        self.assertEqual(wire.read(last, 4096), b"\x44" * 4096)
        self.assert_unharmed()

    def test_length_zero_is_survived(self):
        wire = self.connected()
        for command in (READ, WRITE, TRIM, WRITE_ZEROES, CACHE):
            self.assertIn(wire.ask(command, 4096, 0), (0, EINVAL), command)
        self.assertIn(wire.ask(FLUSH, 512, 512), (0, EINVAL))
        self.assertTrue(wire.alive())
        self.assert_unharmed()

    def test_unaligned_requests_are_exact_or_refused(self):
        wire = self.connected()
        self.assertEqual(wire.ask(WRITE, 0, 8192, payload=b"\x31" * 8192), 0)
        expected = bytearray(b"\x31" * 8192)
        for offset, length in ((1, 1), (511, 2), (4095, 2), (100, 5000), (8191, 1)):
            error = wire.ask(WRITE, offset, length, payload=b"\x32" * length)
            self.assertIn(error, (0, EINVAL))
            if error == 0:
                expected[offset:offset + length] = b"\x32" * length
        self.assertEqual(wire.read(0, 8192), bytes(expected))
        self.assert_unharmed()

    def test_write_of_32_mib_is_served(self):
        wire = self.connected()
        payload = b"\x71" * (32 * MiB)
        self.assertEqual(wire.ask(WRITE, 0, 32 * MiB, payload=payload), 0)
        self.assertEqual(wire.read(0, 32 * MiB), payload)
        self.assert_unharmed()

    def test_write_beyond_32_mib_is_dropped_or_refused_and_not_applied(self):
        """CVE-2005-3534, CVE-2011-0530: a length beyond the fixed buffer."""
        for length in (32 * MiB + 1, 33 * MiB, 0x80000000, 0xFFFFFFFF):
            wire = self.connected()
            try:
                wire.request(WRITE, 0, length, payload=b"\x66" * MiB)
                if length <= 33 * MiB:
                    wire.send(b"\x66" * (length - MiB))
                    self.assertIn(wire.reply()[0], (EINVAL, EOVERFLOW))
                else:
                    self.assertTrue(wire.is_closed())
            except Closed:
                pass
            wire.close()
        self.assertEqual(self.connected().read(0, MiB), bytes(MiB))
        self.assert_unharmed()

    def test_read_beyond_32_mib_is_served_or_refused(self):
        for length in (32 * MiB + 512, 0x80000000, 0xFFFFFFFF):
            wire = self.connected()
            try:
                wire.request(READ, 0, length, cookie=5)
                error, cookie, _ = wire.reply()
                self.assertEqual(cookie, 5)
                self.assertIn(error, (0, EINVAL, EOVERFLOW) if length < self.size else (EINVAL, EOVERFLOW))
                self.assertTrue(wire.alive())
            except Closed:
                pass
        self.assert_unharmed()

    def test_block_status_of_any_length(self):
        """CVE-2025-47711 and -47712: the largest lengths."""
        wire = self.connect()
        wire.option(STRUCTURED_REPLY)
        self.assertEqual(wire.option(SET_META_CONTEXT, context_data("data", ("base:allocation",)))[-1][0], ACK)
        wire.go("data")
        for offset, length in ((0, self.size), (self.size - 4096, 4096), (0, 1), (self.size - 1, 1), (4096, 65536)):
            for flags in (0, REQ_ONE):
                aligned = (offset | length) % 512 == 0
                self.assertIn(wire.ask(BLOCK_STATUS, offset, length, flags), (0,) if aligned else (0, EINVAL), (offset, length))
        for offset, length in ((0, 0xFFFFFFFF), (0, self.size + 1), (self.size, 1), ((1 << 64) - 1, 0xFFFFFFFF), (4096, 0xFFFFFE00)):
            self.assertEqual(wire.ask(BLOCK_STATUS, offset, length), EINVAL, (offset, length))
        self.assertIn(wire.ask(BLOCK_STATUS, 0, 0), (0, EINVAL))
        self.assertTrue(wire.alive())
        self.assert_unharmed()

    def test_block_status_without_a_context_is_refused(self):
        wire = self.connected()
        self.assertEqual(wire.ask(BLOCK_STATUS, 0, 4096), EINVAL)
        self.assertTrue(wire.alive())

    def test_read_with_df_is_one_chunk(self):
        wire = self.connect()
        wire.option(STRUCTURED_REPLY)
        wire.go("data")
        self.assertEqual(wire.ask(READ, 0, 65536, DF), 0)
        self.assertTrue(wire.alive())

    def test_disconnect_answers_what_was_asked_before(self):
        wire = self.connected()
        for cookie in range(16):
            wire.request(WRITE, cookie * 4096, 4096, payload=bytes([cookie + 1]) * 4096, cookie=cookie)
        wire.request(DISC)
        answers = {wire.reply()[1] for _ in range(16)}
        self.assertEqual(answers, set(range(16)))
        self.assertTrue(wire.is_closed())
        self.assert_unharmed()

    def test_write_that_is_cut_off_is_not_applied(self):
        """Neither by a hang-up nor by half a close: nothing of an incomplete payload reaches a disk."""
        for sent in (0, 1, 511, 512, 4096, 65535):
            for half_close in (False, True):
                wire = self.connected()
                wire.request(WRITE, MiB, 65536, payload=b"\x5c" * sent)
                if half_close:
                    wire.socket.shutdown(socket.SHUT_WR)
                    self.assertTrue(wire.is_closed())
                wire.close()
        self.assertEqual(self.connected().read(MiB, 65536), bytes(65536))
        self.assert_unharmed()

    def test_hanging_up_at_every_byte_of_a_conversation(self):
        request = struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 1, 0, 512) + b"\x01" * 512
        for length in list(range(0, 30)) + [100, 300, 539, 540]:
            wire = self.connected()
            wire.request(READ, 0, MiB, cookie=9)
            wire.send(request[:length])
            wire.close()
        self.assert_unharmed()

    def test_random_requests(self):
        """Seeded and well framed, with random fields: each is answered with a legal error, or the connection ends."""
        choice = random.Random(4711)
        wire = self.connected()
        for _ in range(3000):
            command = choice.choice((READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS, RESIZE, 9, 200))
            length = choice.choice((0, 1, 511, 512, 4096, 65536, 100_000))
            offset = choice.choice((0, 1, 512, 4096, self.size - 512, self.size - 1, self.size, choice.getrandbits(64)))
            flags = choice.choice((0, 0, 0, FUA, NO_HOLE, choice.getrandbits(16)))
            payload = choice.randbytes(length) if command == WRITE else b""
            try:
                wire.ask(command, offset, length, flags, payload, cookie=choice.getrandbits(64))
            except Closed:
                wire = self.connected()
        self.assertTrue(wire.alive())
        self.assert_unharmed()

    def test_libnbd_without_its_own_checks(self):
        """libnbd with strict mode off sends what its user asks for, framed as it should be."""
        nbd = self.need_libnbd()
        handle = nbd.NBD()
        handle.set_strict_mode(0)
        handle.add_meta_context("base:allocation")
        handle.connect_uri(self.server.uri())
        size = handle.get_size()
        attempts = [
            lambda: handle.pread(4096, size), lambda: handle.pread(512, size - 256), lambda: handle.pread(0, 0),
            lambda: handle.pwrite(b"x" * 4096, size), lambda: handle.pwrite(b"x" * 512, 0, 1 << 13),
            lambda: handle.trim(4096, size), lambda: handle.trim(0, 0), lambda: handle.zero(4096, size - 512),
            lambda: handle.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO), lambda: handle.zero(0xFFFFFFFF, 0),
            lambda: handle.cache(4096, 0), lambda: handle.cache(4096, 0, 1 << 12), lambda: handle.flush(1 << 10),
            lambda: handle.block_status(0, 0, lambda *_: 0), lambda: handle.block_status(0xFFFFFFFF, 0, lambda *_: 0),
            lambda: handle.pread_structured(4096, 0, lambda *_: 0, nbd.CMD_FLAG_DF),
            lambda: handle.pwrite(b"x", 3), lambda: handle.pread(1, 3),
        ]
        for attempt in attempts:
            with contextlib.suppress(nbd.Error):
                attempt()
            self.assertTrue(handle.aio_is_ready(), "the connection was dropped")
        self.assertEqual(len(handle.pread(4096, 0)), 4096)
        handle.shutdown()
        self.assert_unharmed()


class Resources(Hostile):
    """Memory, descriptors and time that a client can take from others."""

    SIZE = 96 * MiB
    # 64 stalled writes of 32 MiB are 2 GiB, and four deaf readers 8 GiB, for a server that takes what it is promised.
    LIMIT_BYTES = 400 * MiB

    def test_stalled_writers_and_deaf_readers_hold_little_memory_and_nobody_else(self):
        idle = resident_bytes(self.server.pid)
        stalled = []
        for _ in range(64):
            wire = self.connected()
            wire.socket.settimeout(0.2)  # A server that stops reading is fine; then the rest is not sent.
            with contextlib.suppress(socket.timeout, Closed):
                wire.request(WRITE, 0, 32 * MiB, payload=b"\x99" * (16 * MiB))
            stalled.append(wire)
        for _ in range(4):
            deaf = self.connected()
            deaf.socket.settimeout(0.2)
            with contextlib.suppress(socket.timeout, Closed):
                for cookie in range(64):
                    deaf.request(READ, 0, 32 * MiB, cookie=cookie)
        other = self.connected()
        for number in range(200):
            self.assertEqual(other.ask(WRITE, 64 * MiB + number * 4096, 4096, payload=b"\x01" * 4096), 0)
        self.assertEqual(other.read(0, 4096), bytes(4096), "a part of an unfinished write was applied")
        self.assertEqual(other.ask(FLUSH), 0)
        peak = resident_bytes(self.server.pid, "VmHWM")
        self.assertLess(peak, self.LIMIT_BYTES, f"{idle // MiB} MiB when idle")
        for wire in stalled:
            wire.close()
        self.assertEqual(self.connected().read(0, 32 * MiB), bytes(32 * MiB), "a part of an unfinished write was applied")
        self.assert_unharmed()

    def test_half_a_write_blocks_neither_other_writes_to_the_range_nor_a_flush(self):
        stalled = self.connected()
        stalled.request(WRITE, 0, 32 * MiB, payload=b"\x99" * (8 * MiB))
        other = self.connected()
        self.assertEqual(other.ask(WRITE, 4 * MiB, 4096, payload=b"\x10" * 4096), 0)
        self.assertEqual(other.ask(FLUSH), 0)
        self.assertEqual(other.read(4 * MiB, 4096), b"\x10" * 4096)
        stalled.send(b"\x99" * (24 * MiB))  # And when the rest does come, it is an ordinary write.
        self.assertEqual(stalled.reply()[0], 0)
        self.assertEqual(other.read(0, 4096), b"\x99" * 4096)
        self.assert_unharmed()

    def test_client_that_does_not_read_is_served_when_it_does(self):
        deaf = self.connected()
        count = 40
        for cookie in range(count):
            deaf.request(READ, 0, MiB, cookie=cookie)
        self.assert_serving()
        seen = {deaf.reply()[1] for _ in range(count)}
        self.assertEqual(seen, set(range(count)))
        self.assert_unharmed()

    def test_many_small_requests_at_once(self):
        """More than any queue: they wait in the socket, and each is answered once."""
        wire = self.connected()
        count = 2000

        def ask():  # In a thread, because the server may stop reading while its replies are not read.
            for cookie in range(count):
                wire.request(READ, (cookie % 1000) * 4096, 512, cookie=cookie)
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        self.resources.callback(asking.join)
        self.resources.callback(wire.close)
        seen = sorted(wire.reply()[1] for _ in range(count))
        self.assertEqual(seen, list(range(count)))
        self.assert_unharmed()

    def test_storm_of_a_thousand_connections(self):
        """CVE-2015-0847 was a deadlock under reconnects."""
        for number in range(1000):
            with Wire(self.server.socket, greeting=number % 3 != 0) as wire:
                if number % 3 == 2:
                    with contextlib.suppress(Closed):
                        wire.go("data")
                        self.assertTrue(wire.alive())
        self.assert_unharmed()

    def test_thousand_connections_held_open(self):
        """A limit is fine when it refuses the newest and serves the others; descriptors come back afterwards."""
        held = []
        refused = 0
        for _ in range(1000):
            try:
                wire = Wire(self.server.socket)
                self.resources.callback(wire.close)
                held.append(wire.go("data"))
            except (Closed, OSError):
                refused += 1
        self.assertGreaterEqual(len(held), 100, f"{refused} refused")
        for wire in held[::50]:
            self.assertTrue(wire.alive())
        self.assertLess(resident_bytes(self.server.pid), self.LIMIT_BYTES)
        for wire in held:
            wire.close()
        self.assert_serving_after_a_while()
        self.assert_unharmed()

    def assert_serving_after_a_while(self):
        def served():
            try:
                with Wire(self.server.socket) as wire:
                    return wire.go("data").alive()
            except (Closed, OSError):
                return False
        wait_until(served, "room for a new client")

    def test_control_socket_is_not_a_way_in(self):
        """Noise, silence and a huge line on the control socket: status is still told."""
        for data in (b"", b"\n", b"\0" * 100, b"{", b"NBDMAGIC" * 100, b"{\"verb\":\n", b"x" * (2 * MiB)):
            connection = socket.socket(socket.AF_UNIX)
            self.resources.callback(connection.close)
            connection.settimeout(5)
            connection.connect(str(self.server.control))
            with contextlib.suppress(OSError):
                connection.sendall(data)
        self.assertEqual(self.server.mirror()["state"], "healthy")
        self.assert_unharmed()

    def test_control_socket_is_for_the_owner_only(self):
        """Verbs can destroy data, so other users have no access, whatever the umask and the directory allow."""
        self.assertEqual(self.server.control.stat().st_mode & 0o007, 0)


class HugeMirror(Hostile):
    """Lengths that only fit an export beyond 4 GiB (a sparse file of 5 GiB costs nothing)."""

    SIZE = 5 * GiB

    def assert_unharmed(self):
        self.assert_serving()

    def test_lengths_up_to_the_last_32_bit_one(self):
        wire = self.connect()
        wire.option(STRUCTURED_REPLY)
        wire.option(SET_META_CONTEXT, context_data("data", ("base:allocation",)))
        wire.go("data")
        for length in (0x7FFFFFFF, 0x80000000, 0xFFFFFE00, 0xFFFFFFFF):
            aligned = length % 512 == 0
            self.assertIn(wire.ask(BLOCK_STATUS, 0, length), (0,) if aligned else (0, EINVAL), hex(length))
            self.assertIn(wire.ask(TRIM, 0, length), (0, EINVAL, EOVERFLOW), hex(length))
        self.assertIn(wire.ask(WRITE_ZEROES, 0, 0xFFFFF000), (0, EINVAL, EOVERFLOW))
        self.assertEqual(wire.ask(WRITE, self.size - 4096, 4096, payload=b"\x12" * 4096), 0)
        self.assertEqual(wire.read(self.size - 4096, 4096), b"\x12" * 4096)
        self.assert_unharmed()


if __name__ == "__main__":
    unittest.main()
