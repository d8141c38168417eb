"""A mirror as /dev/nbd0."""

from guest import NBD, MachineCase, MiB, main, say


class Attach(MachineCase):
    def file_system(self, kind: str):
        self.start()
        self.attach()
        self.make_file_system(kind)
        files = self.mount_it()
        files.write("first", count=12)
        self.assert_files(files)
        self.fio(f"--directory={self.mountpoint}", "--rw=randrw", "--bsrange=4k-64k", "--size=12M", "--iodepth=8",
                 "--ioengine=libaio", "--fsync=32")
        # What is deleted is trimmed, and nothing else.
        (self.mountpoint / "verify.0.0").unlink()
        files.sync(self.mountpoint)
        say(self.call("fstrim", "-v", self.mountpoint).stdout)
        self.assert_files(files)
        self.unmount_and_check()
        self.detach()
        # As another client, with several connections.
        self.attach(4)
        self.mount(NBD, self.mountpoint)
        self.assert_files(files)
        files.write("second", count=4)
        self.unmount_and_check()
        self.detach()
        # By another server.
        self.server.stop()
        self.serve_again("again")
        self.attach(2)
        self.mount(NBD, self.mountpoint, "-o", "ro")
        self.assert_files(files)
        self.call("umount", self.mountpoint)
        self.assertEqual(self.server.mirror()["state"], "healthy")
        self.stop()

    def test_ext4(self):
        self.file_system("ext4")

    def test_xfs(self):
        self.file_system("xfs")

    def test_fio(self):
        """On the raw device, through both of the kernel's interfaces for it, with one connection and with several."""
        self.start()
        for connections, engine, workload in ((1, "libaio", "randwrite"), (4, "io_uring", "randrw"), (2, "io_uring", "write")):
            self.attach(connections)
            self.fio(f"--filename={NBD}", f"--ioengine={engine}", f"--rw={workload}", "--bsrange=4k-128k", "--size=16M",
                     f"--offset={connections * 32 * MiB}", "--iodepth=16", "--fsync=64")
            self.detach()
        self.attach(2)
        self.fio(f"--filename={NBD}", "--ioengine=libaio", "--rw=randtrimwrite", "--bs=4k", "--size=2M", "--iodepth=4")
        self.server.verb("scrub", "data")
        self.server.verb("wait", "data", "--for", "idle", "--timeout", "120")
        self.assertEqual(self.server.mirror()["scrub"]["mismatches"], 0)
        self.stop()


if __name__ == "__main__":
    main()
