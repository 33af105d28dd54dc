"""The README's examples, typed as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parent.parent


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line with `thingline` on the path and a store of its own."""
    command = folder / "bin" / "thingline"
    command.parent.mkdir(exist_ok=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HOME / "thingline.py"}" "$@"\n')
    command.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "XDG_DATA_HOME": str(folder),
    }
    return subprocess.run(
        ["sh", "-c", script],
        cwd=HOME,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_the_first_screen_shows_is_what_it_prints(tmp_path: Path) -> None:
    blocks = re.findall(r"```console\n(.*?)```", (HOME / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        typed = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
        for command, _, expected in (one.partition("\n") for one in typed):
            done = shell(command, tmp_path)
            assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_the_python_example_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (HOME / "README.md").read_text(), re.DOTALL)
    assert shell(f"thingline ingest --store {tmp_path}/store.db docs/sample.ndjson", tmp_path).returncode == 0
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HOME)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "False MQTT_KEEP_ALIVE_TIMEOUT observed\n"), done.stderr
