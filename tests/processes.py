"""Commands as processes of their own: what a signal, a limit or another user does to them is real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

HOME = Path(__file__).parent.parent
COMMAND = (sys.executable, str(HOME / "thingline.py"))


def start(*args: str, **more: Any) -> subprocess.Popen[bytes]:
    """Start a command; its output can be read, its standard input is empty where `more` does not say otherwise."""
    more.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen((*COMMAND, *args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


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
