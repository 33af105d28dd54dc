"""What pip installs: the right files, the migrations among them, and types that a user's checker sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent
USER = """\
import thingline

with thingline.open("x") as history:
    reveal_type(history.at("a", 0).connected)
    reveal_type(history.at("a", 0).certainty)
    history.at(7, 0)
"""


def done(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")
    }
    environment["XDG_DATA_HOME"] = str(cwd)
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, for setuptools writes beside its sources. pip fetches setuptools."""
    folder = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info")
    shutil.copytree(HOME, folder / "source", ignore=unwanted)
    built = done(sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "-w", folder, cwd=folder / "source")
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the Python of an environment with the wheel in it; what it depends on comes from ours."""
    home = tmp_path_factory.mktemp("user") / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    installed = done(
        *(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", own, wheel), cwd=home
    )
    assert installed.returncode == 0, installed.stderr
    (own / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin" / "python"


def test_the_wheel_holds_what_runs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {"thingline.py", "thingline-stubs/__init__.pyi", "thingline-stubs/py.typed"}
    for package in ("ingest", "store", "queries"):
        wanted |= {path.relative_to(HOME).as_posix() for path in (HOME / package).rglob("*.py")}
        wanted.add(f"{package}/py.typed")
    wanted = {name for name in wanted if not name.startswith("store/_stubs/")}
    migrations = HOME / "migrations"
    for path in (*migrations.glob("*.py"), *migrations.glob("*.mako"), *migrations.glob("versions/*.py")):
        wanted.add(f"store/_migrations/{path.relative_to(migrations).as_posix()}")
    assert held == wanted
    assert {"store/_migrations/env.py", "store/_migrations/script.py.mako"} < held


def test_a_user_s_program_is_checked_against_our_types(python: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "mypy.ini").write_text("[mypy]\n")
    checked = done(
        sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "user.py", cwd=tmp_path
    )
    said = [line for line in checked.stdout.splitlines() if line.startswith("user.py:")]
    assert [line.partition(": ")[2] for line in said if "note" in line] == [
        'note: Revealed type is "bool | None"',
        'note: Revealed type is "store.model.Certainty"',
    ], checked.stdout + checked.stderr
    assert [line.rpartition("[")[2] for line in said if "error" in line] == ["arg-type]"], checked.stdout


def test_an_installed_thingline_makes_a_store_and_answers(python: Path, tmp_path: Path) -> None:
    where = done(
        python, "-c", "import thingline, store; print(thingline.__file__, store.__file__)", cwd=tmp_path
    )
    assert all(str(python.parent.parent) in part for part in where.stdout.split()), where
    sample = HOME / "docs" / "sample.ndjson"
    ingested = done(python, "-m", "thingline", "ingest", "--store", "new.db", sample, cwd=tmp_path)
    assert (ingested.returncode, ingested.stdout[:21]) == (0, "10 records: 10 events"), ingested.stderr
    program = (
        "import thingline\n"
        "with thingline.open('new.db') as history:\n"
        "    print(history.at('pump-17', '2026-11-01T03:12:00Z').disconnect_reason)\n"
    )
    answered = done(python, "-c", program, cwd=tmp_path)
    assert (answered.returncode, answered.stdout) == (0, "MQTT_KEEP_ALIVE_TIMEOUT\n"), answered.stderr
