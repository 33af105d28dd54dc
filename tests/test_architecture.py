"""The arrows between the parts, what pure modules keep away from, and what the repository may hold.

Every rule is a function from source to complaints, so that each is also shown to complain.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("ingest", "queries", "store", "thingline")

# What each part may not import. (thingline -> ingest | queries -> store)
FORBIDDEN = {
    "store": {"ingest", "queries", "thingline"},
    "ingest": {"queries", "thingline"},
    "queries": {"ingest", "thingline"},
    "thingline": set[str](),
}

# Pure modules, each with the modules of ours that it may import.
PURE: dict[str, set[str]] = {
    "store/model.py": set(),
    "store/errors.py": set(),
    "ingest/reduce.py": {"store.model"},
    "ingest/budget.py": {"store.model"},
    "ingest/choice.py": {"store.model"},
    "store/certainty.py": {"store.model"},
    "store/registry.py": {"store.model"},
    "store/annotations.py": {"store.registry"},
    "queries/uptime.py": {"store.model", "store.certainty", "store.registry", "store.annotations"},
    "queries/difference.py": {"queries.uptime"},
    "queries/flapping.py": {"queries.uptime", "store.model", "store.errors"},
    "queries/series.py": {"queries.uptime"},
    "queries/times.py": {"store.model", "store.errors"},
    "queries/documents.py": set(),
    "queries/search_query.py": {"queries.documents", "store.errors"},
    "queries/aggregates.py": {"queries.documents", "store.errors"},
    "queries/page_token.py": {"store.errors", "store.model"},
    "queries/search_match.py": {"queries.documents", "queries.search_query"},
}


CLOCK = "store/clock.py"
COLUMNAR = {"store/columnar.py", "store/sandbox.py"}

# Standard library that reaches a clock, a file, a thread or a network: no business of a pure module.
# fmt: off
IMPURE = {
    "asyncio", "concurrent", "ctypes", "ftplib", "http", "io", "logging", "multiprocessing", "os", "pathlib",
    "queue", "random", "sched", "secrets", "select", "selectors", "shutil", "signal", "smtplib", "socket",
    "socketserver", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib", "xmlrpc",
}
# fmt: on
IMPURE_BUILTINS = {"open", "input", "print", "exec", "eval", "__import__"}

CLOCK_READS = {
    "time.time",
    "time.time_ns",
    "time.clock_gettime",
    "time.clock_gettime_ns",
    "time.gmtime",
    "time.localtime",
    "time.ctime",
    "time.asctime",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
    "sqlalchemy.func.now",
    "sqlalchemy.func.current_timestamp",
    "sqlalchemy.func.clock_timestamp",
    "sqlalchemy.func.statement_timestamp",
    "sqlalchemy.func.transaction_timestamp",
    "sqlalchemy.func.localtimestamp",
    "sqlalchemy.func.current_date",
    "sqlalchemy.func.current_time",
    "sqlalchemy.func.unixepoch",
}


# --- Reading source -----------------------------------------------------------------------------------------


def our_files() -> list[str]:
    """Paths from the root of every Python file that is shipped as one of the parts."""
    paths = [path for part in PARTS for path in (ROOT / part).rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in [*paths, *ROOT.glob("thingline.py")])


def parse(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text("utf-8"), filename=file)


def imports(tree: ast.AST, *, file: str) -> list[tuple[str, str]]:
    """Each name that an import anywhere in the file binds, and the dotted name that it stands for."""
    package = file.removesuffix(".py").split("/")[:-1]
    pairs: list[tuple[str, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            pairs += [(alias.asname or alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            pairs += [(alias.asname or alias.name, f"{origin}.{alias.name}") for alias in node.names]
    return pairs


def imported(tree: ast.AST, *, file: str) -> list[str]:
    return [name for _, name in imports(tree, file=file)]


def dotted(node: ast.AST, names: dict[str, str]) -> str | None:
    """What an expression such as `dt.datetime.now` names, with the import behind its first part put in."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = dotted(node.value, names)
        return f"{before}.{node.attr}" if before else None
    return None


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


# --- The rules ----------------------------------------------------------------------------------------------


def wrong_arrows(source: ast.AST, *, file: str) -> list[str]:
    part = file.removesuffix(".py").split("/")[0]
    return [
        f"{file} imports {name}"
        for name in imported(source, file=file)
        if any(is_within(name, other) for other in FORBIDDEN[part])
    ]


