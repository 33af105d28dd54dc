"""Commands as processes of their own: what a signal, a limit or another user does to them is real."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import thingline

HOME = Path(__file__).parent.parent
COMMAND = (sys.executable, str(HOME / "thingline.py"))
# Whoever runs the tests in the background may have had SIGINT ignored, which a process inherits.
_LISTENING = (
    "import signal, sys\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "import thingline\n"
    "sys.exit(thingline.main(sys.argv[1:]))\n"
)
LISTENING = (sys.executable, "-c", _LISTENING)
_started: list[subprocess.Popen[bytes]] = []


def start(*args: str, command: tuple[str, ...] = COMMAND, **more: Any) -> subprocess.Popen[bytes]:
    """Start a command; its output can be read, its standard input is empty where `more` does not say otherwise."""
    more.setdefault("stdin", subprocess.DEVNULL)
    process = subprocess.Popen((*command, *args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
    _started.append(process)
    return process


def end_all() -> None:
    """Kill what a test that failed left running, and forget what it started."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


def finish(process: subprocess.Popen[bytes], *, timeout_s: float = 120) -> tuple[int, str, str]:
    """Wait for a command; gives its exit code (less than 0: the signal) and what it wrote."""
    with process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except BaseException:
            process.kill()
            raise
    return process.returncode, out.decode(), err.decode()


def run(*args: str, timeout_s: float = 120, **more: Any) -> tuple[int, str, str]:
    """Run a command to its end."""
    return finish(start(*args, **more), timeout_s=timeout_s)


def here(*args: str) -> int:
    """Run a command in this process, where nothing happens to it that needs one of its own; gives its exit code."""
    return int(thingline.main(list(args)))


# A small process in between: the peak that the kernel tells of a child counts its parent's size at its start.
_MEASURE = (
    "import resource, subprocess, sys\n"
    "code = subprocess.call(sys.argv[2:])\n"
    "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
    "open(sys.argv[1], 'w').write(str(peak))\n"
    "sys.exit(code)\n"
)


def measured(
    *args: str, stdout: int | IO[bytes] = subprocess.PIPE, timeout_s: float = 600
) -> tuple[int, str, str, float]:
    """Run a command to its end; gives its exit code, what it wrote, and its peak of resident memory in MiB."""
    with tempfile.NamedTemporaryFile("r") as told:
        done = subprocess.run(
            [sys.executable, "-S", "-c", _MEASURE, told.name, *COMMAND, *args],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=timeout_s,
            check=False,
        )
        peak_kib = int(told.read())
    return done.returncode, (done.stdout or b"").decode(), done.stderr.decode(), peak_kib / 1024
