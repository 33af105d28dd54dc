"""The examples of the README and of pages of docs/, typed as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent


def shell(script: str, folder: Path, *, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
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
        timeout=timeout_s,
        check=False,
    )


PAGES = ["README.md", *(f"docs/{page}.md" for page in ("certainty", "reports", "sql", "uptime"))]


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_is_what_it_prints(tmp_path: Path, page: str) -> None:
    blocks = re.findall(r"```console\n(.*?)```", (HOME / page).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        typed = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
        for command, _, expected in (one.partition("\n") for one in typed):
            done = shell(command, tmp_path)
            assert (done.returncode, done.stdout) == (0, expected), done.stderr


def typed_results(page: str) -> list[str]:
    """List the commands of a page that pipe what AWS CLI prints into thingline."""
    return re.findall(r"^aws .*\| (thingline ingest .*)$", (HOME / page).read_text(), re.M)


@pytest.mark.parametrize("page", ["README.md", "docs/recording.md"])
def test_what_aws_cli_prints_is_taken_in_as_the_page_says(tmp_path: Path, page: str) -> None:
    (command,) = typed_results(page)
    printed = (
        '{\n    "thingName": "pump-17",\n    "connected": true,\n    "timestamp": 1763000000.123,\n'
        '    "disconnectReason": "NONE"\n}\n'
    )
    done = shell(f"echo '{printed}' | {command} && thingline at pump-17 2025-11-13T03:00:00Z", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pump-17 at 2025-11-13T03:00:00.000Z: CONNECTED (observed)\n" in done.stdout
    assert "  since       2025-11-13T02:13:20.123Z\n" in done.stdout


def printed_table() -> tuple[str, str]:
    """Give the README's example of `selftest`: the command, and what it printed."""
    found = re.search(
        r"<!-- selftest -->\n```\n\$ (.*?)\n(.*?)```", (HOME / "README.md").read_text(), re.DOTALL
    )
    assert found
    return found[1], found[2]


def test_the_table_in_the_readme_has_the_rows_and_columns_that_selftest_prints(tmp_path: Path) -> None:
    command, printed = printed_table()
    done = shell(f"{command} --things 6 --days 0.2", tmp_path)
    assert done.returncode == 0, done.stderr
    shown, now = ([re.split(r"  +", line) for line in text.splitlines()] for text in (printed, done.stdout))
    assert shown[0] == now[0]
    assert [row[0] for row in shown] == [row[0] for row in now]


@pytest.mark.bench
def test_the_table_in_the_readme_is_what_selftest_prints(tmp_path: Path) -> None:
    command, printed = printed_table()
    done = shell(command, tmp_path, timeout_s=600)
    assert (done.returncode, done.stdout) == (0, printed), done.stderr


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