def impurities(source: ast.AST, *, file: str) -> list[str]:
    found = []
    for name in imported(source, file=file):
        top = name.split(".")[0]
        if top in PARTS:
            if not any(is_within(name, module) for module in PURE[file]):
                found.append(f"{file} imports {name}")
        elif top in IMPURE or top not in sys.stdlib_module_names:
            found.append(f"{file} imports {name}")
    found += [
        f"{file}:{node.lineno} calls {node.func.id}"
        for node in ast.walk(source)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_BUILTINS
    ]
    return found


def clock_reads(source: ast.AST, *, file: str) -> list[str]:
    # A mention is enough, called or not: default_factory=time.time reads the clock as well.
    names = dict(imports(source, file=file))
    found = [f"{file} imports {name}" for name in imported(source, file=file) if name in CLOCK_READS]
    found += [
        f"{file}:{node.lineno} reads {name}"
        for node in ast.walk(source)
        if isinstance(node, ast.Attribute) and (name := dotted(node, names)) in CLOCK_READS
    ]
    return found


def uses_of_duckdb(source: ast.AST, *, file: str) -> list[str]:
    return [f"{file} imports {name}" for name in imported(source, file=file) if is_within(name, "duckdb")]


@pytest.mark.parametrize("file", our_files())
def test_imports_follow_the_arrows(file: str) -> None:
    assert wrong_arrows(parse(file), file=file) == []


def test_the_pure_modules_are_where_this_test_looks_for_them() -> None:
    assert [file for file in PURE if not (ROOT / file).exists()] == []


@pytest.mark.parametrize("file", [file for file in PURE if (ROOT / file).exists()])
def test_pure_modules_reach_for_nothing(file: str) -> None:
    assert impurities(parse(file), file=file) == []


def test_the_clock_module_needs_the_standard_library_only() -> None:
    tops = {name.split(".")[0] for name in imported(parse(CLOCK), file=CLOCK)}
    assert tops <= sys.stdlib_module_names


@pytest.mark.parametrize("file", [file for file in our_files() if file != CLOCK])
def test_only_the_clock_module_reads_a_clock(file: str) -> None:
    assert clock_reads(parse(file), file=file) == []


@pytest.mark.parametrize("file", [file for file in our_files() if file not in COLUMNAR])
def test_only_the_columnar_modules_import_duckdb(file: str) -> None:
    assert uses_of_duckdb(parse(file), file=file) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("store/answer.py", "import ingest.reduce"),
        ("store/answer.py", "def f():\n    from queries import uptime"),
        ("store/answer.py", "import thingline"),
        ("ingest/writer.py", "from queries.times import iso"),
        ("queries/http.py", "from ingest import run as go"),
        ("queries/http.py", "from ..ingest import run"),
    ],
)
def test_an_arrow_that_points_the_wrong_way_is_seen(file: str, source: str) -> None:
    assert wrong_arrows(ast.parse(source), file=file)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("thingline.py", "import ingest.run, queries.http, store.engine"),
        ("ingest/writer.py", "from store import schema\nfrom . import reduce\nfrom .decode import read"),
        ("queries/http.py", "import store.answer as answer\nimport ingestion"),
    ],
)
def test_an_arrow_that_points_the_right_way_is_left_alone(file: str, source: str) -> None:
    assert wrong_arrows(ast.parse(source), file=file) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os.path",
        "import sqlalchemy",
        "from store.model import State\nfrom store.engine import connect",
        "from . import writer",
        "print(1)",
        "with open('x') as f: pass",
    ],
)
def test_an_impurity_is_seen(source: str) -> None:
    assert impurities(ast.parse(source), file="ingest/reduce.py")


def test_a_pure_module_may_use_the_standard_library_and_the_model() -> None:
    source = "import heapq\nfrom dataclasses import dataclass\nfrom store.model import Event, Session"
    assert impurities(ast.parse(source), file="ingest/reduce.py") == []


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()",
        "import time as t\nt.time_ns()",
        "from time import time",
        "from datetime import datetime as moment, UTC\nmoment.now(UTC)",
        "import datetime\ndatetime.datetime.utcnow()",
        "import datetime as dt\ndt.date.today()",
        "import time\nfrom dataclasses import field\nfield(default_factory=time.time)",
        "from sqlalchemy import func\nfunc.now()",
        "import sqlalchemy as sa\nsa.func.current_timestamp()",
    ],
)
def test_a_read_of_the_clock_is_seen(source: str) -> None:
    assert clock_reads(ast.parse(source), file="ingest/run.py")


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.monotonic()\ntime.perf_counter()\ntime.sleep(1)",
        "from datetime import datetime\ndatetime.fromisoformat('2026-11-01')",
        "class Window:\n    now: int\nWindow().now",
        "def f(clock):\n    return clock.time()",
    ],
)
def test_what_reads_no_clock_is_left_alone(source: str) -> None:
    assert clock_reads(ast.parse(source), file="ingest/run.py") == []


