"""AWS clients that do not come with the test environment: an old boto3 through pip, the JavaScript SDK through npm."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# The first that knows GetThingConnectivityData.
OLDEST = ("boto3==1.35.84", "botocore==1.35.84", "s3transfer==0.10.4")


def _shared(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Make a folder once for all workers of a run."""
    home = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        home = home.parent
    folder = home / name
    with (home / f"{name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            (folder / "made").touch()
    return folder


@pytest.fixture(scope="session")
def oldest_boto3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the oldest boto3 that has the call; what it stands on comes from this environment."""

    def make(folder: Path) -> None:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(folder),
            *OLDEST,
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)

    return _shared(tmp_path_factory, "oldest-boto3", make)


@pytest.fixture(scope="session")
def javascript_sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with @aws-sdk/client-iot, through npm; asked for only where npm is."""

    def make(folder: Path) -> None:
        npm = shutil.which("npm")
        assert npm is not None
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        subprocess.run([*command, "@aws-sdk/client-iot@3"], check=True, capture_output=True, timeout=300)

    return _shared(tmp_path_factory, "javascript-sdk", make)
