"""What the tests with hostile clients share: a mirror to attack, and the proof that it was not harmed."""

from nbdwire import Wire
from plexus import Case, MiB


class Hostile(Case):
    SIZE = 64 * MiB

    def setUp(self):
        super().setUp()
        self.server = self.mirror(size=self.SIZE)
        self.size = self.server.mirror()["size"]

    def connect(self, **options) -> Wire:
        wire = Wire(self.server.socket, **options)
        self.resources.callback(wire.close)
        return wire

    def connected(self) -> Wire:
        return self.connect().go("data")

    def assert_serving(self):
        """The server is the same process, and a well-behaved client is served at once."""
        self.assertIsNone(self.server.process.poll(), "the server is gone")
        with Wire(self.server.socket) as wire:
            wire.go("data")
            self.assertEqual(wire.size, self.size)
            self.assertTrue(wire.alive())

    def assert_unharmed(self):
        self.assert_serving()
        self.assert_clean_end(self.server)
