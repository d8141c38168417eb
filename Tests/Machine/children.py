"""The processes that a run has started, so that none is left when it is interrupted."""

import ctypes
import signal
import subprocess
import threading

_running: set[subprocess.Popen] = set()
_lock = threading.Lock()
_ending = threading.Event()


def _die_with_parent():
    """In the child, before exec: however we end, it ends, too."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def start(argv: list[str], **options) -> subprocess.Popen:
    with _lock:
        if _ending.is_set():
            raise KeyboardInterrupt
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent, **options)
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
