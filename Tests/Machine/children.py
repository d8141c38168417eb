"""The processes that a run has started, so that none is left when it is interrupted."""

import signal
import subprocess
import threading

_running: set[subprocess.Popen] = set()
_lock = threading.Lock()
_ending = threading.Event()


def start(argv: list[str], **options) -> subprocess.Popen:
    """It ends when we do, however we end."""
    argv = ["setpriv", "--pdeathsig", "TERM", "--", *argv]
    with _lock:
        if _ending.is_set():
            raise KeyboardInterrupt
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, **options)
        _running.add(process)
        return process


def end(process: subprocess.Popen, signal_number: int = signal.SIGKILL):
    if process.poll() is None:
        process.send_signal(signal_number)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    with _lock:
        _running.discard(process)


def end_all():
    """Politely: they clean up after themselves. Nothing is started any more."""
    with _lock:
        _ending.set()
        left = list(_running)
    for process in left:
        end(process, signal.SIGTERM)
