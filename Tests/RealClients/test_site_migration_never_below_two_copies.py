"""AIX LVM could move a volume group to another site without ever being down to one copy. So can this, while clients write."""

import threading
import time
import unittest

from plexus import Case, FioLoad, MiB, wait_until

SIZE = 96 * MiB


class SiteMigration(Case):
    def test_site_migration_never_below_two_copies(self):
        self.need("fio")
        server = self.mirror(size=SIZE)
        load = FioLoad(self, server.uri(), size="24m")
        fewest, stop = [], threading.Event()

        def watch():
            while not stop.is_set():
                fewest.append(sum(plex["state"] == "in-sync" for plex in server.mirror()["plexes"]))
                time.sleep(0.02)
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            server.verb("resync", "data", "--limit", "48M")
            server.verb("add", "data", self.dir / "c.img", "--create")
            server.verb("wait", "data", "--for", "in-sync", "--timeout", "120")
            server.verb("break", "data", self.dir / "a.img")
            server.verb("replace", "data", self.dir / "b.img", self.dir / "d.img", "--create")
            wait_until(lambda: server.plex_on(self.dir / "b.img") is None, "the second move", interval=0.2)
        finally:
            stop.set()
            watcher.join()
        load.wait_rounds()
        load.finish()
        self.assertGreater(len(fewest), 10)
        self.assertGreaterEqual(min(fewest), 2)
        size = server.mirror()["size"]
        server.stop()
        self.assert_identical(size, self.dir / "c.img", self.dir / "d.img")


if __name__ == "__main__":
    unittest.main()