def test_a_lazy_import_of_duckdb_is_seen() -> None:
    assert uses_of_duckdb(ast.parse("def f():\n    from duckdb import connect"), file="queries/reports.py")


# --- Migrations ---------------------------------------------------------------------------------------------

VERSION = re.compile(r"(?P<number>[0-9]{4})_[a-z]+(?:_[a-z0-9]+)+\.py")
VERSIONS = sorted(path for path in (ROOT / "migrations/versions").glob("*.py") if path.name != "__init__.py")


def test_migrations_are_named_by_number_verb_and_object() -> None:
    assert [path.name for path in VERSIONS if not VERSION.fullmatch(path.name)] == []


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    numbers = [path.name[:4] for path in VERSIONS]
    assert numbers == [f"{number:04}" for number in range(1, len(VERSIONS) + 1)]


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.name)
def test_migrations_import_nothing_of_ours_and_no_driver(path: Path) -> None:
    # A migration that imports today's code changes its meaning with every release.
    file = path.relative_to(ROOT).as_posix()
    tops = {name.split(".")[0] for name in imported(parse(file), file=file)}
    assert tops - sys.stdlib_module_names <= {"alembic", "sqlalchemy"}
    assert "sqlite3" not in tops


# --- The repository -----------------------------------------------------------------------------------------

TOP_LEVEL = {
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "thingline.py",
    "ingest",
    "store",
    "migrations",
    "queries",
    "tests",
    "docs",
}
GENERATED = ("build", "dist", "__pycache__", "*.egg-info")  # as .gitignore has it


def is_generated(path: Path) -> bool:
    return any(Path(part).match(pattern) for part in path.parts for pattern in GENERATED)


def text_files() -> Iterator[tuple[str, str]]:
    """Path from the root and text of each file; dot-folders (caches, environments) are left out but .ci."""
    for path in sorted(ROOT.rglob("*")):
        relative = path.relative_to(ROOT)
        hidden = any(part.startswith(".") and part != ".ci" for part in relative.parts[:-1])
        if hidden or is_generated(relative) or not path.is_file():
            continue
        try:
            yield relative.as_posix(), path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # a recorded payload or a compressed sample


# In pieces, or this file would be the first to be found.
ADDRESSES = re.compile(
    "|".join(
        [
            r"\bindex" + r"-url\b",
            r"\bfind" + r"-links\b",
            r"\btrusted" + r"-host\b",
            r"\bPIP" + r"_[A-Z_]*(?:URL|LINKS|HOST)\b",
            r"https?://[^\s\"'<>)]*/sim" + r"ple\b",
            "python" + "hosted",
        ]
    )
)
MACHINE_PATHS = re.compile(
    "|".join(
        [
            r"(?<![\w.)\]}>~-])/(?:ro" + r"ot|wo" + r"rk|home/\w+|Users/\w+)/\w",
            r"\b[A-Z]:\\Us" + r"ers\\",
        ]
    )
)


def strangers(text: str) -> list[str]:
    return [match[0] for pattern in (ADDRESSES, MACHINE_PATHS) for match in pattern.finditer(text)]


def test_no_file_names_a_package_index_or_a_folder_of_somebodys_machine() -> None:
    found = {file: names for file, text in text_files() if (names := strangers(text))}
    assert found == {}


@pytest.mark.parametrize(
    "pieces",
    [
        ("pip install --ind", "ex-url https://example.com"),
        ("https://packages.example.com/sim", "ple/"),
        ("PIP_FIND", "_LINKS=wheels"),
        ("pip install --find", "-links wheels"),
        ("cd /ro", "ot/project"),
        ("open('/wo", "rk/main')"),
        ("see /ho", "me/ann/thingline"),
        ("C:\\", "Users\\ann"),
    ],
)
def test_an_address_or_a_path_that_is_somebodys_is_seen(pieces: tuple[str, str]) -> None:
    assert strangers("".join(pieces))


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/work/item",
        "./work/x",
        "a simple url",
        "sqlite:////tmp/store.db",
        "$HOME/store.db",
    ],
)
def test_an_address_or_a_path_that_is_nobodys_is_left_alone(text: str) -> None:
    assert strangers(text) == []


def test_the_top_level_holds_the_agreed_names_only() -> None:
    names = {path.name for path in ROOT.iterdir() if not is_generated(Path(path.name))}
    assert {name for name in names if not name.startswith(".")} - TOP_LEVEL == set()


def test_every_folder_of_tests_is_a_package() -> None:
    # Without this, a folder tests/queries would be imported as our own package `queries`.
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
