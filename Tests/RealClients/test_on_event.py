"""A program that is run for each event."""

import unittest

from plexus import Case, MiB, wait_until

SIZE = 32 * MiB


class OnEvent(Case):
    def program(self, *lines: str):
        path = self.dir / "program"
        path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
        path.chmod(0o755)
        return path

    def test_events_are_told_in_order_with_all_that_is_known(self):
        told = self.dir / "told"
        program = self.program(
            f'echo "$PLEXUS_SEQUENCE|$PLEXUS_EVENT|$PLEXUS_MIRROR|$PLEXUS_PLEX|$PLEXUS_EPOCH|$PLEXUS_TEXT" >> {told}')
        server = self.serve(self.create(size=SIZE), "--on-event", program)
        server.wait_healthy()
        server.verb("offline", "data", "1")
        server.verb("online", "data", "1")
        server.wait_healthy()
        events = server.events()
        wait_until(lambda: told.exists() and len(told.read_text().splitlines()) >= len(events), "all to be told")
        lines = [line.split("|", 5) for line in told.read_text().splitlines()]
        self.assertEqual([int(line[0]) for line in lines], [event["sequence"] for event in events])
        self.assertEqual([line[1] for line in lines], [event["code"] for event in events])
        joined = next(line for line in lines if line[1] == "JOINED")
        self.assertEqual((joined[2], joined[3]), ("data", "1"))
        self.assertEqual([line[5] for line in lines], [event["text"] for event in events])
        server.stop()

    def test_a_program_that_hangs_or_fails_disturbs_nobody(self):
        server = self.serve(self.create(size=SIZE), "--on-event", self.program("sleep 1", "exit 3"))
        server.wait_healthy()
        for _ in range(3):
            server.verb("offline", "data", "1")
            server.verb("online", "data", "1")
            server.wait_healthy()
        self.assertIsNone(server.process.poll())
        server.stop()

    def test_what_is_no_program_is_refused_at_once(self):
        disks = self.create(size=SIZE)
        plain = self.dir / "plain"
        plain.write_text("no program")
        config = self.dir / "plexus.toml"
        config.write_text(f'on-event = "{self.dir}/none"\n')
        for words in (("--on-event", plain), ("--on-event", self.dir), ("--config", config)):
            refused = self.plexus("serve", *disks, "--control", self.dir / "c", "--socket", self.dir / "s", *words, code=1)
            self.assertIn(str(self.dir), refused.stderr)


if __name__ == "__main__":
    unittest.main()
